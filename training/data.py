"""Labelled sentences: files of several formats to rows, rows to training and development sets."""

from __future__ import annotations

import codecs
import csv
import errno
import hashlib
import io
import json
import os
import random
import re
import shutil
import sys
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from training.copies import fold
from training.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from training.settings import TrainConfig

FEW = 30  # rows a label, from which on a share of them can be spared for development
LABEL_SEPARATOR = "|"  # between the labels of one row, where a row may have several


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled sentence. A single-label row has exactly one label; a multi-label row may have none."""

    text: str
    labels: tuple[str, ...]


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
    rows = []
    placed = read_placed(path, text_column=text_column, label_column=label_column, multi_label=multi_label)
    for _, row in placed:
        if isinstance(row, DataError):
            raise row
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: has no rows; expected at least one labelled sentence")
    return rows


def read_placed(
    path: str | Path, *, text_column: str = "text", label_column: str | None = "label", multi_label: bool = False
) -> Iterator[tuple[str, Row | DataError]]:
    """
    Read a file as `read_rows` does; give each row with its place, and in place of a bad one what is wrong with it.

    Raises:
        DataError: the file cannot be read to its end, or lacks a column.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown ending {path.suffix!r}; expected one of {', '.join(_READERS)}")
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
    for _, record in _READERS[path.suffix.lower()](path, columns):
        found |= dict.fromkeys(record)
    return [name for name in found if name not in columns]


def broken_cells(path: Path) -> list[tuple[str, str]]:
    """Return where a row of a delimited file has a tab or a line break in a cell, and the first such cell."""
    found = []
    for place, record in _READERS[path.suffix.lower()](path, ()):
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
            f"{path}: {_listing(unknown)} not among the {len(labels)} labels {whose} ({_listing(labels)}); {meant}"
        )


def _text(place: str, column: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"{place}: {column!r} is {_kind(value)}; expected a sentence")
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
            raise DataError(f"{place}: {column!r} is {_kind(value)}; expected labels joined by | or a list of them")
        names = [_number_as_text(part) for part in parts]
        for number, name in enumerate(names, start=1):
            if not isinstance(name, str):
                raise DataError(
                    f"{place}: element {number} of {column!r} is {_kind(name)}; expected a text or a whole number"
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
        hint = several if isinstance(value, list) else ""
        raise DataError(f"{place}: {column!r} is {_kind(value)}; expected one label{hint}")
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


def _kind(value: Any) -> str:
    return "missing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"


def _need_columns(path: Path, found: Sequence[str], needed: Sequence[str]) -> None:
    for name in needed:
        if found.count(name) != 1:
            state = "no column" if name not in found else "more than one column"
            alike = next((other for other in found if other.casefold() == name.casefold() != other), None)
            yours = f", as {alike!r}," if alike and name not in found else ""
            raise DataError(
                f"{path}: {state} {name!r}, found {_listing(found)}; name yours{yours} with --text-column and "
                "--label-column"
            )


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 file; DataError names the line of the first byte that is none."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(
            f"{path}: begins as UTF-16 does; expected a UTF-8 file, convert it with "
            f"`iconv -f UTF-16 -t UTF-8 {path.name}`"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{content[error.start]:02X} is not UTF-8; expected a UTF-8 file, "
            f"convert it with `iconv -f WINDOWS-1252 -t UTF-8 {path.name}` or the encoding it has"
        ) from error
    return text


def _check_delimiter(path: Path, header: Sequence[str], delimiter: str) -> None:
    """Refuse a header of one cell that is divided by something else."""
    found = next((sign for sign in ";\t,|" if len(header) == 1 and sign != delimiter and sign in header[0]), None)
    if found:
        raise DataError(
            f"{path}: the header is one cell, {header[0][:80]!r}, which seems to be divided by {found!r}; expected "
            f"{delimiter!r} in a file that ends in {path.suffix} (a file divided by tabs ends in .tsv)"
        )


def _delimited(delimiter: str) -> Callable[[Path, Sequence[str]], Iterator[tuple[str, dict[str, Any]]]]:
    def read(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        csv.field_size_limit(sys.maxsize)  # a text may be longer than the 131,072 characters of the default
        reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
        header: list[str] | None = None
        following = 1  # where the row after the cursor starts: quoted cells may span lines
        try:
            for cells in reader:
                line, following = following, reader.line_num + 1
                if not cells or (len(cells) == 1 and not cells[0].strip() and (header is None or len(header) > 1)):
                    continue
                if header is None:
                    header = [cell.strip() for cell in cells]
                    _check_delimiter(path, header, delimiter)
                    _need_columns(path, header, needed)
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"{path}, line {line}: {len(cells)} cells, expected {len(header)} as in the header; "
                        f"put a cell that holds {delimiter!r} in double quotes"
                    )
                yield f"{path}, line {line}", dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise DataError(
                f"{path}, line {following}: {error}; expected cells as in RFC 4180, quotes inside quotes doubled"
            ) from error

    return read


def _jsonl(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    known = False  # whether the columns are those of the file: a later record without one is a bad row
    # Not str.splitlines(): a sentence may hold U+2028 and its like.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not valid JSON ({error}); expected one object a line") from error
        if not isinstance(record, dict):
            raise DataError(f"{place}: {_kind(record)}; expected one object a line")
        if not known:
            _need_columns(Path(place), list(record), needed)
            known = True
        yield place, dict.fromkeys(needed) | record


def _parquet(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        _need_columns(path, file.schema_arrow.names, needed)
        table = file.read(columns=list(needed))
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file ({error})") from error
    try:
        records = table.to_pylist()
    except UnicodeDecodeError:
        _find_damaged(path, table)
        raise
    for number, record in enumerate(records, start=1):
        yield f"{path}, row {number}", record


def _find_damaged(path: Path, table: Any) -> None:
    """Raise DataError for the first row of a table whose text is no UTF-8, though the file says so."""
    for number in range(table.num_rows):
        try:
            table.slice(number, 1).to_pylist()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, row {number + 1}: byte 0x{error.object[error.start]:02X} is not UTF-8, as texts of a Parquet "
                "file have to be; write the file anew from its source"
            ) from error


_READERS = {".csv": _delimited(","), ".tsv": _delimited("\t"), ".jsonl": _jsonl, ".parquet": _parquet}


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


def _write_csv(file: TextIO, cells: Iterable[tuple[str, str]], text_column: str, label_column: str) -> None:
    writer = csv.writer(_Lines(file))
    writer.writerow((text_column, label_column))
    writer.writerows(cells)


class _Lines:
    """
    A file whose lines end with a line feed, though a csv writer ends them with a carriage return too.

    The writer quotes only characters of the ending that it is told, and any reader ends a line at a bare return.
    """

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, line: str) -> int:
        """Write one line, which ends with both."""
        return self.file.write(line.removesuffix("\r\n") + "\n")


def _write_jsonl(file: TextIO, cells: Iterable[tuple[str, str]], text_column: str, label_column: str) -> None:
    file.writelines(
        json.dumps({text_column: text, label_column: label}, ensure_ascii=False) + "\n" for text, label in cells
    )


WRITERS = {".csv": _write_csv, ".jsonl": _write_jsonl}
