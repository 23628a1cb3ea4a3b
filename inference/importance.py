"""What each token contributed to a prediction: leave it out, and see what becomes of the label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.classifier import Classifier
    from inference.encoder import Encoded


@dataclass(frozen=True, slots=True)
class Importance:
    """
    What each token of a text contributed to one label.

    This is erasure (Li, Monroe and Jurafsky 2016, "Understanding Neural Networks through Representation Erasure",
    arXiv:1612.08220) of whole tokens: the text is read once more without each. It is what the model would have said,
    not a share of what it said: the tokens do not add up to the prediction, and of two that say the same neither is
    missed.

    Where a model is sure, its probability hardly moves whatever is left out. The weight of evidence (Good 1950; of the
    parts of one instance: Robnik-Sikonja and Kononenko 2008, doi:10.1109/TKDE.2007.190734) is the change of the
    log-odds ln(p / (1 - p)), which does not saturate: 0.7 doubles the odds.
    """

    label: str
    score: np.float32  # probability of `label` for the whole text
    # Shape (tokens,), NaN for special tokens, which are never left out:
    probability: NDArray[np.float32]  # `score` minus the probability without the token
    weight_of_evidence: NDArray[np.float32]  # log-odds minus the log-odds without the token


def cost(text: Encoded, special_count: int) -> int:
    """Return how many tokens the model computes for a text, of which so many are special, and its `variants`."""
    return len(text) + (len(text) - special_count) * (len(text) - 1)


def variants(text: Encoded) -> list[Encoded]:
    """Return a text without each of its tokens in turn, special ones kept: all are of one length."""
    return [text.without(int(place)) for place in np.flatnonzero(~text.special())]


def importance(
    classifier: Classifier, text: Encoded, logits: NDArray[np.float32], *, label: str | None = None
) -> Importance:
    """
    Tell what each token contributed.

    Args:
        classifier: The model that was run.
        text: The text that was run.
        logits: Of the text and then of its `variants`, shape (1 + variants, labels).
        label: One of the labels of the model; None for that of the highest probability, whether it reaches its
            threshold or not.
    """
    scores = classifier.probabilities(logits)
    place = int(scores[0].argmax()) if label is None else classifier.labels.index(label)
    log_odds = classifier.log_odds(logits, place)
    left_out = ~text.special()
    probability = np.full(len(text), np.nan, dtype=np.float32)
    weight_of_evidence = np.full(len(text), np.nan, dtype=np.float32)
    probability[left_out] = scores[0, place] - scores[1:, place]
    with np.errstate(invalid="ignore"):  # of an only label both are infinite, and the change is not a number
        weight_of_evidence[left_out] = log_odds[0] - log_odds[1:]
    return Importance(classifier.labels[place], scores[0, place], probability, weight_of_evidence)
