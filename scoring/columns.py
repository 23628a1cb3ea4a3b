"""Answers as columns of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from inference.errors import InputError, TextError
from scoring.compute import Answered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.classifier import Classifier

EMBEDDINGS = ("none", "sentence", "tokens")
DTYPES = {"float32": (np.float32, pa.float32()), "float16": (np.float16, pa.float16())}
TOKEN = pa.struct(
    [("text", pa.string()), ("id", pa.int32()), ("start", pa.int32()), ("end", pa.int32()), ("special", pa.bool_())]
)
SCORE = pa.struct([("label", pa.string()), ("score", pa.float32())])


@dataclass(frozen=True)
class Columns:
    """What a job adds to every row."""

    classifier: Classifier
    scores: bool  # every label that the model gives, best first, besides the best
    embeddings: str  # one of EMBEDDINGS
    dtype: str  # of embeddings: one of DTYPES
    prefix: str  # of the names

    @property
    def names(self) -> list[str]:
        """Return the names of the columns, in order."""
        names = ["label", "score", *(["scores"] if self.scores else []), "status", "error", "truncated", "token_count"]
        names += {"none": [], "sentence": ["sentence_embedding"], "tokens": ["tokens", "token_embeddings"]}[
            self.embeddings
        ]
        return [self.prefix + name for name in names]

    def check(self, schema: pa.Schema) -> None:
        """Raise InputError if the input has a column of the name of one that is added."""
        taken = [name for name in self.names if name in schema.names]
        if taken:
            raise InputError(
                f"the input has a column {taken[0]!r}, which is the name of one that is added; "
                "give those a --prefix, such as --prefix predicted_"
            )

    def added(self, answered: Answered) -> list[pa.Array]:
        """Return the columns of one window, in the order of `names`."""
        classifier, items = self.classifier, answered.items
        failed = np.array([isinstance(item, TextError) for item in items], dtype=bool)
        scores = classifier.probabilities(answered.logits) if items else answered.logits
        chosen = classifier.choose(scores, top_k=None if self.scores else 1)
        chosen = [row[:0] if bad else row for row, bad in zip(chosen, failed.tolist(), strict=True)]
        names = pa.array(classifier.labels, pa.string())
        best = np.array([row[0] if len(row) else -1 for row in chosen], dtype=np.int64)
        none = best < 0
        places = np.arange(len(items))
        columns = [
            names.take(pa.array(best, mask=none)),
            pa.array(scores[places, best], pa.float32(), mask=none),
        ]
        if self.scores:
            counts = np.array([len(row) for row in chosen], dtype=np.int64)
            rows, labels = np.repeat(places, counts), np.concatenate([np.zeros(0, np.intp), *chosen])
            pairs = pa.StructArray.from_arrays(
                [names.take(pa.array(labels)), pa.array(scores[rows, labels], pa.float32())], fields=list(SCORE)
            )
            columns.append(_lists(pairs, counts, failed))
        columns += [
            pa.array(["error" if bad else "ok" for bad in failed.tolist()]),
            pa.array([f"{i.code}: {i.message}" if isinstance(i, TextError) else None for i in items], pa.string()),
            pa.array([None if isinstance(item, TextError) else item.truncated for item in items], pa.bool_()),
            pa.array([None if isinstance(item, TextError) else len(item) for item in items], pa.int32()),
        ]
        numbers, kind = DTYPES[self.dtype]
        if answered.sentences is not None:
            columns.append(_vectors(answered.sentences.astype(numbers), kind, failed))
        if answered.tokens is not None:
            columns += self._tokens(answered, numbers, kind, failed)
        return columns

    def empty(self) -> list[pa.Array]:
        """Return the columns of no rows."""
        engine = self.classifier.engine
        return self.added(
            Answered(
                [],
                np.zeros((0, engine.label_count), np.float32),
                np.zeros((0, engine.hidden_size), np.float32) if self.embeddings == "sentence" else None,
                [] if self.embeddings == "tokens" else None,
            )
        )

    def _tokens(self, answered: Answered, numbers: Any, kind: pa.DataType, failed: Any) -> list[pa.Array]:
        tokens = [[] if isinstance(item, TextError) else item.tokens() for item in answered.items]
        flat = [token for row in tokens for token in row]
        structs = pa.StructArray.from_arrays(
            [pa.array([getattr(token, field.name) for token in flat], field.type) for field in TOKEN],
            fields=list(TOKEN),
        )
        counts = np.array([len(row) for row in tokens], dtype=np.int64)
        empty = np.zeros((0, self.classifier.engine.hidden_size), dtype=np.float32)
        vectors = np.concatenate([empty, *(v for v in answered.tokens or () if v is not None)]).astype(numbers)
        return [
            _lists(structs, counts, failed),
            _lists(_vectors(vectors, kind, np.zeros(len(vectors), dtype=bool)), counts, failed),
        ]


def texts_of(batch: pa.RecordBatch, text_column: str, found: str) -> Sequence[object]:
    """Return what each row has for a text; what was not text in the input is a value that is none."""
    texts: list[object] = batch.column(text_column).to_pylist()
    if found in batch.schema.names:
        kinds = batch.column(found).to_pylist()
        texts = [text if kind is None else _Found[kind] for text, kind in zip(texts, kinds, strict=True)]
    return texts


# Of every type that JSON has beside text, one value: an error names its type.
_Found: dict[str, object] = {"int": 0, "float": 0.0, "bool": False, "list": [], "dict": {}}


def _vectors(values: Any, kind: pa.DataType, failed: Any) -> pa.Array:
    """Return rows of numbers as an array of lists of one size."""
    flat = pa.array(values.ravel(), kind)
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(failed))


def _lists(flat: pa.Array, counts: Any, failed: Any) -> pa.Array:
    """Return values as an array of lists of so many each; no list where a row failed."""
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=pa.array(failed))
