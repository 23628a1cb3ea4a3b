"""Labelled sentences as a model reads them: tokenised once, sorted by length, padded in batches."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from inference.classifier import sigmoid, softmax
from training.metrics import decide, targets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from training.checkpoint import Checkpoint
    from training.data import Row

BATCH_SIZE = 32


@dataclass(frozen=True)
class Score:
    """What a model says of rows whose labels are known."""

    loss: float  # mean cross-entropy of a row; where it may have several labels, of each label
    right: NDArray[np.bool_]  # shape (rows,): all of its labels are right

    @property
    def accuracy(self) -> float:
        """Share of the rows that are right."""
        return float(self.right.mean())

    def to_json(self) -> dict[str, float]:
        """Return plain values for JSON."""
        return {"loss": self.loss, "accuracy": self.accuracy}


@dataclass(frozen=True)
class Batches:
    """Rows, their token ids and their labels; every model is asked about the same batches in the same order."""

    rows: Sequence[Row]
    ids: Sequence[Sequence[int]]  # of each row, cut to the model's length
    truth: NDArray[np.bool_]  # shape (rows, labels)
    checkpoint: Checkpoint  # whose tokenizer, labels and calibration these are
    order: Sequence[int]  # rows from the shortest to the longest

    @classmethod
    def of(cls, rows: Sequence[Row], checkpoint: Checkpoint) -> Batches:
        """Tokenise rows for a model."""
        tokenizer = checkpoint.tokenizer
        texts = [row.text for row in rows]
        ids = tokenizer(texts, truncation=True, max_length=checkpoint.max_tokens)["input_ids"] if rows else []
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        return cls(rows, ids, targets(rows, checkpoint.labels), checkpoint, order)

    def __iter__(self) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """Give the places of the rows in each batch, and what the model takes of them."""
        for start in range(0, len(self.order), BATCH_SIZE):
            places = list(self.order[start : start + BATCH_SIZE])
            yield places, self.inputs(places)

    def inputs(self, places: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return what a model takes of some rows, padded."""
        padded = self.checkpoint.tokenizer.pad({"input_ids": [self.ids[i] for i in places]}, return_tensors="pt")
        return {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]}

    def goals(self, places: Sequence[int]) -> torch.Tensor:
        """Return the labels of some rows as the loss takes them."""
        truth = self.truth[list(places)]
        return torch.from_numpy(truth.astype(np.float32) if self.multi_label else truth.argmax(axis=1))

    @property
    def multi_label(self) -> bool:
        """Whether a row may have several labels."""
        return self.checkpoint.problem_type == "multi_label"

    def logits(self, model: Any) -> NDArray[np.float32]:
        """Return what a model in evaluation mode says of every row, shape (rows, labels), in the order of the rows."""
        result = np.zeros(self.truth.shape, dtype=np.float32)
        with torch.inference_mode():
            for places, inputs in self:
                result[places] = model(**inputs).logits.float().numpy()
        return result

    def score(self, logits: NDArray[np.float32]) -> Score:
        """
        Hold logits, shape (rows, labels), against the labels.

        Every row gets its best label. Where it may have several, it gets those that reach the model's own thresholds.
        """
        calibration = self.checkpoint.calibration
        cooled = logits / np.float32(calibration.temperature)
        decided = decide(
            (sigmoid if self.multi_label else softmax)(cooled),
            multi_label=self.multi_label,
            thresholds=calibration.thresholds,
        )
        loss = loss_of(torch.from_numpy(logits).double(), self.goals(range(len(self.rows))))
        return Score(float(loss), np.asarray((decided == self.truth).all(axis=1)))


def loss_of(logits: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of logits, shape (rows, labels), to goals as `Batches.goals` gives them."""
    if goals.dim() == logits.dim():
        return functional.binary_cross_entropy_with_logits(logits, goals.to(logits.dtype))
    return functional.cross_entropy(logits, goals)


def some(rows: Sequence[Row], most: int, *, seed: int) -> list[Row]:
    """Draw rows, at most so many; in the order they had."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), most))]
