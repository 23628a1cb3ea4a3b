"""Cross-validation: what is said of each row by a model that has learnt from others alone."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from training.calibration import Unseen
from training.checkpoint import Checkpoint
from training.copies import fold
from training.data import label_names
from training.folds import deal
from training.metrics import targets
from training.processes import is_first_process
from training.record import note, read_run
from training.settings import FOLDS, TrainConfig
from training.soft_labels import soft_labels
from training.train import fine_tune

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.data import Row

ALWAYS = -1  # fold of the rows that every model learns from: those of labels that one fold has all of


class Folds:
    """Rows, and which of them are judged by a model that has learnt from all others."""

    def __init__(self, rows: Sequence[Row], *, number: int = FOLDS, seed: int) -> None:
        copies = [fold(row.text) for row in rows]
        fold_of, alone = deal(rows, copies, number=number, seed=seed)
        needed = np.array([not set(alone).isdisjoint(row.labels) for row in rows])
        learnt = set(compress(copies, needed.tolist()))
        always = np.array([copy in learnt for copy in copies])  # a copy of another label is not asked about either
        if always.all():
            always = needed
        fold_of[always] = ALWAYS
        self._divided = [fold_of == one for one in range(number) if (fold_of == one).any()]
        self.parts = [(_chosen(rows, ~held_out), _chosen(rows, held_out)) for held_out in self._divided]
        self.held_out = [row for _, held_out in self.parts for row in held_out]
        self.truth = targets(self.held_out, label_names(rows))
        self.size = {"folds": len(self.parts), "rows": len(self.held_out)}

    def learnt(self, number: int) -> NDArray[np.bool_]:
        """Say which rows the model of a fold learns from, shape (rows,)."""
        return np.asarray(~self._divided[number])

    def ask(self, learn: Callable[[int], Path]) -> NDArray[np.float32]:
        """Return logits of `held_out`, shape (rows, labels), by the checkpoints that `learn` makes of each part."""
        logits = [np.zeros((0, self.truth.shape[1]), dtype=np.float32)]
        for number, (_, held_out) in enumerate(self.parts):
            logits.append(Checkpoint.load(str(learn(number))).logits([row.text for row in held_out]))
        return np.concatenate(logits)


def _chosen(rows: Sequence[Row], which: NDArray[np.bool_]) -> list[Row]:
    return list(compress(rows, which.tolist()))


def cross_validate(
    chosen: Path,
    train: Sequence[Row],
    dev: Sequence[Row],
    work: Path,
    *,
    teacher: NDArray[np.float32] | None = None,
    resume: bool = False,
) -> Unseen:
    """
    Train anew as a run was, for each fold without it, and return what these models say of the rows they have not seen.

    A few development rows say little of how well a model is calibrated, and of how good it is; these are all rows. How
    many they are, and of how many folds, is added to the record of the run.

    Args:
        chosen: Folder of a checkpoint, with the record of its run.
        train: Rows that it learnt from.
        dev: Its development rows.
        work: Folder to train in.
        teacher: As `fine_tune` takes it, of `train` and then `dev`.
        resume: Go on with what is in `work`, if there is anything.
    """
    run = read_run(chosen)
    assert run is not None  # noqa: S101  `fine_tune` wrote it
    config = TrainConfig(**run["config"])
    folds = Folds([*train, *dev], number=config.folds or FOLDS, seed=config.seed)

    def learn(number: int) -> Path:
        learnt, _ = folds.parts[number]
        # In as many steps as the run took: models of fewer rows and fewer steps are less sure than it is.
        epochs = max(1, round((config.epochs or 1) * len(train) / len(learnt)))
        if is_first_process():
            print(f"cross-validation: without part {number + 1} of {len(folds.parts)}", file=sys.stderr)
        return fine_tune(
            replace(config, epochs=epochs),
            learnt,
            [],  # the last epoch is taken: the best one on rows that are judged next would flatter
            work / str(number),
            soft=soft_labels(config, learnt),
            teacher=None if teacher is None else teacher[folds.learnt(number)],
            resume=resume,
        )

    logits = folds.ask(learn)
    if is_first_process():
        note(chosen, crossed=folds.size)
        print(f"cross-validation: {len(folds.held_out)} rows are judged", file=sys.stderr)
    return Unseen(folds.held_out, logits)
