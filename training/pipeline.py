"""What the commands do: files in, a model folder or figures out."""

from __future__ import annotations

import shutil
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from inference import artifact
from inference.classifier import Classifier
from inference.encoder import Encoded
from inference.errors import ArtifactError, InputError
from training.base import detokenizes, quiet_transformers, reading_length, token_counter
from training.checks import Table, check, check_labels, clean, treebank_rows
from training.copies import fold
from training.data import (
    WRITERS,
    are_few,
    check_known,
    check_trainable,
    label_names,
    other_columns,
    read_rows,
    split,
    write_rows,
)
from training.errors import DataError
from training.metrics import score
from training.sample import draw
from training.settings import CHOOSING_ROWS, TrainConfig
from training.unfinished import alone
from training.wording import joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from training.calibration import Unseen
    from training.checkpoint import Checkpoint
    from training.checks import Checked
    from training.compare import Comparison
    from training.data import Row
    from training.gates import Gate
    from training.metrics import Metrics
    from training.sample import Sample
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
    from training.processes import is_first_process, part
    from training.record import read_run
    from training.train import check_layers

    quiet_transformers()
    check_layers(config, load_config(config.base))
    config = _reading(config, rows.table)
    if is_first_process():
        _tell_limit(config)
        if config.detokenize == "treebank":
            print(
                "words split as in the Penn Treebank, such as do n't, are read as people write them, now and whenever "
                "the model is asked; --detokenize none leaves them",
                file=sys.stderr,
            )
    checked = _check(config, rows.table, rows.test_table, rows.dev_table)
    for finding in checked.findings:
        if finding.level == "error":
            where = f" ({finding.examples[0]})" if finding.code == "text_unread" else ""
            raise DataError(f"{data}: {finding.message}{where}")
        if finding.level == "warning" and is_first_process():
            print(f"warning: {finding.message}; `bertrand check-data` shows them", file=sys.stderr)
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
    tables = {path: _read(config, path) for path in (data, dev, test) if path}
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


BEGUN = {  # what an unfinished run may be, and how it was asked for
    "search": ("a search", "--search"),
    "few": ("learning from few examples", "--few-examples auto and no --dev"),
    "run": ("one run from many rows", "neither --search nor few examples"),
}


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
    quiet_transformers()
    from training.checkpoint import Checkpoint
    from training.folder import build
    from training.record import read_run

    loaded = Checkpoint.load(checkpoint)
    if measured:
        rows = _read_for(loaded, data, text_column, label_column)
    else:
        rows = _with_tokens(loaded, Table.read(data, text_column=text_column, label_column=None))
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
    checkpoint = opened.folder / artifact.CHECKPOINT
    if not checkpoint.is_dir():
        raise ArtifactError(f"{model}: has no {artifact.CHECKPOINT}/ to compare with; verify it where it was trained")
    opened.check_all()
    fp32 = Classifier.load(opened.folder, precision="fp32")
    if label_column is None:
        rows = _with_tokens(fp32, Table.read(data, text_column=text_column, label_column=None))
    else:
        rows = _read_for(fp32, data, text_column, label_column)
    quiet_transformers()
    from training import gates
    from training.checkpoint import Checkpoint

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
    scorer = _load(model, precision)
    return score(scorer, _read_for(scorer, data, text_column, label_column))


def compare(
    a: Path,
    b: Path,
    data: Path,
    *,
    precision: str = "auto",
    text_column: str = "text",
    label_column: str = "label",
    examples: int = 0,
) -> Comparison:
    """
    Say which of two model folders, or PyTorch checkpoints, is better on labelled rows, and whether by more than chance.

    Args:
        a: The first model.
        b: The second.
        data: Rows that neither has learnt from.
        precision: Graph of the model folders.
        text_column: Column of the sentence in `data`.
        label_column: Column of the label in `data`.
        examples: Rows to return, at most, that the one alone has right, and as many that the other has.

    Raises:
        ArtifactError: one of them is neither, or damaged.
        InputError: the one gives a row one label, the other several.
        DataError: `data` cannot be read, or has labels that one of them does not know.
    """
    first, second = _load(a, precision), _load(b, precision)
    if first.problem_type != second.problem_type:
        kinds = {"single_label": "one label", "multi_label": "any number of labels"}
        raise InputError(
            f"{a} gives a row {kinds[first.problem_type]} and {b} {kinds[second.problem_type]}; "
            "only models of the same kind can be compared"
        )
    rows = _read_for(first, data, text_column, label_column, second, name=a)
    check_known(rows, second.labels, data, model=b)
    from training import compare as comparing

    return comparing.compare(first, second, rows, examples=examples)


