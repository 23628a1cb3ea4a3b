"""What a fine-tuning step makes smaller: the distance of logits to labels, to a teacher and to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from training.settings import TrainConfig

TEACHER_TEMPERATURE = 2.0  # softens both sides, so that a teacher's small probabilities are learnt from too
TEACHER_SHARE = 0.7  # of the loss, where there is a teacher; the rest is the labels'


@dataclass(frozen=True)
class Objective:
    """The loss of a run; every part is a mean over the rows of a batch."""

    multi_label: bool
    consistency: float  # weight of the distance of two passes over a row: see `distance`
    weights: torch.Tensor | None = None  # of each label, shape (labels,)

    @classmethod
    def of(cls, truth: NDArray[np.bool_], config: TrainConfig) -> Objective:
        """
        Make the loss of a run for rows of which `truth` says which has which label, shape (rows, labels).

        Args:
            truth: Every label has a row.
            config: The settings of the run, as `TrainConfig.for_rows` completes them.
        """
        counts = torch.from_numpy(truth.sum(axis=0)).float()
        rows, labels = truth.shape
        weights = None
        if config.class_weights == "balanced":
            # Of several labels a row, as if each were on half of the rows; what all have, has none to weigh against.
            on_half = torch.where(counts < rows, (rows - counts) / counts, 1.0)
            weights = on_half if config.multi_label else rows / (labels * counts)
        return cls(config.multi_label, config.consistency or 0.0, weights)

    def loss(self, logits: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
        """
        Return the cross-entropy of logits, shape (batch, labels), to the labels of their rows.

        Args:
            logits: In float32.
            goals: Places of the labels, shape (batch,), or 0 and 1 of shape (batch, labels) where there may be several,
                or how far each label is learnt, of that shape too.
        """
        weights = None if self.weights is None else self.weights.to(logits.device)
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, goals, pos_weight=weights)
        if weights is not None and goals.dim() == 1:
            # Its own mean is over the weights of a batch there, in which one rare row would hardly count.
            return functional.cross_entropy(logits, goals, weight=weights, reduction="none").mean()
        return functional.cross_entropy(logits, goals, weight=weights)

    def towards(self, probabilities: torch.Tensor) -> torch.Tensor:
        """
        Return the goals under which the loss is least where a model says `probabilities`, shape (rows, labels).

        Weights are in those already, if a model that learnt with them said them: as goals they would be weighted twice.
        """
        if self.weights is None:
            return probabilities
        if self.multi_label:
            return probabilities / (probabilities + self.weights * (1 - probabilities))
        unweighted = probabilities / self.weights
        return unweighted / unweighted.sum(dim=-1, keepdim=True)

    def distance(self, logits: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """
        Return how far two passes over the same rows, with other neurons dropped, are from each other.

        The symmetric Kullback-Leibler divergence of R-Drop (Liang et al. 2021, arXiv:2106.14448).
        """
        return (self._divergence(logits, others) + self._divergence(others, logits)) / 2

    def follow(self, logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """
        Return how far logits are from a teacher's probabilities, shape (batch, labels).

        Of one label a row as in Hinton et al. 2015 (arXiv:1503.02531); of several, each label is a question of its own.
        The labels' weights are not in it: a teacher that learnt with them has said so already.
        """
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, teacher)
        softened = functional.log_softmax(torch.log(teacher.clamp_min(1e-9)) / TEACHER_TEMPERATURE, dim=-1)
        scores = functional.log_softmax(logits / TEACHER_TEMPERATURE, dim=-1)
        return functional.kl_div(scores, softened, log_target=True, reduction="batchmean") * TEACHER_TEMPERATURE**2

    def _divergence(self, logits: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        if self.multi_label:
            yes, no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
            other_yes, other_no = functional.logsigmoid(others), functional.logsigmoid(-others)
            return (yes.exp() * (yes - other_yes) + no.exp() * (no - other_no)).mean()
        return functional.kl_div(
            functional.log_softmax(others, dim=-1),
            functional.log_softmax(logits, dim=-1),
            log_target=True,
            reduction="batchmean",
        )
