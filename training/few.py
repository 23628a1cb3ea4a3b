"""Few labelled sentences: every row teaches, and cross-validation chooses how and says how well."""

from __future__ import annotations

import random
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from training.calibration import Unseen, fit
from training.checkpoint import Checkpoint
from training.data import label_names
from training.metrics import targets
from training.train import fine_tune, note

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.data import Row
    from training.settings import TrainConfig

FOLDS = 3
PASSES = 7_700  # sentences that are passed in all, but 10 to 30 times each


def fine_tune_few(config: TrainConfig, rows: Sequence[Row], work: Path, *, resume: bool = False) -> tuple[Path, Unseen]:
    """
    Fine-tune on all rows, in the way that does better on rows it has not seen.

    Two ways are tried: the encoder as it was pretrained with a fitted classifier, and fine-tuning from there. The share
    that a development set would take is worth more to learn from, so that the model is calibrated on what the models of
    the folds say, each of the rows that it was not shown.

    Args:
        config: The settings of the run.
        rows: Two or more of at least one label.
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
    folds = divide(rows, seed=config.seed)
    held_out = [row for fold in folds for row in fold]
    truth = targets(held_out, labels)
    logits: dict[str, NDArray[np.float32]] = {}
    scores: dict[str, dict[str, float]] = {}
    for name, way in ways.items():
        parts = []
        for number, fold in enumerate(folds):
            chosen = {id(row) for row in fold}
            others = [row for row in rows if id(row) not in chosen]
            best = fine_tune(way, others, [], work / f"{name}-{number}", resume=resume)
            parts.append(Checkpoint.load(str(best)).logits([row.text for row in fold]))
        logits[name] = np.concatenate(parts)
        right = truth[np.arange(len(truth)), logits[name].argmax(axis=1)]
        fitted = fit(logits[name], truth)
        scores[name] = {"accuracy": float(right.mean()), "temperature": fitted.temperature}
        print(f"cross-validation, {name}: accuracy {right.mean():.4f} over {len(truth)} rows", file=sys.stderr)
    chosen_way = max(scores, key=lambda name: scores[name]["accuracy"])
    best = fine_tune(ways[chosen_way], rows, [], work / "all", resume=resume)
    record: dict[str, Any] = {"folds": len(folds), "rows": len(held_out), "ways": scores, "chosen": chosen_way}
    note(best, cross_validation=record)
    return best, Unseen(held_out, logits[chosen_way])


def divide(rows: Sequence[Row], *, seed: int) -> list[list[Row]]:
    """
    Divide the rows of all labels that have more than one text into folds, as even as can be.

    Copies of a text stay together. A label's only text is in no fold, nor is a text with several labels: they are
    always learnt from.

    Args:
        rows: One label a row; more texts than labels.
        seed: Same rows and seed: same folds.
    """
    texts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        texts[row.text].append(row)
    strata: dict[str, list[list[Row]]] = defaultdict(list)
    for group in texts.values():
        if len({row.labels for row in group}) == 1:
            strata[group[0].labels[0]].append(group)
    counts = Counter(len(groups) for groups in strata.values() if len(groups) > 1)
    number = min(FOLDS, min(counts))
    folds: list[list[Row]] = [[] for _ in range(number)]
    shuffle = random.Random(seed).shuffle
    start = 0
    for _, groups in sorted(strata.items()):
        if len(groups) < 2:
            continue
        shuffle(groups)
        for place, group in enumerate(groups, start):
            folds[place % number] += group
        start += len(groups)  # labels with a row too many give it to another fold each
    return folds
