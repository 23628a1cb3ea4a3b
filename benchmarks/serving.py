"""
What serving costs: a real server under load from wrk, beside the same graph on the same texts in process.

Run alone on the machine: `python benchmarks/serving.py [MODEL ...]`. Every load is measured between two measurements of
its reference and compared with their mean, so that a machine that drifts does not change a ratio. wrk, which makes the
load, runs on the same cores. docs/performance.md says what the rows mean.
"""

from __future__ import annotations

import argparse
import base64
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from inference import Analysis, Prediction
from inference.artifact import Artifact
from rig import wrk
from rig.command import MeasurementError, add_texts, default_model, end_with, note
from rig.machine import describe
from rig.reference import Reference
from rig.server import MEGABYTE, Server, serving
from rig.table import Table, markdown_table, text_table, verdict
from rig.texts import in_requests, mixed_lengths, read_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rig.reference import Ids

Row = dict[str, float]  # figure: value
Run = dict[str, dict[str, Row]]  # precision: row: figures

SHORTEST, LONGEST = 3, 300  # tokens of the mixed lengths
MIXED_COUNT = 1024
SAMPLE = 64  # texts whose answers are compared with those in process
IN_COMPANY = 1e-4  # how far a probability in fp32 may be from that of the text alone: the gate of the model folder
EMBEDDINGS = {"embeddings": ["tokens", "sentence"], "encoding_format": "base64", "dtype": "float16"}


@dataclass(frozen=True)
class Scenario:
    """One load. Its reference is named by what it computes: see `Subject.measure_reference`."""

    name: str
    path: str
    texts: int  # a request
    connections: int
    reference: str


SCENARIOS = (
    Scenario("classify, 1 text, 1 connection", "/v1/classify", 1, 1, "one"),
    Scenario("classify, 1 text, 32 connections", "/v1/classify", 1, 32, "labels"),
    Scenario("classify, 32 texts, 4 connections", "/v1/classify", 32, 4, "labels"),
    Scenario("analyze base64, 32 texts, 4 connections", "/v1/analyze", 32, 4, "hidden"),
    Scenario("analyze base64, 1 text, 32 connections", "/v1/analyze", 1, 32, "hidden"),
    Scenario("mixed lengths, 32 texts, 4 connections", "/v1/classify", 32, 4, "mixed"),
)
ONE, MANY, BATCHES, ANALYZE, _, MIXED = (scenario.name for scenario in SCENARIOS)
IN_PROCESS, SERVER = "in process", "server"

# The columns of the tables: figure and digits after the point.
LOAD_FIGURES = {"texts_s": 0, "reference": 0, "ratio": 3, "p50_ms": 1, "p99_ms": 1, "texts_a_pass": 1, "padding": 3}
INSIDE_FIGURES = {"texts_s": 0, "one_session_texts_s": 0}
SERVER_FIGURES = {"ready_s": 2, "rss_mb": 0, "pss_mb": 0, "uss_mb": 0}


@dataclass(frozen=True)
class Bound:
    """What is promised of one figure."""

    row: str
    figure: str
    meaning: str
    limits: dict[str, float]  # by precision
    at_most: bool = False

    def cells(self, value: float, limit: float) -> list[str]:
        """Return the promise, what was measured, the limit, and whether it was kept."""
        return [f"{self.row}: {self.meaning}", *verdict(value, limit, at_most=self.at_most)]


BOUNDS = (
    Bound(IN_PROCESS, "over_fp32", "over fp32", {"int8": 1.9}),
    Bound(MANY, "ratio", "over the reference", {"int8": 0.60, "fp32": 0.80}),
    Bound(BATCHES, "ratio", "over the reference", {"int8": 0.93, "fp32": 0.93}),
    Bound(ANALYZE, "ratio", "over the reference", {"int8": 0.75, "fp32": 0.75}),
    Bound(ONE, "overhead_ms", "p50 over the session's own, ms", {"int8": 1.5, "fp32": 1.5}, at_most=True),
    Bound(MIXED, "real_tokens", "real tokens over computed ones", {"int8": 0.95, "fp32": 0.95}),
    Bound(SERVER, "rss_mb", "RSS of the worker after the load, MB", {"int8": 300}, at_most=True),
    Bound(SERVER, "ready_s", "from start to ready, s", {"int8": 4, "fp32": 4}, at_most=True),
)


