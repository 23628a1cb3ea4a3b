"""Probabilities and true labels to figures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from inference.errors import InputError
from training.resampling import middle, resampled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inference.artifact import ProblemType
    from training.data import Row

CALIBRATION_BINS = 15  # equal-width bins of confidence, as in Guo et al. 2017, arXiv:1706.04599
RESAMPLES = 1000  # of the rows, for a bootstrap interval
Z = NormalDist().inv_cdf(0.975)  # standard errors from the middle to the ends of a 95 % interval

Interval = tuple[float, float]  # ends of a 95 % confidence interval


@dataclass(frozen=True)
class LabelMetrics:
    """How well one label is told from the others."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int  # rows that truly have the label


@dataclass(frozen=True)
class Answered:
    """What a model does that abstains below a confidence."""

    threshold: float
    coverage: float  # share of the rows that are answered
    precision: float | None  # share of those that are right; None where none is answered


@dataclass(frozen=True)
class Metrics:
    """How well a model labels a set of rows. A ratio of nothing to nothing counts as 0."""

    rows: int
    accuracy: float  # share of rows whose labels are all right: for several labels a row, the exact matches
    macro_f1: float  # mean over the labels that occur in the rows or the predictions
    ece: float  # expected calibration error of the best label (single) or of every label (multi)
    labels: tuple[LabelMetrics, ...]
    confusion: tuple[tuple[int, ...], ...] | None  # [true][predicted] row counts; None for several labels a row
    answered: Answered | None = None  # of a model that abstains: the other figures are of every row's best label
    graph: str | None = None  # whose answers they are: fp32, int8, or PyTorch; None in what a run keeps of itself

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
        return {name: value for name, value in asdict(self).items() if name != "graph" or value}


@dataclass(frozen=True)
class Intervals:
    """How far the figures of a set of rows would move on other rows of the same kind."""

    accuracy: Interval
    macro_f1: Interval
    f1: tuple[Interval | None, ...]  # of each label; None for one that neither occurs nor is given


@dataclass(frozen=True)
class Bin:
    """The decisions whose confidence is in one range."""

    rows: int
    confidence: float  # mean; 0 where there are no rows
    accuracy: float


@dataclass(frozen=True)
class Measured:
    """Labelled rows, what a model says of each, and the figures of both."""

    rows: Sequence[Row]
    probabilities: NDArray[np.float32]  # shape (rows, labels), calibrated
    uncalibrated: NDArray[np.float32]  # shape (rows, labels), at temperature 1
    metrics: Metrics
    thresholds: Sequence[float] | None = None  # one a label, where not every row gets the best one

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the columns."""
        return tuple(label.label for label in self.metrics.labels)

    @property
    def multi_label(self) -> bool:
        """Whether a row may have several labels."""
        return self.metrics.confusion is None

    @cached_property
    def truth(self) -> NDArray[np.bool_]:
        """Which row has which label, shape (rows, labels)."""
        return targets(self.rows, self.labels)

    @cached_property
    def decided(self) -> NDArray[np.bool_]:
        """Which row is given which label, shape (rows, labels)."""
        return decide(self.probabilities, multi_label=self.multi_label, thresholds=self.thresholds)

    @cached_property
    def intervals(self) -> Intervals:
        """How sure the figures are."""
        return intervals(self.decided, self.truth)

    @property
    def bins(self) -> tuple[Bin, ...]:
        """Confidence against accuracy."""
        return reliability(*decisions(self.probabilities, self.truth, multi_label=self.multi_label))

    @property
    def bins_before(self) -> tuple[Bin, ...]:
        """Confidence against accuracy, at temperature 1."""
        return reliability(*decisions(self.uncalibrated, self.truth, multi_label=self.multi_label))

    @property
    def ece_before(self) -> float:
        """The calibration error at temperature 1."""
        return calibration_error(*decisions(self.uncalibrated, self.truth, multi_label=self.multi_label))

    def answered(self, thresholds: Sequence[float]) -> tuple[Answered, ...]:
        """Return what is gained by answering only the rows whose best label reaches each threshold."""
        return abstain(*decisions(self.probabilities, self.truth), thresholds)


class Scorer(Protocol):
    """What can be measured: `inference.Classifier` and `training.checkpoint.Checkpoint`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the scores."""

    @property
    def problem_type(self) -> ProblemType:
        """One label a row, or several."""

    @property
    def precision(self) -> str:
        """The graph that answers: fp32 or int8, or PyTorch."""

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """Probability from which a label is given, one a label, where a row may have several."""

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the probability of every label for every text."""


