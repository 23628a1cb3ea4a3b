"""
The parts of a job on a Ray cluster, by Ray Data: an actor a core with the model, parts in, parts of the output out.

One task reads the input, on the node where the job was started: its files need to be there alone. A part is one row of
the dataset, so that Ray neither cuts it nor takes two together. Parts come back in the order in which they are done:
with Ray's `preserve_order` a job stands still for good once a node is lost (seen with Ray 2.60), because a part that
has to be computed again holds up those behind it, and they the actors.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import socket
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager, redirect_stdout
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pyarrow as pa
import tokenizers

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "3")  # of some ten seconds each, to find a cluster

import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.exceptions import RayError

import inference
import scoring
from inference.artifact import GRAPHS, MANIFEST, TOKENIZER, Artifact
from inference.classifier import Classifier
from inference.errors import ArtifactError, BertrandError, InputError
from inference.machine import cpu_count, multiplies_int8
from scoring.label import Done, Labeller
from scoring.parts import Window, windows
from scoring.place import reason

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from scoring.label import Task
    from scoring.source import Source

PART = pa.schema([("part", pa.int64()), ("content", pa.large_binary())])
REACHED_WITHIN = 10.0  # seconds
ATTEMPTS = 20  # at a part whose worker died: a lost node takes some, a part that kills its workers all
STORES = ("AWS_", "AZURE_", "GOOGLE_", "GCS_", "FSSPEC_")  # what variables begin with that let one into a store
DONE = pa.schema([*PART, ("counted", pa.string())])


@contextmanager
def cluster(address: str | None, *, threads: int | None) -> Iterator[int]:
    """
    Join a cluster, or make one of this machine alone for as long as the block lasts; yield its number of cores.

    Args:
        address: Host and port of the head node, or `auto` for the cluster that this machine is a node of; None for
            RAY_ADDRESS, and where that says nothing for a cluster of this machine.
        threads: Use so many cores; None: all.

    Raises:
        InputError: there is no cluster at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address and address.startswith("ray://"):
        raise InputError(
            f"--ray-address is {address}; start the job on a node of the cluster, for example with `ray job submit`, "
            "and name the address of its head as HOST:PORT, or auto"
        )
    if address and address != "auto":
        _reach(address)
    # The workers run this very code, whatever is installed where they are.
    code = [str(Path(str(module.__file__)).parent) for module in (inference, scoring)]
    on_stop = signal.getsignal(signal.SIGTERM)

    def keep_signal() -> None:
        """Take SIGTERM back from Ray, which sets a handler when it starts and takes it away when it ends."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_stop)

    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(sys.stderr))  # Ray tells of lost nodes on standard output
        alone: dict[str, Any] = {}
        if not address:
            session = tempfile.TemporaryDirectory(prefix="bertrand-ray-", dir="/tmp", ignore_cleanup_errors=True)
            alone = {"num_cpus": threads or cpu_count(), "include_dashboard": False}
            alone["_temp_dir"] = stack.enter_context(session)
        stack.callback(keep_signal)
        stack.callback(ray.shutdown)
        environment = {"py_modules": code, "env_vars": {"ORT_DISABLE_TELEMETRY": "1"}}
        level = logging.CRITICAL
        try:
            ray.init(address or "local", log_to_driver=False, logging_level=level, runtime_env=environment, **alone)
        except SystemExit as error:  # by Ray's handler of SIGTERM, while it starts
            raise SystemExit(128 + signal.SIGTERM) from error
        except Exception as error:
            raise InputError(f"no Ray cluster at {address or 'this machine'}: {reason(error)[:300]}") from error
        keep_signal()
        cores = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
        if not cores:
            raise InputError(f"the Ray cluster at {address} has no CPUs")
        yield min(cores, threads or cores)


def _reach(address: str) -> None:
    """Raise InputError if nothing listens at an address; Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_WITHIN):
            return
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Ray cluster at {address}: {error}; expected HOST:PORT of its head, such as 10.0.0.5:6379"
        ) from error


