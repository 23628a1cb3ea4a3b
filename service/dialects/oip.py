"""
The Open Inference Protocol, version 2, as KServe and Triton speak it, with its binary tensors.

A text is an element of the one input tensor; the outputs are tensors with a row for each text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, PrivateAttr

from inference.classifier import sentence_embedding
from service.errors import ApiError
from service.schema import Request, parse
from service.wire import Reply, to_json, typed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from service.answers import Answers, Call, Json, Read

JSON_LENGTH = "inference-header-content-length"  # header: bytes of the JSON, after which binary tensors follow
OCTETS = "application/octet-stream"
LENGTH_BYTES = 4  # before each element of a binary BYTES tensor: its size, little-endian
DATA = "inputs[0].data"

OutputName = Literal["label", "score", "scores", "sentence_embedding"]
BY_DEFAULT: tuple[OutputName, ...] = ("label", "score", "scores")
Size = Annotated[int, Field(ge=0, le=2**63 - 1)]
_Row = Annotated[list[str], Field(min_length=1, max_length=1)]


class InputParameters(Request):
    """Where the data of a tensor is."""

    binary_data_size: Annotated[Size | None, Field(description="Bytes of the tensor, which follow the JSON.")] = None


class InputTensor(Request):
    """The texts; `data` is left out where they follow the JSON as binary data."""

    name: Literal["text"]
    shape: Annotated[list[Size], Field(min_length=1, max_length=2, description="[texts] or [texts, 1]")]
    datatype: Literal["BYTES"]
    parameters: InputParameters | None = None
    data: Annotated[list[str], Field(fail_fast=True)] | Annotated[list[_Row], Field(fail_fast=True)] | None = None


class OutputParameters(Request):
    """How an output is sent."""

    binary_data: Annotated[bool | None, Field(description="After the JSON, as bytes.")] = None


class OutputChoice(Request):
    """An output that is wanted."""

    name: OutputName
    parameters: OutputParameters | None = None


class InferParameters(Request):
    """How outputs are sent that do not say it themselves."""

    binary_data_output: Annotated[bool, Field(description="After the JSON, as bytes.")] = False


class InferRequest(Request):
    """
    Texts to label, as a tensor.

    With the header Inference-Header-Content-Length the body is so many bytes of this JSON and then, where
    `binary_data_size` says so, the elements of the tensor: each its size in 4 bytes, little-endian, and its UTF-8.
    """

    id: str | None = None
    parameters: InferParameters | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[
        list[OutputChoice] | None, Field(description=f"By default {', '.join(BY_DEFAULT)}.", max_length=4)
    ] = None
    _binary: bytes = PrivateAttr(default=b"")

    @property
    def declared(self) -> int:
        """Return how many texts the shape says there are."""
        return self.inputs[0].shape[0]

    def texts(self) -> list[str]:
        """
        Return the elements of the input tensor.

        Raises:
            ApiError: the shape, the sizes and the data contradict each other, or an element is not UTF-8.
        """
        (tensor,) = self.inputs
        count, *columns = tensor.shape
        if columns not in ([], [1]):
            raise _invalid("inputs[0].shape", "expected [texts] or [texts, 1]")
        size = tensor.parameters.binary_data_size if tensor.parameters else None
        if len(self._binary) != (size or 0):
            raise _invalid(
                "inputs[0].parameters.binary_data_size",
                f"{len(self._binary)} bytes follow the JSON, expected {size or 0}",
            )
        if size is None:
            texts = self._listed(tensor, nested=bool(columns))
        elif tensor.data is not None:
            raise _invalid(DATA, "is given although binary_data_size says that the data follows the JSON")
        else:
            texts = _elements(self._binary, count)
        if len(texts) != count:
            raise _invalid(DATA, f"has {len(texts)} elements, the shape says {count}")
        return texts

    def wanted(self) -> dict[OutputName, bool]:
        """Return the names of the outputs, each with whether it is sent as binary data."""
        binary = self.parameters is not None and self.parameters.binary_data_output
        if not self.outputs:
            return dict.fromkeys(BY_DEFAULT, binary)
        choices: dict[OutputName, bool] = {}
        for i, output in enumerate(self.outputs):
            if output.name in choices:
                raise _invalid(f"outputs[{i}].name", f"{output.name} is asked for twice")
            own = output.parameters.binary_data if output.parameters else None
            choices[output.name] = binary if own is None else own
        return choices

    def _listed(self, tensor: InputTensor, *, nested: bool) -> list[str]:
        if tensor.data is None:
            raise _invalid(DATA, "expected the texts here, or binary_data_size and the texts after the JSON")
        if not nested and any(isinstance(element, list) for element in tensor.data):
            raise _invalid(DATA, "is nested, the shape is not")
        return [element if isinstance(element, str) else element[0] for element in tensor.data]


class TensorMetadata(BaseModel):
    """A tensor that the model takes or gives; -1 stands for the number of texts."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """What the model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class LiveAnswer(BaseModel):
    """The process answers."""

    live: bool


