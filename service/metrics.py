"""What Prometheus reads: counted here, correct over several worker processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inference.artifact import Manifest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
RATIOS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
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
ABSTAINED = "(none)"  # the label of a text that got no label


class Metrics:
    """
    The metrics of one worker; `render` adds up all workers of the server.

    Every series that can be named in advance is present with zero before the first request, so that a rate over a
    restart has a start. `route` is the template of the path, never the path itself: its values are bounded.
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

        self.requests = counter("requests_total", "Requests answered.", "route", "code")
        self.request_seconds = histogram("request_seconds", "From request line to answer.", SECONDS, "route")
        self.items = counter("items_total", "Texts answered.", "outcome")
        self.queue_seconds = histogram("queue_seconds", "Wait of a text for its forward pass.", SECONDS)
        self.batch_items = histogram("batch_items", "Texts of a forward pass.", (1, 2, 3, 4, 5, 6, 7, 8))
        self.batch_tokens = histogram("batch_tokens", "Tokens of a forward pass, padding included.", _powers(8, 16384))
        self.padding_ratio = histogram("padding_ratio", "Share of a forward pass that is padding.", RATIOS)
        self.inference_seconds = histogram("inference_seconds", "Duration of a forward pass.", SECONDS)
        self.rejected = counter("rejected_total", "Requests refused before inference.", "reason")
        self.predictions = counter("predictions_total", "Labels given, the best of each text.", "label")
        self.confidence = histogram("confidence", "Probability of the best label of a text.", CONFIDENCES)
        self.truncated = counter("truncated_total", "Texts of which the model read only the start.")
        self.reloads = counter("reloads_total", "New models that came into the folder.", "outcome")
        self._queue_tokens = Gauge(
            "bertrand_queue_tokens", "Tokens waiting for inference.", registry=registry, multiprocess_mode="livesum"
        )
        self._model_info = Gauge(
            "bertrand_model_info",
            "1 for the model that is served.",
            ("name", "version", "precision"),
            registry=registry,
            multiprocess_mode="livemax",
        )
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

    def serve(self, manifest: Manifest, precision: str) -> None:
        """Name the model that answers from now on."""
        if self._model is not None:
            self._model_info.labels(*self._model).set(0)
        self._model = (manifest.name, manifest.version, precision)
        self._model_info.labels(*self._model).set(1)
        for label in (*manifest.labels, ABSTAINED):
            self.predictions.labels(label)

    def replied(self, route: str, status: int, seconds: float) -> None:
        """Count one answer and how long it took."""
        self.requests.labels(route, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def refused(self, reason: str) -> None:
        """Count one request that got an error for an answer."""
        self.rejected.labels(reason).inc()

    def answered(self, *, ok: int, failed: int) -> None:
        """Count the texts of one request."""
        if ok:
            self.items.labels("ok").inc(ok)
        if failed:
            self.items.labels("error").inc(failed)

    def predicted(self, label: str | None, confidence: float | None) -> None:
        """Count the best label of one text, None where it got none."""
        self.predictions.labels(ABSTAINED if label is None else label).inc()
        if confidence is not None:
            self.confidence.observe(confidence)

    def waiting(self, tokens: int) -> None:
        """Say how many tokens wait in this worker."""
        self._queue_tokens.set(tokens)

    def batch(self, lengths: Sequence[int], waits: Sequence[float], seconds: float) -> None:
        """Count one forward pass: the tokens of each text, how long each waited, and how long the pass took."""
        computed = len(lengths) * max(lengths)
        self.batch_items.observe(len(lengths))
        self.batch_tokens.observe(computed)
        self.padding_ratio.observe(1 - sum(lengths) / computed)
        self.inference_seconds.observe(seconds)
        for wait in waits:
            self.queue_seconds.observe(wait)

    def render(self) -> bytes:
        """Return the text exposition of the whole server."""
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if not folder:
            return generate_latest(self._registry)
        _forget_dead_workers(Path(folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


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