def _load(model: Path, precision: str) -> Classifier | Checkpoint:
    """Load a model folder, or a PyTorch checkpoint."""
    if (model / "config.json").is_file() and not (model / artifact.MANIFEST).is_file():
        quiet_transformers()
        from training.checkpoint import Checkpoint

        if precision == "int8":
            raise InputError(
                f"{model}: a checkpoint has no int8 graph; name its model folder, or leave out --precision"
            )
        return Checkpoint.load(str(model))
    return Classifier.load(model, precision=precision)


def check_data(
    config: TrainConfig,
    data: Path,
    *,
    against: Path | None = None,
    cleaned: Path | None = None,
    label_noise: bool = False,
) -> tuple[Checked, int | None]:
    """
    Look for everything in a file that makes a model worse, or its measured accuracy better than it is.

    Args:
        config: The settings of the run that the file is for.
        data: Rows to learn from.
        against: Rows to measure on.
        cleaned: Gets the rows that are worth learning from; a file that is there is replaced in one step.
        label_noise: Look for wrong labels too, for which the base model reads every text of `data`.

    Returns:
        What was found, and how many rows were written to `cleaned`.

    Raises:
        DataError: a file cannot be read, or `cleaned` not be written.
        BaseModelError: the base model cannot be had.
    """
    if cleaned:
        _check_writable(cleaned)
        if against:
            _check_different(against, cleaned)
    table = _read(config, data)
    if cleaned and cleaned.resolve() == data.resolve():
        _check_whole(table, config)
    config = _reading(config, table)
    other = _read(config, against) if against else None
    _tell_limit(config)
    checked = _check(config, table, other)
    if label_noise:
        quiet_transformers()
        from training.vectors import layered_vectors

        vectors = partial(layered_vectors, config.base, max_tokens=config.max_tokens, detokenize=config.detokenize)
        checked = check_labels(checked, vectors, multi_label=config.multi_label)
    if not cleaned:
        return checked, None
    rows = clean(checked.readable, other)
    write_rows(
        {cleaned: rows},
        text_column=config.text_column,
        label_column=config.label_column,
        multi_label=config.multi_label,
    )
    return checked, len(rows)


def _teach(teacher: str, rows: Sequence[Row], labels: Sequence[str], *, multi_label: bool) -> NDArray[np.float32]:
    """Return what a teacher says of rows: probabilities, shape (rows, labels), labels in the order that is given."""
    scorer = _load(Path(teacher), "fp32")
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


def sample(
    data: Path,
    out: Path,
    *,
    rows_per_label: int,
    seed: int = 0,
    rest: Path | None = None,
    text_column: str = "text",
    label_column: str = "label",
    multi_label: bool = False,
) -> Sample:
    """
    Draw rows of every label and write them, text and label alone.

    Args:
        data: Rows to draw from; left as it is.
        out: Gets the drawn rows; a file that is there is replaced in one step.
        rows_per_label: Rows to draw of every label, or all where there are fewer.
        seed: Same rows, number and seed: same sample.
        rest: Gets the rows that were not drawn.
        text_column: Column of the sentence, in all files.
        label_column: Column of the label, in all files.
        multi_label: A row may have several labels.

    Raises:
        InputError: the number is less than 1, the seed less than 0, or two of the files are one.
        DataError: `data` cannot be read or has no label, or a file cannot be written.
    """
    if seed < 0:
        raise InputError(f"--seed is {seed}; expected a whole number from 0 up")
    if rows_per_label < 1:
        raise InputError(f"--rows-per-label is {rows_per_label}; expected 1 or more")
    outputs = [path for path in (out, rest) if path]
    for path in outputs:
        _check_writable(path)
    _check_different(data, *outputs)
    rows = read_rows(data, text_column=text_column, label_column=label_column, multi_label=multi_label)
    if not label_names(rows):
        raise DataError(f"{data}: no row has a label; expected labels to draw rows of")
    drawn = draw(rows, rows_per_label, seed=seed)
    files = {out: drawn.drawn} | ({rest: drawn.rest} if rest else {})
    write_rows(files, text_column=text_column, label_column=label_column, multi_label=multi_label)
    return drawn


