"""Starting points put to work: fine-tuned, or frozen under a fitted classifier, and asked about other rows."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data import label_names
from training.study.curves import pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.data import Row
    from training.settings import TrainConfig

STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)  # C of the logistic regressions that are tried
FOLDS = 4
SHOWN = 500  # rows, at most, by which a run is seen to have learnt
ATTEMPTS = 3


def nested(rows: Sequence[Row], *, seed: int) -> list[int]:
    """Return the rows in an order of which every beginning is a sample: first one of every label, then by chance."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    seen: set[str] = set()
    first = [i for i in order if not (rows[i].labels[0] in seen or seen.add(rows[i].labels[0]))]  # type: ignore[func-returns-value]
    rest = set(first)
    return first + [i for i in order if i not in rest]


def fit_one(config: TrainConfig, learnt: list[Row], asked: list[Row], *, repeat: bool = False) -> dict[str, Any]:
    """
    Fine-tune as `bertrand train` does with the same settings, and ask about other rows.

    Args:
        config: The settings of the run.
        learnt: Rows to learn from.
        asked: Rows to ask about.
        repeat: Begin again with a third of the learning rate, twice at most, where a run has learnt nothing: of rows
            that it has learnt from no more are right than the most frequent label has. High rates end so now and then
            (Mosbach et al. 2020, arXiv:2006.04884), and chance should not decide between starts.

    Returns:
        Which rows are right (`curves.pack`), `accuracy`, `loss` (nats) and `rate`, the learning rate that was taken.
    """
    from training.train import fit

    labels = label_names(learnt)
    shown = learnt[:SHOWN]
    constant = max(Counter(row.labels[0] for row in shown).values()) / len(shown)
    for attempt in range(ATTEMPTS if repeat else 1):
        tried = replace(config, learning_rate=config.learning_rate / 3**attempt)
        model, tokenizer = fit(tried, learnt)
        if _answer(predict(model, tokenizer, shown), shown, labels)["accuracy"] > constant:
            break
    return _answer(predict(model, tokenizer, asked), asked, labels) | {"rate": tried.learning_rate}


def _answer(logits: NDArray[np.float32], rows: Sequence[Row], labels: Sequence[str]) -> dict[str, Any]:
    truth = np.array([labels.index(row.labels[0]) for row in rows])
    right = logits.argmax(axis=1) == truth
    peak = logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits - peak).sum(axis=1)) + peak[:, 0] - logits[np.arange(len(truth)), truth]
    return {"right": pack(right), "accuracy": float(right.mean()), "loss": float(losses.mean())}


def predict(model: Any, tokenizer: Any, rows: Sequence[Row], *, batch_size: int = 32) -> NDArray[np.float32]:
    """Return the logits of each row, shape (rows, labels)."""
    import torch

    ids = tokenizer([row.text for row in rows], truncation=True)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    logits = np.zeros((len(ids), model.config.num_labels), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            inputs = tokenizer.pad({"input_ids": [ids[i] for i in chosen]}, return_tensors="pt")
            logits[chosen] = model(**inputs).logits.numpy()
    return logits


def fit_frozen(
    vectors: NDArray[np.float32],
    labels: NDArray[np.str_],
    asked: NDArray[np.float32],
    answers: NDArray[np.str_],
    seed: int,
) -> dict[str, Any]:
    """
    Return which of the asked vectors a logistic regression has right, its penalty chosen by cross-validation.

    Where the rows are too few to leave some out and still have two labels, the penalty is the middle one.
    """
    best = _strength(vectors, labels, seed)
    # Stopped as early as those that only compare penalties, it would be half a point off.
    right = _logistic(best, tolerance=1e-5).fit(vectors, labels).predict(asked) == answers
    return {"right": pack(right), "accuracy": float(right.mean()), "strength": best}


def _logistic(strength: float, *, tolerance: float = 1e-3) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=5000, tol=tolerance)


def _strength(vectors: NDArray[np.float32], labels: NDArray[np.str_], seed: int) -> float:
    """Return the C of the lowest cross-entropy on rows left out."""
    from sklearn.model_selection import KFold, StratifiedKFold

    rarest = min(Counter(labels.tolist()).values())
    # With a label of one row no fold can leave it out and still know it: those rows are learnt from in vain, at worst.
    kind = StratifiedKFold if rarest >= 2 else KFold
    folds = kind(min(FOLDS, rarest if rarest >= 2 else len(labels)), shuffle=True, random_state=seed)
    parts = [part for part in folds.split(vectors, labels) if len(set(labels[part[0]].tolist())) > 1]
    losses = {}
    for strength in STRENGTHS:
        each: list[float] = []
        for learnt, held in parts:
            fitted = _logistic(strength).fit(vectors[learnt], labels[learnt])
            probabilities = fitted.predict_proba(vectors[held])
            place = {label: i for i, label in enumerate(fitted.classes_)}
            known = [(i, place[label]) for i, label in enumerate(labels[held]) if label in place]
            each += [-math.log(max(probabilities[i, j], 1e-9)) for i, j in known]
        if each:
            losses[strength] = float(np.mean(each))
    return min(losses, key=lambda strength: losses[strength]) if losses else STRENGTHS[len(STRENGTHS) // 2]
