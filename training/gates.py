"""What an exported model must prove on real rows before it is offered."""

from __future__ import annotations

import math
import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from inference.classifier import BATCH_SIZE
from inference.encoder import Encoded
from inference.errors import TextError
from inference.machine import cpu_count
from training.metrics import accuracy_change, decide, targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inference.classifier import Classifier
    from training.checkpoint import Checkpoint
    from training.data import Row

PARITY_BOUND = 1e-4  # largest difference of a logit or of a hidden state to PyTorch's
BATCH_SIZES = (1, 2, 3, 5, 8, 16)
SAMPLE = 160  # rows of each kind of check; all lengths are among them
INT8_ROWS = 4000  # on which int8 is compared with fp32
SPEED_BATCHES = 8  # that int8 and fp32 are timed on, of all lengths
SPEED_ROUNDS = 5

Bound = tuple[Literal["at most", "at least"], float]
T = TypeVar("T")


@dataclass(frozen=True)
class Gate:
    """The outcome of one check: what was measured, over how many rows, against which bounds."""

    name: str
    rows: int
    measured: dict[str, float]
    bounds: dict[str, Bound]  # of those measured values that have one; the others are only told
    detail: str  # what was compared; where it failed, the worst text

    @property
    def passed(self) -> bool:
        """Whether every bound holds."""
        return all(self.holds(name) for name in self.bounds)

    def holds(self, name: str) -> bool:
        """Return whether a measured value keeps its bound; one that is not a number does not."""
        side, bound = self.bounds[name]
        return self.measured[name] <= bound if side == "at most" else self.measured[name] >= bound

    def summary(self) -> str:
        """Return the figures in one line."""
        figures = [
            f"{name.replace('_', ' ')} {value:.4g}"
            + (f" ({self.bounds[name][0]} {self.bounds[name][1]:g})" if name in self.bounds else "")
            for name, value in self.measured.items()
        ]
        return f"{', '.join(figures)} over {self.rows} texts: {self.detail}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON, which knows no infinity: null stands for what is not a finite number."""
        return {
            "name": self.name,
            "passed": self.passed,
            "rows": self.rows,
            "measured": {name: value if math.isfinite(value) else None for name, value in self.measured.items()},
            "bounds": {name: list(bound) for name, bound in self.bounds.items()},
            "detail": self.detail,
        }


def check(checkpoint: Checkpoint, classifier: Classifier, texts: Sequence[str]) -> list[Gate]:
    """Run every gate of the fp32 graph on texts chosen from `texts` and return the outcomes, passed or not."""
    chosen = _probes_for(classifier, texts)
    return [parity(checkpoint, classifier, chosen), batch_invariance(classifier, chosen, bound=PARITY_BOUND)]


def check_int8(reference: Classifier, classifier: Classifier, rows: Sequence[Row], *, labelled: bool) -> list[Gate]:
    """
    Run every gate of the int8 graph and return the outcomes, passed or not.

    Args:
        reference: The model in fp32.
        classifier: The model in int8.
        rows: Real rows.
        labelled: They have labels of this model: accuracy is compared too.
    """
    return [
        faithfulness(reference, classifier, rows, labelled=labelled),
        batch_invariance(classifier, _probes_for(classifier, [row.text for row in rows]), bound=0.0),
    ]


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
    worst_text = ""
    differing = [i for i, (ids, _, _) in enumerate(reference) if not np.array_equal(ids, encoded[i].ids)]
    for batch in _batches(len(texts)):
        outputs = classifier.engine.run([encoded[i].ids for i in batch], hidden=True)
        for i, output in zip(batch, outputs, strict=True):
            if i in differing:
                continue
            _, logits, hidden = reference[i]
            logit_gap = _gap(output.logits, logits)
            hidden_gap = _gap(output.hidden, hidden)
            if max(logit_gap, hidden_gap) > max(worst_logit, worst_hidden):
                worst_text = texts[i]
            worst_logit, worst_hidden = max(worst_logit, logit_gap), max(worst_hidden, hidden_gap)
    gate = Gate(
        "parity",
        len(texts),
        {
            "max_logit_difference": worst_logit,
            "max_hidden_difference": worst_hidden,
            "texts_tokenized_differently": len(differing),
        },
        {
            "max_logit_difference": ("at most", PARITY_BOUND),
            "max_hidden_difference": ("at most", PARITY_BOUND),
            "texts_tokenized_differently": ("at most", 0),
        },
        f"PyTorch, each text alone, against {classifier.precision}, alone and padded in batches of 1 to 16",
    )
    if differing:
        return replace(
            gate, detail=f"token ids differ from the checkpoint's tokenizer for {texts[differing[0]][:80]!r}"
        )
    return gate if gate.passed else replace(gate, detail=f"worst for {worst_text[:80]!r}")


