"""
The dialect of text-embeddings-inference, which Hugging Face's `InferenceClient` speaks too.

There one server has one task; here all routes answer from the one model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from inference.classifier import sentence_embedding, sigmoid, softmax
from service.answers import rows_of, unit
from service.errors import ApiError
from service.schema import Request, Score
from service.turns import Turns

if TYPE_CHECKING:
    from inference.classifier import Classifier
    from inference.encoder import Encoded
    from service.answers import Answers, Call, Json, Read

DTYPES = {"fp32": "float32"}  # how TEI calls a precision, where it is not by our name


def _no_pair(value: object) -> object:
    if isinstance(value, list) and value and isinstance(value[0], str):
        raise PydanticCustomError(
            "sentence_pair",
            "a flat list of strings is a sentence pair in this dialect, and the model reads single texts; "
            'send one text as a string, several as [["one"], ["two"]]',
        )
    return value


def _no_inner_pair(value: object) -> object:
    if isinstance(value, list) and len(value) == 2:
        raise PydanticCustomError(
            "sentence_pair",
            "a list of two strings is a sentence pair, and the model reads single texts; "
            'send several texts as [["one"], ["two"]]',
        )
    return value


_OneText = Annotated[list[str], Field(min_length=1, max_length=1), BeforeValidator(_no_inner_pair)]
_Batch = Annotated[list[_OneText], Field(min_length=1, fail_fast=True)]
Truncate = Annotated[bool | None, Field(description="False refuses a text that is too long; else its start is read.")]
Direction = Annotated[Literal["right", "Right"], Field(description="What is cut off a text that is too long: its end.")]
NoPrompt = Annotated[None, Field(description="The model has no prompts.")]


class _WithTexts(Request):
    inputs: Annotated[
        str | Annotated[list[str], Field(min_length=1, fail_fast=True)],
        Field(description="One text, or several.", examples=["Where is my parcel?"]),
    ]

    @property
    def texts(self) -> list[str]:
        """Return the texts, also where only one was sent."""
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs

    @property
    def place(self) -> str:
        """Return where a text stands in the request."""
        return "inputs" if isinstance(self.inputs, str) else "inputs[{}]"


class PipelineParameters(Request):
    """What Hugging Face's `text_classification` sends beside the text."""

    top_k: Annotated[int | None, Field(ge=1, description="Give at most so many labels.")] = None
    function_to_apply: Annotated[
        Literal["sigmoid", "softmax", "none"] | None,
        Field(description="Of the calibrated logits; none gives them as they are, null what fits the model."),
    ] = None


class PredictRequest(Request):
    """Texts to label; with `parameters` the answer is a list for each text even where only one was sent."""

    inputs: Annotated[
        str | _Batch,
        BeforeValidator(_no_pair),
        Field(description='One text, or several as [["one"], ["two"]].', examples=["Where is my parcel?"]),
    ]
    truncate: Truncate = None
    truncation_direction: Direction = "right"
    raw_scores: Annotated[bool, Field(description="Give logits in place of probabilities.")] = False
    parameters: PipelineParameters | None = None


class EmbedRequest(_WithTexts):
    """Texts whose sentence embeddings are wanted."""

    normalize: Annotated[bool, Field(description="Scale embeddings to length 1.")] = True
    truncate: Truncate = None
    truncation_direction: Direction = "right"
    prompt_name: NoPrompt = None
    dimensions: Annotated[int | None, Field(description="The size of the model's embeddings, or null.")] = None


class EmbedAllRequest(_WithTexts):
    """Texts whose token embeddings are wanted."""

    truncate: Truncate = None
    truncation_direction: Direction = "right"
    prompt_name: NoPrompt = None


class TokensRequest(_WithTexts):
    """Texts to show as the model sees them."""

    add_special_tokens: Annotated[bool, Field(description="Include the model's own tokens, such as [CLS].")] = True
    prompt_name: NoPrompt = None


class SimpleToken(BaseModel):
    """One token; `start` and `stop` are character offsets, null for the model's own tokens."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class LabelNames(BaseModel):
    """The labels by number and the numbers by label."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ClassifierType(BaseModel):
    """What kind of model it is."""

    classifier: LabelNames


class ServerInfo(BaseModel):
    """What the model is and what the server takes; null where this server has no such limit or does not tell."""

    model_id: str
    model_sha: str
    model_dtype: str
    served_model_name: str
    model_type: ClassifierType
    max_concurrent_requests: int | None
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int | None
    version: str | None
    sha: str | None
    docker_label: str | None