class ReadyAnswer(BaseModel):
    """Requests will be answered."""

    ready: bool


class ModelReadyAnswer(BaseModel):
    """The model can compute."""

    name: str
    ready: bool


class OutputTensor(BaseModel):
    """An output; `data` row by row, left out where `parameters.binary_data_size` bytes of it follow the JSON."""

    name: OutputName
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    parameters: Annotated[dict[str, Any] | None, Field(description="Of scores: `labels`, its columns.")] = None
    data: list[str] | list[float] | None = None


class InferAnswer(BaseModel):
    """The outputs asked for, in that order; `label` is empty and `score` 0 where no label reaches its threshold."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


def read_infer(_model: type[BaseModel], body: bytes, call: Call) -> InferRequest:
    """
    Read a request that may have binary data after its JSON.

    Raises:
        ApiError: the JSON is not where the header says, or not a request.
    """
    length = _json_length(call, len(body))
    request = parse(InferRequest, body[:length], call)
    request._binary = body[length:]
    return request


async def infer(answers: Answers, request: InferRequest, call: Call) -> Json | Reply:
    """Label each text and give its embedding, as tensors."""
    _check_model(answers, call)
    answers.check_count(request.declared, param="inputs[0].shape")
    wanted = request.wanted()
    hidden = "sentence_embedding" in wanted
    reads = await answers.read_all(request.texts(), call, hidden=hidden, param=DATA + "[{}]")
    columns = _columns(answers, reads, hidden=hidden)
    tensors, binary = [], []
    for name, as_bytes in wanted.items():
        tensor, data = _tensor(name, columns[name], as_bytes=as_bytes)
        if name == "scores":
            tensor["parameters"] = {"labels": answers.classifier.labels} | tensor.get("parameters", {})
        tensors.append(tensor)
        binary.append(data)
    answer = {"model_name": answers.model["name"], "model_version": answers.model["version"], "outputs": tensors}
    if request.id is not None:
        answer["id"] = request.id
    if not any(wanted.values()):
        return answer
    head = to_json(answer)
    return Reply(b"".join((head, *binary)), OCTETS, headers=((JSON_LENGTH, str(len(head))),))


async def model_metadata(answers: Answers, _request: None, call: Call) -> Json:
    """Say what the model takes and gives."""
    _check_model(answers, call)
    labels, hidden = len(answers.classifier.labels), answers.classifier.engine.hidden_size
    return {
        "name": answers.model["name"],
        "versions": [answers.model["version"]],
        "platform": "onnxruntime",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "score", "datatype": "FP32", "shape": [-1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, labels]},
            {"name": "sentence_embedding", "datatype": "FP32", "shape": [-1, hidden]},
        ],
    }


async def model_ready(answers: Answers, _request: None, call: Call) -> Json:
    """Whether the model can compute."""
    _check_model(answers, call)
    if reason := answers.stuck():
        raise ApiError(503, "not_alive", reason)
    return {"name": answers.model["name"], "ready": True}


def server_metadata(version: str) -> Json:
    """Say what the server is."""
    return {"name": "bertrand", "version": version, "extensions": ["binary_tensor_data"]}


def _json_length(call: Call, size: int) -> int:
    """Return how many of the body's bytes are JSON."""
    given = call.headers.get(JSON_LENGTH.encode())
    if given is None:
        return size
    # isdigit: int() would also take a sign, blanks and underscores.
    if not given.isdigit() or len(given) > len(str(size)) or int(given) > size:
        raise ApiError(
            422, "request_invalid", f"{JSON_LENGTH}: expected bytes of JSON among the {size} of the body", JSON_LENGTH
        )
    return int(given)


