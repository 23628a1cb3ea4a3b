"""A classifier's linear layer, fitted at once on vectors that do not change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from training.objective import Objective

INVERSE_PENALTY = 10.0  # C of logistic regression on vectors of length 1
STEPS = 200  # of L-BFGS at most


def fit_head(layer: torch.nn.Linear, vectors: torch.Tensor, goals: torch.Tensor, objective: Objective) -> None:
    """
    Set a linear layer to the regularised logistic regression of `goals` on `vectors`, from zero, by L-BFGS.

    Args:
        layer: Hidden size in, labels out.
        vectors: Shape (rows, hidden); all of about the same length, which the penalty goes by.
        goals: As `Objective.loss` takes them.
        objective: The loss that is made smallest.
    """
    length = float(vectors.norm(dim=1).mean())
    decisions = len(vectors) * (layer.out_features if objective.multi_label else 1)  # that the loss is the mean of
    penalty = length**2 / (2 * INVERSE_PENALTY * decisions)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    solver = torch.optim.LBFGS(
        [layer.weight, layer.bias], max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe"
    )

    def step() -> torch.Tensor:
        solver.zero_grad()
        loss = objective.loss(layer(vectors), goals) + penalty * layer.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(step)  # type: ignore[no-untyped-call]
    layer.zero_grad()
