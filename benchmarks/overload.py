"""
What ten times more than the server can bear does to it: refusals, deadlines, memory, and how soon it is over.

Run alone on the machine: `python benchmarks/overload.py [MODEL]`. Requests come at a constant rate, whether those
before were answered or not, as they do from many callers who know nothing of each other. The callers run on the same
cores: what they need, the server does not get. Exit code 1 if a bound is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import uvloop

from inference.classifier import Classifier
from rig import wrk
from rig.callers import Callers, Outcomes, Probe, Request
from rig.command import MeasurementError, add_texts, default_model, end_with, note
from rig.machine import describe
from rig.server import MEGABYTE, serving
from rig.table import MISSED, Table, markdown_table, text_table, verdict
from rig.texts import in_requests, read_texts
from service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rig.server import Server

PATH = "/v1/classify"
TEXTS = 16  # of a request: few requests a second keep the callers cheap
SINGLE_EVERY = 8  # one request in so many has a single text
CAPACITY_CONNECTIONS = 4

# What limits the queue: its tokens (half a second of work or so), its tokens as they are by default, the deadline.
CASES: dict[str, dict[str, float]] = {
    "short queue": {"max_queue_tokens": 4096},
    "default": {},
    "deadline of 2 s": {"request_timeout": 2},
}

PROBE_EVERY = 0.02  # seconds
PROBED_BEFORE = 3.0  # seconds
CALM = 10  # probes in a row that must take a normal time
NORMAL = 2.0  # times the p99 before the load
WATCHED = 30.0  # seconds after the load in which latency must become normal at all
MEMORY_EVERY = 0.5  # seconds

# The bounds.
REFUSAL_P99 = 0.05  # seconds
RECOVERY = 1.0  # seconds from the last request to the first of calm
GROWTH = 1.05  # memory of the last quarter of the load over that of the second
PRESSURE = 0.95  # of the intended rate; with less, it was the callers who could not bear it


@dataclass
class Seen:
    """What one load did."""

    normal: list[float]  # seconds of single texts before the load
    outcomes: Outcomes
    pressure: float = 0.0  # requests a second that were sent, over those intended
    texts_a_second: float = 0.0  # that were computed
    memory: list[int] = field(default_factory=list)  # RSS of the worker during the load
    recovery: float = float("inf")  # seconds from the end of the load to the first request of calm


async def overload(
    server: Server, requests: Sequence[Request], *, capacity: float, times: float, seconds: float, stay: bool
) -> Seen:
    """
    Probe, load, and probe until all is calm.

    Args:
        server: Where to.
        requests: Sent one after the other, from the start again.
        capacity: Texts a second that the server can bear.
        times: How much more is sent.
        seconds: How long.
        stay: At the end, wait for the answers rather than leave.
    """
    single = next(request for request in requests if request.texts == 1)
    texts = sum(request.texts for request in requests) / len(requests)
    probe = await Probe.connect(server.port)
    normal = [(await _paced(probe, single))[1] for _ in range(round(PROBED_BEFORE / PROBE_EVERY))]
    probe.close()

    computed = server.metrics()["bertrand_batch_items_sum"]
    callers = Callers(server.port)
    seen = Seen(normal, callers.outcomes)
    watching = asyncio.create_task(_watch_memory(server, seen.memory))
    gc.collect()
    gc.disable()  # a pause of the callers would look like one of the server
    rate = times * capacity / texts
    seen.pressure = await callers.send(requests, rate=rate, seconds=seconds) / rate
    ended = time.perf_counter()
    watching.cancel()
    await (callers.stay() if stay else callers.leave())
    gc.enable()
    lasted = time.perf_counter() - ended + seconds
    seen.texts_a_second = (server.metrics()["bertrand_batch_items_sum"] - computed) / lasted

    probe = await Probe.connect(server.port)
    calm = NORMAL * float(np.quantile(normal, 0.99))
    first_of_calm, in_a_row = 0.0, 0
    while in_a_row < CALM and time.perf_counter() < ended + WATCHED:
        asked = time.perf_counter() - ended
        status, took = await _paced(probe, single)
        in_a_row = in_a_row + 1 if status == 200 and took <= calm else 0
        if in_a_row == 1:
            first_of_calm = asked
    if in_a_row == CALM:
        seen.recovery = first_of_calm
    probe.close()
    return seen


async def _paced(probe: Probe, request: Request) -> tuple[int, float]:
    status, seconds = await probe.ask(request)
    await asyncio.sleep(max(0.0, PROBE_EVERY - seconds))
    return status, seconds


async def _watch_memory(server: Server, seen: list[int]) -> None:
    worker = server.worker()
    while True:
        seen.append(worker.memory_info().rss)
        await asyncio.sleep(MEMORY_EVERY)


def requests_of(texts: Sequence[str]) -> list[Request]:
    """Return requests of many texts, with those of a single one among them."""
    requests: list[Request] = []
    for number, many in enumerate(in_requests(texts, TEXTS)):
        requests.append(_request(many))
        if number % (SINGLE_EVERY - 1) == 0:
            requests.append(_request(many[:1]))
    return requests


def _request(texts: list[str]) -> Request:
    # Only the best label: reading long answers would cost the callers what the server needs.
    body = orjson.dumps({"inputs": texts, "top_k": 1})
    return Request.of(f"{len(texts)} text{'s' if len(texts) > 1 else ''}", len(texts), PATH, body)


def measure_capacity(server: Server, requests: Sequence[Request], seconds: float) -> float:
    """Return the texts a second of callers who wait for their answers."""
    bodies = [request.raw.partition(b"\r\n\r\n")[2] for request in requests]
    found = wrk.load(server.url, PATH, bodies, connections=CAPACITY_CONNECTIONS, seconds=seconds)
    server.settle()
    return found.requests_per_second * sum(request.texts for request in requests) / len(requests)


def tables(seen: Seen, deadline: float) -> list[Table]:
    """Return the answers by kind and status, and what was promised of them."""
    answers = {f"{kind}: {status}": seconds for (kind, status), seconds in sorted(seen.outcomes.seconds.items())}
    answers["1 text, before the load"] = seen.normal
    rows = [["request: answer", "answers", "p50 ms", "p99 ms", "longest, ms"]]
    for name, seconds in answers.items():
        rows.append([name, str(len(seconds)), *(f"{1000 * _quantile(seconds, q):.1f}" for q in (0.5, 0.99, 1))])

    accepted, refused, other = _by_status(seen.outcomes)
    quarter = max(1, len(seen.memory) // 4)
    growth = float(np.mean(seen.memory[-quarter:]) / np.mean(seen.memory[quarter : 2 * quarter]))
    promises = [
        ["promise", "measured", "bound", ""],
        ["answers other than 200 and 429", *verdict(len(other), 0, at_most=True, digits=0)],
        ["connections that ended without an answer", *verdict(seen.outcomes.lost, 0, at_most=True, digits=0)],
        ["p99 of a refusal, s", *verdict(_quantile(refused, 0.99), REFUSAL_P99, at_most=True)],
        ["longest of the accepted, s", *verdict(_quantile(accepted, 1), deadline, at_most=True)],
        ["memory, last quarter over the second", *verdict(growth, GROWTH, at_most=True)],
        ["latency is normal again after, s", *verdict(seen.recovery, RECOVERY, at_most=True)],
    ]
    return [rows, promises]


def _by_status(outcomes: Outcomes) -> tuple[list[float], list[float], list[float]]:
    """Return the seconds of the accepted, of the refused, and of those that got any other answer."""
    found: dict[int, list[float]] = {200: [], 429: [], 0: []}
    for (_, status), seconds in outcomes.seconds.items():
        found[status if status in found else 0] += seconds
    return found[200], found[429], found[0]


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else 0.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=default_model(), help="default: %(default)s")
    add_texts(parser)
    parser.add_argument("--seconds", type=float, default=60, help="of each load (default: %(default)g)")
    parser.add_argument("--times", type=float, default=10, help="what the server can bear (default: %(default)g)")
    parser.add_argument("--precision", choices=("auto", "int8", "fp32"), default="auto")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=tuple(CASES), help="what limits the queue")
    parser.add_argument("--stay", action="store_true", help="at the end, callers wait for answers and do not leave")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every latency")
    parser.add_argument("--markdown", action="store_true", help="print the tables as docs/performance.md has them")
    options = parser.parse_args()

    machine = describe() | {"wrk": wrk.require(), "texts": str(options.texts), "seconds": f"{options.seconds:g}"}
    table = markdown_table if options.markdown else text_table
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    classifier = Classifier.load(options.model, precision=options.precision)
    requests = requests_of(read_texts(options.texts, classifier.encoder))
    precision, name = classifier.precision, classifier.manifest.name
    del classifier
    record: dict[str, Any] = {"machine": machine, "model": name, "precision": precision, "cases": {}}
    broken = False
    for case in options.cases:
        note(f"{case}: {options.seconds:g} s")
        with serving(options.model, precision, **CASES[case]) as server:
            _allow_connections()
            capacity = measure_capacity(server, requests, min(10, options.seconds / 4))
            load = overload(
                server, requests, capacity=capacity, times=options.times, seconds=options.seconds, stay=options.stay
            )
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                seen = runner.run(load)
        found = tables(seen, CASES[case].get("request_timeout", Settings.request_timeout))
        print(f"\n{name} {precision}, {case}\n", *_remarks(seen, capacity, options.times), sep="\n")
        print(*("\n" + table(rows) for rows in found), sep="\n", flush=True)
        broken |= any(row[-1] == MISSED for row in found[-1])
        record["cases"][case] = _record(seen) | {"capacity": capacity}
        if options.json:
            options.json.write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2))
        if seen.pressure < PRESSURE:
            raise MeasurementError(f"{case}: the callers sent {seen.pressure:.0%} of what they should have")
    return 1 if broken else 0


def _remarks(seen: Seen, capacity: float, times: float) -> list[str]:
    outcomes = seen.outcomes
    memory = [size / MEGABYTE for size in seen.memory]
    late = _quantile(outcomes.late, 0.99)
    return [
        f"It bears {capacity:.0f} texts/s, was sent {seen.pressure * times:.1f} times that, computed "
        f"{seen.texts_a_second:.0f} and refused the rest; {outcomes.abandoned} requests were open at the end.",
        f"The worker held {memory[0]:.0f} MB at the start, {max(memory):.0f} at most and {memory[-1]:.0f} at the end.",
        f"99 % of the requests were sent within {1000 * late:.1f} ms of their time.",
    ]


def _record(seen: Seen) -> dict[str, Any]:
    return {
        "pressure": seen.pressure,
        "texts_a_second": seen.texts_a_second,
        "recovery_seconds": seen.recovery,
        "memory": seen.memory,
        "normal": seen.normal,
        "seconds": {f"{kind}: {status}": seconds for (kind, status), seconds in seen.outcomes.seconds.items()},
        "lost": seen.outcomes.lost,
        "abandoned": seen.outcomes.abandoned,
    }


def _allow_connections() -> None:
    """Lift the limit of open files for this process; the server was started with the one it would have had."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    end_with(main)
