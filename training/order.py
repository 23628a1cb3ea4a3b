"""Batches of sentences of similar length: less padding, and still chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

POOLED_BATCHES = 50  # whose rows are sorted by length together


def by_length(
    order: NDArray[np.int64], lengths: Sequence[int] | NDArray[np.int64], size: int, pooled: int = POOLED_BATCHES
) -> list[NDArray[np.int64]]:
    """
    Cut rows that come in random order into batches of about the same length, with the shorter ones first in each pool.

    Sorted as a whole, the same rows would meet in every pass. Whoever learns from them puts the batches into random
    order: falling lengths would be what a pass ends with.

    Args:
        order: The rows, shape (rows,); each is the number of one of `lengths`.
        lengths: Tokens of each row.
        size: Rows of a batch; the last one of all may have fewer.
        pooled: Batches whose rows are sorted together.
    """
    of = np.asarray(lengths)
    cut: list[NDArray[np.int64]] = []
    for start in range(0, len(order), size * pooled):
        pool = order[start : start + size * pooled]
        pool = pool[np.argsort(of[pool], kind="stable")]
        cut += [pool[at : at + size] for at in range(0, len(pool), size)]
    return cut
