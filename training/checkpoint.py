"""A Transformers checkpoint as PyTorch runs it: the reference that every exported graph is held against."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from inference import treebank
from inference.classifier import sigmoid, softmax
from training.base import fetch, load_config, longest_input
from training.calibration import Calibration
from training.errors import BaseModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inference.artifact import ProblemType


BATCH_SIZE = 64


@dataclass(frozen=True)
class Checkpoint:
    """A fine-tuned sequence classifier in PyTorch, in evaluation mode."""

    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerFast
    labels: tuple[str, ...]
    problem_type: ProblemType
    max_tokens: int
    calibration: Calibration  # of one that was made elsewhere: none

    @classmethod
    def load(cls, source: str) -> Checkpoint:
        """
        Load a checkpoint from a folder or the hub.

        Raises:
            BaseModelError: it cannot be had, is of another family, or was not trained to classify.
        """
        from transformers import AutoModelForSequenceClassification

        config = load_config(source)
        if not any(name.endswith("ForSequenceClassification") for name in config.architectures or []):
            raise BaseModelError(
                f"{source}: is a {', '.join(config.architectures or ['model without a head'])}, not a sequence "
                "classifier; fine-tune it first with `bertrand train DATA --base ...`"
            )
        if config.num_labels < 2:
            raise BaseModelError(f"{source}: gives one number a text (a regression), not labels")
        model = fetch(AutoModelForSequenceClassification.from_pretrained, source).eval().float()
        tokenizer = load_tokenizer(source)
        return cls(
            model,
            tokenizer,
            tuple(str(config.id2label[i]) for i in range(config.num_labels)),
            "multi_label" if config.problem_type == "multi_label_classification" else "single_label",
            min(tokenizer.model_max_length, longest_input(config)),
            Calibration.read(Path(source)),
        )

    @property
    def precision(self) -> str:
        """What answers, as `inference.Classifier` has it: no graph."""
        return "PyTorch"

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """The probability from which each label is given; None: one label a text, or 0.5 where it may have several."""
        return self.calibration.thresholds

    def can_read(self, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether the tokenizer leaves anything of it."""
        special = self.tokenizer.num_special_tokens_to_add(pair=False)
        return [len(ids) > special for ids in self.tokenizer(list(texts), truncation=False)["input_ids"]]

    def run(self, texts: Sequence[str]) -> list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]:
        """
        Run each text on its own, unpadded, in float32.

        Returns:
            For each text its token ids, shape (tokens,), logits, shape (labels,), and hidden states, (tokens, hidden).
        """
        import torch

        told = []
        for text in texts:
            inputs = self.tokenizer(text, truncation=True, max_length=self.max_tokens, return_tensors="pt")
            with torch.inference_mode():
                output = self.model(**inputs, output_hidden_states=True)
            told.append((inputs["input_ids"][0].numpy(), output.logits[0].numpy(), output.hidden_states[-1][0].numpy()))
        return told

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the probability of every label for every text, shape (len(texts), len(self.labels))."""
        logits = self.logits(texts) / np.float32(self.calibration.temperature)
        return sigmoid(logits) if self.problem_type == "multi_label" else softmax(logits)

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """
        Return what the model says of every text, uncalibrated, shape (len(texts), len(self.labels)).

        Texts of as many tokens go together, so that none is padded: company changes nothing but rounding.
        """
        import torch

        ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"] if texts else []
        logits = np.zeros((len(ids), len(self.labels)), dtype=np.float32)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for _, group in groupby(order, key=lambda i: len(ids[i])):
            alike = list(group)
            for start in range(0, len(alike), BATCH_SIZE):
                chosen = alike[start : start + BATCH_SIZE]
                tokens = torch.tensor([ids[i] for i in chosen])
                with torch.inference_mode():
                    logits[chosen] = self.model(tokens, attention_mask=torch.ones_like(tokens)).logits.numpy()
        return logits

    def save_tokenizer(self, path: Path) -> None:
        """Write tokenizer.json, complete: it names its padding token and cuts at `max_tokens`."""
        tokenizer = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        tokenizer.no_padding()
        tokenizer.enable_padding(
            pad_id=self.tokenizer.pad_token_id,
            pad_type_id=self.tokenizer.pad_token_type_id,
            pad_token=self.tokenizer.pad_token,
        )
        tokenizer.enable_truncation(self.max_tokens)
        tokenizer.save(str(path))


def load_tokenizer(source: str, *, detokenize: str | None = None) -> Any:
    """
    Load the tokenizer of a base model or checkpoint in the form that serving reads.

    Args:
        source: Folder or hub id.
        detokenize: "treebank" makes it read sentences split as in the Penn Treebank as people write them, "none" as
            they are; None leaves it as it was saved.

    Raises:
        BaseModelError: it cannot be had, or has no such form, or no padding token.
    """
    from transformers import AutoTokenizer

    tokenizer = fetch(AutoTokenizer.from_pretrained, source, use_fast=True)
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise BaseModelError(f"{source}: its tokenizer has no tokenizer.json with a padding token; serving needs one")
    if detokenize:
        treebank.set_undoing(tokenizer.backend_tokenizer, undo=detokenize == "treebank")
    return tokenizer