def score(scorer: Scorer, rows: Sequence[Row]) -> Metrics:
    """Score rows and compare with their labels."""
    probabilities, truth = scorer.score([row.text for row in rows]), targets(rows, scorer.labels)
    multi_label = scorer.problem_type == "multi_label"
    metrics = measure(probabilities, truth, scorer.labels, multi_label=multi_label, thresholds=scorer.thresholds)
    return replace(metrics, answered=answered(scorer, probabilities, truth), graph=scorer.precision)


def answered(scorer: Scorer, probabilities: NDArray[np.float32], truth: NDArray[np.bool_]) -> Answered | None:
    """Return how many rows a model of one label a row is sure enough of to answer; None where it answers all."""
    if scorer.problem_type == "multi_label" or not scorer.thresholds:
        return None
    return abstain(*decisions(probabilities, truth), scorer.thresholds[:1])[0]


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

    Raises:
        InputError: a probability is no number.
    """
    rows = len(truth)
    if broken := int((~np.isfinite(probabilities)).any(axis=1).sum()):
        raise InputError(
            f"the model's scores of {broken} of {rows} rows are not numbers: its weights are damaged, or training "
            "diverged; train with a lower --learning-rate and --head-learning-rate"
        )
    predicted = decide(probabilities, multi_label=multi_label, thresholds=thresholds)
    confusion = None
    if not multi_label:
        counts = np.zeros((len(labels), len(labels)), dtype=int)
        np.add.at(counts, (truth.argmax(axis=1), probabilities.argmax(axis=1)), 1)
        confusion = tuple(tuple(row) for row in counts.tolist())

    hits = (predicted & truth).sum(axis=0)
    given, support = predicted.sum(axis=0), truth.sum(axis=0)
    precision, recall = _ratio(hits, given), _ratio(hits, support)
    f1 = label_f1(predicted, truth)
    figures = precision, recall, np.nan_to_num(f1), support
    return Metrics(
        rows=rows,
        accuracy=float((predicted == truth).all(axis=1).mean()),
        macro_f1=float(mean_f1(f1)),
        ece=calibration_error(*decisions(probabilities, truth, multi_label=multi_label)),
        labels=tuple(
            LabelMetrics(label, *values)
            for label, *values in zip(labels, *(figure.tolist() for figure in figures), strict=True)
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
    change, center, error = _paired(before, after)
    return change, max(-1.0, center - Z * error), min(1.0, center + Z * error)


def accuracy_lead(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the accuracy of the other minus that of the one, as in `accuracy_change`, and its standard error."""
    change, _, error = _paired(before, after)
    return change, error


