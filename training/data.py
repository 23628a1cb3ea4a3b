"""Labelled sentences: records of a file to rows, rows to training and development sets."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import shutil
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.copies import fold
from training.errors import DataError
from training.formats import READERS, WRITERS
from training.wording import kind, listing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from training.settings import TrainConfig

FEW = 30  # rows a label, from which on a share of them can be spared for development
LABEL_SEPARATOR = "|"  # between the labels of one row, where a row may have several


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled sentence. A single-label row has exactly one label; a multi-label row may have none."""

    text: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """The rows of one file, each with its place, and what is wrong with those that have no text or no label."""

    path: Path
    rows: list[tuple[str, Row]]
    flaws: list[DataError]

    @classmethod
    def read(cls, path: Path, **columns: Any) -> Table:
        """
        Read a file to its end, past bad rows.

        Args:
            path: As `read_rows`.
            columns: Its options.

        Raises:
            DataError: the file cannot be read, lacks a column, or has no rows at all.
        """
        rows: list[tuple[str, Row]] = []
        flaws: list[DataError] = []
        for place, row in read_placed(path, **columns):
            if isinstance(row, DataError):
                flaws.append(row)
            else:
                rows.append((place.removeprefix(f"{path}, "), row))
        if not rows and not flaws:
            raise DataError(f"{path}: has no rows; expected at least one labelled sentence")
        return cls(path, rows, flaws)

    @property
    def trainable(self) -> list[Row]:
        """
        Return the rows.

        Raises:
            DataError: one of them has no text or no label; it says which.
        """
        if self.flaws:
            raise self.flaws[0]
        return [row for _, row in self.rows]

    @property
    def counts(self) -> Counter[str]:
        """Return how many rows each label has."""
        return Counter(label for _, row in self.rows for label in row.labels)


def read_rows(
    path: str | Path, *, text_column: str = "text", label_column: str | None = "label", multi_label: bool = False
) -> list[Row]:
    """
    Read labelled sentences from a CSV, TSV, JSONL or Parquet file, told apart by its ending.

    Args:
        path: The file; CSV and TSV have a header line, all text is UTF-8.
        text_column: Name of the column, or JSON key, with the sentence.
        label_column: Name of the column, or JSON key, with the label; None reads the sentences alone.
        multi_label: Split the label at `|`, or take a JSON or Parquet list, as the labels of the row.

    Raises:
        DataError: the file cannot be read, lacks a column, or a row has no text or no label; it names file and line.
    """
    return Table.read(Path(path), text_column=text_column, label_column=label_column, multi_label=multi_label).trainable


def read_placed(
    path: str | Path, *, text_column: str = "text", label_column: str | None = "label", multi_label: bool = False
) -> Iterator[tuple[str, Row | DataError]]:
    """
    Read a file as `read_rows` does; give each row with its place, and in place of a bad one what is wrong with it.

    Raises:
        DataError: the file cannot be read to its end, or lacks a column.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown ending {path.suffix!r}; expected one of {', '.join(READERS)}")
    if text_column == label_column:
        raise DataError(f"{path}: {text_column!r} is named as the column of both text and label; expected two")
    columns = [name for name in (text_column, label_column) if name]
    try:
        for place, record in reader(path, columns):
            try:
                text = _text(place, text_column, record[text_column])
                labels = _labels(place, label_column, record[label_column], multi_label) if label_column else ()
                yield place, Row(text, labels)
            except DataError as flaw:
                yield place, flaw
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be read ({reason}); expected a file of labelled sentences") from error


def other_columns(path: Path, columns: Sequence[str]) -> list[str]:
    """Return the columns that a file has besides those that are named."""
    found: dict[str, None] = {}
    for _, record in READERS[path.suffix.lower()](path, columns):
        found |= dict.fromkeys(record)
    return [name for name in found if name not in columns]


def broken_cells(path: Path) -> list[tuple[str, str]]:
    """Return where a row of a delimited file has a tab or a line break in a cell, and the first such cell."""
    found = []
    for place, record in READERS[path.suffix.lower()](path, ()):
        if cell := next((cell for cell in record.values() if re.search(r"[\t\r\n]", cell)), None):
            found.append((place.removeprefix(f"{path}, "), cell))
    return found


def fingerprint(rows: Sequence[Row]) -> dict[str, Any]:
    """Return how many rows there are and what tells them from any others, as train.json has it."""
    digest = hashlib.sha256(json.dumps([[row.text, row.labels] for row in rows]).encode()).hexdigest()
    return {"count": len(rows), "sha256": digest}


def label_names(rows: Sequence[Row]) -> list[str]:
    """Return the distinct labels in alphabetical order: the order of every model's outputs."""
    return sorted({label for row in rows for label in row.labels})


