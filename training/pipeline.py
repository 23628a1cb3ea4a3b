"""A training run: files of labelled sentences in, a model folder out."""

from __future__ import annotations

import shutil
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from inference import artifact
from inference.errors import InputError
from training.base import quiet_transformers
from training.copies import fold
from training.data import are_few, check_known, check_trainable, label_names, split
from training.errors import DataError
from training.files import check_files, read_table, settle_detokenize, tell_limit
from training.finished import load_scorer
from training.settings import CHOOSING_ROWS, TrainConfig
from training.unfinished import alone
from training.wording import joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from training.calibration import Unseen
    from training.checks import Finding
    from training.data import Row, Table
    from training.settings import Search


def train(
    config: TrainConfig,
    data: Path,
    *,
    out: Path,
    dev: Path | None = None,
    test: Path | None = None,
    search: Search | None = None,
    resume: bool = False,
) -> artifact.Manifest | None:
    """
    Fine-tune on a file of labelled sentences and write the model folder `out`.

    With fewer than 30 rows a label (see `training.few`), and no rows to choose by, all of them are learnt from. Under
    `torchrun` or `accelerate launch` the first process alone makes the folder; the others return None.

    Args:
        config: The settings of the run.
        data: Rows to learn from.
        out: Becomes the model folder; a model that is there is replaced in one step.
        dev: Rows to choose the best epoch by, and never to learn from; by default a share of `data`, which is learnt
            in the end (see `training.final`). Where that is fewer than 100 rows, cross-validation calibrates.
        test: Rows to measure the finished model on.
        search: Try several settings, and take what was best on the development rows.
        resume: Go on with the unfinished run of the same `out`.

    Raises:
        DataError: a file is not what training needs.
        BaseModelError: the base model cannot be had.
        InputError: more layers are to be kept than it has, or another process trains the same `out`.
        ArtifactError: `out` is something other than a model folder.
        GateError: the exported graph is not faithful; nothing is written.
    """
    artifact.check_replaceable(out)
    if dev:
        if config.final_epochs:
            raise InputError(
                f"--final-epochs is {config.final_epochs}, but rows of a --dev are never learnt; leave one of them out"
            )
        if config.folds:
            raise InputError(f"--folds is {config.folds}, but with a --dev its rows calibrate; leave one of them out")
        config = replace(config, final_epochs=0, folds=0)
    rows = _divided(config, data, dev=dev, test=test, spare=bool(search or config.teacher))

    # Heavy imports wait until the data is known to be good.
    from training.base import load_config
    from training.checkpoint import Checkpoint
    from training.folder import build
    from training.processes import is_first_process, is_left_alone, part
    from training.record import read_run
    from training.train import check_layers

    quiet_transformers()
    check_layers(config, load_config(config.base))
    config = settle_detokenize(config, rows.table)
    if is_first_process():
        if is_left_alone():
            print(
                "warning: accelerate launch has started one process of several, as it does on CPUs unless it is given "
                "--multi_gpu, which works there too; or use torchrun",
                file=sys.stderr,
            )
        tell_limit(config)
        if config.detokenize == "treebank":
            print(
                "words split as in the Penn Treebank, such as do n't, are read as people write them, now and whenever "
                "the model is asked; --detokenize none leaves them",
                file=sys.stderr,
            )
    checked = check_files(config, rows.table, rows.test_table, rows.dev_table)
    _heed(checked.findings, data)
    work = out.parent / f".{out.name}.training"
    with alone(work) if is_first_process() else nullcontext():
        best, held_out = _learn(config, rows, work, search=search, resume=resume)
        part()
        if not is_first_process():
            return None
        run = read_run(best)
        manifest = build(
            Checkpoint.load(str(best)),
            out,
            base_model=config.base,
            probe_texts=[row.text for row in (*rows.dev, *rows.test, *rows.train)],
            labelled=({name: one.rows for name, one in held_out.items()} or {"dev": rows.dev}) | {"test": rows.test},
            held_out=held_out,
            min_precision=config.min_precision,
            run=run and run | {"data": checked.to_json()},
        )
        shutil.rmtree(work)
    return manifest


def _heed(findings: Sequence[Finding], data: Path) -> None:
    """Tell the warnings; DataError says what training cannot go on with."""
    from training.processes import is_first_process

    for finding in findings:
        if finding.level == "error":
            where = f" ({finding.examples[0]})" if finding.code == "text_unread" else ""
            raise DataError(f"{data}: {finding.message}{where}")
        if finding.level == "warning" and is_first_process():
            print(f"warning: {finding.message}; `bertrand check-data` shows them", file=sys.stderr)


@dataclass(frozen=True)
class _Divided:
    """The files of a run, and what each row is for."""

    table: Table
    dev_table: Table | None
    test_table: Table | None
    train: list[Row]
    dev: list[Row]  # none where examples are few
    test: list[Row]
    labels: list[str]


def _divided(config: TrainConfig, data: Path, *, dev: Path | None, test: Path | None, spare: bool) -> _Divided:
    """Read the files of a run; with `spare`, some rows are kept to choose by, however few there are."""
    tables = {path: read_table(config, path) for path in (data, dev, test) if path}
    rows = tables[data].trainable
    check_trainable(rows, data)
    labels = label_names(rows)
    for path in (dev, test):
        if path:
            check_known(tables[path].trainable, labels, path)
    dev_rows = tables[dev].trainable if dev else []
    if not dev:
        if not config.multi_label and len({fold(row.text) for row in rows}) <= len(labels):
            raise DataError(f"{data}: every label has one text only, so none is left to choose by; name a --dev")
        if spare or not are_few(rows, config):
            rows, dev_rows = split(rows, share=config.dev_share, seed=config.seed)
            if not dev_rows:
                raise DataError(f"{data}: no row can be spared to choose the epoch by; name a --dev")
    test_rows = tables[test].trainable if test else []
    dev_table, test_table = (tables[path] if path else None for path in (dev, test))
    return _Divided(tables[data], dev_table, test_table, rows, dev_rows, test_rows, labels)