class Subject:
    """One precision of one model: its texts, its reference, and how they are measured."""

    def __init__(self, folder: Path, precision: str, texts_file: Path) -> None:
        self.folder = folder
        self.precision = precision
        self.reference = Reference(folder, precision)
        encoder = self.reference.classifier.encoder
        self.longest = min(LONGEST, encoder.max_tokens)
        self.texts = read_texts(texts_file, encoder)
        self.mixed = mixed_lengths(self.texts, encoder, MIXED_COUNT, shortest=SHORTEST, longest=self.longest)
        self.ids = self.reference.encode(self.texts)
        self.mixed_ids = self.reference.encode(self.mixed)

    def measure_reference(self, kind: str, seconds: float) -> float:
        """
        Return texts a second in process.

        Args:
            kind: `one` text at a time on one thread (by the median call); or all cores with 8 texts a call: `labels`,
                `hidden` states too, or labels of `mixed` lengths.
            seconds: How long to run.
        """
        if kind == "one":
            return 1 / self.reference.one_at_a_time(self.ids, seconds)
        ids: Sequence[Ids] = self.mixed_ids if kind == "mixed" else self.ids
        return self.reference.rate(ids, seconds, hidden=kind == "hidden")

    def measure_server(self, seconds: float) -> dict[str, Row]:
        """Start a server, load it, end it; return a row for each scenario and one for the server."""
        with serving(self.folder, self.precision) as server:
            check_answers(server, self.reference, self.texts[:SAMPLE])
            wrk.load(server.url, "/v1/classify", bodies(self.texts, 32), connections=4, seconds=1)  # warm-up
            rows: dict[str, Row] = {}
            before = ("", 0.0)
            for scenario in SCENARIOS:
                if before[0] != scenario.reference:
                    before = scenario.reference, self.measure_reference(scenario.reference, seconds / 2)
                row = self._measure(server, scenario, seconds)
                after = self.measure_reference(scenario.reference, seconds / 2)
                reference = (before[1] + after) / 2
                before = scenario.reference, after
                row |= {"reference": reference, "ratio": row["texts_s"] / reference}
                if scenario.reference == "one":
                    row["overhead_ms"] = row["p50_ms"] - 1000 / reference
                rows[scenario.name] = row
                note(f"  {self.precision} {scenario.name}: {row['texts_s']:.0f} texts/s, {row['ratio']:.3f}")
            memory = server.memory()
            rows[SERVER] = {
                "ready_s": server.ready_seconds,
                "rss_mb": memory.rss / MEGABYTE,
                "pss_mb": memory.pss / MEGABYTE,
                "uss_mb": memory.uss / MEGABYTE,
            }
        return rows

    def _measure(self, server: Server, scenario: Scenario, seconds: float) -> Row:
        texts = self.mixed if scenario.reference == "mixed" else self.texts
        options = EMBEDDINGS if scenario.reference == "hidden" else {}
        requests = bodies(texts, scenario.texts, **options)
        row: Row = {}
        if scenario.reference == "mixed":
            row["real_tokens"] = real_tokens(server, requests, scenario.connections)
        before = server.metrics()
        seen = wrk.load(server.url, scenario.path, requests, connections=scenario.connections, seconds=seconds)
        server.settle()
        passes = difference(before, server.metrics())
        return row | {
            "texts_s": seen.requests_per_second * scenario.texts,
            "p50_ms": seen.p50 * 1000,
            "p99_ms": seen.p99 * 1000,
            "texts_a_pass": passes("bertrand_batch_items_sum") / passes("bertrand_batch_items_count"),
            "padding": passes("bertrand_padding_ratio_sum") / passes("bertrand_padding_ratio_count"),
        }


def bodies(texts: Sequence[str], size: int, **options: object) -> list[bytes]:
    """Return the texts as JSON bodies of `size` texts; a single text is sent as a string."""
    requests = in_requests(texts, size)
    return [orjson.dumps({"inputs": request[0] if size == 1 else request, **options}) for request in requests]


