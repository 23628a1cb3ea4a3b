"""What each row is learnt with, epoch by epoch: its label, what the other rows say, and what the model itself said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

FILE = "said.npy"  # in the state of a run


class Goals:
    """
    The labels of the rows, of which a growing share goes to what the model said of them an epoch before.

    That is self-distillation with progressive refinement of targets (Kim et al. 2021, arXiv:2006.12000): a row whose
    label is wrong is not learnt at first, since the others speak against it, and what the model says of it by then
    keeps it from being learnt later (Liu et al. 2020, arXiv:2007.00151). It costs no time: what is followed is what the
    passes of training said, before each of them taught anything.

    Args:
        truth: Which row has which label, shape (rows, labels), one label a row.
        soft: What is learnt in place of it at first, of that shape: see `soft_labels`; None: the labels.
        share: Of a label in the last epoch; grows by equal steps from 0 in the second one, since a model
            that has only begun to learn has nothing to say. As it grows, `soft` makes room.
        epochs: How many there will be.
        towards: Makes goals of what the model says: see `training.objective.Objective`.
    """

    def __init__(
        self,
        truth: NDArray[np.bool_],
        soft: NDArray[np.float32] | None,
        *,
        share: float,
        epochs: int,
        towards: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self.truth = torch.from_numpy(truth.astype(np.float32))
        self.soft = self.truth if soft is None else torch.from_numpy(soft)
        self.share = share
        self.epochs = epochs
        self.towards = towards
        self.epoch = 0
        self.said = torch.zeros_like(self.truth)  # in the epoch before, as goals
        self._saying = torch.zeros_like(self.truth)
        self._times = torch.zeros(len(truth), 1)

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """
        Return what rows are learnt with in this epoch, shape (batch, labels).

        Args:
            rows: Their places, shape (batch,).
        """
        grown = max(0, self.epoch - 1) / max(1, self.epochs - 2) if self.share else 0.0
        own = grown * self.share
        labels = (1 - grown) * self.soft[rows] + (grown - own) * self.truth[rows]
        return labels + own * self.said[rows]

    def hear(self, rows: torch.Tensor, probabilities: torch.Tensor) -> None:
        """
        Take down what the model says of rows.

        Args:
            rows: Their places, shape (batch,).
            probabilities: Shape (batch, labels).
        """
        self._saying.index_add_(0, rows, probabilities)
        self._times.index_add_(0, rows, torch.ones(len(rows), 1))

    def turn(self) -> None:
        """End an epoch: what was said in it, in all processes of the run, is what the next one follows."""
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(self._saying)
            torch.distributed.all_reduce(self._times)
        self.said = self.towards(self._saying / self._times)
        self._saying = torch.zeros_like(self.truth)
        self._times = torch.zeros_like(self._times)

    def save(self, state: Path) -> None:
        """Write what was said in the last epoch into the state of a run."""
        np.save(state / FILE, self.said.numpy())

    def load(self, state: Path) -> None:
        """
        Go on with what `save` wrote.

        Raises:
            OSError, ValueError: there is nothing to read, or it is damaged.
        """
        self.said = torch.from_numpy(np.load(state / FILE))
