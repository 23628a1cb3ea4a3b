"""What is done with finished models: exported, proved, measured and compared, on files of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference import artifact
from inference.classifier import Classifier
from inference.encoder import Encoded
from inference.errors import ArtifactError, InputError
from training.base import quiet_transformers
from training.data import Table, check_known
from training.errors import DataError
from training.metrics import score

if TYPE_CHECKING:
    from pathlib import Path

    from training.checkpoint import Checkpoint
    from training.compare import Comparison
    from training.data import Row
    from training.gates import Gate
    from training.metrics import Metrics


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
        rows = read_for(loaded, data, text_column, label_column)
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
        rows = read_for(fp32, data, text_column, label_column)
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
    scorer = load_scorer(model, precision)
    return score(scorer, read_for(scorer, data, text_column, label_column))


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
    first, second = load_scorer(a, precision), load_scorer(b, precision)
    if first.problem_type != second.problem_type:
        kinds = {"single_label": "one label", "multi_label": "any number of labels"}
        raise InputError(
            f"{a} gives a row {kinds[first.problem_type]} and {b} {kinds[second.problem_type]}; "
            "only models of the same kind can be compared"
        )
    rows = read_for(first, data, text_column, label_column, second, name=a)
    check_known(rows, second.labels, data, model=b)
    from training import compare as comparing

    return comparing.compare(first, second, rows, examples=examples)


def load_scorer(model: Path, precision: str) -> Classifier | Checkpoint:
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


def read_for(
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
