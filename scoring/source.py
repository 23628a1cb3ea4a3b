"""What is scored: files of several formats as one stream of Arrow batches, surveyed before anything is computed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import threading
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from inference.errors import InputError
from scoring.place import Kind, Place, find_inputs, reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

BLOCK = 2**20  # bytes of a CSV file that are parsed at a time, unless a row is longer
LARGEST_BLOCK = 2**28
LET_GO_SECONDS = 10.0  # the longest wait for a read that Arrow has begun and nobody wants any more
LINES = 1024  # rows of a JSONL or Parquet file that are read at a time
CHUNK = 2**23  # bytes of such a file that are read at a time, where so many rows have more
FOUND = "\0found"  # column, gone before rows are written: what a JSONL row has in place of a text
DELIMITERS = {"csv": ",", "tsv": "\t"}
EXACT = 2**53  # beyond it not every whole number is a float
LONG_NUMBER = re.compile(rb"\d{19}")  # orjson makes a float of an integer beyond 64 bits
LARGE = {"large": "1"}  # noted of a column with such numbers
TEXTS = (pa.string(), pa.large_string())


@dataclass(frozen=True)
class File:
    """One input file, as the survey found it."""

    name: str  # what messages call it
    place: Place
    kind: Kind
    rows: int
    size: int  # bytes, decompressed
    sha256: str  # of these bytes
    block: int  # bytes that hold its longest row


@dataclass(frozen=True)
class Source:
    """All rows of a job's input."""

    files: tuple[File, ...]
    schema: pa.Schema  # of the input's own columns
    text_column: str

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(file.rows for file in self.files)

    @property
    def identity(self) -> list[dict[str, Any]]:
        """What tells this input from another, for a job that is resumed."""
        return [{"file": file.name, "rows": file.rows, "sha256": file.sha256} for file in self.files]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """
        Return the rows in order, some thousands or megabytes at a time, with `FOUND` where the input is JSONL.

        Raises:
            InputError: a file is no longer what the survey found.
        """
        for file in self.files:
            yield from _read(file, self.schema, self.text_column)


def survey(name: str, *, text_column: str, given: str | None = None, called: str | None = None) -> Source:
    """
    Read the whole input once: what is wrong with its last row is told before the first is computed.

    Reading is a hundredth of what computing takes.

    Args:
        name: A path, glob, folder or URL.
        text_column: Column with the sentence.
        given: Format, where endings do not tell it.
        called: What messages call the file, where it is not its name.

    Raises:
        InputError: it cannot be read to its end, or its files have other columns than the first.
    """
    files, schemas = [], []
    for place, kind in find_inputs(name, given):
        file, schema = _survey_file(called or place.url, place, kind, text_column)
        files.append(file)
        schemas.append(schema)
    schema = schemas[0]
    for file, other in zip(files[1:], schemas[1:], strict=True):
        if file.kind.format == files[0].kind.format == "jsonl":
            schema = _merged(schema, other, text_column)
        elif differing := sorted(
            {f"{field.name}: {field.type}" for field in other} ^ {f"{field.name}: {field.type}" for field in schema}
        ):
            raise InputError(
                f"{file.name}: other columns than {files[0].name} ({', '.join(differing)}); expected one table"
            )
    if files[0].kind.format == "jsonl":
        schema = pa.schema(
            [(field.name, field.type) for field in schema]
        )  # what was noted of them is not for the output
    return Source(tuple(files), schema, text_column)


def _survey_file(name: str, place: Place, kind: Kind, text_column: str) -> tuple[File, pa.Schema]:
    block = BLOCK
    while True:
        try:
            with place.opened(kind) as stream, _told(name, kind):
                hashed = _Hashed(stream)
                schema, batches = _opened(hashed, kind, name, block, text_column)
                rows = 0
                for found, count in batches:
                    schema = schema if found is None else _merged(schema, found, text_column)
                    rows += count
                hashed.read_all()
        except _LongRow:
            block *= 4
            if block > LARGEST_BLOCK:
                raise InputError(f"{name}: a row of more than {LARGEST_BLOCK // 2**20} MB") from None
            continue
        if FOUND in schema.names:
            raise InputError(f"{name}: a column has the name {FOUND!r}, which is kept for Bertrand's own use")
        if kind.format == "jsonl" and text_column not in schema.names:
            if rows:
                _need_column(schema.names, text_column, name)
            schema = pa.schema([(text_column, pa.string())])
        return File(name, place, kind, rows, hashed.size, hashed.digest.hexdigest(), block), schema


