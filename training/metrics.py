"""Probabilities and true labels to figures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inference.artifact import ProblemType
    from training.data import Row

CALIBRATION_BINS = 15  # equal-width bins of confidence, as in Guo et al. 2017, arXiv:1706.04599


@dataclass(frozen=True)
class LabelMetrics:
    """How well one label is told from the others."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int  # rows that truly have the label


@dataclass(frozen=True)
class Metrics:
    """How well a model labels a set of rows. A ratio of nothing to nothing counts as 0."""

    rows: int
    accuracy: float  # share of rows whose labels are all right: for several labels a row, the exact matches
    macro_f1: float  # mean over the labels that occur in the rows or the predictions
    ece: float  # expected calibration error of the best label (single) or of every label (multi)
    labels: tuple[LabelMetrics, ...]
    confusion: tuple[tuple[int, ...], ...] | None  # [true][predicted] row counts; None for several labels a row

    def mistakes(self, most: int = 10) -> list[tuple[int, str, str]]:
        """Return the most frequent mistakes: how many rows of which label were taken for which, most first."""
        names = [label.label for label in self.labels]
        found = [
            (count, names[i], names[j])
            for i, row in enumerate(self.confusion or ())
            for j, count in enumerate(row)
            if i != j and count
        ]
        return sorted(found, key=lambda mistake: (-mistake[0], mistake[1:]))[:most]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


class Scorer(Protocol):
    """What can be measured: `inference.Classifier` and `training.checkpoint.Checkpoint`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the scores."""

    @property
    def problem_type(self) -> ProblemType:
        """One label a row, or several."""

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """Probability from which a label is given, one a label, where a row may have several."""

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the probability of every label for every text."""


def score(scorer: Scorer, rows: Sequence[Row]) -> Metrics:
    """Score rows and compare with their labels."""
    return measure(
        scorer.score([row.text for row in rows]),
        targets(rows, scorer.labels),
        scorer.labels,
        multi_label=scorer.problem_type == "multi_label",
        thresholds=scorer.thresholds,
    )


def targets(rows: Sequence[Row], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return which row has which label, shape (rows, labels)."""
    index = {label: i for i, label in enumerate(labels)}
    truth = np.zeros((len(rows), len(labels)), dtype=bool)
    for i, row in enumerate(rows):
        truth[i, [index[label] for label in row.labels]] = True
    return truth


def measure(
    probabilities: NDArray[np.float32],
    truth: NDArray[np.bool_],
    labels: Sequence[str],
    *,
    multi_label: bool = False,
    thresholds: Sequence[float] | None = None,
) -> Metrics:
    """
    Compare probabilities with the truth.

    Args:
        probabilities: Shape (rows, labels).
        truth: Shape (rows, labels).
        labels: Their names, in the order of the columns.
        multi_label: A row has every label that reaches its threshold, rather than the best one.
        thresholds: One a label, for `multi_label`; 0.5 when not given.
    """
    rows = len(truth)
    predicted = decide(probabilities, multi_label=multi_label, thresholds=thresholds)
    if multi_label:
        confusion = None
        ece = calibration_error(probabilities.ravel(), truth.ravel())
    else:
        best = probabilities.argmax(axis=1)
        counts = np.zeros((len(labels), len(labels)), dtype=int)
        np.add.at(counts, (truth.argmax(axis=1), best), 1)
        confusion = tuple(tuple(row) for row in counts.tolist())
        ece = calibration_error(probabilities[np.arange(rows), best], truth[np.arange(rows), best])

    hits = (predicted & truth).sum(axis=0)
    given, support = predicted.sum(axis=0), truth.sum(axis=0)
    precision, recall = _ratio(hits, given), _ratio(hits, support)
    f1 = _ratio(2 * hits, given + support)
    occurring = (given + support) > 0
    return Metrics(
        rows=rows,
        accuracy=float((predicted == truth).all(axis=1).mean()),
        macro_f1=float(f1[occurring].mean()) if occurring.any() else 0.0,
        ece=ece,
        labels=tuple(
            LabelMetrics(*values)
            for values in zip(labels, precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), strict=True)
        ),
        confusion=confusion,
    )


def decide(
    probabilities: NDArray[np.float32], *, multi_label: bool = False, thresholds: Sequence[float] | None = None
) -> NDArray[np.bool_]:
    """Return which row is given which label, shape (rows, labels); the arguments are those of `measure`."""
    if multi_label:
        return np.asarray(probabilities >= (0.5 if thresholds is None else np.asarray(thresholds)))
    decided = np.zeros(probabilities.shape, dtype=bool)
    decided[np.arange(len(decided)), probabilities.argmax(axis=1)] = True
    return decided


def accuracy_change(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, float, float]:
    """
    Compare two models on the same rows.

    Args:
        before: Which rows the one has right, shape (rows,).
        after: Which rows the other has right, shape (rows,).

    Returns:
        Accuracy of the other minus that of the one, and the ends of its 95 % confidence interval: Wald's for paired
        rows with half a row added to each cell (Agresti and Min 2005), so that no difference in few rows is no proof.
    """
    rows = len(before)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    center = (gained - lost) / (rows + 2)
    half = 1.96 * math.sqrt(max(0.0, (gained + lost + 1) / (rows + 2) - center**2) / (rows + 2))
    return (gained - lost) / rows, center - half, center + half


def calibration_error(confidence: NDArray[np.float32], correct: NDArray[np.bool_]) -> float:
    """
    Return the expected calibration error: the gap of confidence to accuracy, averaged over bins by their size.

    Args:
        confidence: Probability of each decision, shape (decisions,).
        correct: Whether each was right, shape (decisions,).
    """
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=correct.astype(float) - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / max(1, len(confidence)))


def _ratio(part: NDArray[np.int_], whole: NDArray[np.int_]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
