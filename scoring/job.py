"""A batch job from its input to its output, readable from top to bottom."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
import pyarrow as pa

from inference.classifier import Classifier
from inference.errors import InputError, TextError
from inference.machine import cpu_count
from scoring.columns import DTYPES, EMBEDDINGS, Columns, texts_of
from scoring.compute import Cores
from scoring.output import encode
from scoring.place import FORMATS, STANDARD, Kind, Place, spooled_input
from scoring.progress import Progress, write_metrics
from scoring.source import FOUND, Source, survey
from scoring.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scoring.compute import Answered

# Rows that are grouped by length together, and rows of a part: what a kill costs. Vectors of tokens take 200 kB a row.
WINDOW_ROWS = {"none": 4096, "sentence": 4096, "tokens": 256}
PART_ROWS = {"none": 16_384, "sentence": 16_384, "tokens": 1024}
WINDOW_BYTES = 2**25  # of a window's own columns: rows of a megabyte each make small windows


@dataclass(frozen=True)
class Job:
    """What is to be done."""

    input: str  # path, glob, folder, URL, or -
    output: str  # path, URL, or -
    model: Path
    text_column: str = "text"
    input_format: str | None = None  # one of FORMATS; None: by the endings
    output_format: str | None = None
    precision: str = "auto"
    threads: int | None = None  # None: a thread a core
    scores: bool = False  # every label that the model gives; a model that gives several has them always
    embeddings: str = "none"
    dtype: str = "float32"  # of embeddings
    prefix: str = ""  # of the names of added columns
    max_error_rate: float = 1.0  # share of rows without an answer from which on the job has failed
    resume: bool = False
    metrics_file: Path | None = None

    def __post_init__(self) -> None:
        """
        Check every value.

        Raises:
            InputError: one is not what the setting takes; it names the setting.
        """
        choices = {"embeddings": EMBEDDINGS, "dtype": tuple(DTYPES)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(f"--{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        for name in ("input_format", "output_format"):
            if getattr(self, name) not in (None, *FORMATS):
                raise InputError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)!r}; expected one of {', '.join(FORMATS)}"
                )
        if not 0 <= self.max_error_rate <= 1:
            raise InputError(f"--max-error-rate is {self.max_error_rate}; expected a number from 0 to 1")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads is {self.threads}; expected a whole number from 1 up")


def score(job: Job) -> dict[str, Any]:
    """
    Write the rows of the input with the model's answers beside them, and return a summary.

    The output appears when it is complete. Until then its parts are kept beside it, and a job that is interrupted in
    any way goes on from them with `resume`, and ends with the same bytes as one that was not.

    Raises:
        InputError: the input cannot be read, the output cannot be written, or the unfinished job is another one.
        ArtifactError: the model folder is not what it should be.
    """
    kind = _output_kind(job)
    if job.metrics_file and not os.access(job.metrics_file.absolute().parent, os.W_OK):
        raise InputError(f"{job.metrics_file}: its folder is not there, or cannot be written to")
    with ExitStack() as stack:
        piped = job.input == STANDARD
        if piped and job.input_format is None:
            raise InputError("standard input has no name to tell its format by; say --input-format")
        name = stack.enter_context(spooled_input()) if piped else job.input
        source = survey(
            name,
            text_column=job.text_column,
            given=job.input_format,
            called="standard input" if piped else None,
        )
        classifier = Classifier.load(job.model, precision=job.precision)
        columns = Columns(
            classifier,
            job.scores or classifier.problem_type == "multi_label",
            job.embeddings,
            job.dtype,
            job.prefix,
        )
        columns.check(source.schema)
        sink: State | _Piped = _Piped()
        if job.output != STANDARD:
            target = Place.of(job.output)
            _check_apart(source, target)
            decisive = _decisive(job, kind, source, columns)
            sink = stack.enter_context(State.open(target, kind, decisive, resume=job.resume))
        summary = _run(job, kind, source, columns, sink)
    if job.metrics_file:
        manifest = classifier.manifest
        model = {"name": manifest.name, "version": manifest.version, "precision": classifier.precision}
        write_metrics(job.metrics_file, summary, model)
    return summary


def _run(job: Job, kind: Kind, source: Source, columns: Columns, sink: State | _Piped) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    for part in sink.parts:
        counts.update(part)
    progress = Progress(source.rows, counts)
    allowed = job.max_error_rate * source.rows
    cores = Cores(columns.classifier, threads=job.threads or cpu_count(), embeddings=job.embeddings)
    windows = _windows(source.batches(counts["rows"]), WINDOW_ROWS[job.embeddings])
    answers = cores.answer((window, texts_of(window, job.text_column, FOUND)) for window in windows)
    try:
        for table, counted in _parts(answers, source, columns, PART_ROWS[job.embeddings]):
            sink.add(encode(table, kind, first=not sink.parts), **counted)
            progress.add(counted)
            if progress.errors > allowed:
                break
        if progress.errors > allowed:  # also where a job is resumed that had ended so
            print(
                f"{progress.errors} of {progress.total} rows have no answer, more than --max-error-rate "
                f"{job.max_error_rate:g} allows; {sink.advice} and a higher rate",
                file=sys.stderr,
            )
            return progress.summary(complete=False)
        if not sink.parts:
            sink.add(encode(_table(columns, source, []), kind, first=True), rows=0)
        sink.finish()
    except InputError as error:
        raise InputError(f"{error}; {sink.advice}") from error
    except (KeyboardInterrupt, SystemExit):
        print(sink.advice, file=sys.stderr)
        raise
    finally:
        progress.close()
    return progress.summary(complete=True)


class _Piped:
    """Standard output: parts are written as they come, and cannot be taken back."""

    advice = "what was written so far is not the whole; begin again, with a file as the output"

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []

    def add(self, content: bytes, **counted: Any) -> None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        self.parts.append(counted)

    def finish(self) -> None:
        """Nothing is left to do."""


def _windows(batches: Iterator[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
    """Divide a stream into windows of so many rows, fewer where rows are large; where it begins decides nothing."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, most - rows)
            held.append(piece)
            start += piece.num_rows
            rows += piece.num_rows
            size += piece.nbytes
            if rows == most or size >= WINDOW_BYTES:
                yield _joined(held)
                held, rows, size = [], 0, 0
    if held:
        yield _joined(held)


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.concat_batches(batches)


