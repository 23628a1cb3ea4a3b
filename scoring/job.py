"""A batch job from its input to its output, readable from top to bottom."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
import pyarrow as pa

from inference.classifier import Classifier
from inference.errors import BertrandError, InputError
from inference.machine import cpu_count, give_back_freed_memory
from scoring.columns import DTYPES, EMBEDDINGS
from scoring.label import Labeller, Task
from scoring.parts import PART_ROWS, windows
from scoring.place import FORMATS, STANDARD, Kind, Place, spooled_input
from scoring.progress import NOTHING, Progress, write_metrics
from scoring.source import Source, survey
from scoring.state import State

if TYPE_CHECKING:
    from collections.abc import Generator

    from scoring.label import Done

ENGINES = ("local", "ray")


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
    engine: str = "local"  # one of ENGINES
    ray_address: str | None = None  # host and port of a Ray cluster's head, or auto; None: RAY_ADDRESS, or this machine
    threads: int | None = None  # cores to use; None: all that there are
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
        choices = {"embeddings": EMBEDDINGS, "dtype": tuple(DTYPES), "engine": ENGINES}
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
        if self.ray_address is not None and self.engine != "ray":
            raise InputError("--ray-address is for --engine ray; say that too")


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
        try:
            task, source, classifier, sink = _begun(job, kind, stack)
        except BaseException:
            if job.metrics_file:
                write_metrics(job.metrics_file, NOTHING, {})
            raise
        progress = Progress(source.rows, sum(map(Counter, sink.parts.values()), Counter()))
        try:
            _run(job, task, source, classifier, sink, progress)
        finally:
            progress.close()
            summary = progress.summary(complete=sink.complete)
            if job.metrics_file:
                manifest = classifier.manifest
                model = {"name": manifest.name, "version": manifest.version, "precision": classifier.precision}
                write_metrics(job.metrics_file, summary, model)
    return summary


def _begun(job: Job, kind: Kind, stack: ExitStack) -> tuple[Task, Source, Classifier, State | _Piped]:
    """Look at the input, the model and the output: what is wrong with one is told before anything is computed."""
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
    task = Task(
        source.schema,
        job.text_column,
        kind,
        job.scores or classifier.problem_type == "multi_label",
        job.embeddings,
        job.dtype,
        job.prefix,
    )
    task.columns(classifier).check(source.schema)
    with Labeller(classifier, task, threads=1) as labeller:
        labeller.nothing()  # of columns that the format cannot hold it tells before anything is computed
    if job.output == STANDARD:
        return task, source, classifier, _Piped()
    target = Place.of(job.output).resolved()
    _check_apart(source, target, kind)
    decisive = _decisive(task, source, classifier)
    return task, source, classifier, stack.enter_context(State.open(target, kind, decisive, resume=job.resume))


def _run(
    job: Job, task: Task, source: Source, classifier: Classifier, sink: State | _Piped, progress: Progress
) -> None:
    allowed = _allowed(job.max_error_rate, source.rows)
    engine = _on_a_cluster if job.engine == "ray" else _on_this_machine
    try:
        if not sink.parts or progress.counts["rows"] < source.rows:  # a kill may have come after the last part
            with closing(engine(job, task, source, classifier, frozenset(sink.parts))) as parts:
                for done in parts:
                    sink.add(done)
                    progress.add(done.counted)
                    if progress.errors > allowed:
                        break
        if progress.errors > allowed:  # also where a job is resumed that had ended so
            print(
                f"{progress.errors} of {progress.total} rows have no answer, more than --max-error-rate "
                f"{job.max_error_rate:g} allows; {sink.advice} and a higher rate",
                file=sys.stderr,
            )
            return
        if progress.counts["rows"] != source.rows or sorted(sink.parts) != list(range(len(sink.parts))):
            raise BertrandError(f"{progress.counts['rows']} of {source.rows} rows came back; nothing is written")
        give_back_freed_memory()  # of the engine, before the parts are read again
        sink.finish()
    except BertrandError as error:
        raise type(error)(f"{error}; {sink.advice}") from error
    except (KeyboardInterrupt, SystemExit):
        print(sink.advice, file=sys.stderr)
        raise


def _allowed(rate: float, rows: int) -> int:
    """Return how many rows may have no answer; of .29 and 100 rows 29, which as floats are 28.999999999999996."""
    return int(Decimal(str(rate)) * rows)


def _on_this_machine(
    job: Job, task: Task, source: Source, classifier: Classifier, skip: frozenset[int]
) -> Generator[Done]:
    with Labeller(classifier, task, threads=job.threads or cpu_count()) as labeller:
        if not source.rows and not skip:
            yield labeller.nothing()
        yield from labeller.label(windows(source.batches(), task.embeddings, skip=skip))


def _on_a_cluster(
    job: Job, task: Task, source: Source, classifier: Classifier, skip: frozenset[int]
) -> Generator[Done]:
    if not (job.ray_address or os.environ.get("RAY_ADDRESS")):
        # Ray is to listen on the loopback alone, which it does where it takes a cluster to be of one machine.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        from scoring.cluster import cluster, label
    except ModuleNotFoundError as error:
        raise InputError(
            f"--engine ray needs the Python package {error.name!r}, which is not installed here; "
            "`pip install -r requirements/ray.txt` brings it"
        ) from error
    if not source.rows:  # nothing to give to a cluster
        yield from _on_this_machine(job, task, source, classifier, skip)
        return
    with cluster(job.ray_address, threads=job.threads) as cores:
        yield from label(job.model, classifier.manifest.version, classifier.precision, task, source, cores, skip=skip)


class _Piped:
    """Standard output: parts are written as they come, and cannot be taken back."""

    advice = "what was written so far is not the whole; begin again, with a file as the output"

    def __init__(self) -> None:
        self.parts: dict[int, dict[str, int]] = {}
        self.complete = False

    def add(self, done: Done) -> None:
        sys.stdout.buffer.write(done.content)
        sys.stdout.buffer.flush()
        self.parts[done.part] = done.counted

    def finish(self) -> None:
        """Say that all is written."""
        self.complete = True


def _decisive(task: Task, source: Source, classifier: Classifier) -> dict[str, Any]:
    """Return what decides the bytes of the output; the engine does not."""
    return {
        "input": source.identity,
        "model": classifier.manifest.version,
        "precision": classifier.precision,
        "text_column": task.text_column,
        "columns": task.columns(classifier).names,
        "dtype": task.dtype,
        "format": task.kind.format,
        "compression": task.kind.compression,
        "folder": task.kind.folder,
        "part_rows": PART_ROWS[task.embeddings],
        "versions": {"pyarrow": pa.__version__, "onnxruntime": onnxruntime.__version__},
    }


def _output_kind(job: Job) -> Kind:
    if job.output == STANDARD:
        if job.output_format in (None, "parquet"):
            raise InputError("standard output takes --output-format csv, tsv or jsonl")
        if job.resume:
            raise InputError("what went to standard output cannot be gone on with; name a file to --resume")
        if job.engine == "ray":
            raise InputError(
                "--engine ray has parts ready in any order, which standard output cannot take; name a file"
            )
        kind = Kind(str(job.output_format))
    else:
        kind = Kind.of(job.output, job.output_format)
    if job.embeddings != "none" and kind.format in ("csv", "tsv"):
        raise InputError(f"--embeddings are written to Parquet or JSONL, found {kind.format}")
    return kind


def _check_apart(source: Source, target: Place, kind: Kind) -> None:
    for file in source.files:
        place = file.place.resolved()
        same = place.url == target.url or (kind.folder and place.url.startswith(f"{target.url}/"))
        if not same and target.is_local and place.is_local and target.exists():
            path = Path(target.path).resolve()
            same = path.samefile(place.path) or (kind.folder and path in Path(place.path).resolve().parents)
        if same:
            raise InputError(f"{target.url}: is the input; name another output, the input is never written")
    if not kind.folder and target.is_local and Path(target.path).is_dir():
        raise InputError(f"{target.url}: is a folder; name a file in it, or end it with / for a folder of parts")
