"""Two models on the same labelled rows: which is better, and whether that is more than chance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.metrics import accuracy_change, answered, decide, f1_of, label_f1, macro_f1, mean_f1, targets
from training.resampling import middle, resampled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from training.data import Row
    from training.metrics import Answered, Scorer

CHANCE = 0.05  # a difference that chance makes in fewer of a hundred cases than 5 is more than chance
RESAMPLES = 2000  # of the rows, for the interval of macro-F1


@dataclass(frozen=True)
class Change:
    """How much more the second model has than the first, and the 95 % confidence interval of that."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LabelComparison:
    """How well either model tells one label."""

    label: str
    rows: int  # that truly have it
    only_a: int  # of these, on which the first model alone is right about this label
    only_b: int
    f1_a: float
    f1_b: float


@dataclass(frozen=True)
class Example:
    """A row that one of the models alone has right."""

    text: str
    labels: tuple[str, ...]
    a: tuple[str, ...]  # what the first model gives
    b: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows. A row is right if all of its labels are, and no other is given."""

    rows: int
    graph_a: str  # that answers: fp32 or int8, or PyTorch
    graph_b: str
    both: int  # rows that both have right
    only_a: int  # rows that the first alone has right
    only_b: int
    neither: int
    accuracy_a: float
    accuracy_b: float
    accuracy_change: Change
    macro_f1_a: float
    macro_f1_b: float
    macro_f1_change: Change
    answered_a: Answered | None  # where it does not answer all: then all else is of its best labels
    answered_b: Answered | None
    p: float  # of a difference at least as large if both were as good: exact McNemar test, two-sided
    labels: tuple[LabelComparison, ...]  # where they differ most, first
    only_a_right: tuple[Example, ...]
    only_b_right: tuple[Example, ...]

    @property
    def better(self) -> str | None:
        """Return a or b where one is better by more than chance."""
        if self.p >= CHANCE:
            return None
        return "b" if self.only_b > self.only_a else "a"

    def verdict(self) -> str:
        """Return what follows, in one sentence."""
        if not self.only_a + self.only_b:
            return f"no difference: A and B have the same {self.both} of {self.rows} rows right"
        figures = (
            f"accuracy {self.accuracy_a:.4f} of A and {self.accuracy_b:.4f} of B; of the rows that one alone has right "
            f"{self.only_a} are A's and {self.only_b} B's"
        )
        if self.better:
            return f"{self.better.upper()} is better, by more than chance ({_p(self.p)}): {figures}"
        return f"no difference that is more than chance ({_p(self.p)}): {figures}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"better": self.better, "verdict": self.verdict()} | asdict(self)


def compare(a: Scorer, b: Scorer, rows: Sequence[Row], *, examples: int = 0, seed: int = 0) -> Comparison:
    """
    Score rows with two models of the same problem type, which both know all labels of the rows.

    Args:
        a: The first model.
        b: The second; its labels may be others, in another order.
        rows: At least one.
        examples: Rows to return, at most, of those that one of the models alone has right: as many for each.
        seed: Of the resampling.
    """
    labels = sorted({*a.labels, *b.labels})
    (given_a, answered_a), (given_b, answered_b) = (_said(scorer, rows, labels) for scorer in (a, b))
    truth = targets(rows, labels)
    right_a, right_b = ((given == truth).all(axis=1) for given in (given_a, given_b))
    only_a, only_b = right_a & ~right_b, right_b & ~right_a

    def names(given: NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(labels[i] for i in np.flatnonzero(given))

    def some(chosen: NDArray[np.bool_]) -> tuple[Example, ...]:
        places = np.flatnonzero(chosen)[:examples].tolist()
        return tuple(Example(rows[i].text, rows[i].labels, names(given_a[i]), names(given_b[i])) for i in places)

    return Comparison(
        rows=len(rows),
        graph_a=a.precision,
        graph_b=b.precision,
        both=int((right_a & right_b).sum()),
        only_a=int(only_a.sum()),
        only_b=int(only_b.sum()),
        neither=int((~right_a & ~right_b).sum()),
        accuracy_a=float(right_a.mean()),
        accuracy_b=float(right_b.mean()),
        accuracy_change=Change(*accuracy_change(right_a, right_b)),
        macro_f1_a=macro_f1(given_a, truth),
        macro_f1_b=macro_f1(given_b, truth),
        macro_f1_change=macro_f1_change(given_a, given_b, truth, seed=seed),
        answered_a=answered_a,
        answered_b=answered_b,
        p=mcnemar(int(only_a.sum()), int(only_b.sum())),
        labels=_by_label(given_a, given_b, truth, labels),
        only_a_right=some(only_a),
        only_b_right=some(only_b),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """
    Return the two-sided p of McNemar's exact test: 1 where the models are right on the same rows.

    If both were as good, each row that one alone has right would be either's by the toss of a coin.
    """
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def macro_f1_change(
    given_a: NDArray[np.bool_], given_b: NDArray[np.bool_], truth: NDArray[np.bool_], *, seed: int = 0
) -> Change:
    """
    Return the second's macro-F1 minus the first's, and the ends of its 95 % interval: a paired bootstrap of the rows.

    Args:
        given_a: Which row the first model gives which label, shape (rows, labels).
        given_b: The same of the second.
        truth: Which row has which label, of that shape too.
        seed: Of the resampling.
    """
    arrays = given_a & truth, given_a, given_b & truth, given_b, truth
    changes = [
        mean_f1(f1_of(hits_b, named_b + support)) - mean_f1(f1_of(hits_a, named_a + support))
        for hits_a, named_a, hits_b, named_b, support in resampled(*arrays, resamples=RESAMPLES, seed=seed)
    ]
    return Change(macro_f1(given_b, truth) - macro_f1(given_a, truth), *middle(np.concatenate(changes)))


def _said(scorer: Scorer, rows: Sequence[Row], labels: Sequence[str]) -> tuple[NDArray[np.bool_], Answered | None]:
    """Return which row a model gives which of `labels`, its own and others, shape (rows, labels), and `answered`."""
    probabilities = scorer.score([row.text for row in rows])
    multi_label = scorer.problem_type == "multi_label"
    given = np.zeros((len(rows), len(labels)), dtype=bool)
    places = [labels.index(label) for label in scorer.labels]
    given[:, places] = decide(probabilities, multi_label=multi_label, thresholds=scorer.thresholds)
    return given, answered(scorer, probabilities, targets(rows, labels)[:, places])


def _by_label(
    given_a: NDArray[np.bool_], given_b: NDArray[np.bool_], truth: NDArray[np.bool_], labels: Sequence[str]
) -> tuple[LabelComparison, ...]:
    def found() -> Iterator[LabelComparison]:
        f1_a, f1_b = (np.nan_to_num(label_f1(given, truth)) for given in (given_a, given_b))
        for i, label in enumerate(labels):
            has, a, b = truth[:, i], given_a[:, i], given_b[:, i]
            only_a, only_b = int((has & a & ~b).sum()), int((has & b & ~a).sum())
            yield LabelComparison(label, int(has.sum()), only_a, only_b, float(f1_a[i]), float(f1_b[i]))

    def difference(label: LabelComparison) -> tuple[float, float]:
        return -abs(label.only_b - label.only_a), -abs(label.f1_b - label.f1_a)

    return tuple(sorted(found(), key=difference))


def _p(p: float) -> str:
    return "p < .0001" if p < 0.0001 else f"p = {p:.2g}"
