"""The settings of a fine-tuning run; nothing heavy is imported to read them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NoReturn

DEFAULT_BASE = "minilm"
MANY_ROWS = 20_000  # with more of them, time is better spent on other rows than twice on one
CHOICES = {
    "pooling": ("mean", "first"),
    "init": ("pretrained", "types", "random"),
    "head_start": ("random", "fitted"),
    "freeze": ("none", "embeddings", "encoder", None),
    "few_examples": ("auto", "off"),
    "class_weights": ("none", "balanced"),
}


@dataclass(frozen=True)
class TrainConfig:
    """One fine-tuning run; saved in train.json beside the checkpoint it made."""

    base: str = DEFAULT_BASE  # hub id, local folder, or the default
    epochs: int | None = None  # at most: early stopping ends sooner; None: see `for_rows`
    patience: int = 4  # epochs without a better development score before stopping
    learning_rate: float = 1e-4  # peak in the top layer, reached after warm-up, then linear to 0
    head_learning_rate: float = 1e-3  # peak in the classifier
    layer_decay: float = 0.9  # learning rate of each layer, as a part of that of the layer above
    warmup_ratio: float = 0.1  # share of all optimiser steps
    weight_decay: float = 0.01
    batch_size: int = 32  # sentences an optimiser step
    max_tokens: int = 128  # longer sentences are cut; serving reads this value back
    seed: int = 0
    dev_share: float = 0.1  # of the training rows, where no development file is given
    pooling: str = "mean"  # what the classifier reads: the mean of all tokens, or the first token as stock BERT does
    init: str = "pretrained"  # types: only the word embedding rows are; random: nothing is
    head_start: str = "random"  # fitted: as logistic regression on the base's vectors
    layers: int | None = None  # lowest of the base that are kept; None: all
    consistency: float | None = None  # weight of the distance of two passes over a row; None: see `for_rows`
    soft_labels: float | None = None  # share of a label that follows what other rows say; None: see `for_rows`
    freeze: str | None = None  # none, embeddings, or encoder: all but the classifier; None: see `for_rows`
    teacher: str | None = None  # model folder or checkpoint whose probabilities are learnt too
    few_examples: str = "auto"  # with fewer than 30 rows a label, cross-validation chooses how to learn; off: as ever
    class_weights: str = "none"  # balanced: every label weighs the same in the loss
    min_precision: float | None = None  # share of the answers that must be right; less sure texts get no label
    multi_label: bool = False
    text_column: str = "text"
    label_column: str = "label"

    @property
    def selection(self) -> str:
        """Return the score on the development rows that chooses: macro-F1 where labels are to weigh the same."""
        return "macro_f1" if self.multi_label or self.class_weights == "balanced" else "accuracy"

    def for_rows(self, rows: int) -> TrainConfig:
        """
        Return the settings of a run on so many rows: what nobody has set is what suits them.

        - epochs: 5, with more than 20,000 rows 3, and enough for 250 steps: fine-tuning on few rows fails for want of
          steps rather than of rows (Mosbach et al. 2020, arXiv:2006.04884).
        - consistency: 1 (R-Drop), with more than 20,000 rows 0.
        - soft_labels: 0.3, but 0 where the probe behind them would say nothing (another start than the pretrained
          base), where a teacher does, with more than 20,000 rows, or where a row may have several labels.
        - freeze: pretrained embeddings. They are more than half of a small BERT's weights, and what rows do not mention
          could only drift away from what they do.
        """
        many = rows > MANY_ROWS
        probed = self.init == "pretrained" and not self.teacher and not self.multi_label and not many
        return replace(
            self,
            epochs=self.epochs or max(3 if many else 5, math.ceil(250 * self.batch_size / rows)),
            consistency=(0.0 if many else 1.0) if self.consistency is None else self.consistency,
            soft_labels=(0.3 if probed else 0.0) if self.soft_labels is None else self.soft_labels,
            freeze=self.freeze or ("none" if self.init == "random" else "embeddings"),
        )

    def __post_init__(self) -> None:
        """
        Check every value.

        Raises:
            InputError: one is not what the setting takes; it names the setting.
        """
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                _refuse(name, value, f"one of {', '.join(choice for choice in choices if choice)}")
        limits = {
            "epochs": (1, 10_000),
            "patience": (1, 10_000),
            "learning_rate": (1e-9, 1.0),
            "head_learning_rate": (1e-9, 1.0),
            "layers": (1, 1000),
            "consistency": (0.0, 1000.0),
            "soft_labels": (0.0, 1.0),
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
            if value is None and name in ("epochs", "layers", "consistency", "soft_labels", "min_precision"):
                continue
            fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not fits or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                _refuse(name, value, f"{kind} from {low:g} to {high:g}")
        if self.soft_labels and self.multi_label:
            _refuse("soft_labels", self.soft_labels, "no such setting where a sentence may have several labels")
        if self.min_precision and self.multi_label:
            _refuse("min_precision", self.min_precision, "no such setting where a sentence may have several labels")


@dataclass(frozen=True)
class Search:
    """How long to look for settings that do better."""

    trials: int
    minutes: float | None = None  # after which no further trial begins

    def __post_init__(self) -> None:
        """
        Check every value.

        Raises:
            InputError: one is not what the setting takes; it names the setting.
        """
        if self.trials < 1:
            _refuse("search", self.trials, "a whole number from 1 up")
        if self.minutes is not None and not self.minutes > 0:
            _refuse("search_minutes", self.minutes, "a number of minutes above 0")


def _refuse(name: str, value: object, expected: str) -> NoReturn:
    from inference.errors import InputError  # here: the package behind it takes longer to load than --help may

    raise InputError(f"--{name.replace('_', '-')} is {value!r}; expected {expected}")
