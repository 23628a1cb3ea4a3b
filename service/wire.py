"""Answers to bytes: JSON, base64 and safetensors."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import safetensors.numpy

from service.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

JSON = "application/json"
SAFETENSORS = "application/vnd.safetensors"
MOST_ROWS = 1024  # of an answer that is written at once: some 20 ms of vectors of 384 numbers
PIECE_BYTES = 2**18  # that a large answer is sent in
TYPES = {"float32": "<f4", "float16": "<f2"}


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer; what every answer carries is added when it is sent."""

    body: bytes
    media_type: str = JSON
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    rest: tuple[bytes, ...] = ()  # what follows `body`, where it is too much to be sent at once

    @property
    def size(self) -> int:
        """Return the bytes of the whole body."""
        return len(self.body) + sum(map(len, self.rest)) if self.rest else len(self.body)


def to_json(value: object) -> bytes:
    """Return compact JSON; numpy arrays are written as nested lists."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


async def to_reply(answer: object, rows: int) -> Reply:
    """
    Return an answer in JSON; a large one is written in pieces, between which other callers have their turn.

    Args:
        answer: As in `to_json`; of a large one the list in it, or the list that it is, has its rows.
        rows: About how many it has: vectors, or tokens.
    """
    if rows <= MOST_ROWS:
        return Reply(to_json(answer))
    head, items, tail = b"", answer, b""
    if isinstance(answer, dict):
        name, items = next((name, value) for name, value in answer.items() if isinstance(value, list))
        # Found in no string: there a quotation mark has a backslash before it.
        head, key, tail = to_json(answer | {name: []}).partition(to_json(name) + b":[")
        head, tail = head + key[:-1], tail[1:]
    assert isinstance(items, list)  # noqa: S101  of what else should there be many
    turns = Turns()
    pieces = [head + b"["]
    written: list[bytes] = []
    size = 0
    for i, item in enumerate(items):
        written.append(to_json(item) if i == 0 else b"," + to_json(item))
        size += len(written[-1])
        if size > PIECE_BYTES:
            pieces.append(b"".join(written))
            written, size = [], 0
        await turns.give()
    first, *rest = [*pieces, b"".join((*written, b"]", tail))]
    return Reply(first, rest=tuple(rest))


def to_base64(values: NDArray[np.generic]) -> str:
    """Return the bytes of an array, row by row, as text."""
    return base64.b64encode(np.ascontiguousarray(values).data).decode("ascii")


def typed(values: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """Return an array as little-endian numbers of `dtype`, contiguous."""
    return np.ascontiguousarray(values, dtype=TYPES[dtype])


def array_object(values: NDArray[np.generic], dtype: str) -> dict[str, Any]:
    """Return an array as JSON of its bytes, its shape and the kind of its numbers."""
    return {"data": to_base64(values), "shape": list(values.shape), "dtype": dtype}


def to_safetensors(answer: Mapping[str, Any]) -> Reply:
    """
    Return an answer as one binary body (the safetensors format).

    The arrays of result i are the tensors `i.token_embeddings`, `i.sentence_embedding` and `i.type_embeddings`;
    everything else is the JSON answer without them, in the metadata under `answer`.
    """
    tensors: dict[str, Any] = {}
    results = []
    for i, result in enumerate(answer["results"]):
        arrays = {name: value for name, value in result.items() if isinstance(value, np.ndarray)}
        tensors |= {f"{i}.{name}": value for name, value in arrays.items()}
        results.append({name: value for name, value in result.items() if name not in arrays})
    metadata = {"answer": to_json({**answer, "results": results}).decode()}
    return Reply(safetensors.numpy.save(tensors, metadata), SAFETENSORS)
