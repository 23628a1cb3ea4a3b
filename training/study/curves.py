"""Learning curves: which test rows each start has right after learning from so many rows, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

RESAMPLES = 2000
PART = 50  # of them that are drawn at a time


@dataclass(frozen=True)
class Curves:
    """Accuracies of several starts over sizes and seeds, with what is known of their chance."""

    starts: tuple[str, ...]
    sizes: tuple[int, ...]  # rows learnt from, rising
    right: NDArray[np.float32]  # (starts, sizes, seeds, test rows): 1 where the label is right

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Return the accuracy of every run, shape (starts, sizes, seeds)."""
        mean: NDArray[np.float64] = self.right.mean(axis=-1, dtype=np.float64)
        return mean

    def resampled(self, seed: int = 0) -> NDArray[np.float64]:
        """
        Return curves as other test rows and other seeds might have given them, shape (resamples, starts, sizes).

        Both are drawn with replacement, the same for every start: differences of starts are paired (Efron and
        Tibshirani 1993, "An Introduction to the Bootstrap"). Of few seeds, their part of the spread comes out too
        small, by a factor of sqrt((seeds - 1) / seeds).
        """
        random = np.random.default_rng(seed)
        seeds, rows = self.right.shape[2:]
        by_row = self.right.reshape(-1, rows).T.astype(np.float64)
        means = np.concatenate([drawn @ by_row / rows for drawn in resamples(rows, random)])
        by_seed = means.T.reshape(*self.right.shape[:3], RESAMPLES)
        drawn_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES).T / seeds
        curves: NDArray[np.float64] = np.einsum("ijkb,kb->bij", by_seed, drawn_seeds)
        return curves

    def needed(self, curve: NDArray[np.float64], target: float) -> float:
        """
        Return how many rows a start needs for an accuracy: between two sizes, by a straight line over their logarithm.

        Args:
            curve: Accuracy at each size, shape (sizes,); where it falls, the level that fits best without falling.
            target: The accuracy.

        Returns:
            The smallest size where even that reaches it, infinity where the largest does not.
        """
        rising = isotonic(curve)
        if rising[0] >= target:
            return float(self.sizes[0])
        reached = np.flatnonzero(rising >= target)
        if not len(reached):
            return math.inf
        above = int(reached[0])
        low, high = rising[above - 1], rising[above]
        share = (target - low) / (high - low)
        left, right = math.log(self.sizes[above - 1]), math.log(self.sizes[above])
        return math.exp(left + share * (right - left))


def resamples(count: int, random: int | np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """
    Give how often each of so many things is drawn with replacement, in parts that fit memory.

    Args:
        count: How many there are, and how often is drawn.
        random: A generator, or the seed of one.

    Yields:
        Counts, shape (part of the RESAMPLES, count).
    """
    generator = np.random.default_rng(random)
    for _ in range(0, RESAMPLES, PART):
        yield generator.multinomial(count, np.full(count, 1 / count), size=PART).astype(np.float64)


def isotonic(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values that never fall and are nearest to these in squares (pool adjacent violators)."""
    blocks: list[tuple[float, int]] = []  # mean, and how many values it stands for
    for value in values:
        blocks.append((float(value), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (one, count), (other, more) = blocks[-2], blocks[-1]
            blocks[-2:] = [((one * count + other * more) / (count + more), count + more)]
    return np.array([mean for mean, count in blocks for _ in range(count)])


def middle(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the bounds of the middle 95 % of resampled values."""
    low, high = np.quantile(values, [0.025, 0.975], method="closest_observation")  # some may be infinite
    return float(low), float(high)


def pack(right: NDArray[np.bool_]) -> str:
    """Return which rows are right as hexadecimal digits, the first row in the highest bit."""
    return np.packbits(right).tobytes().hex()


def unpack(digits: str, rows: int) -> NDArray[np.float32]:
    """Return what `pack` was given, 1 for right, shape (rows,)."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8))[:rows].astype(np.float32)
