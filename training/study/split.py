"""The uses of a word in two groups, and whether they are further apart than those of one group would be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSIONS = 10  # principal components in which groups are looked for: a few dozen uses fill no more
DRAWS = 99  # samples of one group
ROUNDS = 12  # of 2-means at most


@dataclass(frozen=True)
class Split:
    """What dividing the uses of a word in two comes to."""

    silhouette: float  # mean over the uses: 1 two points far apart, 0 no groups
    expected: float  # mean silhouette of samples of one group, divided in the same way
    spread: float  # their standard deviation
    p: float  # share of samples of one group, this one counted, that divide as well
    second: NDArray[np.bool_]  # which uses are in the second group, which is not the larger one; shape (uses,)
    plane: NDArray[np.float64]  # the uses on their first two principal components, shape (uses, 2)

    @property
    def excess(self) -> float:
        """Silhouette above that of one group, in standard deviations of it."""
        return (self.silhouette - self.expected) / (self.spread or 1.0)


def split(vectors: NDArray[np.float32], generator: np.random.Generator) -> Split:
    """
    Divide vectors by 2-means, and hold that against samples of a normal distribution of the same covariance.

    Two halves of one cloud have a silhouette above 0 too: only what is above that of such a cloud speaks for groups
    (as in SigClust, Liu et al. 2008).

    Args:
        vectors: Shape (uses, hidden); at least 4 uses.
        generator: Draws the samples.
    """
    centred = np.asarray(vectors - vectors.mean(axis=0), dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    kept = min(DIMENSIONS, len(vectors) - 2)
    points = (left * sizes)[:, :kept]  # (uses, kept), longest axis first
    deviations = points.std(axis=0, ddof=1)
    samples = generator.normal(size=(DRAWS, *points.shape)) * deviations
    samples -= samples.mean(axis=1, keepdims=True)
    groups, values = _halves(np.concatenate([points[None], samples]))
    own, others = float(values[0]), values[1:]
    second = groups[0] if groups[0].sum() <= len(points) / 2 else ~groups[0]
    p = (1 + int((others >= own).sum())) / (DRAWS + 1)
    return Split(own, float(others.mean()), float(others.std(ddof=1)), p, second, points[:, :2])


def _halves(points: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """
    Divide each of several sets of points by 2-means that begins at both sides of its longest axis.

    Args:
        points: Shape (sets, uses, dimensions).

    Returns:
        Which points are in the second group, shape (sets, uses), and the mean silhouette of each set, shape (sets,).
    """
    variance = points.var(axis=1)  # (sets, dimensions)
    longest = np.take_along_axis(points, variance.argmax(axis=1)[:, None, None], axis=2)[..., 0]  # (sets, uses)
    second: NDArray[np.bool_] = longest > 0
    for _ in range(ROUNDS):
        far = [_distance(points, _centre(points, group)) for group in (~second, second)]
        nearer = far[1] < far[0]
        # A group that would lose its last point keeps what it has.
        two = np.asarray(nearer.any(axis=1) & ~nearer.all(axis=1))
        moved = np.where(two[:, None], nearer, second)
        if (moved == second).all():
            break
        second = moved
    squares = (points**2).sum(axis=2)
    inner = points @ points.transpose(0, 2, 1)
    apart = np.sqrt(np.maximum(0.0, squares[:, :, None] + squares[:, None, :] - 2 * inner))  # (sets, uses, uses)
    to_second = (apart @ second[:, :, None])[..., 0]
    to_first = apart.sum(axis=2) - to_second
    ones, twos = (~second).sum(axis=1, keepdims=True), second.sum(axis=1, keepdims=True)
    own = np.where(second, to_second / np.maximum(1, twos - 1), to_first / np.maximum(1, ones - 1))
    other = np.where(second, to_first / np.maximum(1, ones), to_second / np.maximum(1, twos))
    alone = np.where(second, twos, ones) == 1  # by convention 0
    larger = np.maximum(np.maximum(own, other), 1e-12)
    return second, np.where(alone, 0.0, (other - own) / larger).mean(axis=1)


def _centre(points: NDArray[np.float64], group: NDArray[np.bool_]) -> NDArray[np.float64]:
    weights = group / np.maximum(1, group.sum(axis=1, keepdims=True))
    centre: NDArray[np.float64] = (weights[:, None] @ points)[:, 0]
    return centre


def _distance(points: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    # The squares of the points themselves are left out: they are the same for both centres.
    distance: NDArray[np.float64] = (centre**2).sum(axis=1)[:, None] - 2 * (points @ centre[:, :, None])[..., 0]
    return distance
