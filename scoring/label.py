"""Parts of the input to parts of the output: what is done with each, on whatever machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import pyarrow as pa

from inference.errors import TextError
from inference.machine import give_back_freed_memory
from scoring.columns import Columns, texts_of
from scoring.compute import Cores
from scoring.output import encode
from scoring.source import FOUND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from inference.classifier import Classifier
    from scoring.compute import Answered
    from scoring.parts import Window
    from scoring.place import Kind


@dataclass(frozen=True)
class Task:
    """What is done with every part."""

    schema: pa.Schema  # of the input's own columns
    text_column: str
    kind: Kind  # of the output
    scores: bool  # add every label that the model gives
    embeddings: str
    dtype: str
    prefix: str

    def columns(self, classifier: Classifier) -> Columns:
        """Return what is added to every row."""
        return Columns(classifier, self.scores, self.embeddings, self.dtype, self.prefix)


@dataclass(frozen=True)
class Done:
    """A part of the output."""

    part: int
    content: bytes
    counted: dict[str, int]  # rows, truncated, and each code of an error


class Labeller:
    """A model at work at a task, with so many threads; used with `with`, which ends them."""

    def __init__(self, classifier: Classifier, task: Task, *, threads: int) -> None:
        self._task = task
        self._columns = task.columns(classifier)
        self._cores = Cores(classifier, threads=threads, embeddings=task.embeddings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cores.close()

    def label(self, windows: Iterable[Window]) -> Iterator[Done]:
        """Answer windows, in order, and return each part when its last one is answered."""
        task = self._task
        asked = ((window, texts_of(window.rows, task.text_column, FOUND)) for window in windows)
        for part, answers in groupby(self._cores.answer(asked), key=lambda pair: pair[0].part):
            counted: Counter[str] = Counter()
            batches = []
            for window, answered in answers:
                batches.append(self._batch(window.rows, answered))
                counted.update(_counts(answered))
            yield self._done(part, pa.Table.from_batches(batches), counted)

    def nothing(self) -> Done:
        """Return the one part of an input without rows."""
        own = [pa.array([], field.type) for field in self._task.schema]
        table = pa.table([*own, *self._columns.empty()], [*self._task.schema.names, *self._columns.names])
        return self._done(0, table, {"rows": 0})

    def _batch(self, rows: pa.RecordBatch, answered: Answered) -> pa.RecordBatch:
        names = self._task.schema.names
        own = [rows.column(name) for name in names]
        return pa.record_batch([*own, *self._columns.added(answered)], [*names, *self._columns.names])

    def _done(self, part: int, table: pa.Table, counted: dict[str, int]) -> Done:
        kind = self._task.kind
        content = encode(table, kind, first=part == 0 or kind.folder)
        give_back_freed_memory()
        return Done(part, content, dict(counted))


def _counts(answered: Answered) -> Counter[str]:
    counted = Counter(rows=len(answered.items))
    for item in answered.items:
        if isinstance(item, TextError):
            counted[item.code] += 1
        elif item.truncated:
            counted["truncated"] += 1
    return counted