def label(
    model: Path, version: str, precision: str, task: Task, source: Source, cores: int, *, skip: Container[int]
) -> Iterator[Done]:
    """
    Answer all parts, each when an actor has it; what a lost node was at is computed again elsewhere.

    Args:
        model: The model folder; its files reach the workers through the cluster.
        version: The version of the model that the job is for.
        precision: Of the graph to use.
        task: What is done with every part.
        source: The input.
        cores: How many actors there are at the most.
        skip: Parts that are done.

    Raises:
        ArtifactError: the folder holds another model by now.
        BertrandError: a worker cannot do its work; it says why.
    """
    artifact = Artifact.open(model)
    if artifact.manifest.version != version:
        raise ArtifactError(f"{model}: was replaced while it was read; begin again")
    names = (MANIFEST, TOKENIZER, GRAPHS[precision])
    files = ray.put({name: (artifact.folder / name).read_bytes() for name in names})
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # bytes: a part is a block of its own
    parts = ray.data.read_datasource(_Parts(source, task.embeddings, skip), override_num_blocks=1, num_cpus=0)
    done = parts.map_batches(
        _Actor,
        fn_constructor_args=[files, precision, task, _versions()],
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1,
        max_task_retries=ATTEMPTS,
        # With a larger least number an actor of a lost node could not move to a core that another gives up.
        compute=ray.data.ActorPoolStrategy(
            min_size=1, initial_size=cores, max_size=cores, max_tasks_in_flight_per_actor=2
        ),
    )
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":  # the log file of Ray's session has it all
            handler.setLevel(logging.CRITICAL)
    with _told():
        for table in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            for row in table.to_pylist():
                yield Done(row["part"], row["content"], json.loads(row["counted"]))


class _Parts(Datasource):
    """The input as a dataset: a row a part, with its windows as an Arrow stream."""

    def __init__(self, source: Source, embeddings: str, skip: Container[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._source, self._embeddings, self._skip = source, embeddings, skip

    def get_name(self) -> str:
        return "Input"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    @property
    def supports_distributed_reads(self) -> bool:
        return False

    def get_read_tasks(self, *_: object, **__: object) -> list[ReadTask]:
        source, embeddings, skip = self._source, self._embeddings, self._skip
        # A worker has the environment in which its node was started, not that of the job.
        keys = {name: value for name, value in os.environ.items() if name.startswith(STORES)}

        def read() -> Iterator[pa.Table]:
            os.environ.update(keys)
            for part, held in groupby(windows(source.batches(), embeddings, skip=skip), key=lambda window: window.part):
                yield _packed(part, [window.rows for window in held])

        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(read, unknown)]


class _Actor:
    """The model on one core of a worker."""

    def __init__(
        self, files: ray.ObjectRef[dict[str, bytes]], precision: str, task: Task, versions: dict[str, str]
    ) -> None:
        self._refusal = _differing(versions) or _unfit(precision)
        if self._refusal:
            return
        with tempfile.TemporaryDirectory(prefix="bertrand-model-") as folder:
            for name, content in ray.get(files).items():
                (Path(folder) / name).write_bytes(content)
            self._labeller = Labeller(Classifier.load(folder, precision=precision), task, threads=1)

    def __call__(self, parts: pa.Table) -> pa.Table:
        if self._refusal:
            raise InputError(self._refusal)
        done = [self._one(row["part"], row["content"]) for row in parts.to_pylist()]
        rows = [{"part": d.part, "content": d.content, "counted": json.dumps(d.counted)} for d in done]
        return pa.Table.from_pylist(rows, DONE)

    def _one(self, part: int, content: bytes) -> Done:
        (done,) = self._labeller.label(Window(part, rows) for rows in pa.ipc.open_stream(content))
        return done


def _packed(part: int, held: list[pa.RecordBatch]) -> pa.Table:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, held[0].schema) as stream:
        for rows in held:
            stream.write_batch(rows)
    return pa.Table.from_pylist([{"part": part, "content": sink.getvalue().to_pybytes()}], PART)


def _versions() -> dict[str, str]:
    return {
        "the machine": platform.machine(),
        "onnxruntime": onnxruntime.__version__,
        "pyarrow": pa.__version__,
        "numpy": np.__version__,
        "tokenizers": tokenizers.__version__,
    }


def _differing(expected: dict[str, str]) -> str | None:
    found = _versions()
    differing = [f"{name} is {found[name]} and not {value}" for name, value in expected.items() if found[name] != value]
    if not differing:
        return None
    return (
        f"on node {_node()} {', '.join(differing)}, so its answers could differ; install the same "
        "requirements/ray.txt on every node"
    )


def _unfit(precision: str) -> str | None:
    if precision != "int8" or multiplies_int8():
        return None
    return (
        f"the CPU of node {_node()} has no 8-bit dot products, so its answers would differ from those that were "
        "proved; use --precision fp32, or nodes that have them"
    )


def _node() -> str:
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


@contextmanager
def _told() -> Iterator[None]:
    """Turn what a worker raised into the line that it is for a user."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and (isinstance(cause, RayError) or not isinstance(cause, BertrandError)):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if isinstance(cause, BertrandError):
            raise type(cause)(str(cause).partition("\n")[0]) from error  # Ray adds lines of its own
        if isinstance(error, RayError):
            raise BertrandError(f"the Ray cluster failed: {str(error).strip().splitlines()[-1]}") from error
        raise
