"""Fine-tuning whose weights are kept along the way, for what is asked of its path."""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from training.order import by_length
from training.precision import mixed_precision
from training.study.batches import loss_of
from training.train import optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from training.settings import TrainConfig
    from training.study.batches import Batches

Weights = dict[str, torch.Tensor]  # of the parameters that training may change, by name
POOLED_BATCHES = 16  # whose rows are sorted by length together: runs of a study are short


@dataclass(frozen=True)
class Course:
    """Where a run came past: weights in files, from its start to its end."""

    folder: Path
    steps: list[int]  # at which they were kept; the first is 0, the last the end

    @property
    def start(self) -> Weights:
        """The weights before the first step."""
        return self.at(0)

    @property
    def end(self) -> Weights:
        """The weights after the last step."""
        return self.at(len(self.steps) - 1)

    def at(self, place: int) -> Weights:
        """Return the weights that were kept, by their place among `steps`."""
        return load_file(self._file(place))

    def each(self) -> Iterator[tuple[str, list[torch.Tensor]]]:
        """Give every weight by its name, as it was at each point: all points at once may not fit into memory."""
        with ExitStack() as stack:
            points = [
                stack.enter_context(safe_open(self._file(place), framework="pt")) for place in range(len(self.steps))
            ]
            for name in points[0].keys():  # noqa: SIM118  no mapping
                yield name, [point.get_tensor(name) for point in points]

    def _file(self, place: int) -> Path:
        return self.folder / f"{self.steps[place]}.safetensors"


def weights_of(model: Any) -> Weights:
    """Return a copy of the weights that training may change."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def put(model: Any, weights: Weights) -> None:
    """Give a model weights."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)


def train(
    model: Any,
    config: TrainConfig,
    batches: Batches,
    *,
    steps: int,
    after: Callable[[int], object] = lambda _: None,
) -> None:
    """
    Fine-tune a model as `training.train` does, but for so many steps, on the labels alone.

    The optimiser, its groups, warm-up and decay, dropout, precision and the limit of gradients are the same.

    Args:
        model: Ends in evaluation mode.
        config: Settings of the run.
        batches: Rows to learn from.
        steps: Of the optimiser.
        after: Is told after each step how many there were.
    """
    transformers.set_seed(config.seed)
    climber = optimizer(model, config)
    schedule = transformers.get_linear_schedule_with_warmup(climber, round(config.warmup_ratio * steps), steps)
    model.train()
    for step, places in enumerate(_drawn(batches, config.batch_size, steps, config.seed), start=1):
        with mixed_precision():
            logits = model(**batches.inputs(places)).logits
        climber.zero_grad()
        loss_of(logits.float(), batches.goals(places)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        climber.step()
        schedule.step()
        after(step)
    model.eval()


def follow(
    model: Any,
    config: TrainConfig,
    batches: Batches,
    folder: Path,
    *,
    steps: int,
    points: int,
    after: Callable[[int], object] = lambda _: None,
) -> list[int]:
    """
    Fine-tune a model as `train` does, and keep its weights at about so many points, closer together early on.

    Args:
        model: Ends in evaluation mode.
        config: Settings of the run.
        batches: Rows to learn from.
        folder: Gets the weights.
        steps: Of the optimiser.
        points: How many weights to keep, the start's and the end's among them.
        after: Is told after each step how many there were.

    Returns:
        The steps at which weights were kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # By the square of the place: most of the way is made early, while the rate is high.
    kept = sorted({round(steps * (i / (points - 1)) ** 2) for i in range(points)})

    def keep(step: int) -> None:
        if step in kept:
            save_file(weights_of(model), folder / f"{step}.safetensors")
        after(step)

    save_file(weights_of(model), folder / "0.safetensors")
    train(model, config, batches, steps=steps, after=keep)
    return kept


def _drawn(batches: Batches, size: int, steps: int, seed: int) -> Iterator[list[int]]:
    """Give the rows of each step: all of them in random order, again and again."""
    generator = random.Random(seed)
    lengths = [len(row) for row in batches.ids]
    given = 0
    while given < steps:
        order = list(range(len(lengths)))
        generator.shuffle(order)
        parts = by_length(np.array(order), lengths, size, POOLED_BATCHES)
        generator.shuffle(parts)
        yield from (part.tolist() for part in parts[: steps - given])
        given += len(parts[: steps - given])