def batch_invariance(classifier: Classifier, texts: Sequence[str], *, bound: float) -> Gate:
    """
    Compare each text's answer among others with its answer alone: company may change no probability and no label.

    Args:
        classifier: The model in any precision.
        texts: Texts that all have tokens.
        bound: Largest difference of a probability or of a hidden state; 0 asks for equal bits.
    """
    encoded = _encode(classifier, texts)
    alone = [classifier.engine.run([text.ids], hidden=True)[0] for text in encoded]
    worst_probability = worst_hidden = 0.0
    labels = 0
    worst_text = ""
    for batch in _batches(len(texts)):
        for i, output in zip(batch, classifier.engine.run([encoded[i].ids for i in batch], hidden=True), strict=True):
            lone, among = (classifier.probabilities(each.logits) for each in (alone[i], output))
            gap, hidden_gap = _gap(among, lone), _gap(output.hidden, alone[i].hidden)
            if max(gap, hidden_gap) > max(worst_probability, worst_hidden):
                worst_text = texts[i]
            worst_probability, worst_hidden = max(worst_probability, gap), max(worst_hidden, hidden_gap)
            labels += int((_decided(classifier, among[None]) != _decided(classifier, lone[None])).any())
    gate = Gate(
        "batch_invariance" if classifier.precision == "fp32" else f"{classifier.precision}_batch_invariance",
        len(texts),
        {
            "max_probability_difference": worst_probability,
            "max_hidden_difference": worst_hidden,
            "labels_changed": labels,
        },
        {
            "max_probability_difference": ("at most", bound),
            "max_hidden_difference": ("at most", bound),
            "labels_changed": ("at most", 0),
        },
        "each text alone, against padded in batches of 1 to 16",
    )
    return gate if gate.passed else replace(gate, detail=f"worst for {worst_text[:80]!r}")


