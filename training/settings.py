"""The settings of a fine-tuning and of a pretraining run; nothing heavy is imported to read them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, NoReturn

DEFAULT_BASE = "minilm"
CHOOSING_ROWS = 100  # development rows that it takes to choose an epoch by, and to calibrate by
FOLDS = 3  # where there are fewer
LEAST_RATE = 1e-9  # of learning
LAST_SEED = 2**32 - 1  # that NumPy's generators and scikit-learn's take
LEAST_TOKENS, MOST_TOKENS = 4, 100_000  # of a sentence: its special ones and two more
NO_BASE = "none"  # pretraining from scratch
SOME_ROWS = 5_000  # up to so many, a tenth more of them is a gain that can be measured
MANY_ROWS = 20_000  # with more of them, time is better spent on other rows than twice on one
CHOICES = {
    "pooling": ("mean", "first"),
    "init": ("pretrained", "types", "random"),
    "head_start": ("random", "fitted"),
    "freeze": ("none", "embeddings", "encoder", None),
    "detokenize": ("none", "treebank", None),
    "few_examples": ("auto", "off"),
    "class_weights": ("none", "balanced"),
}


@dataclass(frozen=True)
class TrainConfig:
    """One fine-tuning run; saved in train.json beside the checkpoint it made."""

    base: str = DEFAULT_BASE  # hub id, local folder, or the default
    epochs: int | None = None  # at most: early stopping ends sooner; None: see `for_rows`
    patience: int = 4  # epochs that are worse than the best, by more than chance, before stopping
    learning_rate: float = 1e-4  # peak in the top layer, reached after warm-up, then linear to 0
    head_learning_rate: float = 1e-3  # peak in the classifier
    layer_decay: float = 0.9  # learning rate of each layer, as a part of that of the layer above
    warmup_ratio: float = 0.1  # share of all optimiser steps
    weight_decay: float = 0.01
    batch_size: int = 32  # sentences an optimiser step
    max_tokens: int = 128  # longer sentences are cut; serving reads this value back
    detokenize: str | None = None  # treebank: "do n't" is read as "don't"; None: where rows are split so
    seed: int = 0
    dev_share: float = 0.1  # of the training rows, where no development file is given
    folds: int | None = None  # models that are trained besides, each without a part of the rows; None: see `for_rows`
    final_epochs: int | None = None  # over all rows in the end, the development rows too; None: see `for_rows`
    pooling: str = "mean"  # what the classifier reads: the mean of all tokens, or the first token as stock BERT does
    init: str = "pretrained"  # types: only the word embedding rows are; random: nothing is
    head_start: str = "random"  # fitted: as logistic regression on the base's vectors
    layers: int | None = None  # lowest of the base that are kept; None: all
    consistency: float | None = None  # weight of the distance of two passes over a row; None: see `for_rows`
    soft_labels: float | None = None  # share of a label that follows what other rows say; None: see `for_rows`
    self_distillation: float | None = None  # share of a label that follows the model itself; None: see `for_rows`
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

    @property
    def only_fits_head(self) -> bool:
        """Whether a fitted head is all that learns."""
        return self.fits_head and self.freeze == "encoder"

    @property
    def fits_head(self) -> bool:
        """Say whether the classifier starts as the best one of the vectors that the base gives."""
        return self.pooling == "mean" and self.head_start == "fitted"

    def for_rows(self, rows: int, dev: int | None = None) -> TrainConfig:
        """
        Return the settings of a run on so many rows: what nobody has set is what suits them.

        - epochs: 5, with more than 20,000 rows 3, and enough for 250 steps: fine-tuning on few rows fails for want of
          steps rather than of rows (Mosbach et al. 2020, arXiv:2006.04884). Where labels may be soft, and folds
          multiply the time, 150 are as good.
        - consistency: 1 (R-Drop), with more than 20,000 rows 0.
        - soft_labels: 0.3, but 0 where the probe behind them would say nothing (another start than the pretrained
          base), where a teacher does, with more than 20,000 rows, or where a row may have several labels.
        - self_distillation: 0.5 where labels are soft, otherwise 0.
        - folds: 3 where there are fewer than 100 development rows of these, otherwise 0.
        - final_epochs: enough for 30 steps, but no more than `epochs`; with more than 5,000 rows 0, and 0 where a row
          may have several labels, or where a fitted head is all that there is to learn.
        - freeze: pretrained embeddings. They are more than half of a small BERT's weights, and what rows do not mention
          could only drift away from what they do.
        """
        many = rows > MANY_ROWS
        few_to_develop_on = (rows * self.dev_share / (1 - self.dev_share) if dev is None else dev) < CHOOSING_ROWS
        probed = self.init == "pretrained" and not self.teacher and not self.multi_label and not many
        soft_labels = (0.3 if probed else 0.0) if self.soft_labels is None else self.soft_labels
        steps = 150 if probed and few_to_develop_on else 250
        epochs = self.epochs or max(3 if many else 5, math.ceil(steps * self.batch_size / rows))
        worth_all = rows <= SOME_ROWS and not self.only_fits_head and not self.multi_label
        final_epochs = min(epochs, math.ceil(30 * self.batch_size / rows)) if worth_all else 0
        own = (0.5 if soft_labels else 0.0) if self.self_distillation is None else self.self_distillation
        return replace(
            self,
            epochs=epochs,
            consistency=(0.0 if many else 1.0) if self.consistency is None else self.consistency,
            soft_labels=soft_labels,
            self_distillation=own,
            folds=(FOLDS if few_to_develop_on else 0) if self.folds is None else self.folds,
            final_epochs=final_epochs if self.final_epochs is None else self.final_epochs,
            freeze=self.freeze or ("none" if self.init == "random" else "embeddings"),
        )

    def __post_init__(self) -> None:
        """
        Check every value.

        Raises:
            InputError: one is not what the setting takes; it names the setting.
        """
        _check_types(self)
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                _refuse(name, value, f"one of {', '.join(choice for choice in choices if choice)}")
        _check_names(self, "base", "text_column", "label_column")
        if self.teacher == "":
            _refuse("teacher", "", "a model, or no --teacher")
        limits = {
            "epochs": (1, 10_000),
            "patience": (1, 10_000),
            "final_epochs": (0, 10_000),
            "folds": (0, 100),
            "learning_rate": (LEAST_RATE, 1.0),
            "head_learning_rate": (LEAST_RATE, 1.0),
            "layers": (1, 1000),
            "consistency": (0.0, 1000.0),
            "soft_labels": (0.0, 1.0),
            "self_distillation": (0.0, 1.0),
            "layer_decay": (0.01, 1.0),
            "warmup_ratio": (0.0, 1.0),
            "weight_decay": (0.0, 10.0),
            "batch_size": (1, 100_000),
            "max_tokens": (LEAST_TOKENS, MOST_TOKENS),
            "seed": (0, LAST_SEED),
            "dev_share": (0.001, 0.9),
            "min_precision": (0.01, 1.0),
        }
        unset = {"epochs", "final_epochs", "folds", "layers", "consistency", "soft_labels", "self_distillation"}
        _check_limits(self, limits, unset=unset | {"min_precision"})
        if self.folds == 1:
            _refuse("folds", 1, "0, or 2 and more: what one leaves out the others learn from")
        if self.pooling == "first" and self.head_start == "fitted":
            _refuse(
                "head_start", "fitted", "random with --pooling first, whose classifier has layers that are not linear"
            )
        if self.teacher and self.fits_head and self.freeze == "encoder":
            _refuse(
                "teacher", self.teacher, "none where --head-start fitted and --freeze encoder leave nothing to teach"
            )
        for name in ("soft_labels", "self_distillation", "min_precision"):
            if (value := getattr(self, name)) and self.multi_label:
                _refuse(name, value, "no such setting where a sentence may have several labels")


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


@dataclass(frozen=True)
class PretrainConfig:
    """One masked-language-model pretraining run; saved in pretrain.json beside the checkpoint it made."""

    base: str = DEFAULT_BASE  # hub id, local folder, the default, or none: from scratch
    epochs: int | None = None  # passes over the texts; with `minutes` at most; None: see `resolved`
    minutes: float | None = None  # for the whole run: the number of steps follows from the speed of this machine
    learning_rate: float | None = None  # peak, reached after warm-up, then linear to 0; None: see `resolved`
    warmup_ratio: float = 0.1  # share of all optimiser steps
    weight_decay: float = 0.01
    batch_size: int | None = None  # sentences an optimiser step; None: see `resolved`
    max_tokens: int = 128  # longer sentences are cut; from scratch also the longest input the model will take
    mask_share: float = 0.15  # of each sentence's tokens that are to be predicted
    dropout: float | None = None  # None: what the base has; from scratch see `resolved`
    seed: int = 0
    held_out: float = 0.05  # share of the texts that is measured on and never learnt from
    measured: int = 200  # held-out texts, at most, whose pseudo-perplexity is measured
    vocabulary: int | None = None  # of a tokenizer made from scratch; these four: None with a base
    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    text_column: str = "text"

    @property
    def from_scratch(self) -> bool:
        """Say whether tokenizer and weights start from nothing."""
        return self.base == NO_BASE

    def resolved(self) -> PretrainConfig:
        """
        Return the settings of a run from scratch, or of one that goes on: what nobody has set is what suits it.

        - learning_rate: 1e-3 from scratch, 1e-4 from a base, whose weights are to change less.
        - epochs: 20 from scratch, 3 from a base; with `minutes` as many as fit.
        - batch_size: 64 from scratch, 32 from a base.
        - sizes: 8,000 word pieces, 4 layers of 256 with 4 heads: a BERT that a CPU pretrains in minutes.
        """
        new = self.from_scratch
        sizes: dict[str, Any] = {name: getattr(self, name) or default for name, default in SIZES.items()} if new else {}
        return replace(
            self,
            epochs=self.epochs or (None if self.minutes else 20 if new else 3),
            learning_rate=self.learning_rate or (1e-3 if new else 1e-4),
            batch_size=self.batch_size or (64 if new else 32),
            dropout=0.1 if new and self.dropout is None else self.dropout,
            **sizes,
        )

    def __post_init__(self) -> None:
        """
        Check every value.

        Raises:
            InputError: one is not what the setting takes; it names the setting.
        """
        limits = {
            "epochs": (1, 10_000),
            "minutes": (0.01, 100_000.0),
            "learning_rate": (LEAST_RATE, 1.0),
            "warmup_ratio": (0.0, 1.0),
            "weight_decay": (0.0, 10.0),
            "batch_size": (1, 100_000),
            "max_tokens": (8, MOST_TOKENS),
            "mask_share": (0.01, 0.9),
            "dropout": (0.0, 0.9),
            "seed": (0, LAST_SEED),
            "held_out": (0.001, 0.5),
            "measured": (1, 1_000_000),
            "vocabulary": (100, 1_000_000),
            "layers": (1, 1000),
            "hidden": (8, 100_000),
            "heads": (1, 1000),
        }
        _check_names(self, "base", "text_column")
        _check_limits(self, limits, unset={"epochs", "minutes", "learning_rate", "batch_size", "dropout", *SIZES})
        for name in SIZES:
            if not self.from_scratch and getattr(self, name) is not None:
                _refuse(
                    name, getattr(self, name), f"no such setting with a base, which has its own; say --base {NO_BASE}"
                )
        hidden, heads = self.hidden or SIZES["hidden"], self.heads or SIZES["heads"]
        if hidden % heads:
            _refuse("hidden", hidden, f"a multiple of --heads, {heads}")


SIZES = {"vocabulary": 8000, "layers": 4, "hidden": 256, "heads": 4}  # of a model from scratch


def _check_types(config: object) -> None:
    """Refuse a value of another type than its setting has, as a file of settings may hold; numbers have limits too."""
    for field in fields(config):  # type: ignore[arg-type]
        value, kinds = getattr(config, field.name), str(field.type).split(" | ")
        if value is None and "None" in kinds:
            continue
        if "bool" in kinds and not isinstance(value, bool):
            _refuse(field.name, value, "true or false")
        if "str" in kinds and not isinstance(value, str):
            _refuse(field.name, value, "a text")


def _check_names(config: object, *names: str) -> None:
    """Refuse a name that is empty, as an unset variable of a shell makes it."""
    for name in names:
        if not getattr(config, name):
            _refuse(name, "", "a name")


def _check_limits(config: object, limits: dict[str, tuple[float, float]], *, unset: set[str]) -> None:
    """Refuse a number that is outside its limits, or not whole where they are; `unset` names those that may be None."""
    for name, (low, high) in limits.items():
        value, whole = getattr(config, name), isinstance(low, int)
        if value is None and name in unset:
            continue
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not fits or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            _refuse(name, value, f"{kind} from {low:g} to {high:g}")


def _refuse(name: str, value: object, expected: str) -> NoReturn:
    from inference.errors import InputError  # here: the package behind it takes longer to load than --help may

    raise InputError(f"--{name.replace('_', '-')} is {value!r}; expected {expected}")
