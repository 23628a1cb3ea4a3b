"""What requests may say and answers hold: checked on the way in, and the source of /openapi.json."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import ApiError

if TYPE_CHECKING:
    from service.answers import Call

T = TypeVar("T", bound=BaseModel)
MANY_FLAWS = 1000  # describing half a million takes seconds, in which nobody else is answered

Inputs = Annotated[
    str | Annotated[list[str], Field(fail_fast=True)],  # one complaint, not a million, of a list of numbers
    Field(description="One text, or several; answers come in their order.", examples=["Where is my parcel?"]),
]


EncodingFormat = Annotated[
    Literal["float", "base64"], Field(description="base64: the little-endian bytes of `dtype`, with a shape.")
]
Dtype = Annotated[Literal["float32", "float16"], Field(description="Number format of the embeddings.")]


class Request(BaseModel):
    """What every request has in common: nothing is guessed."""

    # strict: "1" is no number and 1 no string; extra: a misspelt field is an error, not a silent default.
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _WithInputs(Request):
    inputs: Inputs

    @property
    def texts(self) -> list[str]:
        """Return the texts, also where only one was sent."""
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs


class TextsRequest(_WithInputs):
    """Texts to label, to analyse or to embed, and how the answer should look."""

    top_k: Annotated[int | None, Field(ge=1, description="Give at most so many labels.")] = None
    threshold: Annotated[
        float | None,
        Field(
            ge=0, le=1, description="Give the labels of at least this probability, in place of the model's thresholds."
        ),
    ] = None
    raw_scores: Annotated[bool, Field(description="Give logits in place of probabilities.")] = False
    truncate: Annotated[
        bool | Literal["windows"],
        Field(
            description="What becomes of a text that is too long: true reads only its start, false makes it an item "
            "error, windows (classify only) reads all of it in overlapping windows."
        ),
    ] = True
    embeddings: Annotated[
        list[Literal["tokens", "sentence"]] | None,
        Field(
            fail_fast=True,
            description="Which embeddings to return: by default both from analyze, the sentence's from embed.",
        ),
    ] = None
    encoding_format: EncodingFormat = "float"
    dtype: Dtype = "float32"
    special_tokens: Annotated[bool, Field(description="Include the model's own tokens, such as [CLS].")] = True


class TokenizeRequest(_WithInputs):
    """Texts to show as the model sees them."""

    special_tokens: Annotated[bool, Field(description="Include the model's own tokens, such as [CLS].")] = True


class TypesRequest(_WithInputs):
    """Words whose rows of the word-embedding matrix are asked for."""

    encoding_format: EncodingFormat = "float"
    dtype: Dtype = "float32"


class ExplainRequest(_WithInputs):
    """Texts whose labels are to be explained, token by token."""

    label: Annotated[
        str | None,
        Field(description="The label to explain; by default the most probable one, whether it reaches its threshold."),
    ] = None
    truncate: Annotated[
        bool,
        Field(
            description="What becomes of a text that is too long: true reads only its start, false makes it an "
            "item error."
        ),
    ] = True


class ModelId(BaseModel):
    """Which model gave the answer."""

    name: str
    version: str
    precision: str


class Score(BaseModel):
    """A label and its probability (or logit)."""

    label: str
    score: float


class TokenView(BaseModel):
    """One token; `start` and `end` are character offsets into the text as sent."""

    text: str
    id: int
    start: int
    end: int
    special: bool


class Base64Array(BaseModel):
    """An array as bytes: little-endian, row by row."""

    data: str
    shape: list[int]
    dtype: Literal["float32", "float16"]


class Failure(BaseModel):
    """Why something has no result."""

    code: str
    message: str
    param: str | None = None


class ErrorItem(BaseModel):
    """A text without an answer; those beside it have theirs."""

    status: Literal["error"]
    error: Failure


class TokenizeItem(BaseModel):
    """A text as the model sees it."""

    status: Literal["ok"]
    token_count: int
    truncated: bool
    tokens: list[TokenView]


class WindowItem(BaseModel):
    """The labels of one window of a long text; `start` and `end` are character offsets into the text as sent."""

    start: int
    end: int
    token_count: int
    label: str | None
    score: float | None
    scores: list[Score]


class ClassifyItem(BaseModel):
    """The labels of a text, best first; `label` is null where no label reaches its threshold."""

    status: Literal["ok"]
    label: str | None
    score: float | None
    scores: list[Score]
    token_count: int
    truncated: bool
    windows: Annotated[
        list[WindowItem] | None, Field(description="With truncate: windows, what each window says by itself.")
    ] = None
    aggregate: Annotated[
        Literal["mean", "max"] | None,
        Field(description="With truncate: windows, how the scores of the windows make those of the text."),
    ] = None


class EmbedItem(BaseModel):
    """The embeddings of a text; row i of `token_embeddings` belongs to `tokens[i]`."""

    status: Literal["ok"]
    token_count: int
    truncated: bool
    tokens: list[TokenView] | None = None
    token_embeddings: list[list[float]] | Base64Array | None = None
    sentence_embedding: list[float] | Base64Array | None = None


class AnalyzeItem(EmbedItem):
    """The labels and the embeddings of a text, from one forward pass."""

    label: str | None
    score: float | None
    scores: list[Score]


class TypePiece(BaseModel):
    """A word type: a word, or a piece of one, as it stands in the model's vocabulary."""

    text: str
    id: int


