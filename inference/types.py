"""Word types to vectors: the rows of a graph's word-embedding matrix, read from its file when they are asked for."""

from __future__ import annotations

import os
import weakref
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from inference.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

INPUT = "input_ids"
SAME = ("Cast", "Identity")  # operators that hand on the ids they are given
# Operators that look ids up: the places of the ids and of the matrix among their inputs.
LOOK_UPS = {"Gather": (1, 0), "EmbedLayerNormalization": (0, 2)}
FLOAT32 = 1  # of TensorProto.DataType
ROW_TYPE = np.dtype("<f4")
BLOCK = 4096  # bytes that are read at a time while the matrix is looked for

# Numbers of fields in onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
GRAPH = 7  # of ModelProto
NODE, INITIALIZER = 1, 5  # of GraphProto
NODE_INPUT, NODE_OUTPUT, NODE_OPERATOR = 1, 2, 4
DIMS, DATA_TYPE, TENSOR_NAME, RAW_DATA = 1, 2, 8, 9  # of TensorProto
# Wire types (https://protobuf.dev/programming-guides/encoding).
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5


class Types:
    """
    The word-embedding matrix of a graph: one row a word type, the same wherever the word stands.

    The runtime holds the matrix too, but gives no weights away, and a second copy would double what the largest part
    of a small model takes. So nothing is held here but the open file: what takes its name later is another file, and
    one that is cut short is an error, where a mapping would end the process. Thread-safe.
    """

    def __init__(self, path: Path) -> None:
        """Open the file of a graph; the matrix is looked for when the first row is asked for."""
        self._path = path
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of types, and of numbers in a row; errors are those of `rows`."""
        return self._matrix.shape

    def rows(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """
        Return the rows of token ids.

        Args:
            ids: Token ids in any order, any number of times; none is fine.

        Returns:
            Shape (len(ids), hidden); row i belongs to ids[i].

        Raises:
            ArtifactError: the graph has no such matrix that this version finds, an id has no row in it, or the file
                was altered.
        """
        matrix = self._matrix
        types, hidden = matrix.shape
        found = np.empty((len(ids), hidden), dtype=ROW_TYPE)
        for row, id_ in zip(found, ids, strict=True):
            if not 0 <= id_ < types:
                raise ArtifactError(f"{self._path}: has rows for {types} types, none for token {id_}; export it again")
            if os.preadv(self._file, [row.data], matrix.start + id_ * row.nbytes) != row.nbytes:
                raise ArtifactError(f"{self._path}: was altered while it was in use; export it again")
        return found.astype(np.float32, copy=False)

    @cached_property
    def _matrix(self) -> _Matrix:
        try:
            return _find(_Bytes(self._file))
        except ValueError as error:
            raise ArtifactError(
                f"{self._path}: its word embeddings were not found ({error}); expected one matrix of float32 whose "
                f"rows {INPUT} picks: export the model again with `bertrand export`"
            ) from error


class _Matrix(NamedTuple):
    """Where the numbers of a matrix are in its file."""

    start: int
    shape: tuple[int, int]


class _Bytes:
    """A file that is read here and there in a few bytes; not to be shared between threads."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._start = 0
        self._block = b""
        self.size = os.fstat(file).st_size

    def read(self, start: int, end: int) -> bytes:
        if not self._start <= start <= end <= self._start + len(self._block):
            self._start = start
            self._block = os.pread(self._file, max(BLOCK, end - start), start)
        found = self._block[start - self._start : end - self._start]
        if len(found) != end - start:
            raise ValueError("the file ends within a field")
        return found


def _find(file: _Bytes) -> _Matrix:
    """Return where the matrix is that is looked up by the graph's token ids; raise ValueError where there is none."""
    ids = {INPUT}
    looked_up = set()
    tensors: dict[str, _Tensor] = {}
    for field, start, end in _fields(file, 0, file.size):
        if field != GRAPH:
            continue
        for part, inside, until in _fields(file, start, end):
            if part == NODE:
                operator, inputs, outputs = _node(file, inside, until)
                if operator in SAME and inputs[0] in ids:
                    ids.update(outputs)
                elif operator in LOOK_UPS:
                    of_ids, of_matrix = LOOK_UPS[operator]
                    if inputs[of_ids] in ids:
                        looked_up.add(inputs[of_matrix])
            elif part == INITIALIZER:
                tensor = _tensor(file, inside, until)
                tensors[tensor.name] = tensor
    matrices = [tensors[name] for name in looked_up if name in tensors]
    if len(matrices) != 1:
        raise ValueError(f"{len(matrices)} constant matrices are looked up by {INPUT}")
    (matrix,) = matrices
    if matrix.data_type != FLOAT32 or len(matrix.dims) != 2:
        raise ValueError(
            f"{matrix.name} has {len(matrix.dims)} dimensions and numbers of ONNX's type {matrix.data_type}"
        )
    types, hidden = matrix.dims
    if matrix.raw_data[1] - matrix.raw_data[0] != types * hidden * ROW_TYPE.itemsize:
        raise ValueError(f"{matrix.name} does not have its {types} x {hidden} numbers as raw data in this file")
    return _Matrix(matrix.raw_data[0], (types, hidden))


def _node(file: _Bytes, start: int, end: int) -> tuple[str, list[str], list[str]]:
    """Return the operator, the inputs and the outputs of a node."""
    names: dict[int, list[str]] = {NODE_INPUT: [], NODE_OUTPUT: [], NODE_OPERATOR: []}
    for field, inside, until in _fields(file, start, end):
        if field in names:
            names[field].append(file.read(inside, until).decode())
    return names[NODE_OPERATOR][0], names[NODE_INPUT], names[NODE_OUTPUT]


class _Tensor(NamedTuple):
    """What a tensor says of itself, and from where to where in the file its numbers are."""

    name: str
    dims: list[int]
    data_type: int
    raw_data: tuple[int, int]


def _tensor(file: _Bytes, start: int, end: int) -> _Tensor:
    name, dims, data_type, raw_data = "", [], 0, (0, 0)
    for field, inside, until in _fields(file, start, end):
        if field == TENSOR_NAME:
            name = file.read(inside, until).decode()
        elif field == DATA_TYPE:
            data_type, _ = _varint(file, inside)
        elif field == RAW_DATA:
            raw_data = (inside, until)
        elif field == DIMS:  # one field each, or packed into one
            while inside < until:
                size, inside = _varint(file, inside)
                dims.append(size)
    return _Tensor(name, dims, data_type, raw_data)


def _fields(file: _Bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield of every field of the message at start:end its number, and from where to where its value reaches."""
    while start < end:
        key, start = _varint(file, start)
        kind = key & 7
        if kind == DELIMITED:
            size, start = _varint(file, start)
        elif kind == VARINT:
            size = _varint(file, start)[1] - start
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {start}: not an ONNX file")
        yield key >> 3, start, start + size
        start += size


def _varint(file: _Bytes, start: int) -> tuple[int, int]:
    """Return the number that starts there and where it ends: seven bits a byte, the lowest first."""
    value = shift = 0
    while True:
        (byte,) = file.read(start, start + 1)
        value |= (byte & 0x7F) << shift
        start += 1
        if byte < 0x80:
            return value, start
        shift += 7