def difference(before: dict[str, float], after: dict[str, float]) -> Callable[[str], float]:
    """Return by how much a counter of /metrics has grown."""
    return lambda name: after[name] - before[name]


def check_answers(server: Server, reference: Reference, texts: Sequence[str]) -> None:
    """
    Raise MeasurementError unless the server's answers are those of the classifier in process.

    Alone, a text must have the same bits: labels, probabilities, vectors. In company too in int8; in fp32 a pass of
    another shape may add in another order.
    """
    classifier = reference.classifier
    most = 0 if classifier.precision == "int8" else IN_COMPANY
    alone: list[dict[str, float]] = []
    for text in texts:
        (expected,) = classifier.analyze([text])
        (found,) = server.post("/v1/classify", orjson.dumps({"inputs": text}))["results"]
        (analyzed,) = server.post("/v1/analyze", orjson.dumps({"inputs": text, **EMBEDDINGS}))["results"]
        assert isinstance(expected, Analysis)  # noqa: S101  texts without tokens were left out
        alone.append(dict(expected.prediction.scores))
        for result in (found, analyzed):
            if not _same(result, expected.prediction):
                raise MeasurementError(f"another answer than in process: {text!r}: {result['scores'][:2]}")
        vectors = base64.b64decode(analyzed["token_embeddings"]["data"])
        if vectors != expected.token_embeddings.astype("<f2").tobytes():
            raise MeasurementError(f"other token vectors than in process: {text!r}")
    results = server.post("/v1/classify", orjson.dumps({"inputs": list(texts), "threshold": 0.0}))["results"]
    for text, result, scores in zip(texts, results, alone, strict=True):
        together = {row["label"]: np.float32(row["score"]) for row in result["scores"]}
        if max(abs(together[label] - np.float32(score)) for label, score in scores.items()) > most:
            raise MeasurementError(f"another answer in company than alone: {text!r}")


def _same(result: dict[str, Any], expected: Prediction) -> bool:
    # JSON carries a float32 in the fewest digits that give it again.
    scores = [(row["label"], np.float32(row["score"])) for row in result["scores"]]
    same = scores == [(label, np.float32(score)) for label, score in expected.scores]
    return same and result["token_count"] == expected.token_count