def _check_writable(path: Path) -> None:
    if path.suffix.lower() not in WRITERS:
        raise DataError(f"{path}: unknown ending {path.suffix!r}; expected one of {', '.join(WRITERS)}")
    if not path.parent.is_dir():
        raise DataError(f"{path}: cannot be written (there is no folder {path.parent}); make it first")


def _check_whole(table: Table, config: TrainConfig) -> None:
    """Refuse to write a file anew without something that it has and that is no row worth learning from."""
    others = other_columns(table.path, (config.text_column, config.label_column))
    lost = [f"the column {name!r}" for name in others[:3]]
    if table.flaws:
        lost.append(f"{len(table.flaws)} row{'s' * (len(table.flaws) > 1)} without a text or a label")
    if lost:
        raise InputError(
            f"{table.path}: cleaned in place it would lose {', '.join(lost)}; name another file with --clean"
        )


def _check_different(*paths: Path) -> None:
    """Refuse to write over what is read."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError(f"{', '.join(map(str, paths))} are not different files; name another one to write to")


def _reading(config: TrainConfig, table: Table) -> TrainConfig:
    """Return the settings with a way to read the rows, where nobody has chosen one."""
    if config.detokenize:
        return config
    return replace(config, detokenize="treebank" if treebank_rows(table) or detokenizes(config.base) else "none")


def _check(config: TrainConfig, table: Table, against: Table | None, dev: Table | None = None) -> Checked:
    max_tokens = min(config.max_tokens, reading_length(config.base))
    count_tokens = token_counter(config.base, detokenize=config.detokenize)
    return check(
        table,
        against,
        dev=dev,
        count_tokens=count_tokens,
        max_tokens=max_tokens,
        dev_share=config.dev_share,
        seed=config.seed,
    )


def _tell_limit(config: TrainConfig) -> None:
    if config.max_tokens > (longest := reading_length(config.base)):
        print(
            f"--max-tokens is {config.max_tokens}, but {config.base} has positions for {longest}: "
            f"texts are cut after {longest} tokens",
            file=sys.stderr,
        )


def _read(config: TrainConfig, path: Path) -> Table:
    return Table.read(
        path, text_column=config.text_column, label_column=config.label_column, multi_label=config.multi_label
    )


def _read_for(
    model: Classifier | Checkpoint,
    path: Path,
    text_column: str,
    label_column: str,
    *others: Classifier | Checkpoint,
    name: Path | None = None,
) -> list[Row]:
    """Read rows that are labelled for a model, and check that it knows their labels and that all can read them."""
    multi_label = model.problem_type == "multi_label"
    table = Table.read(path, text_column=text_column, label_column=label_column, multi_label=multi_label)
    check_known(table.trainable, model.labels, path, model=name)
    for one in (model, *others):
        _with_tokens(one, table)
    return table.trainable


def _with_tokens(model: Classifier | Checkpoint, table: Table) -> list[Row]:
    """Return the rows; DataError says which has a text that the tokenizer of a model leaves nothing of."""
    rows = table.trainable
    texts = [row.text for row in rows]
    if isinstance(model, Classifier):
        read = [isinstance(item, Encoded) for item in model.encoder.encode(texts, offsets=False)]
    else:
        read = model.can_read(texts)
    for (place, row), has_tokens in zip(table.rows, read, strict=True):
        if not has_tokens:
            raise DataError(
                f"{table.path}, {place}: the model's tokenizer leaves nothing of {row.text[:40]!r}; take the row out"
            )
    return rows
