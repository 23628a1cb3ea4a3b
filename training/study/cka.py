"""How alike two sets of vectors of the same things are, whatever way either is turned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def cka(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """
    Return the linear centered kernel alignment of two sets of vectors (Kornblith et al. 2019, arXiv:1905.00414).

    1: the one is the other turned, mirrored or scaled as a whole; near 0: they have nothing in common.

    Args:
        first: Shape (things, dimensions); at least four things.
        second: Shape (things, other dimensions), of the same things in the same order.
    """
    return float(cka_grid([first], [second])[0, 0])


def cka_grid(first: Sequence[NDArray[np.floating]], second: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """
    Return the linear CKA of each of the first with each of the second, shape (len(first), len(second)).

    The similarity of kernels is the unbiased estimator of HSIC (Song et al. 2012, JMLR 13, equation 5; used for CKA by
    Nguyen et al. 2021, arXiv:2010.15327): the plain one finds likeness in any vectors of more dimensions than there
    are things. With a linear kernel it takes no matrix of things by things. Where vectors are all the same, it is nan.
    """
    left, right = [_Kernel(vectors) for vectors in first], [_Kernel(vectors) for vectors in second]
    own_left, own_right = [kernel.hsic(kernel) for kernel in left], [kernel.hsic(kernel) for kernel in right]
    grid = np.full((len(left), len(right)), np.nan)
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            if own_left[i] > 0 and own_right[j] > 0:
                grid[i, j] = one.hsic(other) / np.sqrt(own_left[i] * own_right[j])
    return grid


class _Kernel:
    """The linear kernel of vectors, K = X X^T with its diagonal set to 0, without writing it out."""

    def __init__(self, vectors: NDArray[np.floating]) -> None:
        centered = vectors.astype(np.float64)
        centered -= centered.mean(axis=0)  # changes nothing but the rounding
        scale = np.sqrt((centered**2).sum(axis=1).mean())
        self.vectors = centered / scale if scale > 1e-12 else np.zeros_like(centered)
        self.diagonal = (self.vectors**2).sum(axis=1)  # (things,)
        self.sums = self.vectors @ self.vectors.sum(axis=0) - self.diagonal  # of the rows of K

    def hsic(self, other: _Kernel) -> float:
        """Return the unbiased estimate of the Hilbert-Schmidt independence criterion of two kernels."""
        n = len(self.vectors)
        trace = ((self.vectors.T @ other.vectors) ** 2).sum() - self.diagonal @ other.diagonal
        total = self.sums.sum() * other.sums.sum() / ((n - 1) * (n - 2))
        return float((trace + total - 2 * (self.sums @ other.sums) / (n - 2)) / (n * (n - 3)))
