"""Few labelled sentences: every row teaches, and cross-validation chooses how and says how well."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from training.calibration import Unseen, fit_temperature
from training.checkpoint import Checkpoint
from training.data import label_names
from training.folds import deal
from training.metrics import targets
from training.train import fine_tune, note

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.data import Row
    from training.settings import TrainConfig

FOLDS = 3
ALWAYS = -1  # fold of the rows that every model learns from: those of labels that one fold has all of
PASSES = 7_700  # sentences that are passed in all, but 10 to 30 times each


def fine_tune_few(config: TrainConfig, rows: Sequence[Row], work: Path, *, resume: bool = False) -> tuple[Path, Unseen]:
    """
    Fine-tune on all rows, in the way that does better on rows it has not seen.

    Two ways are tried: the encoder as it was pretrained with a fitted classifier, and fine-tuning from there. The share
    that a development set would take is worth more to learn from, so that the model is calibrated on what the models of
    the folds say, each of the rows that it was not shown.

    Args:
        config: The settings of the run.
        rows: One label a row; more texts than labels.
        work: Folder of the run.
        resume: Go on with what is in `work`.

    Returns:
        The folder of the checkpoint, and what cross-validation says of the rows.
    """
    epochs = config.epochs or min(30, max(10, PASSES // len(rows)))
    # Starting from a fitted classifier, a second pass over each row was no help (see docs/training.md).
    tuned = replace(config, head_start="fitted", epochs=epochs, consistency=config.consistency or 0.0)
    ways = {"frozen": replace(tuned, freeze="encoder")}
    if config.frozen != "encoder":
        ways["tuned"] = tuned
    labels = label_names(rows)
    fold_of, alone = deal(rows, [row.text for row in rows], number=FOLDS, seed=config.seed)
    fold_of[[row.labels[0] in alone for row in rows]] = ALWAYS
    folds = [fold for fold in range(FOLDS) if (fold_of == fold).any()]
    held_out = [row for fold in folds for row in _chosen(rows, fold_of == fold)]
    truth = targets(held_out, labels)
    logits: dict[str, NDArray[np.float32]] = {}
    scores: dict[str, dict[str, float]] = {}
    for name, way in ways.items():
        parts = []
        for fold in folds:
            best = fine_tune(way, _chosen(rows, fold_of != fold), [], work / f"{name}-{fold}", resume=resume)
            parts.append(Checkpoint.load(str(best)).logits([row.text for row in _chosen(rows, fold_of == fold)]))
        logits[name] = np.concatenate(parts)
        right = truth[np.arange(len(truth)), logits[name].argmax(axis=1)]
        scores[name] = {"accuracy": float(right.mean()), "temperature": fit_temperature(logits[name], truth)}
        print(f"cross-validation, {name}: accuracy {right.mean():.4f} over {len(truth)} rows", file=sys.stderr)
    chosen = max(scores, key=lambda name: scores[name]["accuracy"])
    best = fine_tune(ways[chosen], rows, [], work / "all", resume=resume)
    note(best, cross_validation={"folds": len(folds), "rows": len(held_out), "ways": scores, "chosen": chosen})
    return best, Unseen(held_out, logits[chosen])


def _chosen(rows: Sequence[Row], which: NDArray[np.bool_]) -> list[Row]:
    return list(compress(rows, which.tolist()))
