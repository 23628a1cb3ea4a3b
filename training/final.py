"""The end of a run: what was kept to choose the epoch by is learnt too."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from inference.classifier import sigmoid, softmax
from training.calibration import Unseen
from training.checkpoint import Checkpoint
from training.data import label_names
from training.metrics import targets
from training.objective import Objective
from training.processes import is_first_process
from training.record import note, read_run
from training.settings import LEAST_RATE, TrainConfig
from training.train import fine_tune

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from training.data import Row

GENTLE = 0.5  # peak of the learning rate, as a part of that before


def learn_all(
    chosen: Path,
    train: Sequence[Row],
    dev: Sequence[Row],
    work: Path,
    *,
    teacher: NDArray[np.float32] | None = None,
    resume: bool = False,
) -> tuple[Path, Unseen]:
    """
    Go on from a chosen checkpoint with all rows, those that chose it too, for the run's `final_epochs`.

    It costs a part of what learning anew from all rows would, and is as good (docs/training.md). On rows that it has
    learnt the model follows itself, so that nothing of them is forgotten and nothing is learnt too well (Li and Hoiem
    2016, arXiv:1606.09282). Those that are new have their labels or, where labels are soft, the model's own word in the
    share that it had in the last epoch (see `training.goals`).

    Args:
        chosen: Folder of the checkpoint, with the record of its run.
        train: Rows that it learnt from.
        dev: Rows that chose it.
        work: Folder of this part of the run.
        teacher: As `fine_tune` takes it, of `train` and then `dev`.
        resume: Go on with what is in `work`, if there is anything.

    Returns:
        The folder of the checkpoint that has learnt all, with the record of the whole run, and what the one before it
        says of `dev`.
    """
    run = read_run(chosen)
    assert run is not None  # noqa: S101  `fine_tune` wrote it
    config = TrainConfig(**run["config"])
    rows = [*train, *dev]
    if is_first_process():
        print(f"learning from all {len(rows)} rows in the end, the development rows too", file=sys.stderr)
    logits = Checkpoint.load(str(chosen)).logits([row.text for row in rows])
    share = config.self_distillation or config.soft_labels or 0.0
    truth = targets(rows, label_names(train))
    said = (sigmoid if config.multi_label else softmax)(logits)
    goals = Objective.of(truth, config).towards(torch.from_numpy(said)).numpy()
    goals[len(train) :] = share * goals[len(train) :] + (1 - share) * truth[len(train) :]
    gentle = replace(
        config,
        epochs=config.final_epochs,
        learning_rate=max(LEAST_RATE, GENTLE * config.learning_rate),
        head_learning_rate=max(LEAST_RATE, GENTLE * config.head_learning_rate),
        self_distillation=0.0,  # of the epoch before: there is none
    )
    made = fine_tune(
        gentle,
        rows,
        [],
        work,
        start=chosen,
        soft=goals,
        teacher=teacher,
        resume=resume,
    )
    if is_first_process():
        note(made, **run, final={"epochs": gentle.epochs, "learning_rate": gentle.learning_rate, "rows": len(rows)})
    return made, Unseen(dev, logits[len(train) :])