def split(rows: Sequence[Row], *, share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """
    Divide rows into a training and a development set, stratified by label.

    Every label with at least two texts is in both, as far as its texts have no other label too. Where rows have several
    labels, each has its share, the rarest first (Sechidis et al. 2011, "On the Stratification of Multi-label Data").
    The same text never is in both: copies of it, also those that differ in case, punctuation or spacing, stay together.

    Args:
        rows: All labelled sentences.
        share: Part of the rows that goes to the development set.
        seed: Same rows, share and seed: same division.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[fold(row.text)].append(row)
    strata: dict[tuple[str, ...], list[list[Row]]] = defaultdict(list)
    for group in groups.values():
        strata[tuple(sorted(group[0].labels))].append(group)
    shuffle = random.Random(seed).shuffle
    ordered = sorted(strata.items())
    for _, stratum in ordered:
        shuffle(stratum)
    spared = _spared(ordered, share=share, seed=seed)
    train: list[Row] = []
    dev: list[Row] = []
    for labels, stratum in ordered:
        for number, group in enumerate(stratum):
            (dev if (labels, number) in spared else train).extend(group)
    # Copies of a text may contradict each other in their labels, and take a label's only row along.
    learned = {label for row in train for label in row.labels}
    orphans = {fold(row.text) for row in dev if not learned.issuperset(row.labels)}
    train += [row for row in dev if fold(row.text) in orphans]
    shuffle(train)
    return train, [row for row in dev if fold(row.text) not in orphans]


_Place = tuple[tuple[str, ...], int]  # the labels of a text, and its place among those that have them all


def _spared(strata: Sequence[tuple[tuple[str, ...], Sequence[list[Row]]]], *, share: float, seed: int) -> set[_Place]:
    """Return which texts are kept to develop on."""
    several = any(len(labels) != 1 for labels, _ in strata)
    # Evenly through the texts of the same labels, from a place by chance: of few of them, now one is taken, now none.
    start = random.Random(seed).random
    turn: dict[_Place, float] = {}
    for labels, stratum in strata:
        first = start()
        turn |= {(labels, number): (number + first) / len(stratum) for number in range(len(stratum))}
    # What texts are to be like those that stay in: each label, and how many labels a text has.
    traits: dict[tuple[str, ...], tuple[str | int, ...]] = {
        labels: (*labels, len(labels)) if several else labels for labels, _ in strata
    }
    texts: dict[str | int, list[_Place]] = defaultdict(list)
    for text in sorted(turn, key=lambda text: (turn[text], text)):
        for trait in traits[text[0]]:
            texts[trait].append(text)
    wanted = Counter({trait: min(len(some) - 1, max(1, round(share * len(some)))) for trait, some in texts.items()})
    needed = set(wanted)  # traits that none is kept of yet
    spared: set[_Place] = set()
    decided: set[_Place] = set()
    for trait in sorted(texts, key=lambda trait: (len(texts[trait]), str(trait))):
        left = [text for text in texts[trait] if text not in decided]
        # First those of which every trait is wanted still, then half of them, and any but to have one at all.
        for share_wanted in (1.0, 0.5, 0.0):
            for text in left:
                if wanted[trait] <= 0 or (not share_wanted and trait not in needed):
                    break
                of_text = traits[text[0]]
                if text not in spared and sum(wanted[one] > 0 for one in of_text) >= share_wanted * len(of_text):
                    spared.add(text)
                    wanted.subtract(of_text)
                    needed.difference_update(of_text)
        decided.update(left)
    return spared


def are_few(rows: Sequence[Row], config: TrainConfig) -> bool:
    """Say whether rows are too few to spare some for development, and of the kind that `training.few` learns from."""
    asked = config.soft_labels or config.final_epochs is not None or config.folds == 0
    suits = not config.multi_label and config.pooling == "mean" and config.init == "pretrained" and not asked
    return suits and config.few_examples == "auto" and len(rows) < FEW * len(label_names(rows))


def check_trainable(rows: Sequence[Row], path: str | Path) -> None:
    """Raise DataError unless there are two labels to tell apart."""
    counts = Counter(label for row in rows for label in row.labels)
    if len(counts) < 2:
        found = f"only the label {next(iter(counts))!r}" if counts else "no label"
        raise DataError(f"{path}: {len(rows)} rows with {found}; expected at least two labels to tell apart")


def check_known(
    rows: Sequence[Row], labels: Sequence[str], path: str | Path, *, model: str | Path | None = None
) -> None:
    """Raise DataError if a row has a label that is not among `labels`; it names the `model` whose labels they are."""
    unknown = sorted({label for row in rows for label in row.labels} - set(labels))
    if unknown:
        whose = f"of {model}" if model else "known"
        alike = next((known for known in labels if known.casefold() == unknown[0].casefold()), None)
        meant = f"write {alike!r} for {unknown[0]!r}" if alike else "correct the file or train with rows of that label"
        raise DataError(
            f"{path}: {listing(unknown)} not among the {len(labels)} labels {whose} ({listing(labels)}); {meant}"
        )


def _text(place: str, column: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"{place}: {column!r} is {kind(value)}; expected a sentence")
    if not _is_visible(value):
        raise DataError(f"{place}: {column!r} is empty or has no visible character; expected a sentence")
    _check_unicode(place, column, value)
    return value


def _is_visible(value: str) -> bool:
    return any(unicodedata.category(character)[0] not in "CZ" for character in value)


def _check_unicode(place: str, column: str, value: str) -> None:
    """Refuse half of a surrogate pair, which JSON can spell and no file or tokenizer can hold."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: character {error.start + 1} of {column!r} is half of a surrogate pair "
            f"(U+{ord(value[error.start]):04X}), as a text has that was cut inside an emoji; expected valid Unicode"
        ) from error


