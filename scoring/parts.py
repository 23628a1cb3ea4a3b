"""An input cut into parts and windows: the same cuts on every engine and after every resume, so the same bytes."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

# Rows that are grouped by length together, and rows of a part: what a kill costs. Vectors of tokens take 200 kB a row.
WINDOW_ROWS = {"none": 4096, "sentence": 4096, "tokens": 256}
PART_ROWS = {"none": 16_384, "sentence": 16_384, "tokens": 1024}
WINDOW_BYTES = 2**25  # of a window's own columns: rows of a megabyte each make small windows
PART_BYTES = 2 * WINDOW_BYTES


@dataclass(frozen=True)
class Window:
    """Rows that are grouped by length together."""

    part: int  # number of the part that they belong to
    rows: pa.RecordBatch


def windows(batches: Iterable[pa.RecordBatch], embeddings: str, *, skip: Container[int] = ()) -> Iterator[Window]:
    """
    Cut a stream of rows into windows.

    A window begins with each part, so that what a part holds depends on no other.

    Args:
        batches: The rows, however they come.
        embeddings: What is added to them; it decides the sizes.
        skip: Parts to leave out.
    """
    part = rows = size = 0
    for window in _cut(batches, WINDOW_ROWS[embeddings]):
        if part not in skip:
            yield Window(part, window)
        rows += window.num_rows
        size += window.nbytes
        if rows >= PART_ROWS[embeddings] or size >= PART_BYTES:
            part, rows, size = part + 1, 0, 0


def _cut(batches: Iterable[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, most - rows)
            piece = piece.slice(0, _fitting(piece, WINDOW_BYTES - size))
            if not piece.num_rows and not held:
                piece = batch.slice(start, 1)  # a row that has more than a window makes one alone
            if piece.num_rows:
                held.append(piece)
                start += piece.num_rows
                rows += piece.num_rows
                size += piece.nbytes
            if rows == most or size >= WINDOW_BYTES or start < batch.num_rows:
                yield pa.concat_batches(held)
                held, rows, size = [], 0, 0
    if held:
        yield pa.concat_batches(held)


def _fitting(batch: pa.RecordBatch, room: int) -> int:
    """Return how many of the first rows have no more than so many bytes."""
    if batch.nbytes <= room:
        return int(batch.num_rows)
    return bisect_right(range(1, batch.num_rows + 1), room, key=lambda rows: batch.slice(0, rows).nbytes)
