"""
What a container's limits cost: one CPU and 512 MB, beside two CPUs, on the same requests.

Run alone on the machine, after `docker build --tag bertrand .`: `python benchmarks/containers.py [MODEL] [--texts
FILE]`. Needs Docker or podman, and wrk. The small container is under load for two minutes, for half of them with token
embeddings.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from inference.classifier import Classifier
from inference.errors import InputError
from rig import wrk
from rig.command import MeasurementError, add_texts, default_model, end_with, note
from rig.machine import describe
from rig.server import free_port
from rig.table import MISSED, text_table, verdict
from rig.texts import read_texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MEMORY = "512m"
LEAST = 0.85  # of half of what two CPUs do
CONNECTIONS = 16
TEXTS = 8  # of a request
LONGEST_START = 60.0  # seconds


def main() -> int:
    """Measure, print, and return 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=default_model(), help="folder (default: %(default)s)")
    add_texts(parser)
    parser.add_argument("--image", default="bertrand", help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of load on the small one (default: %(default)s)")
    options = parser.parse_args()

    wrk.require()
    engine = next((name for name in ("docker", "podman") if _works(name)), None)
    if engine is None:
        raise InputError("neither docker nor podman works here; install one")
    print(" · ".join(f"{name} {value}" for name, value in describe().items()))
    texts = read_texts(options.texts, Classifier.load(options.model).encoder)
    bodies = [orjson.dumps({"inputs": texts[i : i + TEXTS]}) for i in range(0, len(texts) - TEXTS, TEXTS)]
    half = options.seconds / 2

    note("two CPUs")
    with _container(engine, options.image, options.model, "--cpus=2", "--memory=2g") as (url, _):
        wrk.load(url, "/v1/classify", bodies, connections=CONNECTIONS, seconds=5)  # warm-up
        two = wrk.load(url, "/v1/classify", bodies, connections=CONNECTIONS, seconds=half)
    note(f"one CPU and {MEMORY}")
    with _container(engine, options.image, options.model, "--cpus=1", f"--memory={MEMORY}") as (url, container):
        wrk.load(url, "/v1/classify", bodies, connections=CONNECTIONS, seconds=5)
        one = wrk.load(url, "/v1/classify", bodies, connections=CONNECTIONS, seconds=half)
        vectors = wrk.load(url, "/v1/analyze", bodies, connections=CONNECTIONS, seconds=half)
        state = json.loads(subprocess.run([engine, "inspect", container], **_CAPTURED).stdout)[0]["State"]  # noqa: S603
        if state["OOMKilled"] or not state["Running"]:
            raise MeasurementError(f"the container of {MEMORY} ended: {state}")
    rows = [["container", "route", "texts_s", "p99 ms", "of half", "limit", "kept"]]
    ratio = one.requests_per_second / (two.requests_per_second / 2)
    for name, route, seen, judged in (
        ("2 CPUs", "classify", two, ["", "", ""]),
        (f"1 CPU, {MEMORY}", "classify", one, verdict(ratio, LEAST, at_most=False)),
        (f"1 CPU, {MEMORY}", "analyze", vectors, ["", "", ""]),
    ):
        rows.append([name, route, f"{seen.requests_per_second * TEXTS:.0f}", f"{seen.p99 * 1000:.0f}", *judged])
    print(text_table(rows))
    return int(any(MISSED in row for row in rows))


_CAPTURED = {"capture_output": True, "text": True, "check": True}


def _works(engine: str) -> bool:
    if not shutil.which(engine):
        return False
    return not subprocess.run([engine, "info"], capture_output=True, check=False).returncode  # noqa: S603


@contextmanager
def _container(engine: str, image: str, model: Path, *limits: str) -> Iterator[tuple[str, str]]:
    """Run the service of a model under limits until the block ends; give its address and the container."""
    port = free_port()
    command: Sequence[str] = [
        engine, "run", "--detach", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", *limits,
        f"--publish=127.0.0.1:{port}:3000", f"--volume={model.resolve()}:/models/current:ro", image,
    ]  # fmt: skip
    container = subprocess.run(command, **_CAPTURED).stdout.strip()  # noqa: S603
    try:
        deadline = time.monotonic() + LONGEST_START
        while not _ready(port):
            if time.monotonic() > deadline:
                raise MeasurementError(f"not ready within {LONGEST_START:g} s")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", container
    finally:
        subprocess.run([engine, "rm", "--force", container], **_CAPTURED)  # noqa: S603


def _ready(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


if __name__ == "__main__":
    end_with(main)
