"""Rows drawn again and again (Efron 1979, "Bootstrap Methods: Another Look at the Jackknife")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

DRAWN_AT_ONCE = 4_000_000  # rows: bounds the memory that draws take


def resampled(
    columns: NDArray[np.bool_], *more: NDArray[np.bool_], resamples: int, seed: int
) -> Iterator[tuple[NDArray[np.float64], ...]]:
    """
    Yield how often each column is true, for some draws at a time; a seed has the same draws, whatever the columns.

    Args:
        columns: Shape (rows, columns); at least one row.
        more: Of the same rows, with columns of their own.
        resamples: How often as many rows as there are are drawn, each with replacement.
        seed: Of the draws.

    Yields:
        For each of the arrays its totals, shape (draws, columns): whole numbers.
    """
    rows, generator = len(columns), np.random.default_rng(seed)
    arrays = [array.astype(np.float32) for array in (columns, *more)]  # sums of whole numbers are exact
    at_once = max(1, DRAWN_AT_ONCE // rows)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = generator.integers(rows, size=(count, rows)) + rows * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float32)
        yield tuple((times @ array).astype(np.float64) for array in arrays)


def middle(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the middle 95 % of the values that are numbers."""
    low, high = np.quantile(values[np.isfinite(values)], [0.025, 0.975])
    return float(low), float(high)
