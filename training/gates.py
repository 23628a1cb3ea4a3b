"""What an exported model must prove on real rows before it is offered."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.encoder import Encoded
from inference.errors import TextError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inference.classifier import Classifier
    from training.checkpoint import Checkpoint

PARITY_BOUND = 1e-4  # largest difference of a logit or of a hidden state to PyTorch's
BATCH_SIZES = (1, 2, 3, 5, 8, 16)
SAMPLE = 160  # rows of each kind of check; all lengths are among them


@dataclass(frozen=True)
class Gate:
    """The outcome of one check: what was measured, over how many rows, against which bound."""

    name: str
    passed: bool
    rows: int
    measured: dict[str, float]
    bound: float
    detail: str  # what was compared; where it failed, the worst text

    def summary(self) -> str:
        """Return the figures in one line."""
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in self.measured.items())
        return f"{figures} (bound {self.bound:g}) over {self.rows} texts: {self.detail}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def check(checkpoint: Checkpoint, classifier: Classifier, texts: Sequence[str]) -> list[Gate]:
    """Run every gate on texts chosen from `texts` and return the outcomes, passed or not."""
    chosen = probes(texts, classifier.manifest.max_tokens)
    # What this tokenizer leaves nothing of has no answer to compare, neither here nor in PyTorch.
    chosen = [t for t, item in zip(chosen, classifier.encoder.encode(chosen), strict=True) if isinstance(item, Encoded)]
    return [parity(checkpoint, classifier, chosen), batch_invariance(classifier, chosen)]


def probes(texts: Sequence[str], max_tokens: int, *, seed: int = 0) -> list[str]:
    """
    Choose texts that try a model: real ones of every length, next-to-empty ones, and ones that are too long.

    Args:
        texts: Real rows, of which up to `SAMPLE` are used: the shortest, the longest, and a random choice.
        max_tokens: From where on a text is cut.
        seed: Of the random choice.
    """
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    if len(distinct) > SAMPLE:
        ends = distinct[:10] + distinct[-10:]
        distinct = ends + random.Random(seed).sample(distinct[10:-10], SAMPLE - len(ends))
    long = " ".join(distinct) or "word"
    while len(long) < max_tokens * 12:  # more characters than any text of max_tokens words
        long += " " + long
    made = [".", "?", "a", " ok ", "1", "¿qué?", "日本語", "🙂", long, long[: len(long) // 2], long[::-1]]
    return distinct + made


def parity(checkpoint: Checkpoint, classifier: Classifier, texts: Sequence[str]) -> Gate:
    """
    Compare the graph with the PyTorch checkpoint: token ids, logits and hidden states.

    Every text runs in PyTorch alone and unpadded; in the graph alone, and padded among others in batches of 1 to 16.
    """
    reference = checkpoint.run(texts)
    encoded = _encode(classifier, texts)
    worst_logit = worst_hidden = 0.0
    worst_text = differing = ""
    for batch in _batches(len(texts)):
        outputs = classifier.engine.run([encoded[i].ids for i in batch], hidden=True)
        for i, output in zip(batch, outputs, strict=True):
            ids, logits, hidden = reference[i]
            if not np.array_equal(ids, encoded[i].ids):
                differing = differing or texts[i]
                continue
            logit_gap = _gap(output.logits, logits)
            hidden_gap = _gap(output.hidden, hidden)
            if max(logit_gap, hidden_gap) > max(worst_logit, worst_hidden):
                worst_text = texts[i]
            worst_logit, worst_hidden = max(worst_logit, logit_gap), max(worst_hidden, hidden_gap)
    passed = not differing and max(worst_logit, worst_hidden) <= PARITY_BOUND
    if differing:
        detail = f"token ids differ from the checkpoint's tokenizer for {differing[:80]!r}"
    elif passed:
        detail = f"PyTorch, each text alone, against {classifier.precision}, alone and padded in batches of 1 to 16"
    else:
        detail = f"worst for {worst_text[:80]!r}"
    measured = {"max_logit_difference": worst_logit, "max_hidden_difference": worst_hidden}
    return Gate("parity", passed, len(texts), measured, PARITY_BOUND, detail)


def batch_invariance(classifier: Classifier, texts: Sequence[str]) -> Gate:
    """Compare each text's answer among others with its answer alone: company may change no probability and no label."""
    encoded = _encode(classifier, texts)
    alone = [classifier.engine.run([text.ids], hidden=True)[0] for text in encoded]
    worst_probability = worst_hidden = 0.0
    labels = 0
    worst_text = ""
    for batch in _batches(len(texts)):
        for i, output in zip(batch, classifier.engine.run([encoded[i].ids for i in batch], hidden=True), strict=True):
            lone, among = (classifier.probabilities(each.logits) for each in (alone[i], output))
            gap = _gap(among, lone)
            if gap > worst_probability:
                worst_text = texts[i]
            worst_probability = max(worst_probability, gap)
            worst_hidden = max(worst_hidden, _gap(output.hidden, alone[i].hidden))
            labels += int(among.argmax() != lone.argmax())
    measured = {
        "max_probability_difference": worst_probability,
        "max_hidden_difference": worst_hidden,
        "labels_changed": labels,
    }
    passed = labels == 0 and max(worst_probability, worst_hidden) <= PARITY_BOUND
    detail = "each text alone, against padded in batches of 1 to 16" if passed else f"worst for {worst_text[:80]!r}"
    return Gate("batch_invariance", passed, len(texts), measured, PARITY_BOUND, detail)


def _encode(classifier: Classifier, texts: Sequence[str]) -> list[Encoded]:
    encoded: list[Encoded] = []
    for text, item in zip(texts, classifier.encoder.encode(texts), strict=True):
        assert not isinstance(item, TextError), f"{text!r}: {item.message}"  # noqa: S101  callers send texts with content
        encoded.append(item)
    return encoded


def _gap(one: NDArray[np.float32] | None, other: NDArray[np.float32] | None) -> float:
    assert one is not None  # noqa: S101  every pass here asks for hidden states
    assert other is not None  # noqa: S101
    gap = float(np.abs(one - other).max())
    return gap if math.isfinite(gap) else math.inf  # NaN is smaller than nothing, and would pass every bound


def _batches(count: int) -> list[list[int]]:
    """Put every text into one batch of each size, with others of any length."""
    batches = []
    for size in BATCH_SIZES:
        order = list(range(count))
        random.Random(size).shuffle(order)
        batches += [order[start : start + size] for start in range(0, count, size)]
    return batches