def _paired(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return the change of accuracy, the center of its interval and the standard error of that."""
    rows = len(before)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    center = (gained - lost) / (rows + 2)
    error = math.sqrt(max(0.0, (gained + lost + 1) / (rows + 2) - center**2) / (rows + 2))
    return (gained - lost) / rows, center, error


def decisions(
    probabilities: NDArray[np.float32], truth: NDArray[np.bool_], *, multi_label: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """
    Return the confidence of each decision and whether it was right, both of shape (decisions,).

    A decision is the best label of a row or, with `multi_label`, each label of it.
    """
    if multi_label:
        return probabilities.ravel(), truth.ravel()
    rows, best = np.arange(len(truth)), probabilities.argmax(axis=1)
    return probabilities[rows, best], truth[rows, best]


def reliability(confidence: NDArray[np.float32], correct: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Sort decisions into `CALIBRATION_BINS` bins of equal width, from no confidence to full."""
    places = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    rows, confidences, right = (
        np.bincount(places, weights=weights, minlength=CALIBRATION_BINS)
        for weights in (None, confidence.astype(float), correct.astype(float))
    )
    means = zip(rows.tolist(), _ratio(confidences, rows).tolist(), _ratio(right, rows).tolist(), strict=True)
    return tuple(Bin(*values) for values in means)


def calibration_error(confidence: NDArray[np.float32], correct: NDArray[np.bool_]) -> float:
    """
    Return the expected calibration error: the gap of confidence to accuracy, averaged over bins by their size.

    Args:
        confidence: Probability of each decision, shape (decisions,).
        correct: Whether each was right, shape (decisions,).
    """
    gaps = [abs(part.accuracy - part.confidence) * part.rows for part in reliability(confidence, correct)]
    return sum(gaps) / max(1, len(confidence))


def abstain(
    confidence: NDArray[np.float32], correct: NDArray[np.bool_], thresholds: Sequence[float]
) -> tuple[Answered, ...]:
    """Return, for each threshold, how many decisions reach it and how many of those are right."""
    falling = np.argsort(-confidence)
    right = np.concatenate([[0], np.cumsum(correct[falling])])
    reached = np.searchsorted(-confidence[falling], [-threshold for threshold in thresholds], side="right")
    return tuple(
        Answered(float(threshold), count / max(1, len(confidence)), int(right[count]) / count if count else None)
        for threshold, count in zip(thresholds, reached.tolist(), strict=True)
    )


def intervals(
    decided: NDArray[np.bool_], truth: NDArray[np.bool_], *, resamples: int = RESAMPLES, seed: int = 0
) -> Intervals:
    """
    Return 95 % confidence intervals: Wilson's of the accuracy, and of F1 those of a bootstrap.

    A bootstrap draws the rows again and again, and takes the middle 95 % of what is measured then. Of a share of rows
    near 1 its interval is too narrow.

    Args:
        decided: Which row is given which label, shape (rows, labels); at least one row.
        truth: Which row has which label, shape (rows, labels).
        resamples: How often as many rows as there are are drawn, each with replacement.
        seed: Of the draws.
    """
    draws = list(resampled(decided & truth, decided, truth, resamples=resamples, seed=seed))
    hits, given, support = (np.concatenate(totals) for totals in zip(*draws, strict=True))
    f1 = f1_of(hits, given + support)
    ends: list[Interval | None] = [None] * truth.shape[1]
    for label in np.flatnonzero((decided | truth).any(axis=0)):  # a rare label is not in every resample
        ends[label] = middle(f1[:, label])
    accuracy = wilson(float((decided == truth).all(axis=1).mean()), len(truth))
    return Intervals(accuracy, middle(mean_f1(f1)), tuple(ends))


def wilson(share: float, rows: int) -> Interval:
    """
    Return the 95 % confidence interval of a share of rows, of which there is at least one.

    Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference": it holds what it promises for
    shares near 0 and 1 too (Brown, Cai and DasGupta 2001, "Interval Estimation for a Binomial Proportion").
    """
    center = (share + Z**2 / (2 * rows)) / (1 + Z**2 / rows)
    width = Z / (1 + Z**2 / rows) * math.sqrt(share * (1 - share) / rows + (Z / (2 * rows)) ** 2)
    return max(0.0, center - width), min(1.0, center + width)


def standard_error(interval: Interval) -> float:
    """Return the standard error of what has a 95 % confidence interval."""
    low, high = interval
    return (high - low) / (2 * Z)


def macro_f1(decided: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the mean F1 of the labels that occur or are given; both shape (rows, labels)."""
    return float(mean_f1(label_f1(decided, truth)))


def label_f1(decided: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the F1 of each label, not a number where it neither occurs nor is given; both shape (rows, labels)."""
    return f1_of((decided & truth).sum(axis=0), decided.sum(axis=0) + truth.sum(axis=0))


def f1_of(hits: NDArray[Any], named: NDArray[Any]) -> NDArray[np.float64]:
    """
    Return F1, not a number where a label neither occurs nor is given.

    Args:
        hits: How many of the rows that have the label are given it.
        named: How many have it, and besides how many are given it; of the same shape.
    """
    return np.asarray(np.divide(2.0 * hits, named, out=np.full(named.shape, np.nan), where=named > 0))


def mean_f1(f1: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of the last axis over the labels that occur or are given; 0 where none is."""
    return np.asarray(np.nansum(f1, axis=-1) / np.maximum(1, np.isfinite(f1).sum(axis=-1)))


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0))
