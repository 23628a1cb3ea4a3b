"""Settings that do better on the development rows, found by trying."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inference.errors import InputError
from training.record import RUN_FILE, note, write_record
from training.settings import TrainConfig
from training.train import fine_tune

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from training.data import Row
    from training.settings import Search

SPENT = "search.json"  # in the folder of a search: how long it has taken


def search(
    wanted: Search,
    config: TrainConfig,
    train: Sequence[Row],
    dev: Sequence[Row],
    work: Path,
    *,
    soft: NDArray[np.float32] | None = None,
    teacher: NDArray[np.float32] | None = None,
    resume: bool = False,
) -> Path:
    """
    Fine-tune with several settings and return the folder of the checkpoint that was best on the development rows.

    The first trial is `config` itself; what it sets otherwise than the defaults stays so in all of them. Trials are
    chosen by Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), the same ones for the same seed.

    Args:
        wanted: How long to look.
        config: Where to start from.
        train: Rows to learn from.
        dev: Rows to choose the settings, and of each run the epoch, by.
        work: Folder of the search.
        soft: As `fine_tune` takes it.
        teacher: As `fine_tune` takes it.
        resume: Trials that had ended in `work` count, all of them, however few are wanted now: only the best one's
            weights were kept. The one that had not ended goes on.

    Raises:
        InputError: `config` leaves nothing to try.
    """
    if not _open(config):
        raise InputError(
            "--search has nothing to try: "
            + ("only a fitted head learns" if config.only_fits_head else "all that it would try is set")
            + "; leave settings to it, or leave it out"
        )
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    ended = len(list(work.glob(f"trial-*/best/{RUN_FILE}")))
    trials = max(wanted.trials, ended)
    # What goes on whatever the time: those that ended, read anew, the one that was interrupted, and always the first.
    begun = min(trials, max(1, len(list(work.glob("trial-*")))))
    record = work / SPENT
    before = json.loads(record.read_bytes())["seconds"] if record.is_file() else 0.0  # it was interrupted
    started = time.monotonic() - before
    if trials > wanted.trials:
        print(f"--search is {wanted.trials}, but {ended} trials have ended: all of them count", file=sys.stderr)
    best: tuple[float, int] | None = None  # score and number of a trial
    tried: list[dict[str, Any]] = []

    def attempt(trial: optuna.Trial) -> float:
        nonlocal best
        chosen = _suggest(trial, config)
        print(f"trial {trial.number + 1} of {trials}: {_told(chosen)}", file=sys.stderr)
        settings = replace(config, **chosen)
        made = fine_tune(settings, train, dev, _folder(work, trial.number), soft=soft, teacher=teacher, resume=resume)
        run = json.loads((made / RUN_FILE).read_bytes())
        of_epoch = {epoch["epoch"]: epoch[f"dev_{settings.selection}"] for epoch in run["history"]}
        score = of_epoch[run["chosen_epoch"]]
        write_record(work, {"seconds": time.monotonic() - started}, name=SPENT)
        tried.append(chosen | {"score": score})
        if best is None:
            best = (score, trial.number)
        elif score > best[0]:
            _forget(_folder(work, best[1]))
            best = (score, trial.number)
        else:
            _forget(_folder(work, trial.number))
        return float(score)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=config.seed))
    asked = config.for_rows(len(train), len(dev))
    study.enqueue_trial({name: getattr(asked, name) for name in _open(config)})
    study.optimize(attempt, n_trials=begun)
    left = wanted.minutes and wanted.minutes * 60 - (time.monotonic() - started)
    if trials > begun and (left is None or left > 0):
        study.optimize(attempt, n_trials=trials - begun, timeout=left)
    assert best is not None  # noqa: S101  one trial runs, however short the time
    score, number = best
    print(f"trial {number + 1} of {len(tried)} was best, {score:.4f}: {_told(tried[number])}", file=sys.stderr)
    chosen = _folder(work, number) / "best"
    note(chosen, search={"selection": config.selection, "trials": tried})
    return chosen


def _folder(work: Path, number: int) -> Path:
    return work / f"trial-{number}"


def _told(chosen: dict[str, Any]) -> str:
    """Name the settings of a trial."""
    return ", ".join(f"{name} {value:.4g}" for name, value in chosen.items() if name != "score")


def _open(config: TrainConfig) -> list[str]:
    """Return which settings may be tried: those that are as by default and change something."""
    if config.only_fits_head:
        return []
    names = ("learning_rate", "head_learning_rate", "layer_decay", "batch_size", "consistency", "weight_decay")
    return [name for name in names if getattr(config, name) == getattr(TrainConfig, name)]


def _suggest(trial: Any, config: TrainConfig) -> dict[str, Any]:
    ways = {
        "learning_rate": lambda name: trial.suggest_float(name, 2e-5, 5e-4, log=True),
        "head_learning_rate": lambda name: trial.suggest_float(name, 1e-4, 1e-2, log=True),
        "layer_decay": lambda name: trial.suggest_float(name, 0.6, 1.0),
        "batch_size": lambda name: trial.suggest_categorical(name, [16, 32, 64]),
        "consistency": lambda name: trial.suggest_float(name, 0.0, 4.0),
        "weight_decay": lambda name: trial.suggest_float(name, 1e-3, 0.3, log=True),
    }
    return {name: ways[name](name) for name in _open(config)}


def _forget(folder: Path) -> None:
    """Remove the weights of a trial, and keep what it scored."""
    for part in (*folder.glob("checkpoint-*"), *folder.glob("final")):
        shutil.rmtree(part)
    for file in (folder / "best").iterdir():
        if file.name != RUN_FILE and file.is_file():
            file.unlink()