def real_tokens(server: Server, requests: Sequence[bytes], connections: int) -> float:
    """
    Return the share of the computed tokens that are no padding, exactly: each request is sent once.

    The server counts the computed tokens; how many of them are the texts' own, its answers say.
    """
    before = server.metrics()
    turns = iter(requests)
    lock = threading.Lock()
    counts: list[int] = []
    failures: list[Exception] = []

    def work() -> None:
        try:
            while True:
                with lock:
                    request = next(turns, None)
                if request is None:
                    return
                counts.extend(result["token_count"] for result in server.post("/v1/classify", request)["results"])
        except (MeasurementError, OSError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise MeasurementError(f"mixed lengths: {failures[0]}")
    # A pass is counted just after its texts are answered.
    for _ in range(100):
        grown = difference(before, server.metrics())
        if grown("bertrand_batch_items_sum") >= len(counts):
            break
        time.sleep(0.01)
    if grown("bertrand_batch_items_sum") != len(counts):
        raise MeasurementError(
            f"the server computed {grown('bertrand_batch_items_sum'):.0f} texts of the {len(counts)} that were sent"
        )
    return sum(counts) / grown("bertrand_batch_tokens_sum")


def measure(subjects: Sequence[Subject], seconds: float) -> Run:
    """Measure all precisions of a model once."""
    # Turn by turn, so that both meet the same machine.
    rounds = [{s.precision: s.measure_reference("labels", seconds / 2) for s in subjects} for _ in range(2)]
    rates = {s.precision: statistics.mean(turn[s.precision] for turn in rounds) for s in subjects}
    run: Run = {}
    for subject in subjects:
        shared = subject.reference.rate(subject.ids, seconds / 2, one_session=True)
        row = {"texts_s": rates[subject.precision], "one_session_texts_s": shared}
        if subject.precision != "fp32" and "fp32" in rates:
            row["over_fp32"] = rates[subject.precision] / rates["fp32"]
        run[subject.precision] = {IN_PROCESS: row} | subject.measure_server(seconds)
    return run


def medians(runs: Sequence[Run]) -> Run:
    """Return the median of every figure."""
    return {
        precision: {
            row: {figure: statistics.median(run[precision][row][figure] for run in runs) for figure in figures}
            for row, figures in rows.items()
        }
        for precision, rows in runs[0].items()
    }


def tables(run: Run) -> list[Table]:
    """Return the loads, what is behind them, and what is promised; the first row of each names the columns."""
    loads = [["", "load", "texts/s", "reference", "ratio", "p50 ms", "p99 ms", "texts a pass", "padding of a pass"]]
    behind = [["", "in process, texts/s", "all threads on one session", "ready, s", "RSS, MB", "PSS, MB", "USS, MB"]]
    promises = [["", "promise", "measured", "bound", ""]]
    for precision, rows in run.items():
        loads += [[precision, scenario.name, *_cells(rows[scenario.name], LOAD_FIGURES)] for scenario in SCENARIOS]
        behind.append([precision, *_cells(rows[IN_PROCESS], INSIDE_FIGURES), *_cells(rows[SERVER], SERVER_FIGURES)])
        promises += [
            [precision, *bound.cells(rows[bound.row][bound.figure], bound.limits[precision])]
            for bound in BOUNDS
            if precision in bound.limits and bound.figure in rows[bound.row]
        ]
    return [loads, behind, promises]


def _cells(row: Row, figures: Mapping[str, int]) -> list[str]:
    return [f"{row[figure]:.{digits}f}" for figure, digits in figures.items()]


def subjects_of(folder: Path, precisions: Sequence[str], texts: Path) -> list[Subject]:
    """Load every precision that was asked for and that the model offers."""
    manifest = Artifact.open(folder).manifest
    for precision in precisions:
        if precision not in manifest.precisions:
            note(f"{folder}: offers no {precision}, which is left out")
    subjects = [Subject(folder, precision, texts) for precision in precisions if precision in manifest.precisions]
    if subjects and subjects[0].longest < LONGEST:
        note(f"{folder}: reads {manifest.max_tokens} tokens, so the mixed lengths go to {subjects[0].longest}")
    return subjects


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", metavar="MODEL", type=Path, nargs="*", help=f"default: {default_model()}")
    add_texts(parser)
    parser.add_argument("--seconds", type=float, default=10, help="of each load (default: %(default)g)")
    parser.add_argument("--runs", type=int, default=3, help="of everything; medians are given (default: %(default)s)")
    parser.add_argument("--precisions", nargs="+", choices=("int8", "fp32"), default=("int8", "fp32"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure of every run")
    parser.add_argument("--markdown", action="store_true", help="print the tables as docs/performance.md has them")
    options = parser.parse_args()

    machine = describe() | {"wrk": wrk.require(), "texts": str(options.texts), "seconds": f"{options.seconds:g}"}
    table = markdown_table if options.markdown else text_table
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    record: dict[str, Any] = {"machine": machine, "models": []}
    for folder in options.models or [default_model()]:
        subjects = subjects_of(folder, options.precisions, options.texts)
        if not subjects:
            continue
        manifest = subjects[0].reference.classifier.manifest
        lengths = [len(ids) for ids in subjects[0].ids]
        print(f"\n{manifest.name} {manifest.version}: {len(lengths)} texts of {np.mean(lengths):.1f} tokens on average")
        runs: list[Run] = []
        for number in range(1, options.runs + 1):
            note(f"run {number} of {options.runs}")
            runs.append(measure(subjects, options.seconds))
            if options.runs > 1 and not options.markdown:
                print(f"\nrun {number}", *map(table, tables(runs[-1])), sep="\n\n", flush=True)
        print(f"\nmedian of {len(runs)} runs" if len(runs) > 1 else "", *map(table, tables(medians(runs))), sep="\n\n")
        record["models"].append({"name": manifest.name, "version": manifest.version, "runs": runs})
        if options.json:
            options.json.write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2))
    return 0


if __name__ == "__main__":
    end_with(main)