def _labels(place: str, column: str, value: Any, multi_label: bool) -> tuple[str, ...]:
    if multi_label:
        parts = value if isinstance(value, list) else _number_as_text(value)
        if isinstance(parts, str):
            listed = _json_list(parts)
            parts = parts.split(LABEL_SEPARATOR) if listed is None else listed
        if not isinstance(parts, list):
            raise DataError(f"{place}: {column!r} is {kind(value)}; expected labels joined by | or a list of them")
        names = [_number_as_text(part) for part in parts]
        for number, name in enumerate(names, start=1):
            if not isinstance(name, str):
                raise DataError(
                    f"{place}: element {number} of {column!r} is {kind(name)}; expected a text or a whole number"
                )
            _check_unicode(place, column, name)
            if LABEL_SEPARATOR in name:
                raise DataError(
                    f"{place}: element {number} of {column!r} is {name[:40]!r}; expected labels without "
                    f"{LABEL_SEPARATOR}, which joins those of a row"
                )
        return tuple(dict.fromkeys(name.strip() for name in names if _is_visible(name)))
    value = _number_as_text(value)
    if not isinstance(value, str):
        several = "; rows of several labels need a model of `bertrand train --multi-label`"
        written = '; write it as a text, such as "true"'
        hint = several if isinstance(value, list) else written if isinstance(value, bool) else ""
        raise DataError(f"{place}: {column!r} is {kind(value)}; expected one label{hint}")
    _check_unicode(place, column, value)
    if not _is_visible(value):
        raise DataError(f"{place}: {column!r} is empty or has no visible character; expected one label")
    return (value.strip(),)


def _json_list(value: str) -> list[Any] | None:
    """Return the list that a text is in JSON, as a cell of a table may be."""
    if not value.lstrip().startswith("["):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _number_as_text(value: Any) -> Any:
    """Return a whole number as its digits, by which many files number their labels, and all else as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def write_rows(
    files: Mapping[Path, Sequence[Row]],
    *,
    text_column: str = "text",
    label_column: str = "label",
    multi_label: bool = False,
) -> None:
    """
    Write labelled sentences as `read_rows` reads them, in the format that the ending of each file names.

    All are written before the first takes the place of a file that was there.

    Args:
        files: Rows of each file.
        text_column: Column of the sentence.
        label_column: Column of the label.
        multi_label: They will be read as rows that may have several labels.

    Raises:
        DataError: a file cannot be written; those that were there are as they were.
    """
    staged = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in files}
    path = next(iter(files))
    try:
        for path, rows in files.items():
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            with staged[path].open("w", encoding="utf-8", newline="") as file:
                if path.exists():
                    shutil.copymode(path, staged[path])  # who may not read the one may not read the other
                cells = ((row.text, _label_cell(row.labels, multi_label=multi_label)) for row in rows)
                WRITERS[path.suffix.lower()](file, cells, text_column, label_column)
        for path, staging in staged.items():
            staging.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        for staging in staged.values():
            staging.unlink(missing_ok=True)


def _label_cell(labels: Sequence[str], *, multi_label: bool) -> str:
    """Return labels as a cell: joined, or as a JSON list where they would be read as another list if joined."""
    joined = LABEL_SEPARATOR.join(labels)
    as_list = multi_label and _json_list(joined) is not None
    return json.dumps(labels, ensure_ascii=False) if as_list else joined
