"""How far a job is and what came of it, for people and for monitoring."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from tqdm import tqdm

from inference.errors import InputError
from scoring.place import reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EVERY = 10.0  # seconds between two lines where there is no terminal
NOTHING: dict[str, Any] = {  # summary of a job that was refused before it began
    "complete": False,
    "ok": 0,
    "errors": {},
    "truncated": 0,
    "seconds": 0.0,
    "rows_per_second": 0.0,
}


class Progress:
    """Counts rows; shows a bar on a terminal, else a line every ten seconds, both on stderr."""

    def __init__(self, total: int, counts: Mapping[str, int]) -> None:
        self.total = total
        self.counts = Counter(counts)  # rows, truncated, and each code of an error
        self.resumed = self.counts["rows"]
        self._started = self._told = time.monotonic()
        hidden = not sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=self.resumed, unit=" rows", unit_scale=True, disable=hidden, leave=False)

    @property
    def errors(self) -> int:
        """How many rows have no answer."""
        return sum(count for name, count in self.counts.items() if name.startswith("text_"))

    @property
    def rate(self) -> float:
        """Rows a second of this process."""
        return (self.counts["rows"] - self.resumed) / max(1e-9, time.monotonic() - self._started)

    def add(self, counts: Mapping[str, int]) -> None:
        """Take what was counted of some more rows."""
        self.counts.update(counts)
        self._bar.update(counts["rows"])
        self._bar.set_postfix(errors=self.errors, refresh=False)
        now = time.monotonic()
        if self._bar.disable and now - self._told >= EVERY:
            self._told = now
            left = (self.total - self.counts["rows"]) / max(1e-9, self.rate)
            print(
                f"{self.counts['rows']} of {self.total} rows, {self.rate:.0f} rows/s, {left:.0f} s left, "
                f"{self.errors} errors",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()

    def summary(self, *, complete: bool) -> dict[str, Any]:
        """Return what came of the job."""
        counts = self.counts
        return {
            "complete": complete,
            "rows": counts["rows"],
            "ok": counts["rows"] - self.errors,
            "errors": {name: count for name, count in sorted(counts.items()) if name.startswith("text_")},
            "truncated": counts["truncated"],
            "resumed_rows": self.resumed,
            "seconds": round(time.monotonic() - self._started, 3),
            "rows_per_second": round(self.rate, 1),
        }


def write_metrics(path: Path, summary: Mapping[str, Any], model: Mapping[str, str]) -> None:
    """
    Write what came of a job as Prometheus' textfile collector reads it, in one step.

    Args:
        path: The file.
        summary: What `Progress.summary` gives, or NOTHING.
        model: Its name, version and precision; empty if the job did not come so far.

    Raises:
        InputError: the file cannot be written.
    """
    registry = CollectorRegistry()

    def gauge(name: str, text: str, value: float, /, **labels: str) -> None:
        metric = gauges.get(name) or Gauge(f"bertrand_score_{name}", text, list(labels), registry=registry)
        gauges[name] = metric
        (metric.labels(**labels) if labels else metric).set(value)

    gauges: dict[str, Gauge] = {}
    gauge("rows", "Rows of the job by what became of them.", summary["ok"], outcome="ok")
    for code in ("text_empty", "text_invalid"):
        gauge("rows", "", summary["errors"].get(code, 0), outcome=code)
    gauge("truncated_rows", "Rows of which the start alone was read.", summary["truncated"])
    gauge("seconds", "How long the job ran, without what an interrupted one had done.", summary["seconds"])
    gauge("rows_per_second", "Speed of the job.", summary["rows_per_second"])
    gauge("complete", "1: the output is there; 0: it is not.", float(summary["complete"]))
    gauge("end_time_seconds", "When the job ended, in seconds since 1970.", time.time())
    if model:
        gauge("model_info", "The model that answered.", 1, **model)
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise InputError(f"{path}: {reason(error)}") from error
