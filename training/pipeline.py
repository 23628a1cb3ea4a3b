"""What the commands do: files in, a model folder or figures out."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from inference import artifact
from inference.classifier import Classifier
from inference.errors import ArtifactError
from training.base import token_counter
from training.checks import Table, check, clean
from training.data import WRITERS, check_known, check_trainable, label_names, read_rows, split, write_rows
from training.errors import DataError
from training.metrics import Scorer, score

if TYPE_CHECKING:
    from pathlib import Path

    from training.checks import Checked
    from training.data import Row
    from training.gates import Gate
    from training.metrics import Metrics
    from training.settings import TrainConfig


def train(
    config: TrainConfig,
    data: Path,
    *,
    out: Path,
    dev: Path | None = None,
    test: Path | None = None,
    resume: bool = False,
) -> artifact.Manifest:
    """
    Fine-tune on a file of labelled sentences and write the model folder `out`.

    Args:
        config: The settings of the run.
        data: Rows to learn from.
        out: Becomes the model folder; a model that is there is replaced in one step.
        dev: Rows to choose the best epoch by; by default a share of `data`.
        test: Rows to measure the finished model on.
        resume: Go on with the unfinished run of the same `out`.

    Raises:
        DataError: a file is not what training needs.
        BaseModelError: the base model cannot be had.
        ArtifactError: `out` is something other than a model folder.
        GateError: the exported graph is not faithful; nothing is written.
    """
    artifact.check_replaceable(out)
    tables = {path: _read(config, path) for path in (data, dev, test) if path}
    train_rows = tables[data].trainable
    check_trainable(train_rows, data)
    labels = label_names(train_rows)
    for path in (dev, test):
        if path:
            check_known(tables[path].trainable, labels, path)
    if dev:
        dev_rows = tables[dev].trainable
    else:
        train_rows, dev_rows = split(train_rows, share=config.dev_share, seed=config.seed)
        if not dev_rows:
            raise DataError(
                f"{data}: every label has one row only, so none is left to choose the epoch by; name a --dev"
            )
    test_rows = tables[test].trainable if test else []

    # Heavy imports wait until the data is known to be good.
    from training.base import load_config
    from training.checkpoint import Checkpoint
    from training.folder import build
    from training.train import fine_tune, read_run

    _quiet_transformers()
    load_config(config.base)  # the last thing that may be wrong with what was asked for
    checked = _check(config, tables[data], tables[test] if test else None)
    for finding in checked.findings:
        if finding.level == "error":
            raise DataError(f"{data}: {finding.message}")
        if finding.level == "warning":
            print(f"warning: {finding.message}; `bertrand check-data` shows them", file=sys.stderr)
    print(
        f"{len(train_rows)} rows to learn from, {len(dev_rows)} to choose the epoch, {len(test_rows)} to test; "
        f"{len(labels)} labels",
        file=sys.stderr,
    )
    work = out.parent / f".{out.name}.training"
    best = fine_tune(config, train_rows, dev_rows, work, resume=resume)
    run = read_run(best)
    texts = [row.text for row in (*dev_rows, *test_rows, *train_rows)]
    manifest = build(
        Checkpoint.load(str(best)),
        out,
        base_model=config.base,
        probe_texts=texts,
        labelled={"dev": dev_rows, "test": test_rows},
        held_out=dev_rows,
        min_precision=config.min_precision,
        run=run and run | {"data": checked.to_json()},
    )
    shutil.rmtree(work)
    return manifest


def export(
    checkpoint: str,
    out: Path,
    *,
    data: Path,
    measured: bool = True,
    text_column: str = "text",
    label_column: str = "label",
) -> artifact.Manifest:
    """
    Write the model folder `out` of a fine-tuned checkpoint.

    Args:
        checkpoint: Folder or hub id.
        out: Becomes the model folder.
        data: Real rows to prove it on.
        measured: The rows are labelled for this model: measure it on them too.
        text_column: Column of the sentence in `data`.
        label_column: Column of the label in `data`.

    Raises:
        BaseModelError: the checkpoint cannot be had, or is not a supported sequence classifier.
        DataError, ArtifactError, GateError: as `train`.
    """
    artifact.check_replaceable(out)
    _quiet_transformers()
    from training.checkpoint import Checkpoint
    from training.folder import build
    from training.train import read_run

    loaded = Checkpoint.load(checkpoint)
    if measured:
        rows = _read_for(loaded, data, text_column, label_column)
    else:
        rows = read_rows(data, text_column=text_column, label_column=None)
    run = read_run(checkpoint)
    return build(
        loaded,
        out,
        base_model=run["config"]["base"] if run else checkpoint,
        probe_texts=[row.text for row in rows],
        labelled={"data": rows} if measured else {},
        run=run,
    )


def verify(model: Path, *, data: Path, text_column: str = "text", label_column: str | None = None) -> list[Gate]:
    """
    Check every file of a model folder, its fp32 graph against its checkpoint and its int8 graph against fp32.

    Args:
        model: A model folder.
        data: Real rows to prove it on.
        text_column: Column of the sentence in `data`.
        label_column: Column of the label in `data`, to compare the accuracy of int8 and fp32 too.

    Raises:
        ArtifactError: a file is missing or altered.
        DataError: `data` cannot be read, or has labels that the model does not know.
    """
    opened = artifact.Artifact.open(model)
    if label_column is None:
        rows = read_rows(data, text_column=text_column, label_column=None)
    else:
        rows = _read_for(opened.manifest, data, text_column, label_column)
    opened.check_all()
    checkpoint = opened.folder / artifact.CHECKPOINT
    if not checkpoint.is_dir():
        raise ArtifactError(f"{model}: has no {artifact.CHECKPOINT}/ to compare with; verify it where it was trained")
    _quiet_transformers()
    from training import gates
    from training.checkpoint import Checkpoint

    fp32 = Classifier.load(opened.folder, precision="fp32")
    outcomes = gates.check(Checkpoint.load(str(checkpoint)), fp32, [row.text for row in rows])
    if "int8" in opened.manifest.precisions:
        int8 = Classifier.load(opened.folder, precision="int8")
        outcomes += gates.check_int8(fp32, int8, rows, labelled=label_column is not None)
        outcomes.append(gates.speed(fp32, int8, rows))
    return outcomes


def evaluate(
    model: Path, data: Path, *, precision: str = "auto", text_column: str = "text", label_column: str = "label"
) -> Metrics:
    """
    Measure a model folder, or a PyTorch checkpoint, on labelled rows.

    Raises:
        ArtifactError: `model` is neither, or damaged.
        DataError: `data` cannot be read, or has labels that the model does not know.
    """
    scorer: Scorer
    if (model / "config.json").is_file() and not (model / artifact.MANIFEST).is_file():
        _quiet_transformers()
        from training.checkpoint import Checkpoint

        scorer = Checkpoint.load(str(model))
    else:
        scorer = Classifier.load(model, precision=precision)
    return score(scorer, _read_for(scorer, data, text_column, label_column))


def check_data(
    config: TrainConfig, data: Path, *, against: Path | None = None, cleaned: Path | None = None
) -> tuple[Checked, int | None]:
    """
    Look for everything in a file that makes a model worse, or its measured accuracy better than it is.

    Args:
        config: The settings of the run that the file is for.
        data: Rows to learn from.
        against: Rows to measure on.
        cleaned: Gets the rows that are worth learning from; a file that is there is replaced in one step.

    Returns:
        What was found, and how many rows were written to `cleaned`.

    Raises:
        DataError: a file cannot be read, or `cleaned` not be written.
        BaseModelError: the base model cannot be had.
    """
    if cleaned and cleaned.suffix.lower() not in WRITERS:
        raise DataError(f"{cleaned}: unknown ending {cleaned.suffix!r}; expected one of {', '.join(WRITERS)}")
    table = _read(config, data)
    other = _read(config, against) if against else None
    checked = _check(config, table, other)
    if not cleaned:
        return checked, None
    rows = clean(table, other)
    write_rows(cleaned, rows, text_column=config.text_column, label_column=config.label_column)
    return checked, len(rows)


def _check(config: TrainConfig, table: Table, against: Table | None) -> Checked:
    return check(table, against, count_tokens=token_counter(config.base), max_tokens=config.max_tokens)


def _read(config: TrainConfig, path: Path) -> Table:
    return Table.read(
        path, text_column=config.text_column, label_column=config.label_column, multi_label=config.multi_label
    )


def _read_for(model: Scorer | artifact.Manifest, path: Path, text_column: str, label_column: str) -> list[Row]:
    """Read rows that are labelled for a model, and check that it knows their labels."""
    multi_label = model.problem_type == "multi_label"
    rows = read_rows(path, text_column=text_column, label_column=label_column, multi_label=multi_label)
    check_known(rows, model.labels, path)
    return rows


def _quiet_transformers() -> None:
    """Hold back what Transformers says of heads it makes anew and the like: our own lines say what matters."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
