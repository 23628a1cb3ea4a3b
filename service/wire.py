"""Answers to bytes: JSON, base64 and safetensors."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import safetensors.numpy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

JSON = "application/json"
SAFETENSORS = "application/vnd.safetensors"
TYPES = {"float32": "<f4", "float16": "<f2"}


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer; what every answer carries is added when it is sent."""

    body: bytes
    media_type: str = JSON
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


def to_json(value: object) -> bytes:
    """Return compact JSON; numpy arrays are written as nested lists."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


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
