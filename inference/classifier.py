"""Texts to predictions and embeddings: encoder, engine and calibration in one object, used by every caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from inference.artifact import TOKENIZER, Artifact, Manifest, ProblemType
from inference.encoder import Encoded, Encoder, Token
from inference.engine import Engine, Output
from inference.errors import ArtifactError, InputError, TextError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

T = TypeVar("T")

# How the windows of a long text make one answer: a text has one label by the mean of what its windows say, and every
# label that one of them has where it may have several.
WINDOW_AGGREGATES: dict[ProblemType, str] = {"single_label": "mean", "multi_label": "max"}
BATCH_SIZE = 8  # on a CPU larger batches gain nothing, and pad more


@dataclass(frozen=True, slots=True)
class Prediction:
    """The labels of one text."""

    label: str | None  # the best; None where no label reaches its threshold
    score: float | None  # probability of `label`
    scores: tuple[tuple[str, float], ...]  # what is given, best first: see `Classifier.predict`
    token_count: int  # special tokens included
    truncated: bool  # only the first max_tokens tokens were read


@dataclass(frozen=True, slots=True)
class Analysis:
    """The labels of one text and the vectors that led to them, from one forward pass."""

    prediction: Prediction
    tokens: list[Token]
    token_embeddings: NDArray[np.float32]  # shape (tokens, hidden): row i belongs to tokens[i]
    sentence_embedding: NDArray[np.float32]  # shape (hidden,): mean over all tokens, special ones included


class Classifier:
    """A model folder, loaded: sentences in, answers out. Thread-safe."""

    def __init__(self, manifest: Manifest, encoder: Encoder, engine: Engine, precision: str) -> None:
        self.manifest = manifest
        self.encoder = encoder
        self.engine = engine
        self.precision = precision
        self._labels = np.asarray(manifest.labels, dtype=object)
        self._thresholds = None if manifest.thresholds is None else np.asarray(manifest.thresholds)

    @classmethod
    def load(cls, folder: str | Path, *, precision: str = "auto", threads: int = 1) -> Classifier:
        """
        Check a model folder and load it.

        Args:
            folder: A model folder, or a link to one.
            precision: `fp32`, `int8`, or `auto` for the folder's default, int8 only on a CPU made for it.
            threads: Cores of one forward pass. Leave it at 1 and call from several threads for throughput.

        Raises:
            ArtifactError: a file is missing or altered, or the parts do not fit together.
        """
        artifact = Artifact.open(folder)
        manifest = artifact.manifest
        precision = artifact.precision(precision)
        graph = artifact.graph(precision)
        encoder = Encoder.load(artifact.file(TOKENIZER), manifest.max_tokens)
        engine = Engine(graph, encoder.pad_id, threads=threads)
        if engine.label_count != len(manifest.labels):
            raise ArtifactError(
                f"{graph}: scores {engine.label_count} labels but model.json lists {len(manifest.labels)}; "
                "export the model again with `bertrand export`"
            )
        if Artifact.open(artifact.folder).manifest.version != manifest.version:
            raise ArtifactError(f"{folder}: was replaced while it was read; load it again")
        return cls(manifest, encoder, engine, precision)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the graph's logits."""
        return self.manifest.labels

    @property
    def problem_type(self) -> ProblemType:
        """Whether a text has one label or any number."""
        return self.manifest.problem_type

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """The probability from which each label is given; None: one label a text, whatever its probability."""
        return self.manifest.thresholds

    def classify(self, texts: Sequence[str], *, batch_size: int = BATCH_SIZE) -> list[Prediction | TextError]:
        """
        Label every text; answers come in the order of the texts.

        Args:
            texts: Raw sentences of any length; an empty sequence is fine.
            batch_size: Texts per forward pass. Bounds memory; never changes an answer.
        """
        return self._each(texts, lambda text, output: self.predict(text, output.logits), batch_size, hidden=False)

    def analyze(self, texts: Sequence[str], *, batch_size: int = BATCH_SIZE) -> list[Analysis | TextError]:
        """Label every text and return its token and sentence embeddings from the same forward pass."""
        return self._each(texts, self.interpret, batch_size, hidden=True)

    def score(self, texts: Sequence[str], *, batch_size: int = BATCH_SIZE) -> NDArray[np.float32]:
        """
        Return the probability of every label for every text.

        Returns:
            Shape (len(texts), len(self.labels)); row i belongs to texts[i]. Rows of a single-label model sum to 1.

        Raises:
            InputError: a text is empty or invalid; it says which.
        """
        return self.probabilities(self.logits(texts, batch_size=batch_size))

    def logits(self, texts: Sequence[str], *, batch_size: int = BATCH_SIZE) -> NDArray[np.float32]:
        """Return what the graph says of every text, uncalibrated; shape and errors are those of `score`."""
        rows = self._each(texts, lambda _, output: output.logits, batch_size, hidden=False)
        for i, row in enumerate(rows):
            if isinstance(row, TextError):
                raise InputError(f"text {i}: {row.message}")
        return np.asarray(rows, dtype=np.float32).reshape(len(texts), len(self.labels))

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn calibrated logits, shape (..., labels), into probabilities of the same shape."""
        scaled = logits / np.float32(self.manifest.temperature)
        if self.manifest.problem_type == "multi_label":
            return sigmoid(scaled)
        return softmax(scaled)

    def log_odds(self, logits: NDArray[np.float32], label: int) -> NDArray[np.float64]:
        """
        Return ln(p / (1 - p)) of the calibrated probability of a label.

        It is made of the logits: of a probability that rounds to 1 in float32 the odds could not be told any more.

        Args:
            logits: Shape (..., labels).
            label: Place of the label in `labels`.

        Returns:
            Shape (...); infinite for the only label of a model of which a text has one.
        """
        scaled = logits.astype(np.float64) / self.manifest.temperature
        if self.manifest.problem_type == "multi_label":
            return np.asarray(scaled[..., label])
        others = np.delete(scaled, label, axis=-1)
        return np.asarray(scaled[..., label] - np.logaddexp.reduce(others, axis=-1))

    def choose(
        self, scores: NDArray[np.float32], *, top_k: int | None = None, threshold: float | None = None
    ) -> list[NDArray[np.intp]]:
        """
        Return which labels each text is given, as places in `labels`, best first.

        A model gives the labels that reach their threshold; a single-label model without thresholds gives all.

        Args:
            scores: Probabilities, shape (texts, labels).
            top_k: Give at most so many labels.
            threshold: Give the labels of at least this probability, in place of the model's own thresholds.
        """
        order = np.argsort(-scores, axis=-1, kind="stable")
        if threshold is None and self._thresholds is None and self.manifest.problem_type == "single_label":
            return list(order[:, :top_k])
        floor: Any = threshold
        if threshold is None:
            floor = 0.5 if self._thresholds is None else self._thresholds
        reached = np.take_along_axis(scores >= floor, order, axis=-1)
        return [row[given][:top_k] for row, given in zip(order, reached, strict=True)]

    def aggregate(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Make one row of scores, shape (labels,), of those of a text's windows, shape (windows, labels)."""
        largest = WINDOW_AGGREGATES[self.manifest.problem_type] == "max"
        return np.asarray(windows.max(axis=0) if largest else windows.mean(axis=0), dtype=np.float32)

    def predict(
        self, text: Encoded, logits: NDArray[np.float32], *, top_k: int | None = None, threshold: float | None = None
    ) -> Prediction:
        """
        Turn the logits of one text into its labels.

        Args:
            text: The text that was run.
            logits: Shape (labels,), or (windows, labels) for a text that was read in windows.
            top_k: As in `choose`.
            threshold: As in `choose`.
        """
        scores = self.probabilities(logits)
        scores = scores if scores.ndim == 1 else self.aggregate(scores)
        (chosen,) = self.choose(scores[None], top_k=top_k, threshold=threshold)
        given = tuple(zip(self._labels[chosen].tolist(), scores[chosen].tolist(), strict=True))
        label, score = given[0] if given else (None, None)
        return Prediction(label, score, given, text.total, text.truncated)

    def interpret(self, text: Encoded, output: Output) -> Analysis:
        """Turn the output of one text, hidden states included, into its analysis."""
        assert output.hidden is not None, "run with hidden=True"  # noqa: S101
        return Analysis(
            self.predict(text, output.logits), text.tokens(), output.hidden, sentence_embedding(output.hidden)
        )

    def _each(
        self,
        texts: Sequence[str],
        answer: Callable[[Encoded, Output], T],
        batch_size: int,
        *,
        hidden: bool,
    ) -> list[T | TextError]:
        results: list[T | TextError | None] = [None] * len(texts)
        encoded: list[tuple[int, Encoded]] = []
        for i, item in enumerate(self.encoder.encode(texts)):
            if isinstance(item, TextError):
                results[i] = item
            else:
                encoded.append((i, item))
        # Neighbours in length share a batch: in arrival order half of the computed tokens are padding.
        encoded.sort(key=lambda pair: len(pair[1]))
        for start in range(0, len(encoded), batch_size):
            batch = encoded[start : start + batch_size]
            outputs = self.engine.run([item.ids for _, item in batch], hidden=hidden)
            for (i, item), output in zip(batch, outputs, strict=True):
                results[i] = answer(item, output)
        return results  # type: ignore[return-value]  # every place is filled by now


def sentence_embedding(hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """
    Return the mean of the token embeddings, special tokens included, as Sentence-BERT pools (arXiv:1908.10084).

    Args:
        hidden: Shape (tokens, hidden), without padding.
    """
    return np.asarray(hidden.mean(axis=0), dtype=np.float32)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return exp(logits) normalised to sum 1 over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))  # exp() overflows float32 near 88
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / (1 + exp(-logits)), for any size of logit."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), dtype=np.float32)  # exp(-logits) would overflow
