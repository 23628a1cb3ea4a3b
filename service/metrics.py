"""What Prometheus reads: counted here, correct over several worker processes."""

from __future__ import annotations

import asyncio
import collections
import math
import os
import threading
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from inference.reference import ABSTAINED, Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.registry import Collector

    from inference.artifact import Manifest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
RATIOS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
DIFFERENCES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
SHADOWED = ("agreed", "differed", "failed", "dropped")  # what becomes of a text that was sampled for a candidate
REASONS = (
    "json_invalid",
    "key_invalid",
    "route_unknown",
    "model_unknown",
    "method_not_allowed",
    "body_too_slow",
    "body_too_large",
    "media_type_unsupported",
    "encoding_unsupported",
    "request_invalid",
    "inputs_too_many",
    "text_empty",
    "text_invalid",
    "text_too_long",
    "queue_full",
    "client_left",
)
ABSENT = -math.inf  # a gauge that is not shown; what any other worker says of it counts for more
WRITE_EVERY = 0.5  # seconds that the files of all workers are behind what has happened, at most


class Histogram(prometheus_client.Histogram):
    """A histogram that takes many observations at about the price of one."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """Observe every amount."""
        self._sum.inc(sum(amounts))
        places = collections.Counter(bisect_left(self._upper_bounds, amount) for amount in amounts)
        for place, count in places.items():
            self._buckets[place].inc(count)


Noted = TypeVar("Noted")
_Event = tuple[Counter | Histogram, tuple[str, ...], Sequence[float]]  # a metric, its labels, how much each time
_Pass = tuple[Sequence[int], Sequence[float], float]  # tokens of each text, seconds that each waited, of the pass


class Metrics:
    """
    The metrics of one worker; `render` adds up all workers of the server.

    Every series that can be named in advance is present with zero before the first request, so that a rate over a
    restart has a start. `route` is the template of the path, never the path itself: its values are bounded.

    Prometheus' own counting would cost a request a seventh of its time in Python: it locks and writes a shared file for
    every number. What happens is only noted here, by any thread, and added up and written by `flush`.
    """

    def __init__(self, routes: Iterable[str]) -> None:
        """
        Make every series that can be named in advance.

        Args:
            routes: The templates of all paths.
        """
        self._registry = CollectorRegistry()
        registry = self._registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"bertrand_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"bertrand_{name}", text, labels, buckets=buckets, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"bertrand_{name}", text, labels, registry=registry, multiprocess_mode="livemax")

        def queue(name: str, text: str) -> Gauge:
            return Gauge(f"bertrand_queue_{name}", text, registry=registry, multiprocess_mode="livesum")

        self.requests = counter("requests_total", "Requests answered.", "route", "code")
        self.request_seconds = histogram("request_seconds", "From request line to answer.", SECONDS, "route")
        self.items = counter("items_total", "Texts answered.", "outcome")
        self.queue_seconds = histogram("queue_seconds", "Wait of a text for its forward pass.", SECONDS)
        self.batch_items = histogram("batch_items", "Texts of a forward pass.", (1, 2, 3, 4, 6, 8, 10, 12, 14, 16))
        self.batch_tokens = histogram("batch_tokens", "Tokens of a forward pass, padding included.", _powers(8, 16384))
        self.padding_ratio = histogram("padding_ratio", "Share of a forward pass that is padding.", RATIOS)
        self.inference_seconds = histogram("inference_seconds", "Duration of a forward pass.", SECONDS)
        self.rejected = counter("rejected_total", "Requests refused before inference.", "reason")
        self.predictions = counter("predictions_total", "Labels given, the best of each text.", "label")
        self.confidence = histogram("confidence", "Probability of the best label of a text.", CONFIDENCES)
        self.truncated = counter("truncated_total", "Texts of which the model read only the start.")
        self.reloads = counter("reloads_total", "New models that came into the folder.", "outcome")
        self.shadow_items = counter("shadow_items_total", "Texts that were sampled for the candidate.", "outcome")
        self.shadow_difference = histogram(
            "shadow_score_difference", "Difference of the candidate's probability of a label given.", DIFFERENCES
        )
        self._shadow_info = gauge("shadow_model_info", "1 for the candidate.", "name", "version", "precision")
        self._queue_tokens = queue("tokens", "Tokens waiting for inference.")
        self._queue_limit = queue("limit_tokens", "Tokens that may wait for inference.")
        self._model_info = gauge("model_info", "1 for the model that is served.", "name", "version", "precision")
        self._reference_ratio = gauge(
            "reference_label_ratio", "Share of the rows the model was measured on with this best label.", "label"
        )
        self._reference_confidence = gauge(
            "reference_confidence", "Mean probability of the best label, on the rows the model was measured on."
        )
        self._reference_truncated = gauge(
            "reference_truncated_ratio", "Share of the rows the model was measured on that were cut."
        )
        for figure in (self._reference_confidence, self._reference_truncated):
            figure.set(ABSENT)
        for route in routes:
            self.requests.labels(route, "200")
            self.request_seconds.labels(route)
        for reason in REASONS:
            self.rejected.labels(reason)
        for outcome in ("ok", "error"):
            self.items.labels(outcome)
        for outcome in ("taken_up", "refused"):
            self.reloads.labels(outcome)
        self._model: tuple[str, str, str] | None = None
        self._candidate: tuple[str, str, str] | None = None
        self._reference_labels: set[str] = set()
        # What is noted and not yet added up; the steps of a deque are safe between threads.
        self._happened: collections.deque[_Event] = collections.deque()
        self._passes: collections.deque[_Pass] = collections.deque()
        self._labels: collections.deque[str | None] = collections.deque()
        self._waiting = 0
        self._flushing = threading.Lock()

    def serve(self, manifest: Manifest, precision: str) -> None:
        """Name the model that answers from now on."""
        self._model = _name(self._model_info, self._model, manifest, precision)
        for label in (*manifest.labels, ABSTAINED):
            self.predictions.labels(label)
        self._refer(Reference.of(manifest.metrics))

    def shadow(self, manifest: Manifest, precision: str) -> None:
        """Name the candidate that is compared from now on."""
        self._candidate = _name(self._shadow_info, self._candidate, manifest, precision)
        for outcome in SHADOWED:
            self.shadow_items.labels(outcome)

    def replied(self, route: str, status: int, seconds: float) -> None:
        """Count one answer and how long it took."""
        self._note(self.requests, (route, str(status)), (1,))
        self._note(self.request_seconds, (route,), (seconds,))

    def refused(self, reason: str) -> None:
        """Count one request that got an error for an answer."""
        self._note(self.rejected, (reason,), (1,))

    def answered(self, *, ok: int, failed: int) -> None:
        """Count the texts of one request."""
        if ok:
            self._note(self.items, ("ok",), (ok,))
        if failed:
            self._note(self.items, ("error",), (failed,))

    def cut(self, texts: int) -> None:
        """Count texts of which the model reads only the start."""
        self._note(self.truncated, (), (texts,))

    def predicted(self, labels: Iterable[str | None], confidences: Iterable[float | None]) -> None:
        """Count the best label of each text and its probability, None where it got none."""
        self._labels.extend(labels)
        self._note(self.confidence, (), [value for value in confidences if value is not None])

    def reloaded(self, *, taken_up: bool) -> None:
        """Count one new model that came into the folder."""
        self._note(self.reloads, ("taken_up" if taken_up else "refused",), (1,))

    def shadowed(self, outcome: str, texts: int = 1, *, difference: float | None = None) -> None:
        """Count sampled texts, and how far the candidate's probability of the label given is from the answer's."""
        self._note(self.shadow_items, (outcome,), (texts,))
        if difference is not None:
            self._note(self.shadow_difference, (), (difference,))

    def queue(self, *, limit: int) -> None:
        """Say how many tokens may wait in this worker; none do yet."""
        self._queue_limit.set(limit)
        self.waiting(0)

    def waiting(self, tokens: int) -> None:
        """Say how many tokens wait in this worker."""
        self._waiting = tokens

    def batch(self, lengths: Sequence[int], waits: Sequence[float], seconds: float) -> None:
        """Count one forward pass: the tokens of each text, how long each waited, and how long the pass took."""
        self._passes.append((lengths, waits, seconds))

    def flush(self) -> None:
        """Add up what has happened and write it where every worker reads it."""
        amounts: dict[tuple[Counter | Histogram, tuple[str, ...]], list[float]] = {}
        with self._flushing:
            self._queue_tokens.set(self._waiting)
            self._count_passes(_taken(self._passes))
            for label, count in collections.Counter(_taken(self._labels)).items():
                self._note(self.predictions, (ABSTAINED if label is None else label,), (count,))
            for metric, labels, several in _taken(self._happened):
                amounts.setdefault((metric, labels), []).extend(several)
            for (metric, labels), several in amounts.items():
                child = metric.labels(*labels) if labels else metric
                if isinstance(child, Histogram):
                    child.observe_all(several)
                else:
                    child.inc(sum(several))

    async def keep_written(self) -> None:
        """Flush again and again; other workers of the server show what this one has written."""
        while True:
            self.flush()
            await asyncio.sleep(WRITE_EVERY)

    def render(self) -> bytes:
        """Return the text exposition of the whole server."""
        self.flush()
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if not folder:
            return generate_latest(_Present(self._registry))
        _forget_dead_workers(Path(folder))
        return generate_latest(_Present(MultiProcessCollector(None)))  # type: ignore[no-untyped-call]

    def _refer(self, reference: Reference | None) -> None:
        """Show the figures of the model that answers from now on, and none of the one before."""
        shares = reference.predicted if reference else {}
        for label in self._reference_labels - shares.keys():
            self._reference_ratio.labels(label).set(ABSENT)
        for label, share in shares.items():
            self._reference_ratio.labels(label).set(share)
        self._reference_labels = set(shares)
        confidence = reference.confidence if reference else None
        self._reference_confidence.set(ABSENT if confidence is None else confidence)
        self._reference_truncated.set(reference.truncated if reference else ABSENT)

    def _note(self, metric: Counter | Histogram, labels: tuple[str, ...], amounts: Sequence[float]) -> None:
        self._happened.append((metric, labels, amounts))

    def _count_passes(self, passes: Sequence[_Pass]) -> None:
        computed = [len(lengths) * max(lengths) for lengths, _, _ in passes]
        padding = [1 - sum(lengths) / tokens for (lengths, _, _), tokens in zip(passes, computed, strict=True)]
        self._note(self.batch_items, (), [len(lengths) for lengths, _, _ in passes])
        self._note(self.batch_tokens, (), computed)
        self._note(self.padding_ratio, (), padding)
        self._note(self.inference_seconds, (), [seconds for _, _, seconds in passes])
        self._note(self.queue_seconds, (), [wait for _, waits, _ in passes for wait in waits])


def _name(
    gauge: Gauge, before: tuple[str, str, str] | None, manifest: Manifest, precision: str
) -> tuple[str, str, str]:
    """Set the gauge of a model to 1, and that of the one before to 0; return the labels of the gauge."""
    if before is not None:
        gauge.labels(*before).set(0)
    name = (manifest.name, manifest.version, precision)
    gauge.labels(*name).set(1)
    return name


class _Present:
    """The metrics of a collector without the gauges that are absent: with several workers none can be removed."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        for metric in self._collector.collect():
            metric.samples = [sample for sample in metric.samples if sample.value != ABSENT]
            yield metric


def _taken(noted: collections.deque[Noted]) -> list[Noted]:
    """Take out what was noted by now; other threads go on noting."""
    return [noted.popleft() for _ in range(len(noted))]


def _forget_dead_workers(folder: Path) -> None:
    """Drop the gauges of workers that were killed: what they last said is not true any more."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if not Path(f"/proc/{pid}").exists():
            file.unlink(missing_ok=True)


def _powers(start: int, end: int) -> list[int]:
    bounds = [start]
    while bounds[-1] < end:
        bounds.append(bounds[-1] * 2)
    return bounds