def _opened(
    stream: Any, kind: Kind, name: str, block: int, text_column: str
) -> tuple[pa.Schema, Iterator[tuple[pa.Schema | None, int]]]:
    """Return the columns of a file, and for each batch what it adds to them and how many rows it has."""
    if kind.format == "parquet":
        file = pa.parquet.ParquetFile(stream)
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise InputError(f"{name}: two columns have one name, found {', '.join(map(repr, names[:8]))}")
        schema = pa.schema([(field.name, _decoded(field.type)) for field in file.schema_arrow])
        _need_text(schema, text_column, name)
        return schema, ((None, batch.num_rows) for batch in _parquet(file))
    if kind.format == "jsonl":
        columns = ((_columns_of(rows, text_column), len(rows)) for rows in _json_rows(stream, name))
        return pa.schema([]), columns
    names, rest = _header(stream, DELIMITERS[kind.format], name)
    _need_column(names, text_column, name)
    schema = pa.schema([(name, pa.string()) for name in names])
    return schema, ((None, batch.num_rows) for batch in _csv(rest, schema, kind, block))


def _read(file: File, schema: pa.Schema, text_column: str) -> Iterator[pa.RecordBatch]:
    """Return the batches of one file."""
    with file.place.opened(file.kind) as stream, _told(file.name, file.kind):
        hashed = _Hashed(stream)
        batches: Iterator[pa.RecordBatch]
        if file.kind.format == "parquet":
            parquet = pa.parquet.ParquetFile(hashed)
            _need_same(parquet.schema_arrow.names, schema, file)
            batches = (batch.select(schema.names).cast(schema) for batch in _parquet(parquet))
        elif file.kind.format == "jsonl":
            batches = (_json_batch(some, schema, text_column) for some in _json_rows(hashed, file.name))
        else:
            names, rest = _header(hashed, DELIMITERS[file.kind.format], file.name)
            _need_same(names, schema, file)
            own = pa.schema([(name, pa.string()) for name in names])
            batches = (batch.select(schema.names) for batch in _csv(rest, own, file.kind, file.block))
        yield from batches
        hashed.read_all()
    if hashed.digest.hexdigest() != file.sha256:
        raise _changed(file)


def _need_same(names: Sequence[str], schema: pa.Schema, file: File) -> None:
    if sorted(names) != sorted(schema.names):  # the files of a table may have them in any order
        raise _changed(file)


def _changed(file: File) -> InputError:
    return InputError(f"{file.name}: was changed while it was read; begin again, without --resume")


class _LongRow(Exception):  # noqa: N818  what happened, not a fault
    """A row does not fit into a block."""


@contextmanager
def _told(name: str, kind: Kind) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        if "straddl" in str(error):
            raise _LongRow from error
        hint = "; expected UTF-8, convert it with iconv" if "UTF8" in str(error) else ""
        raise InputError(f"{name}: not a whole {kind.format} file: {reason(error)[:300]}{hint}") from error