def _parts(
    answers: Iterator[tuple[pa.RecordBatch, Answered]], source: Source, columns: Columns, most: int
) -> Iterator[tuple[pa.Table, dict[str, int]]]:
    """Gather windows to parts, and count what became of their rows."""
    held: list[pa.RecordBatch] = []
    counted: Counter[str] = Counter()
    size = 0
    for window, answered in answers:
        own = [window.column(name) for name in source.schema.names]
        names = [*source.schema.names, *columns.names]
        held.append(pa.record_batch([*own, *columns.added(answered)], names))
        counted["rows"] += window.num_rows
        for item in answered.items:
            if isinstance(item, TextError):
                counted[item.code] += 1
            elif item.truncated:
                counted["truncated"] += 1
        size += window.nbytes
        if counted["rows"] >= most or size >= 2 * WINDOW_BYTES:
            yield _table(columns, source, held), dict(counted)
            held, counted, size = [], Counter(), 0
    if held:
        yield _table(columns, source, held), dict(counted)


def _table(columns: Columns, source: Source, batches: Sequence[pa.RecordBatch]) -> pa.Table:
    if batches:
        return pa.Table.from_batches(batches)
    own = [pa.array([], field.type) for field in source.schema]
    return pa.table([*own, *columns.empty()], [*source.schema.names, *columns.names])


def _decisive(job: Job, kind: Kind, source: Source, columns: Columns) -> dict[str, Any]:
    """Return what decides the bytes of the output."""
    return {
        "input": source.identity,
        "model": columns.classifier.manifest.version,
        "precision": columns.classifier.precision,
        "text_column": job.text_column,
        "columns": columns.names,
        "dtype": job.dtype,
        "format": kind.format,
        "compression": kind.compression,
        "part_rows": PART_ROWS[job.embeddings],
        "versions": {"pyarrow": pa.__version__, "onnxruntime": onnxruntime.__version__},
    }


def _output_kind(job: Job) -> Kind:
    if job.output == STANDARD:
        if job.output_format in (None, "parquet"):
            raise InputError("standard output takes --output-format csv, tsv or jsonl")
        if job.resume:
            raise InputError("what went to standard output cannot be gone on with; name a file to --resume")
        kind = Kind(str(job.output_format))
    else:
        kind = Kind.of(job.output, job.output_format)
    if job.embeddings != "none" and kind.format in ("csv", "tsv"):
        raise InputError(f"--embeddings are written to Parquet or JSONL, found {kind.format}")
    return kind


def _check_apart(source: Source, target: Place) -> None:
    for file in source.files:
        same = file.place.path == target.path and file.place.url == target.url
        if not same and target.is_local and file.place.is_local and target.exists():
            same = Path(target.path).samefile(file.place.path)
        if same:
            raise InputError(f"{target.url}: is the input; name another output, the input is never written")
    if target.is_local and Path(target.path).is_dir():
        raise InputError(f"{target.url}: is a folder; name a file in it")