async def predict(answers: Answers, request: PredictRequest, call: Call) -> list[Any]:
    """Give every label with its score, best first."""
    one = isinstance(request.inputs, str)
    parameters = request.parameters
    if parameters and request.raw_scores:
        message = "raw_scores: is not read beside parameters; send function_to_apply: none"
        raise ApiError(422, "request_invalid", message, "raw_scores")
    if parameters is None:
        parameters = PipelineParameters(function_to_apply="none" if request.raw_scores else None)
    reads = await answers.read_all(
        [request.inputs] if isinstance(request.inputs, str) else [text for (text,) in request.inputs],
        call,
        truncate=request.truncate is not False,
        param="inputs" if one else "inputs[{}]",
    )
    rows = [_labels(answers, read, parameters) for read in reads]
    return rows[0] if one and request.parameters is None else rows


async def embed(answers: Answers, request: EmbedRequest, call: Call) -> list[Any]:
    """Give the sentence embedding of each text."""
    answers.check_size(request.dimensions)
    reads = await answers.read_all(
        request.texts, call, hidden=True, truncate=request.truncate is not False, param=request.place
    )
    vectors = [sentence_embedding(read.hidden) for read in reads]
    return [unit(vector) for vector in vectors] if request.normalize else vectors


async def embed_all(answers: Answers, request: EmbedAllRequest, call: Call) -> list[Any]:
    """Give the embeddings of all tokens of each text, the model's own included."""
    reads = await answers.read_all(
        request.texts, call, hidden=True, truncate=request.truncate is not False, param=request.place
    )
    return [read.hidden for read in reads]


async def tokenize(answers: Answers, request: TokensRequest, call: Call) -> list[list[Json]]:
    """Show the tokens that the model reads of each text."""
    items = await answers.encode_all(request.texts, call, param=request.place)
    answers.metrics.answered(ok=len(items), failed=0)
    call.rows = rows_of(items)
    turns = Turns()
    rows = []
    for item in items:
        rows.append(_tokens(item, special=request.add_special_tokens))
        await turns.give()
    return rows


async def info(answers: Answers, _request: None, _call: Call) -> Json:
    """Say what the model is and what the server takes."""
    manifest = answers.classifier.manifest
    precision = answers.classifier.precision
    return {
        "model_id": manifest.name,
        "model_sha": manifest.version,
        "model_dtype": DTYPES.get(precision, precision),
        "served_model_name": manifest.name,
        "model_type": {
            "classifier": {
                "id2label": {str(i): label for i, label in enumerate(manifest.labels)},
                "label2id": {label: i for i, label in enumerate(manifest.labels)},
            }
        },
        "max_concurrent_requests": None,  # what waits is bounded in tokens, not in requests
        "max_input_length": manifest.max_tokens,
        "max_batch_tokens": answers.settings.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": answers.settings.max_inputs,
        "auto_truncate": True,
        "tokenization_workers": None,
        "version": None,
        "sha": None,
        "docker_label": None,
    }


def _tokens(text: Encoded, *, special: bool) -> list[Json]:
    return [
        {
            "id": token.id,
            "text": token.text,
            "special": token.special,
            "start": None if token.special else token.start,
            "stop": None if token.special else token.end,
        }
        for token in text.tokens()
        if special or not token.special
    ]


def _labels(answers: Answers, read: Read, parameters: PipelineParameters) -> list[Json]:
    """Return all labels, whatever their thresholds, best first."""
    answers.labels(read)  # counts what the model itself says of the text
    scores = _scores(answers.classifier, read, parameters.function_to_apply)
    order = np.argsort(-scores, kind="stable")[: parameters.top_k].tolist()
    return [{"label": answers.classifier.labels[i], "score": float(scores[i])} for i in order]


def _scores(classifier: Classifier, read: Read, function: Literal["sigmoid", "softmax", "none"] | None) -> Any:
    """Return one number a label, in the order of the labels."""
    if function is None:
        return classifier.probabilities(read.logits)
    if function == "none":
        return read.logits
    scaled = read.logits / np.float32(classifier.manifest.temperature)
    return softmax(scaled) if function == "softmax" else sigmoid(scaled)


Predictions = list[Score] | list[list[Score]]
