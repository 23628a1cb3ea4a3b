"""The dialect of OpenAI's embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from inference.classifier import sentence_embedding
from service.answers import unit
from service.schema import Request
from service.wire import to_base64, typed

if TYPE_CHECKING:
    from service.answers import Answers, Call, Json


def _no_token_ids(value: object) -> object:
    if isinstance(value, list) and value and isinstance(value[0], int | list):
        raise PydanticCustomError(
            "texts_expected", "texts are expected, as a string or a list of strings; token ids are another model's"
        )
    return value


class EmbeddingsRequest(Request):
    """Texts whose sentence embeddings are wanted."""

    input: Annotated[
        str | Annotated[list[str], Field(min_length=1, fail_fast=True)],
        BeforeValidator(_no_token_ids),
        Field(description="One text, or several.", examples=["Where is my parcel?"]),
    ]
    model: Annotated[str | None, Field(description="Any name; the answer says which model gave it.")] = None
    encoding_format: Annotated[
        Literal["float", "base64"], Field(description="base64: the bytes of little-endian 32-bit floats.")
    ] = "float"
    dimensions: Annotated[int | None, Field(description="The size of the model's embeddings, or null.")] = None
    user: Annotated[str | None, Field(description="Not looked at.")] = None


class Embedding(BaseModel):
    """The embedding of one text, of length 1."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """How many tokens the model read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """One embedding a text, in the order sent."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


async def embeddings(answers: Answers, request: EmbeddingsRequest, call: Call) -> Json:
    """Give the sentence embedding of each text, scaled to length 1."""
    answers.check_size(request.dimensions)
    one = isinstance(request.input, str)
    texts = [request.input] if isinstance(request.input, str) else request.input
    reads = await answers.read_all(texts, call, hidden=True, param="input" if one else "input[{}]")
    vectors = [typed(unit(sentence_embedding(read.hidden)), "float32") for read in reads]
    tokens = sum(len(read.text) for read in reads)
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": i,
                "embedding": to_base64(vector) if request.encoding_format == "base64" else vector,
            }
            for i, vector in enumerate(vectors)
        ],
        "model": answers.model["name"],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
