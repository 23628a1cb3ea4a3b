"""The settings of a fine-tuning run; nothing heavy is imported to read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

DEFAULT_BASE = "minilm"
CHOICES = {
    "pooling": ("mean", "first"),
    "init": ("pretrained", "types", "random"),
    "freeze": ("none", "embeddings", "encoder"),
    "class_weights": ("none", "balanced"),
}


@dataclass(frozen=True)
class TrainConfig:
    """One fine-tuning run; saved in train.json beside the checkpoint it made."""

    base: str = DEFAULT_BASE  # hub id, local folder, or the default
    epochs: int | None = None  # at most: early stopping ends sooner; None: see `max_epochs`
    patience: int = 4  # epochs without a better development score before stopping
    learning_rate: float = 1e-4  # peak in the top layer, reached after warm-up, then linear to 0
    layer_decay: float = 0.9  # learning rate of each layer, as a part of that of the layer above
    warmup_ratio: float = 0.1  # share of all optimiser steps
    weight_decay: float = 0.01
    batch_size: int = 32  # sentences an optimiser step
    max_tokens: int = 128  # longer sentences are cut; serving reads this value back
    seed: int = 0
    dev_share: float = 0.1  # of the training rows, where no development file is given
    pooling: str = "mean"  # what the classifier reads: the mean of all tokens, or the first token as stock BERT does
    init: str = "pretrained"  # types: only the word embedding rows are; random: nothing is
    freeze: str = "none"  # encoder: all but the classifier's own weights
    class_weights: str = "none"  # balanced: every label weighs the same in the loss
    min_precision: float | None = None  # share of the answers that must be right; less sure texts get no label
    multi_label: bool = False
    text_column: str = "text"
    label_column: str = "label"

    def max_epochs(self, rows: int) -> int:
        """
        Return how often to pass over `rows` rows at most.

        Where nothing is set: 5 times, and often enough for 500 steps, since fine-tuning on few rows fails for want
        of steps rather than of rows (Mosbach et al. 2020, arXiv:2006.04884).
        """
        return self.epochs or max(5, math.ceil(500 * self.batch_size / rows))

    def __post_init__(self) -> None:
        """
        Check every value.

        Raises:
            InputError: one is not what the setting takes; it names the setting.
        """
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                _refuse(name, value, f"one of {', '.join(choices)}")
        limits = {
            "epochs": (1, 10_000),
            "patience": (1, 10_000),
            "learning_rate": (1e-9, 1.0),
            "layer_decay": (0.01, 1.0),
            "warmup_ratio": (0.0, 1.0),
            "weight_decay": (0.0, 10.0),
            "batch_size": (1, 100_000),
            "max_tokens": (4, 100_000),
            "seed": (0, 2**32 - 1),
            "dev_share": (0.001, 0.9),
            "min_precision": (0.01, 1.0),
        }
        for name, (low, high) in limits.items():
            value, whole = getattr(self, name), isinstance(low, int)
            if value is None and name in ("epochs", "min_precision"):
                continue
            fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not fits or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                _refuse(name, value, f"{kind} from {low:g} to {high:g}")
        if self.min_precision and self.multi_label:
            _refuse("min_precision", self.min_precision, "no such setting where a sentence may have several labels")


def _refuse(name: str, value: object, expected: str) -> NoReturn:
    from inference.errors import InputError  # here: the package behind it takes longer to load than --help may

    raise InputError(f"--{name.replace('_', '-')} is {value!r}; expected {expected}")
