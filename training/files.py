"""Files of labelled sentences: read as a run reads them, checked, cleaned, and drawn from."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from inference.errors import InputError
from training.base import detokenizes, quiet_transformers, reading_length, token_counter
from training.checks import check, check_labels, clean, treebank_rows
from training.data import Table, label_names, other_columns, read_rows, write_rows
from training.errors import DataError
from training.formats import WRITERS
from training.sample import draw

if TYPE_CHECKING:
    from pathlib import Path

    from training.checks import Checked
    from training.sample import Sample
    from training.settings import TrainConfig


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
    table = read_table(config, data)
    if cleaned and cleaned.resolve() == data.resolve():
        _check_whole(table, config)
    config = settle_detokenize(config, table)
    other = read_table(config, against) if against else None
    tell_limit(config)
    checked = check_files(config, table, other)
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


def read_table(config: TrainConfig, path: Path) -> Table:
    """Read a file by the columns that the settings name; DataError says what is wrong with it."""
    return Table.read(
        path, text_column=config.text_column, label_column=config.label_column, multi_label=config.multi_label
    )


def settle_detokenize(config: TrainConfig, table: Table) -> TrainConfig:
    """Return the settings with a way to read the rows, where nobody has chosen one."""
    if config.detokenize:
        return config
    return replace(config, detokenize="treebank" if treebank_rows(table) or detokenizes(config.base) else "none")


def tell_limit(config: TrainConfig) -> None:
    """Say on stderr if the base reads fewer tokens than the settings ask for."""
    if config.max_tokens > (longest := reading_length(config.base)):
        print(
            f"--max-tokens is {config.max_tokens}, but {config.base} has positions for {longest}: "
            f"texts are cut after {longest} tokens",
            file=sys.stderr,
        )


def check_files(config: TrainConfig, table: Table, against: Table | None, dev: Table | None = None) -> Checked:
    """Return everything that is found in the rows to learn from, beside those to measure on and to choose by."""
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