class TypesItem(BaseModel):
    """The word types that a word is made of; row i of `type_embeddings` belongs to `tokens[i]`."""

    status: Literal["ok"]
    truncated: bool
    tokens: list[TypePiece]
    type_embeddings: list[list[float]] | Base64Array


class ExplainedToken(TokenView):
    """A token and what is lost of a label without it; null where it is special, since those are never left out."""

    importance: Annotated[
        float | None, Field(description="The label's probability, minus its probability without the token.")
    ]
    weight_of_evidence: Annotated[
        float | None, Field(description="The label's log-odds ln(p / (1 - p)), minus its log-odds without the token.")
    ]


class ExplainItem(BaseModel):
    """A label, its probability, and what each token contributed to it."""

    status: Literal["ok"]
    label: str
    score: float
    token_count: int
    truncated: bool
    tokens: list[ExplainedToken]


class ClassifyAnswer(BaseModel):
    """One item a text, in the order sent."""

    model: ModelId
    results: list[ClassifyItem | ErrorItem]


class AnalyzeAnswer(BaseModel):
    """One item a text, in the order sent."""

    model: ModelId
    results: list[AnalyzeItem | ErrorItem]


class EmbedAnswer(BaseModel):
    """One item a text, in the order sent."""

    model: ModelId
    results: list[EmbedItem | ErrorItem]


class TokenizeAnswer(BaseModel):
    """One item a text, in the order sent."""

    model: ModelId
    results: list[TokenizeItem | ErrorItem]


class TypesAnswer(BaseModel):
    """One item a word, in the order sent."""

    model: ModelId
    results: list[TypesItem | ErrorItem]


class ExplainAnswer(BaseModel):
    """One item a text, in the order sent."""

    model: ModelId
    results: list[ExplainItem | ErrorItem]


class InfoAnswer(BaseModel):
    """What the model is and what the server takes."""

    name: str
    version: str
    created: str
    base_model: str
    precision: str
    precisions: list[str]
    problem_type: Literal["single_label", "multi_label"]
    labels: list[str]
    thresholds: list[float] | None
    temperature: float
    max_tokens: int
    hidden_size: int
    metrics: dict[str, object]
    max_inputs: int
    max_text_characters: int
    max_body_bytes: int
    max_queue_tokens: int
    request_timeout: float


class StatusAnswer(BaseModel):
    """A probe's answer."""

    status: str


class ErrorAnswer(BaseModel):
    """The body of every error, on every route."""

    error: Failure
    request_id: str


def parse(model: type[T], body: bytes, _call: Call) -> T:
    """
    Read a JSON body.

    Raises:
        ApiError: it is not JSON, or not what the route takes; it names the field.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if (count := error.error_count()) > MANY_FLAWS:
            raise ApiError(422, "request_invalid", f"the body has {count} flaws, such as unknown fields") from None
        flaws = error.errors(include_url=False, include_input=False, include_context=False)
    if flaws[0]["type"] == "json_invalid":
        raise ApiError(400, "json_invalid", f"the body is not valid JSON: {flaws[0]['msg'].partition(': ')[2]}")
    # A field that may be of several types has a complaint for each: the one that got furthest is about the real flaw.
    depth = max(len(flaw["loc"]) for flaw in flaws)
    deepest = [flaw for flaw in flaws if len(flaw["loc"]) == depth]
    places = [_param(model, flaw["loc"], unknown=flaw["type"] == "extra_forbidden") for flaw in deepest]
    param = places[0]
    problems = {
        "unknown field" if flaw["type"] == "extra_forbidden" else flaw["msg"][:1].lower() + flaw["msg"][1:]
        for flaw, place in zip(deepest, places, strict=True)
        if place == param
    }
    raise ApiError(422, "request_invalid", f"{param or 'the body'}: {' or '.join(sorted(problems))}", param)


def _param(model: type[BaseModel], loc: tuple[int | str, ...], *, unknown: bool) -> str | None:
    """Return a place in a body as people write it, such as `inputs[0].shape`; None for the whole body."""
    fields = _fields(model)
    last = len(loc) - 1
    # What is neither an index nor a field is the name of one of the types that were tried.
    parts = [
        f"[{part}]" if isinstance(part, int) else f".{part}"
        for i, part in enumerate(loc)
        if isinstance(part, int) or part in fields or (unknown and i == last)
    ]
    return "".join(parts).removeprefix(".")[:100] or None


@cache
def _fields(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of the fields of a model and of the models within it."""
    document = model.model_json_schema()
    objects = (document, *document.get("$defs", {}).values())
    return frozenset(name for found in objects for name in found.get("properties", {}))