def faithfulness(
    reference: Classifier, classifier: Classifier, rows: Sequence[Row], *, labelled: bool, seed: int = 0
) -> Gate:
    """
    Compare int8 with fp32 on up to `INT8_ROWS` real rows: labels, probabilities, token embeddings and accuracy.

    Args:
        reference: The model in fp32.
        classifier: The model in int8.
        rows: Real rows.
        labelled: They have labels of this model: accuracy is compared too.
        seed: Of the random choice, where there are more rows.
    """
    if len(rows) > INT8_ROWS:
        rows = random.Random(seed).sample(rows, INT8_ROWS)
    found = zip(rows, classifier.encoder.encode([row.text for row in rows]), strict=True)
    pairs = [(row, item) for row, item in found if isinstance(item, Encoded)]
    pairs.sort(key=lambda pair: len(pair[1]))

    def compare(batch: list[tuple[Row, Encoded]]) -> list[NDArray[np.float32]]:
        ids = [item.ids for _, item in batch]
        before, after = (model.engine.run(ids, hidden=True) for model in (reference, classifier))
        cosines = [_cosines(one.hidden, other.hidden) for one, other in zip(before, after, strict=True)]
        probabilities = [classifier.probabilities(np.array([o.logits for o in out])) for out in (before, after)]
        return [*probabilities, np.concatenate(cosines)]

    with ThreadPoolExecutor(cpu_count()) as pool:
        parts = zip(*pool.map(compare, _chunks(pairs)), strict=True)
    before, after, cosines = (np.concatenate(part) for part in parts)
    decided_before, decided_after = _decided(reference, before), _decided(classifier, after)
    changes = np.abs(after - before).max(axis=1)
    differing = (decided_before != decided_after).any(axis=1)
    measured = {
        "labels_differing": float(differing.mean()),
        "max_probability_change": float(changes.max()),
        "mean_token_cosine": float(cosines.mean(dtype=np.float64)),
        "min_token_cosine": float(cosines.min()),
    }
    bounds: dict[str, Bound] = {
        "labels_differing": ("at most", 0.01),
        "mean_token_cosine": ("at least", 0.998),
    }
    detail = "int8 against fp32; labels differing is a share of the texts"
    if classifier.problem_type == "single_label" and classifier.thresholds:
        answered = [
            decided & (said >= np.asarray(classifier.thresholds))
            for decided, said in ((decided_before, before), (decided_after, after))
        ]
        measured["answers_differing"] = float((answered[0] != answered[1]).any(axis=1).mean())
        detail += ", answers differing also of those where one is sure enough to answer and the other is not"
    if labelled:
        truth = targets([row for row, _ in pairs], classifier.labels)
        right = [(decided == truth).all(axis=1) for decided in (decided_before, decided_after)]
        change, low, high = accuracy_change(*right)
        measured |= {"accuracy_change": change, "accuracy_change_low": low, "accuracy_change_high": high}
        bounds["accuracy_change"] = ("at least", -0.003)
        detail += ", low to high the 95 % confidence interval of the change"
    else:
        detail += "; without labels, accuracy was not compared"
    gate = Gate("int8_faithfulness", len(pairs), measured, bounds, detail)
    return (
        gate if gate.passed else replace(gate, detail=f"{detail}; worst for {pairs[changes.argmax()][0].text[:80]!r}")
    )


def speed(reference: Classifier, classifier: Classifier, rows: Sequence[Row]) -> Gate:
    """
    Time int8 and fp32 in turns on a few batches of all lengths. It has no bound: it chooses the default precision.

    In processor time of one thread, so that other work on the machine counts for neither.
    """
    encoded = [item for item in classifier.encoder.encode([row.text for row in rows]) if isinstance(item, Encoded)]
    batches = _chunks(sorted(encoded, key=len))
    batches = batches[:: math.ceil(len(batches) / SPEED_BATCHES)]
    seconds: dict[str, list[float]] = {model.precision: [] for model in (reference, classifier)}
    for _ in range(1 + SPEED_ROUNDS):
        for model in (reference, classifier):
            started = time.thread_time()
            for batch in batches:
                model.engine.run([text.ids for text in batch])
            seconds[model.precision].append(time.thread_time() - started)
    # The first round is warm-up.
    fp32, int8 = (statistics.median(seconds[model.precision][1:]) for model in (reference, classifier))
    count = sum(map(len, batches))
    measured = {
        "int8_speedup": fp32 / int8,
        "fp32_texts_per_second": count / fp32,
        "int8_texts_per_second": count / int8,
    }
    detail = f"one core, {BATCH_SIZE} texts of similar length a batch, in turns; the faster is the default"
    return Gate("int8_speed", count, measured, {}, detail)


def _probes_for(classifier: Classifier, texts: Sequence[str]) -> list[str]:
    """Choose texts, less those that this tokenizer leaves nothing of: they have no answer to compare."""
    chosen = probes(texts, classifier.manifest.max_tokens)
    return [t for t, item in zip(chosen, classifier.encoder.encode(chosen), strict=True) if isinstance(item, Encoded)]


def _decided(classifier: Classifier, probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    multi_label = classifier.problem_type == "multi_label"
    return decide(probabilities, multi_label=multi_label, thresholds=classifier.thresholds)


def _cosines(one: NDArray[np.float32] | None, other: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return the cosine of each token's two vectors, shape (tokens,)."""
    assert one is not None  # noqa: S101  every pass here asks for hidden states
    assert other is not None  # noqa: S101
    cosines = (one * other).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    return np.asarray(cosines, dtype=np.float32)


def _chunks(items: Sequence[T]) -> list[list[T]]:
    return [list(items[start : start + BATCH_SIZE]) for start in range(0, len(items), BATCH_SIZE)]


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
