"""Labels to learn from that say how far the other rows agree with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax, softmax

from training.calibration import fit_temperature
from training.copies import fold
from training.data import label_names
from training.folds import deal
from training.metrics import targets
from training.probe import FOLDS, out_of_fold
from training.vectors import sentence_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.data import Row
    from training.settings import TrainConfig


def soft_labels(config: TrainConfig, rows: Sequence[Row]) -> NDArray[np.float32] | None:
    """
    Return the labels that rows are learnt with, of which a part follows what the other rows say of them.

    A share of each label goes to the probabilities of a logistic regression that was fitted on other rows, sharpened to
    be as sure as it is right: rows that are told apart easily keep their label, doubtful ones and mistakes teach less.
    It is label smoothing that knows each row, or distillation from a teacher that has not seen it.

    Args:
        config: The settings of the run, one label a row.
        rows: To learn from.

    Returns:
        Shape (rows, labels), labels in alphabetical order, the sum of a row is 1; None where labels stay as they are.
    """
    share = config.for_rows(len(rows)).soft_labels
    if not share:
        return None
    truth = targets(rows, label_names(rows))
    fold_of, alone = deal(rows, [fold(row.text) for row in rows], number=FOLDS)
    judged = np.array([row.labels[0] not in alone for row in rows])
    known = truth[judged].any(axis=0)  # labels that are alone in a fold keep their rows as they are
    soft = truth.astype(np.float32)
    if known.sum() < 2:
        return soft
    vectors = sentence_vectors(
        config.base, [row.text for row in rows], max_tokens=config.max_tokens, detokenize=config.detokenize
    )
    said = out_of_fold(truth[judged][:, known], fold_of[judged], vectors[judged])
    scores = log_softmax(np.log(said.clip(1e-9)), axis=1).astype(np.float32)
    scores /= fit_temperature(scores, truth[judged][:, known])
    soft[np.ix_(judged, known)] = (1 - share) * soft[np.ix_(judged, known)] + share * softmax(scores, axis=1)
    return soft