def _elements(data: bytes, count: int) -> list[str]:
    """
    Return the elements of a binary BYTES tensor.

    Args:
        data: As sent; no more is read of it than it has, whatever its elements say of their size.
        count: How many are expected; it may end sooner.
    """
    texts: list[str] = []
    place = 0
    while place < len(data):
        if len(texts) == count:
            raise _invalid(DATA, f"has more bytes than the {count} elements that the shape says")
        start = place + LENGTH_BYTES
        end = start + int.from_bytes(data[place:start], "little")
        if end > len(data):
            raise _invalid(f"{DATA}[{len(texts)}]", "reaches beyond the end of the tensor")
        try:
            texts.append(data[start:end].decode())
        except UnicodeDecodeError as error:
            message = f"byte {error.start} of the text is not UTF-8"
            raise ApiError(422, "text_invalid", message, f"{DATA}[{len(texts)}]") from None
        place = end
    return texts


def _columns(answers: Answers, reads: Sequence[Read], *, hidden: bool) -> dict[OutputName, Any]:
    """Return every output; the sentence embeddings only where the hidden states were computed."""
    predictions = [answers.labels(read) for read in reads]
    classifier = answers.classifier
    columns: dict[OutputName, Any] = {
        "label": [prediction.label or "" for prediction in predictions],
        "score": _array([prediction.score or 0 for prediction in predictions], len(reads)),
        "scores": _array([classifier.probabilities(read.logits) for read in reads], len(reads), len(classifier.labels)),
    }
    if hidden:
        vectors = [sentence_embedding(read.hidden) for read in reads]
        columns["sentence_embedding"] = _array(vectors, len(reads), classifier.engine.hidden_size)
    return columns


def _array(rows: Sequence[Any], *shape: int) -> NDArray[np.float32]:
    return np.asarray(rows, dtype=np.float32).reshape(shape)  # no rows have a shape too


def _tensor(name: OutputName, values: Any, *, as_bytes: bool) -> tuple[Json, bytes]:
    """Return an output and its binary data, empty where it holds them itself."""
    tensor: Json = {"name": name}
    if isinstance(values, list):
        tensor |= {"datatype": "BYTES", "shape": [len(values)]}
        encoded = [text.encode() for text in values] if as_bytes else []
        data = b"".join(len(text).to_bytes(LENGTH_BYTES, "little") + text for text in encoded)
    else:
        tensor |= {"datatype": "FP32", "shape": list(values.shape)}
        data = typed(values, "float32").tobytes() if as_bytes else b""
        values = values.ravel()
    if as_bytes:
        return tensor | {"parameters": {"binary_data_size": len(data)}}, data
    return tensor | {"data": values}, b""


def _check_model(answers: Answers, call: Call) -> None:
    asked = call.path["name"], call.path.get("version", answers.model["version"])
    if asked != (answers.model["name"], answers.model["version"]):
        message = "there is no such model or version; GET /v1/info names the one that is served"
        raise ApiError(404, "model_unknown", message)


def _invalid(param: str, message: str) -> ApiError:
    return ApiError(422, "request_invalid", f"{param}: {message}", param)