class _Hashed(io.RawIOBase):
    """A stream that hashes what is read in order; `read_all` does so for one that is read here and there."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.size = 0
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = self._stream.seek(offset, whence)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(None if size < 0 else size)
        if self._at == self.size:
            self.digest.update(content)
            self.size += len(content)
        self._at += len(content)
        return bytes(content)

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def read_all(self) -> None:
        """Hash what is not hashed yet."""
        if self._at != self.size:
            self.seek(self.size)
        while self.read(BLOCK):
            pass


def _header(stream: Any, delimiter: str, name: str) -> tuple[list[str], io.BufferedReader[Any]]:
    """Return the column names of a CSV file, and a stream of all that comes after them."""
    rest = io.BufferedReader(stream, BLOCK)
    header = _header_pattern(delimiter)
    line, ended = b"", False
    while not ended and (ahead := rest.peek()):
        found = header.match(line + ahead)
        ended = found is not None
        line += rest.read(found.end() - len(line) if found else len(ahead))
        if not ended and len(line) > BLOCK:
            raise InputError(
                f"{name}: the first line does not end within {BLOCK // 2**20} MB; expected the names of the columns, "
                "look for a quote in it that is never closed"
            )
    if line.endswith(b"\r") and rest.peek()[:1] == b"\n":
        line += rest.read(1)
    try:
        text = line.decode("utf-8-sig")
        names = [column.strip() for column in next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])]
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: the first line is not UTF-8 ({error.reason}); is it a {delimiter!r} file?"
        ) from error
    except csv.Error as error:
        raise InputError(f"{name}: the first line has no names of columns ({error})") from error
    if not text.strip():
        what = "the first line is empty" if ended else "is empty"
        raise InputError(f"{name}: {what}; expected a line with the names of the columns at its start")
    if not ended and not header.match(line + b"\n"):
        raise InputError(f"{name}: a quote in the first line, which has the names of the columns, is never closed")
    if len(set(names)) < len(names):
        raise InputError(f"{name}: two columns have one name, found {', '.join(map(repr, names[:8]))}")
    return names, rest


def _header_pattern(delimiter: str) -> re.Pattern[bytes]:
    """Return what matches the first line; as for Arrow, only a field that begins with a quote may hold a line break."""
    inside = rb"[^%b\r\n]*+" % delimiter.encode()
    field = rb'(?:"[^"]*+(?:""[^"]*+)*+"%b|(?!")%b)' % (inside, inside)
    return re.compile(rb"(?:\xef\xbb\xbf)?+%b(?:%b%b)*+[\r\n]" % (field, delimiter.encode(), field))


class _Lent:
    """A stream in the hands of Arrow, whose own threads read ahead; says when the last of them has let go of it."""

    closed = False

    def __init__(self, stream: io.BufferedReader[Any], released: threading.Event) -> None:
        self.read = stream.read
        weakref.finalize(self, released.set).atexit = False

    def close(self) -> None:
        self.closed = True


def _csv(stream: io.BufferedReader[Any], schema: pa.Schema, kind: Kind, block: int) -> Iterator[pa.RecordBatch]:
    # Text stays as it is written: 007 is not a number, and an empty cell is not null.
    released = threading.Event()
    reader = None
    try:
        reader = pa.csv.open_csv(
            # What is read is copied into Arrow's own memory at once: its threads hold nothing of Python's but the file.
            pa.BufferedInputStream(pa.PythonFile(_Lent(stream, released), "r"), BLOCK),
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=block, column_names=schema.names),
            parse_options=pa.csv.ParseOptions(
                delimiter=DELIMITERS[kind.format],
                newlines_in_values=True,
                ignore_empty_lines=len(schema) > 1,  # of one column, an empty line is a row
            ),
            convert_options=pa.csv.ConvertOptions(column_types=schema, strings_can_be_null=False),
        )
        yield from reader
    except pa.ArrowInvalid as error:
        if reader is not None or "Empty CSV" not in str(error):  # that of a header alone
            raise
    finally:
        # A thread of Arrow's that is still in Python when the interpreter ends takes the process down with it.
        del reader
        released.wait(LET_GO_SECONDS)


def _parquet(file: pa.parquet.ParquetFile) -> Iterator[pa.RecordBatch]:
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    longest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=0)
    batches: Iterator[pa.RecordBatch] = file.iter_batches(min(LINES, max(1, int(CHUNK / max(1, longest)))))
    return batches


def _decoded(kind: pa.DataType) -> pa.DataType:
    """Return a type without dictionaries and views: batches of those cannot always be put together, or cut by bytes."""
    if pa.types.is_dictionary(kind):
        return _decoded(kind.value_type)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return pa.string() if pa.types.is_string_view(kind) else pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_decoded(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_decoded(kind.key_type), kind.item_field.with_type(_decoded(kind.item_type)), kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_decoded(kind.value_type)), kind.list_size)
    for is_kind, of in ((pa.types.is_list, pa.list_), (pa.types.is_large_list, pa.large_list)):
        if is_kind(kind):
            return of(kind.value_field.with_type(_decoded(kind.value_type)))
    return kind


def _json_rows(stream: Any, name: str) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    for number, line in enumerate(io.BufferedReader(stream, BLOCK), start=1):
        if not line.strip():
            continue
        try:
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            row = orjson.loads(line)
            if LONG_NUMBER.search(line):
                row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{name}, line {number}: not valid JSON ({error}); expected one object a line") from error
        if not isinstance(row, dict):
            raise InputError(f"{name}, line {number}: {type(row).__name__}; expected one object a line")
        rows.append(row)
        size += len(line)
        if len(rows) == LINES or size >= CHUNK:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _columns_of(rows: Sequence[dict[str, Any]], text_column: str) -> pa.Schema:
    """Infer what types the values of some JSON rows have; text, that is JSON, where none holds them all exactly."""
    names = dict.fromkeys(key for row in rows for key in row)
    fields = []
    for name in names:
        values = [row.get(name) for row in rows]
        large = False
        try:
            kind = pa.string() if name == text_column else pa.infer_type(values)
            if kind != pa.string():
                pa.array(values, kind)
                changed, large = _look(values, kind)
                if changed or _is_hollow(kind):
                    kind = pa.string()
        except (pa.ArrowException, OverflowError):
            kind = pa.string()
        fields.append(pa.field(name, kind, metadata=LARGE if large else None))
    return pa.schema(fields)


def _look(values: Iterable[Any], kind: pa.DataType) -> tuple[bool, bool]:
    """Return whether a type turns a bool of the values into a number, and whether it holds integers beyond EXACT."""
    found = [value for value in values if value is not None]
    if pa.types.is_list(kind):
        return _look(chain.from_iterable(found), kind.value_type)
    if pa.types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        each = [_look([value.get(field.name) for value in found], field.type) for field in fields]
        return any(changed for changed, _ in each), any(large for _, large in each)
    if not pa.types.is_integer(kind) and not pa.types.is_floating(kind):
        return False, False
    return bool in set(map(type, found)), pa.types.is_integer(kind) and max(map(abs, found), default=0) > EXACT


def _is_hollow(kind: pa.DataType) -> bool:
    """Return whether a type has an object without fields in it, which Parquet cannot write."""
    if not pa.types.is_struct(kind):
        return pa.types.is_nested(kind) and _is_hollow(kind.value_type)
    fields = [kind.field(i).type for i in range(kind.num_fields)]
    return not fields or any(map(_is_hollow, fields))


def _merged(one: pa.Schema, other: pa.Schema, text_column: str) -> pa.Schema:
    """Unite the columns of two sets of JSON rows; what has no type in common becomes text that holds JSON."""
    fields = {field.name: field for field in one}
    for field in other:
        before = fields.get(field.name)
        if before is None or field.name == text_column:
            fields.setdefault(field.name, field)
            continue
        large = before.metadata or field.metadata
        differ = before.type != field.type and not any(map(pa.types.is_null, (before.type, field.type)))
        try:
            pair = [pa.schema([(field.name, before.type)]), pa.schema([(field.name, field.type)])]
            kind = pa.unify_schemas(pair, promote_options="permissive").field(0).type
        except pa.ArrowException:
            kind = pa.string()
        if large and differ:
            kind = pa.string()
        fields[field.name] = pa.field(field.name, kind, metadata=large)
    return pa.schema(list(fields.values()))


def _json_batch(rows: Sequence[dict[str, Any]], schema: pa.Schema, text_column: str) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        if field.type == pa.string():
            values = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
        arrays.append(pa.array(values, field.type))
    texts = [row.get(text_column) for row in rows]
    found = [None if text is None or isinstance(text, str) else type(text).__name__ for text in texts]
    return pa.record_batch([*arrays, pa.array(found, pa.string())], [*schema.names, FOUND])


def _need_column(names: Sequence[str], text_column: str, name: str) -> None:
    if text_column not in names:
        raise InputError(
            f"{name}: no column {text_column!r}, found {', '.join(map(repr, names[:8]))}; name yours with --text-column"
        )


def _need_text(schema: pa.Schema, text_column: str, name: str) -> None:
    _need_column(schema.names, text_column, name)
    kind = schema.field(text_column).type
    if kind not in TEXTS and not pa.types.is_null(kind):
        raise InputError(f"{name}: column {text_column!r} holds {kind}; expected strings")
