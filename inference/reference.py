"""What a model said of the rows it was measured on: what it says of traffic is held against that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ABSTAINED = "(none)"  # the label of a text that got no label
SETS = ("test", "data", "cross-validation", "dev")  # of measured rows: those that nothing was chosen on come first


@dataclass(frozen=True)
class Reference:
    """How often each label was the best of a row, and how sure the model was; counted as the service counts."""

    predicted: dict[str, float]  # share of the rows whose best label it is; every label is there, and ABSTAINED
    confidence: float | None  # mean probability of the best label, of the rows that got one; None where none did
    truncated: float  # share of the rows of which only the start was read

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Reference | None:
        """Return what the `metrics` of a manifest tell; None of a model that was written before they told it."""
        figures = next((metrics[name] for name in SETS if "predicted" in metrics.get(name, ())), None)
        if figures is None:
            return None
        confidence = figures["confidence"]
        return cls(
            {label: float(share) for label, share in figures["predicted"].items()},
            None if confidence is None else float(confidence),
            float(figures["truncated"]),
        )
