"""Tables to the bytes of a file, part by part, and parts to the file."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import ExitStack
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from inference.errors import InputError
from scoring.place import Kind, Place, explained, reason
from scoring.source import DELIMITERS

if TYPE_CHECKING:
    from collections.abc import Sequence

SUCCESS = "_SUCCESS"
REPLACED = "replaced"  # what an earlier output is called until the new one has its name
OWN = re.compile(r"_SUCCESS|part-\d{6,}\.(csv|tsv|jsonl|parquet)")
SLICE = 2**20  # bytes of a table that are Python objects at a time
A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
FIRST_DAY, LAST_DAY = -719_162, 2_932_896  # of the years 1 and 9999, counted from 1970-01-01
NESTED = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_struct,
    pa.types.is_map,
)
BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)


def encode(table: pa.Table, kind: Kind, *, first: bool) -> bytes:
    """
    Return a part of a file.

    Parts of CSV and JSONL make a file one after the other, compressed ones too: gzip (RFC 1952) and zstd (RFC 8878)
    files may have several members.

    Args:
        table: The rows.
        kind: What the file is to be.
        first: Whether the part begins the file.

    Raises:
        InputError: the format has no way to write some value.
    """
    try:
        return _encoded(table, kind, first=first)
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        raise InputError(f"rows that {kind.format} cannot hold: {reason(error)[:300]}; name another format") from error


def _encoded(table: pa.Table, kind: Kind, *, first: bool) -> bytes:
    sink = pa.BufferOutputStream()
    if kind.format == "parquet":
        with _parquet_writer(sink, table.schema) as writer:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
        return bytes(sink.getvalue())
    stream = pa.CompressedOutputStream(sink, kind.compression) if kind.compression else sink
    if kind.format == "jsonl":
        names = table.schema.names
        for batch in _slices(table):
            for row in zip(*map(plain, batch.columns), strict=True):
                stream.write(_json(dict(zip(names, row, strict=True))) + b"\n")
    else:
        options = pa.csv.WriteOptions(include_header=first, delimiter=DELIMITERS[kind.format])
        pa.csv.write_csv(_flat(table), stream, options)
    if stream is not sink:
        stream.close()
    return bytes(sink.getvalue())


def _slices(table: pa.Table) -> list[pa.RecordBatch]:
    """Cut a table into rows of about a megabyte, which as Python objects are ten times as large."""
    rows = int(SLICE * table.num_rows / max(1, table.nbytes))
    batches: list[pa.RecordBatch] = table.to_batches(max_chunksize=max(1, rows))
    return batches


def assemble(parts: Sequence[Place], staging: Place, target: Place, kind: Kind) -> None:
    """
    Make the file of its parts and give it its name in one step.

    Args:
        parts: In order.
        staging: Where a local file is made; on the file system of the target. What a kill left there is written over.
        target: What the file is to be called.
        kind: What it is to be.
    """
    with explained(target.url):
        if target.is_local:
            with open(staging.path, "wb") as file:  # noqa: PTH123  the path is a string of fsspec's
                _join(parts, file, kind)
                file.flush()
                os.fsync(file.fileno())
            os.replace(staging.path, target.path)  # noqa: PTH105
        else:
            with tempfile.NamedTemporaryFile(prefix="bertrand-score-") as file:
                _join(parts, file, kind)
                file.flush()
                target.fs.put_file(file.name, target.path)  # an object store shows an object when it is complete


def gather(parts: Sequence[Place], staging: Place, target: Place, kind: Kind) -> None:
    """
    Make a folder of the parts, with a last file _SUCCESS as Spark writes it; after a kill it can be called again.

    Args:
        parts: In order; they stay, so that a kill costs none of them.
        staging: Where a local folder is made, to be given its name in one step; beside the parts.
        target: What the folder is to be called; the parts of an earlier job in it go.
        kind: What its files are.

    Raises:
        InputError: something else has come into the folder meanwhile, or it cannot be written.
    """
    names = [f"part-{number:06}.{kind.format}" for number in range(len(parts))]
    replaced = staging.beside(REPLACED)
    with explained(target.url):
        if target.is_local:
            staging.remove()
            os.makedirs(staging.path)  # noqa: PTH103
            for part, name in zip(parts, names, strict=True):
                _link(part.path, staging.within(name).path)
            staging.within(SUCCESS).put(b"")
            own_files(target)
            replaced.remove()
            if target.exists():
                os.replace(target.path, replaced.path)  # noqa: PTH105
            os.replace(staging.path, target.path)  # noqa: PTH105
            return
        for name in sorted(own_files(target)):  # _SUCCESS goes first: without it a folder is not complete
            target.within(name).remove()
        for part, name in zip(parts, names, strict=True):
            target.fs.cp_file(part.path, target.within(name).path)
        target.within(SUCCESS).put(b"")


def own_files(folder: Place) -> list[str]:
    """
    Return the names of what is in a folder that a job may replace.

    Raises:
        InputError: there is something else in it, or it is no folder.
    """
    folder.fs.invalidate_cache(folder.path)  # of what another process wrote
    if not folder.exists():
        return []
    if not folder.fs.isdir(folder.path):
        raise InputError(f"{folder.url}: is a file; name a folder, or leave out the / at the end")
    found = [entry for entry in folder.fs.ls(folder.path, detail=True) if entry["name"].rstrip("/") != folder.path]
    names = [PurePosixPath(entry["name"]).name for entry in found]
    for name, entry in zip(names, found, strict=True):
        if entry["type"] != "file" or not OWN.fullmatch(name):
            raise InputError(
                f"{folder.url}: holds {name}, which no job wrote; name a folder that is empty or not there"
            )
    return names


def _link(one: str, other: str) -> None:
    """Give a file a second name, or a copy on file systems where one has one name."""
    try:
        os.link(one, other)
    except OSError:
        shutil.copyfile(one, other)


def _join(parts: Sequence[Place], file: Any, kind: Kind) -> None:
    if kind.format != "parquet":
        for part in parts:
            with part.fs.open(part.path, "rb") as source:
                shutil.copyfileobj(source, file, 2**20)
        return
    with ExitStack() as stack:
        writer = None
        for part in parts:
            # On one thread: each that helped would keep memory of its own.
            table = pa.parquet.ParquetFile(pa.BufferReader(part.read())).read(use_threads=False)
            writer = writer or stack.enter_context(_parquet_writer(file, table.schema))
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            del table
            pa.default_memory_pool().release_unused()


def plain(array: pa.Array) -> list[Any]:
    """Return the values of an array for JSON; floats of 32 bits stay so, to be written in few digits."""
    kind = array.type
    if pa.types.is_map(kind):
        ends = array.offsets.to_pylist()
        first, size = ends[0], ends[-1] - ends[0]
        keys, items = array.keys.slice(first, size), plain(array.items.slice(first, size))
        keys = plain(keys) if pa.types.is_temporal(kind.key_type) else keys.to_pylist()
        pairs = list(zip(keys, items, strict=True))
        return [
            dict(pairs[start - first : end - first]) if ok else None
            for ok, (start, end) in zip(array.is_valid().to_pylist(), pairwise(ends), strict=True)
        ]
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        _check_dates(array)
        # As Arrow has them in CSV: what Python makes of them, and of nanoseconds at all, depends on pandas being there.
        return list(array.cast(pa.string()).to_pylist())
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        numbers = array.to_numpy(zero_copy_only=False)
        return [value if ok else None for value, ok in zip(list(numbers), array.is_valid().to_pylist(), strict=True)]
    if pa.types.is_struct(kind):
        children = [plain(child) for child in array.flatten()]
        rows = zip(*children, strict=True) if children else ([] for _ in range(len(array)))
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return [
            dict(zip(names, row, strict=True)) if ok else None
            for row, ok in zip(rows, array.is_valid().to_pylist(), strict=True)
        ]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        values, lists, at = plain(array.flatten()), [], 0
        for length in pa.compute.list_value_length(array).to_pylist():
            lists.append(None if length is None else values[at : at + length])
            at += length or 0
        return lists
    return list(array.to_pylist())


def _check_dates(array: pa.Array) -> None:
    """Raise ValueError where a date is of none of the years 1 to 9999: as text, Arrow writes something else for it."""
    kind = array.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return
    a_day = 1 if pa.types.is_date32(kind) else 86_400 * A_SECOND[getattr(kind, "unit", "ms")]
    ends = pa.compute.min_max(array.cast(pa.int32() if kind.bit_width == 32 else pa.int64())).as_py()
    for end in ends.values():
        if end is not None and not FIRST_DAY <= end // a_day <= LAST_DAY:
            raise ValueError(f"a date {end // a_day} days from 1970-01-01, expected one of the years 1 to 9999")


def _flat(table: pa.Table) -> pa.Table:
    """Write what a cell of CSV cannot hold: lists and objects as JSON, and bytes in hexadecimal digits."""
    for i, field in enumerate(table.schema):
        if any(is_kind(field.type) for is_kind in NESTED):
            texts = [
                pa.array(
                    [None if value is None else _json(value).decode() for value in plain(batch.column(0))], "string"
                )
                for batch in _slices(table.select([i]))
            ]
            table = table.set_column(i, field.name, pa.chunked_array(texts, pa.string()))
        elif any(is_kind(field.type) for is_kind in BYTES):
            digits = [None if value is None else value.hex() for value in table[i].to_pylist()]
            table = table.set_column(i, field.name, pa.array(digits, pa.string()))
        else:
            for chunk in table[i].chunks:
                _check_dates(chunk)
    return table


def _json(value: Any) -> bytes:
    return orjson.dumps(value, default=_other, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def _other(value: Any) -> Any:
    """Write what JSON has no kind of, such as decimals and bytes."""
    return value.hex() if isinstance(value, bytes) else str(value)


def _parquet_writer(sink: Any, schema: pa.Schema) -> pa.parquet.ParquetWriter:
    vectors = {field.name for field in schema if pa.types.is_nested(field.type)}
    return pa.parquet.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in schema.names if name not in vectors],
    )
