"""Files of records: CSV, TSV, JSONL and Parquet, read with the place of each record, and written."""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from training.errors import DataError
from training.wording import kind, listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# The longer ones first: that of UTF-32 begins as that of UTF-16.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def _need_columns(path: Path, found: Sequence[str], needed: Sequence[str]) -> None:
    for name in needed:
        if found.count(name) != 1:
            state = "no column" if name not in found else "more than one column"
            alike = next((other for other in found if other.casefold() == name.casefold() != other), None)
            yours = f", as {alike!r}," if alike and name not in found else ""
            raise DataError(
                f"{path}: {state} {name!r}, found {listing(found)}; name yours{yours} with --text-column and "
                "--label-column"
            )


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 file; DataError names the line of the first byte that is none."""
    content = path.read_bytes()
    if found := _wide_encoding(content):
        raise DataError(
            f"{path}: begins as {found} does; expected a UTF-8 file, convert it with "
            f"`iconv -f {found} -t UTF-8 {path.name}`"
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


def _wide_encoding(content: bytes) -> str | None:
    """Return the encoding of more than a byte a character that a file begins as, with a mark of it or without."""
    for mark, name in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return name
    for width, name in ((4, "UTF-32"), (2, "UTF-16")):
        zeros = [content[i : i + width].count(0) == width - 1 for i in range(0, 4 * width, width)]
        if len(content) >= 4 * width and all(zeros):  # four letters of the Latin alphabet
            return f"{name}{'BE' if content[0] == 0 else 'LE'}"
    return None


def _check_delimiter(path: Path, header: Sequence[str], delimiter: str, needed: Sequence[str]) -> None:
    """Refuse a header that another sign divides: it is one cell, or has the columns that are needed in another one."""
    if set(needed) <= set(header):
        return
    line = delimiter.join(header)
    for sign in ";\t,|":
        cells = {cell.strip() for cell in line.split(sign)}
        if sign != delimiter and sign in line and (len(header) == 1 or cells.issuperset(needed)):
            state = "is one cell" if len(header) == 1 else "lacks a column that is needed"
            raise DataError(
                f"{path}: the header {state}, {line[:80]!r}, which seems to be divided by {sign!r}; expected "
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
                if header is None and delimiter.join(cells).strip() == f"sep={delimiter}":
                    continue  # which Excel writes and reads
                if header is None:
                    header = [cell.strip() for cell in cells]
                    _check_delimiter(path, header, delimiter, needed)
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
            raise DataError(f"{place}: {kind(record)}; expected one object a line")
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


READERS = {".csv": _delimited(","), ".tsv": _delimited("\t"), ".jsonl": _jsonl, ".parquet": _parquet}


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
