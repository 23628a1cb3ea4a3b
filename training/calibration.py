"""Scores that mean what they say: temperature, thresholds and abstaining, fitted on rows held out from learning."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar

from inference.classifier import sigmoid, softmax

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.data import Row

FILE = "calibration.json"  # beside a checkpoint's weights, so that exporting it again loses nothing
COLDEST, HOTTEST = 0.05, 20.0  # of a fitted temperature
USUAL_DEVIATION = 0.1  # of the logarithm of a temperature from 0, before any row is seen
THRESHOLDS = np.round(np.arange(0.01, 1.0, 0.01), 2)  # that are tried
PRIOR_ROWS = 5.0  # rows of a label that every threshold is fitted with besides its own


@dataclass(frozen=True)
class Abstention:
    """From which confidence on a model is as precise as was wanted, and how often it answers then."""

    min_precision: float  # wanted
    threshold: float  # probability of the best label from which it is given
    precision: float  # on the rows the threshold was fitted on
    coverage: float  # share of them that is answered


@dataclass(frozen=True)
class Calibration:
    """What stands between the logits of a model and its answers."""

    temperature: float = 1.0  # logits are divided by it
    thresholds: tuple[float, ...] | None = None  # probability from which a label is given, one a label
    abstention: Abstention | None = None  # what the thresholds of a model with one label a row were fitted for

    @classmethod
    def read(cls, folder: Path) -> Calibration:
        """Return the calibration that was saved in the folder of a checkpoint, or none at all."""
        file = folder / FILE
        if not file.is_file():
            return cls()
        saved = json.loads(file.read_bytes())
        return cls(
            saved["temperature"],
            None if saved["thresholds"] is None else tuple(saved["thresholds"]),
            None if saved["abstention"] is None else Abstention(**saved["abstention"]),
        )

    def write(self, folder: Path) -> None:
        """Save in the folder of a checkpoint."""
        (folder / FILE).write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Unseen:
    """What a model says of rows that it has not learnt from."""

    rows: Sequence[Row]
    logits: NDArray[np.float32]  # shape (rows, labels)


def fit(
    logits: NDArray[np.float32],
    truth: NDArray[np.bool_],
    *,
    multi_label: bool = False,
    min_precision: float | None = None,
) -> Calibration:
    """
    Fit everything on rows that nothing was learnt from.

    Args:
        logits: Shape (rows, labels).
        truth: Which row has which label, shape (rows, labels).
        multi_label: A row may have several labels, or none.
        min_precision: Share of the answers that must be right, where a row has one label: the others are not given.
    """
    temperature = fit_temperature(logits, truth, multi_label=multi_label)
    scaled = logits.astype(np.float32) / np.float32(temperature)
    if multi_label:
        return Calibration(temperature, fit_thresholds(sigmoid(scaled), truth))
    abstention = fit_abstention(softmax(scaled), truth, min_precision=min_precision) if min_precision else None
    return Calibration(temperature, (abstention.threshold,) * truth.shape[1] if abstention else None, abstention)


def fit_temperature(logits: NDArray[np.float32], truth: NDArray[np.bool_], *, multi_label: bool = False) -> float:
    """
    Return the temperature under which the true labels are likeliest (Guo et al. 2017, arXiv:1706.04599).

    Few rows say little of it, and a model is nearly calibrated by the way it was trained: 1 is likeliest beforehand, by
    a Cauchy distribution of the logarithm, whose wide tails give way where rows speak clearly (Gelman et al. 2008, "A
    weakly informative default prior distribution for logistic and other regression models").

    Where few rows are all right, no temperature would be cold enough. Hence what is aimed at is not certainty but how
    often N rows that are right let expect the next one to be: (N + 1) of (N + 2) times (Platt 1999, "Probabilistic
    Outputs for Support Vector Machines", 2.2). Ten rows that are right aim at a score of .92; of thousands of rows
    the aim changes nothing that can be seen.

    Args:
        logits: Shape (rows, labels); without rows the temperature is 1.
        truth: Which row has which label, shape (rows, labels).
        multi_label: Every label is a decision of its own.
    """
    if not len(logits):
        return 1.0
    scores = logits.astype(np.float64)
    goals = np.where(truth, 1 - 1 / (truth.sum() + 2), 1 / ((~truth).sum() + 2))  # of decisions of their own
    if not multi_label:  # a decision too: for the true label, or for any other
        others = np.where(truth, -np.inf, scores)
        best_other = others.max(axis=1, keepdims=True)
        below, lead = others - best_other, scores[truth] - best_other[:, 0]

    def surprise(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        beforehand = np.log1p((log_temperature / USUAL_DEVIATION) ** 2)
        if multi_label:
            scaled = scores / temperature
            return float((np.logaddexp(0.0, scaled) - goals * scaled).sum() + beforehand)
        margin = lead / temperature - np.log(np.exp(below / temperature).sum(axis=1))
        return float((np.logaddexp(0.0, margin) - goals[truth] * margin).sum() + beforehand)

    # There may be two valleys, where the rows contradict what was likely beforehand: the deeper one is found first.
    grid = np.linspace(np.log(COLDEST), np.log(HOTTEST), 61)
    nearest = int(np.argmin([surprise(one) for one in grid]))
    around = grid[max(0, nearest - 1)], grid[min(len(grid) - 1, nearest + 1)]
    found = minimize_scalar(surprise, bounds=around, method="bounded")
    return float(np.exp(found.x))


def fit_thresholds(probabilities: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[float, ...]:
    """
    Return for each label the probability from which giving it makes the best F1, in hundredths.

    A label with few rows has its best threshold by chance, so each is fitted with `PRIOR_ROWS` rows more that behave
    as the rows of all labels together do.

    Args:
        probabilities: Shape (rows, labels); without rows every threshold is 0.5.
        truth: Shape (rows, labels).
    """
    if not truth.any():
        return tuple([0.5] * truth.shape[1])
    given = np.stack([(probabilities >= threshold).sum(axis=0) for threshold in THRESHOLDS])  # (thresholds, labels)
    hits = np.stack([((probabilities >= threshold) & truth).sum(axis=0) for threshold in THRESHOLDS])
    support = truth.sum(axis=0)
    prior = PRIOR_ROWS / support.sum()
    f1 = (
        2
        * (hits + prior * hits.sum(axis=1, keepdims=True))
        / (given + prior * given.sum(axis=1, keepdims=True) + support + PRIOR_ROWS)
    )
    # Of those that are equally good the middle one, which is as far as can be from the scores on both sides.
    equals = (THRESHOLDS[column >= column.max() - 1e-12] for column in f1.T)
    return tuple(float(some[len(some) // 2]) for some in equals)


def fit_abstention(
    probabilities: NDArray[np.float32], truth: NDArray[np.bool_], *, min_precision: float
) -> Abstention | None:
    """
    Return the threshold that answers most rows among those that are as precise as is wanted; None if none is.

    As precise by two counts: of the rows that are answered as many are right, and by their probabilities as many are to
    be expected. The best of many thresholds by the first alone is the luckiest one: what looks 99 % right on 50 rows is
    97 %. No score is 1: where all answers are to be right, the rows alone decide.

    Args:
        probabilities: Calibrated, shape (rows, labels), of a model that gives one label a row.
        truth: Shape (rows, labels).
        min_precision: Share of the answers that must be right.
    """
    best = probabilities.argmax(axis=1)
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    right, confidence = truth[np.arange(len(truth)), best][order], probabilities.max(axis=1)[order]
    answers = np.arange(1, len(order) + 1)
    precision, expected = np.cumsum(right) / answers, np.cumsum(confidence, dtype=np.float64) / answers
    enough = (precision >= min_precision) & ((expected >= min_precision) | (min_precision == 1))
    # Equal confidences are answered together or not at all.
    last_of_equals = np.append(confidence[1:] < confidence[:-1], True) if len(order) else np.zeros(0, dtype=bool)
    reached = np.flatnonzero(enough & last_of_equals)
    if not len(reached):
        return None
    last = int(reached[-1])
    return Abstention(min_precision, float(confidence[last]), float(precision[last]), (last + 1) / len(order))
