"""A real `bertrand serve` in a process of its own, and what can be seen of it from outside."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson
import psutil

import inference
from rig.command import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(inference.__file__).parent.parent  # the server runs the very code that the reference runs
HOST = "127.0.0.1"
LONGEST_START = 120.0  # seconds
LONGEST_END = 60.0
MEGABYTE = 1e6


@dataclass(frozen=True)
class Memory:
    """What a process holds, in bytes (proc_pid_smaps(5))."""

    rss: int  # in memory, what is shared with others included
    pss: int  # shared pages divided among those who share them
    uss: int  # its own alone: what ending it would free

    @classmethod
    def of(cls, pid: int) -> Self:
        """Read the memory of one process."""
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text()
        size = {
            name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"^(\w+): +(\d+) kB$", rows, re.MULTILINE)
        }
        return cls(size["Rss"], size["Pss"], size["Private_Clean"] + size["Private_Dirty"])


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    port: int
    ready_seconds: float  # from the start of the command to the first 200 of /readyz

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://{HOST}:{self.port}"

    def post(self, path: str, body: bytes) -> Any:
        """
        Return the answer to one request.

        Raises:
            MeasurementError: it is not a 200.
        """
        status, answer = self._ask("POST", path, body)
        if status != 200:
            raise MeasurementError(f"{path} answered {status}: {answer[:300].decode(errors='replace')}")
        return orjson.loads(answer)

    def metrics(self) -> dict[str, float]:
        """Return every series of /metrics by its name, labels included."""
        _, text = self._ask("GET", "/metrics")
        rows = [line.rpartition(" ") for line in text.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in rows}

    def worker(self) -> psutil.Process:
        """Return the process that answers: the largest of the children."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return max(children, key=lambda child: int(child.memory_info().rss))

    def memory(self) -> Memory:
        """Return the memory of the worker."""
        return Memory.of(self.worker().pid)

    def settle(self) -> None:
        """Wait until nothing is left of a load whose callers are gone."""
        latest = time.monotonic() + LONGEST_END
        while self.metrics()["bertrand_queue_tokens"]:
            if time.monotonic() > latest:
                raise MeasurementError(f"texts still wait {LONGEST_END:g} s after their callers left")
            time.sleep(0.05)
        time.sleep(0.1)  # the passes that run

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            connection.request(method, path, body, {"content-type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@contextmanager
def serving(model: Path, precision: str, **settings: object) -> Iterator[Server]:
    """
    Run `bertrand serve` on a free loopback port until the block ends.

    Args:
        model: Model folder.
        precision: auto, fp32 or int8.
        settings: BERTRAND_* variables, by the rest of their name.

    Raises:
        MeasurementError: it ended, or did not become ready.
    """
    port = free_port()
    command = [sys.executable, "-m", "bertrand", "serve", str(model.absolute()), "--port", str(port)]
    command += ["--precision", precision]
    own = {f"BERTRAND_{name.upper()}": str(value) for name, value in settings.items()}
    with tempfile.TemporaryDirectory(prefix="bertrand-bench-") as folder, Path(folder, "log").open("wb") as log:
        # No balancer turns away from this server: it may end at once.
        environment = os.environ | {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": folder}
        environment |= {"BERTRAND_DRAIN_SECONDS": "0"} | own
        started = time.perf_counter()
        # A session of its own: Ctrl-C comes to us, and we end it.
        process = subprocess.Popen(  # noqa: S603  our own command
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_until_ready(process, port, Path(log.name))
            yield Server(process, port, time.perf_counter() - started)
        finally:
            _end(process)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    latest = time.monotonic() + LONGEST_START
    while time.monotonic() < latest:
        if process.poll() is not None:
            raise MeasurementError(f"the server ended with {process.returncode}:\n{_tail(log)}")
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.01)
    raise MeasurementError(f"the server was not ready within {LONGEST_START:g} s:\n{_tail(log)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and see it gone, so that the next measurement has the machine to itself."""
    family = [process.pid] if process.poll() is None else []
    family += [child.pid for pid in family for child in psutil.Process(pid).children(recursive=True)]
    process.terminate()
    try:
        process.wait(LONGEST_END)
    except subprocess.TimeoutExpired:
        for pid in family:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()
        process.wait()


def free_port() -> int:
    """Return a loopback port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])
