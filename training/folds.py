"""Rows to folds, for judging each by models that have not learnt from it."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from training.data import Row


def deal(
    rows: Sequence[Row], copies: Sequence[Hashable], *, number: int, seed: int = 0
) -> tuple[NDArray[np.int_], list[str]]:
    """
    Deal rows to folds, every label as evenly as can be, rarest labels first.

    Rows of the same fold are not learnt from while they are judged. That of a label with few rows those rows are in
    different folds matters more than equal folds: it lets all labels have the same number of folds.

    Args:
        rows: Labelled sentences.
        copies: What is equal for rows that say the same: they come into one fold, or each would vouch for the other.
        number: Of folds.
        seed: Same rows and seed: same folds.

    Returns:
        The fold of each row, shape (len(rows),), and the labels that are in one fold only, which cannot be judged.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for i, copy in enumerate(copies):
        groups[copy].append(i)
    texts = Counter(label for group in groups.values() for label in {name for i in group for name in rows[i].labels})
    dealt = list(groups.values())
    random.Random(seed).shuffle(dealt)
    rarest = {id(group): min((texts[name], name) for i in group for name in rows[i].labels or ("",)) for group in dealt}
    dealt.sort(key=lambda group: rarest[id(group)])
    fold_of = np.zeros(len(rows), dtype=int)
    held: dict[str, list[int]] = defaultdict(lambda: [0] * number)  # rows of each label in each fold
    sizes = [0] * number
    for group in dealt:
        here = held[rarest[id(group)][1]]
        fold = min(range(number), key=lambda i: (here[i], sizes[i]))
        fold_of[group] = fold
        sizes[fold] += len(group)
        for i in group:
            for label in rows[i].labels or ("",):
                held[label][fold] += 1
    return fold_of, sorted(label for label in texts if sum(map(bool, held[label])) < 2)
