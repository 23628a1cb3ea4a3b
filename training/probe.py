"""What a linear classifier on the vectors of a base, as it was pretrained, says of rows that it was not fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDS = 5
# C of the logistic regression; vectors have length 1, and 1, the default, learns too little.
STRENGTHS = (3.0, 10.0, 30.0)
TOLERANCE = 1e-4  # of the gradient; at 1e-3 a fit of two labels ends after a few steps, far from its best


def out_of_fold(
    truth: NDArray[np.bool_], fold_of: NDArray[np.int_], vectors: NDArray[np.float32], *, multi_label: bool = False
) -> NDArray[np.float64]:
    """
    Return the probability of every label for every row, as fitted on the other folds, shape (rows, labels).

    Args:
        truth: Which row has which label, shape (rows, labels); every label is in at least two folds.
        fold_of: From `folds.deal`, shape (rows,).
        vectors: Of length 1, shape (rows, hidden).
        multi_label: Judge every label of a row by itself.
    """
    probabilities = np.zeros(truth.shape)
    strengths: tuple[float, ...] = STRENGTHS
    for fold in np.unique(fold_of):
        held = fold_of == fold
        tried = [_fit(truth[~held], vectors[~held], vectors[held], strength, multi_label) for strength in strengths]
        losses = [_log_loss(truth[held], scores, multi_label) for scores in tried]
        best = losses.index(min(losses))
        probabilities[held] = tried[best]
        strengths = (strengths[best],)  # the first fold chooses for all: the others would at three times the cost
    return probabilities


def _fit(
    truth: NDArray[np.bool_],
    vectors: NDArray[np.float32],
    others: NDArray[np.float32],
    strength: float,
    multi_label: bool,
) -> NDArray[np.float64]:
    """Fit on vectors and their labels, and return the probability of every label for every other vector."""
    from sklearn.linear_model import LogisticRegression

    def fitted(target: NDArray[Any]) -> Any:
        return LogisticRegression(C=strength, max_iter=1000, tol=TOLERANCE).fit(vectors, target)

    scores = np.zeros((len(others), truth.shape[1]))
    if multi_label:
        for label, target in enumerate(truth.T):
            scores[:, label] = (
                target[0] if target.all() or not target.any() else fitted(target).predict_proba(others)[:, 1]
            )
        return scores
    model = fitted(truth.argmax(axis=1))
    scores[:, model.classes_] = model.predict_proba(others)
    return scores


def _log_loss(truth: NDArray[np.bool_], scores: NDArray[np.float64], multi_label: bool) -> float:
    scores = scores.clip(1e-9, 1 - 1e-9)
    losses = np.where(truth, np.log(scores), np.log(1 - scores)) if multi_label else np.log(scores[truth])
    return -float(losses.mean())