def _learn(
    config: TrainConfig, rows: _Divided, work: Path, *, search: Search | None, resume: bool
) -> tuple[Path, dict[str, Unseen]]:
    """Return the folder of the checkpoint, and what others say of rows that it has learnt from and they have not."""
    from training.crossed import cross_validate
    from training.few import fine_tune_few
    from training.final import learn_all
    from training.processes import is_first_process, process_count
    from training.search import search as look_for
    from training.soft_labels import soft_labels
    from training.train import fine_tune

    few = not rows.dev
    if resume:
        _check_begun(work, "search" if search else "few" if few else "run")
    if (few or search) and process_count() > 1:
        what = "a search" if search else "learning from few examples (--few-examples auto)"
        raise InputError(
            f"{what} runs in one process; found {process_count()}: start it without torchrun or accelerate"
        )
    if is_first_process():
        purpose = "choose the epoch" if len(rows.dev) >= CHOOSING_ROWS else "develop on"
        print(
            f"{len(rows.train)} rows to learn from, {len(rows.dev)} to {purpose}, {len(rows.test)} to test; "
            f"{len(rows.labels)} labels",
            file=sys.stderr,
        )
    if is_first_process() and (idle := _idle(config, few=few, dev=rows.dev_table is not None)):
        print(f"warning: {idle}", file=sys.stderr)
    if few:
        print(
            f"few examples, {len(rows.train) / len(rows.labels):.1f} a label: all of them are learnt from, and "
            "cross-validation chooses how; --few-examples off, or a --dev, learns as from many",
            file=sys.stderr,
        )
        best, cross_validated = fine_tune_few(config, rows.train, work, resume=resume)
        return best, {"cross-validation": cross_validated}
    settled = config.for_rows(len(rows.train), len(rows.dev))
    taught = [*rows.train, *rows.dev] if settled.final_epochs or settled.folds else rows.train
    all_teacher = (
        _teach(config.teacher, taught, rows.labels, multi_label=config.multi_label) if config.teacher else None
    )
    teacher = None if all_teacher is None else all_teacher[: len(rows.train)]
    soft = soft_labels(config, rows.train)
    if search:
        best = look_for(search, config, rows.train, rows.dev, work, soft=soft, teacher=teacher, resume=resume)
    else:
        best = fine_tune(config, rows.train, rows.dev, work, soft=soft, teacher=teacher, resume=resume)
    # Beside what they go on from, of which a search may find a better one.
    beside = best.parent
    unseen: dict[str, Unseen] = {}
    if settled.folds:
        crossed = cross_validate(best, rows.train, rows.dev, beside / "folds", teacher=all_teacher, resume=resume)
        if crossed.rows:  # but where each has a label that no other one has
            unseen = {"cross-validation": crossed}
    if settled.final_epochs:
        best, before = learn_all(best, rows.train, rows.dev, beside / "final", teacher=all_teacher, resume=resume)
        unseen = unseen or {"dev": before}
    return best, unseen


def _teach(teacher: str, rows: Sequence[Row], labels: Sequence[str], *, multi_label: bool) -> NDArray[np.float32]:
    """Return what a teacher says of rows: probabilities, shape (rows, labels), labels in the order that is given."""
    scorer = load_scorer(Path(teacher), "fp32")
    if sorted(scorer.labels) != sorted(labels):
        differing = sorted(set(scorer.labels) ^ set(labels))
        raise InputError(
            f"--teacher {teacher}: knows {len(scorer.labels)} labels, the rows {len(labels)}, and {differing[0]!r} "
            "is in one only; expected a model of the same labels"
        )
    if (scorer.problem_type == "multi_label") != multi_label:
        found, expected = ("one label", "any number of them") if multi_label else ("any number of labels", "one label")
        raise InputError(
            f"--teacher {teacher}: gives a row {found}; expected a model that gives {expected}, as this run"
        )
    order = [scorer.labels.index(label) for label in labels]
    return scorer.score([row.text for row in rows])[:, order]


def _idle(config: TrainConfig, *, few: bool, dev: bool) -> str:
    """Say which settings were given that change nothing in such a run; empty where all do."""
    names = (["dev_share"] if few or dev else []) + (["patience", "head_start"] if few else [])
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(config, name) != getattr(TrainConfig, name)]
    if not given:
        return ""
    why = (
        "all of few examples are learnt from, from a fitted classifier to the last epoch" if few else "a --dev is given"
    )
    return f"{joined(given)} without effect, since {why}"


BEGUN = {  # what an unfinished run may be, and how it was asked for
    "search": ("a search", "--search"),
    "few": ("learning from few examples", "--few-examples auto and no --dev"),
    "run": ("one run from many rows", "neither --search nor few examples"),
}


def _check_begun(work: Path, kind: str) -> None:
    """
    Say so if nothing is unfinished in `work`.

    Raises:
        DataError: what is unfinished there is of another kind, which resuming would clear away.
    """
    from training.processes import is_first_process

    if not any(work.glob("*")):
        if is_first_process():
            print("no unfinished run to resume; starting anew", file=sys.stderr)
        return
    found = "search" if any(work.glob("trial-*")) else "few" if any(work.glob("frozen-*")) else "run"
    if found == kind:
        return
    raise DataError(
        f"{work}: cannot resume, what is unfinished there is {BEGUN[found][0]} ({BEGUN[found][1]}), and what is asked "
        f"for is {BEGUN[kind][0]}; give the options that it was begun with, or leave out --resume"
    )
