"""What is taken for what: the mistakes of a model on labelled rows, with texts that show them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.metrics import Measured

EXAMPLES = 5  # of one cell at most
ALL_EXAMPLES = 400  # of all cells together: a report is read, and passed on, so it holds no more than it needs
LONGEST_EXAMPLE = 300  # characters


@dataclass(frozen=True)
class Example:
    """A text that is in a cell."""

    text: str  # cut after `LONGEST_EXAMPLE` characters
    probability: float  # of the label that was given or, where none was, of the one that was missed


@dataclass(frozen=True)
class Cell:
    """The rows that truly have one label and were given another, or that one."""

    true: int | None  # place among the labels; None: the label was given to rows that do not have it
    given: int | None  # None: rows that have the label were not given it
    rows: int
    examples: tuple[Example, ...]

    @property
    def mistaken(self) -> bool:
        """Whether the rows are mistakes."""
        return self.true != self.given


def cells(measured: Measured) -> list[Cell]:
    """
    Return what happened to the rows, mistakes first and the most frequent first.

    Of a model that gives one label, every cell of the confusion matrix that has rows; of one that gives several, for
    each label the rows where it was missed and those where it was given wrongly.

    The examples of mistakes are those the model was surest of, those of right answers the ones it was least sure of.
    """
    found = _several(measured) if measured.multi_label else _single(measured)
    ordered = sorted(found.items(), key=lambda item: (item[0][0] == item[0][1], -len(item[1])))  # stable: by label
    left = ALL_EXAMPLES
    shown: dict[tuple[int | None, int | None], list[Example]] = defaultdict(list)
    for mistaken in (True, False):  # right answers get what mistakes leave
        for depth in range(EXAMPLES):  # every cell gets one before any gets a second
            for key, rows in ordered:
                if left and depth < len(rows) and (key[0] != key[1]) == mistaken:
                    row, probability = rows[depth]
                    shown[key].append(Example(_clip(measured.rows[row].text), probability))
                    left -= 1
    return [Cell(*key, len(rows), tuple(shown[key])) for key, rows in ordered]


def order(confusion: Sequence[Sequence[int]]) -> list[int]:
    """
    Return the labels in an order that has those side by side that are taken for each other.

    The most confused pair is joined first, then the next, each time end to end with the chains that were joined
    before. Long chains come first, labels without a mistake last.

    Args:
        confusion: Row counts, [true][given].
    """
    counts = np.asarray(confusion, dtype=float)
    support = counts.sum(axis=1)
    weight = (counts + counts.T) / np.maximum(1, support[:, None] + support[None, :])
    pairs = [(-weight[i, j], i, j) for i, j in zip(*np.triu(weight, k=1).nonzero(), strict=True)]
    chains = {label: [label] for label in range(len(counts))}
    for _, i, j in sorted(pairs):
        one, other = chains[i], chains[j]
        if one is other:
            continue
        # Turn the chains so that the two come as near to each other as they can.
        if one.index(i) < len(one) / 2:
            one.reverse()
        if other.index(j) >= len(other) / 2:
            other.reverse()
        one += other
        chains |= dict.fromkeys(other, one)
    distinct = {id(chain): chain for chain in chains.values()}.values()
    return [label for chain in sorted(distinct, key=len, reverse=True) for label in chain]


_Found = dict[tuple[int | None, int | None], list[tuple[int, float]]]  # rows and probabilities, the telling ones first


def _single(measured: Measured) -> _Found:
    given, true = measured.probabilities.argmax(axis=1), measured.truth.argmax(axis=1)
    confidence = measured.probabilities[np.arange(len(given)), given]
    found: _Found = defaultdict(list)
    for row in np.lexsort((np.where(given == true, confidence, -confidence), given, true)).tolist():
        found[int(true[row]), int(given[row])].append((row, float(confidence[row])))
    return found


def _several(measured: Measured) -> _Found:
    missed, wrong = measured.truth & ~measured.decided, measured.decided & ~measured.truth
    found: _Found = {}
    for label in range(len(measured.labels)):
        probability = measured.probabilities[:, label]
        for key, rows, sign in (((label, None), missed, 1), ((None, label), wrong, -1)):
            if chosen := _sorted(np.flatnonzero(rows[:, label]), sign * probability):
                found[key] = [(row, float(probability[row])) for row in chosen]
    return found


def _sorted(rows: NDArray[np.intp], key: NDArray[np.float32]) -> list[int]:
    return [int(row) for row in rows[np.argsort(key[rows], kind="stable")]]


def _clip(text: str) -> str:
    whole = text.encode("utf-8", "replace").decode()  # JSON can hold half a surrogate pair, UTF-8 cannot
    return whole if len(whole) <= LONGEST_EXAMPLE else f"{whole[: LONGEST_EXAMPLE - 1]}…"
