"""Requests to answers: what each route does once its request is read."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from orjson import Fragment

from inference.classifier import WINDOW_AGGREGATES, sentence_embedding
from inference.encoder import Encoded
from inference.errors import ArtifactError, TextError
from inference.importance import cost, importance, variants
from service.batcher import QueueFull
from service.errors import INFERENCE_FAILED, ApiError
from service.shadow import Answered, told_labels
from service.turns import Turns
from service.wire import SAFETENSORS, Reply, array_object, to_json, to_safetensors, typed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from inference.classifier import Classifier, Prediction
    from inference.encoder import Encoder, Token
    from inference.engine import Output
    from service.batcher import Batcher
    from service.metrics import Metrics
    from service.schema import Dtype, EncodingFormat, ExplainRequest, TextsRequest, TokenizeRequest, TypesRequest
    from service.settings import Settings
    from service.shadow import Shadow

Json = dict[str, Any]
T = TypeVar("T")

LONG_REQUEST = 20_000  # characters, some milliseconds of tokenizing
MAX_WINDOWS = 64  # of one long text: some 6,000 words at 128 tokens a window
MAX_WINDOWED_CHARACTERS = 1_000_000  # of all texts of a request that are read in windows: bounds what tokens take
SCORE_END = b"},"  # of a row of `scores` that another one follows

log = logging.getLogger("bertrand.service")


@dataclass(slots=True)
class Call:
    """What a request brings beside its body, and where its time went, in seconds; sent back as Server-Timing."""

    headers: dict[bytes, bytes] = field(default_factory=dict)  # names in lower case
    path: dict[str, str] = field(default_factory=dict)  # what stands in the places that the route's template names
    deadline: float = float("inf")  # on the clock of time.perf_counter
    tokens: int = 0  # of the texts that the model was to compute: how large a body of such a size is
    rows: int = 0  # of the answer, about: tokens that it tells of, with their vectors or without
    tokenize: float = 0.0
    queue: float = 0.0
    infer: float = 0.0

    def accepts(self, media_type: str) -> bool:
        """Whether the caller asks for answers of this type by name."""
        listed = self.headers.get(b"accept", b"").decode("latin-1").lower().split(",")
        return media_type in (part.split(";")[0].strip() for part in listed)


@dataclass(frozen=True, slots=True)
class Read:
    """One text that was run: its tokens, and what the model says of each of its windows."""

    text: Encoded
    outputs: tuple[Output, ...]  # one a window; a text of one window has one

    @property
    def logits(self) -> NDArray[np.float32]:
        """Return the logits, shape (labels,); of a text of several windows, shape (windows, labels)."""
        return self.outputs[0].logits if len(self.outputs) == 1 else self.window_logits

    @property
    def window_logits(self) -> NDArray[np.float32]:
        """Return the logits of every window, shape (windows, labels)."""
        return np.stack([output.logits for output in self.outputs])

    @property
    def hidden(self) -> NDArray[np.float32]:
        """Return the token vectors of the only window, shape (tokens, hidden)."""
        hidden = self.outputs[0].hidden
        assert hidden is not None, "run with hidden=True"  # noqa: S101
        return hidden


@dataclass(frozen=True)
class Answers:
    """One loaded model and the ways to ask it."""

    classifier: Classifier
    batcher: Batcher
    metrics: Metrics
    settings: Settings
    shadow: Shadow | None = None
    model: Json = field(init=False)
    score_heads: NDArray[np.object_] = field(
        init=False, repr=False
    )  # of each label: its row of `scores`, but the score

    def __post_init__(self) -> None:
        manifest = self.classifier.manifest
        model = {"name": manifest.name, "version": manifest.version, "precision": self.classifier.precision}
        object.__setattr__(self, "model", model)
        heads = [SCORE_END + b'{"label":' + to_json(label) + b',"score":' for label in manifest.labels]
        object.__setattr__(self, "score_heads", np.array(heads, dtype=object))

    async def classify(self, request: TextsRequest, call: Call) -> Json | Reply:
        """Label each text."""
        return await self._answer(request, call, labels=True, embeddings=())

    async def analyze(self, request: TextsRequest, call: Call) -> Json | Reply:
        """Label each text and give its embeddings, from one forward pass."""
        wanted = ("tokens", "sentence") if request.embeddings is None else request.embeddings
        return await self._answer(request, call, labels=True, embeddings=wanted)

    async def embed(self, request: TextsRequest, call: Call) -> Json | Reply:
        """Give the embeddings of each text."""
        wanted = ("sentence",) if request.embeddings is None else request.embeddings
        return await self._answer(request, call, labels=False, embeddings=wanted)

    async def tokenize(self, request: TokenizeRequest, call: Call) -> Json:
        """Show each text as the model sees it."""
        items = await self.encode(request.texts, call)
        call.rows = rows_of(items)

        def told(text: Encoded) -> Json:
            return _size(text) | {"tokens": token_rows(text.tokens(), special=request.special_tokens)}

        return self._envelope(await _each(items, told))

    async def types(self, request: TypesRequest, call: Call) -> Json | Reply:
        """Give the rows of the word-embedding matrix that stand for each word."""
        items = await self.encode(request.texts, call)
        call.rows = rows_of(items)
        special = self.classifier.encoder.special_count
        # By their number alone: tokens are not made for a request that is refused.
        self._check_vectors(sum(len(item) - special for item in items if isinstance(item, Encoded)))
        binary = call.accepts(SAFETENSORS)

        def told(text: Encoded) -> Json:
            seen = [token for token in text.tokens() if not token.special]
            ids = [token.id for token in seen]
            rows = _array(self._type_rows(ids), request.encoding_format, request.dtype, binary=binary)
            tokens = [{"text": token.text, "id": token.id} for token in seen]
            return {"status": "ok", "truncated": text.truncated, "tokens": tokens, "type_embeddings": rows}

        answer = self._envelope(await _each(items, told))
        return to_safetensors(answer) if binary else answer

    async def explain(self, request: ExplainRequest, call: Call) -> Json:
        """Tell what each token of each text contributed to its label."""
        labels = self.classifier.labels
        if request.label is not None and request.label not in labels:
            message = f"label: the model has no such label; /v1/info lists the {len(labels)} it has"
            raise ApiError(422, "request_invalid", message, "label")
        items = await self.encode(request.texts, call)
        if not request.truncate:
            items = [_whole(item, windows=False) for item in items]
        most, special = self.settings.max_queue_tokens, self.classifier.encoder.special_count
        items = [_explicable(item, special, most) for item in items]
        texts = [item for item in items if isinstance(item, Encoded)]
        if (tokens := sum(cost(text, special) for text in texts)) > most:
            raise ApiError(
                422,
                "inputs_too_many",
                f"explaining these texts takes {tokens} tokens, since each is read once more without each of its own; "
                f"at most {most} a request: send the texts in several",
                "inputs",
            )
        call.tokens = sum(map(len, texts))  # and not `tokens`, which say nothing of how large a body is
        groups = [[text, *variants(text)] for text in texts]
        outputs = iter(await self._infer([job for group in groups for job in group], call, hidden=False))
        self._count_cut(texts)
        explained = iter([self._explained([next(outputs) for _ in group], group[0], request.label) for group in groups])
        return self._envelope([_failure(item) if isinstance(item, TextError) else next(explained) for item in items])

    def info(self) -> Json:
        """Say what the model is and what the server takes."""
        manifest = self.classifier.manifest
        return self.model | {
            "created": manifest.created,
            "base_model": manifest.base_model,
            "precisions": manifest.precisions,
            "problem_type": manifest.problem_type,
            "labels": manifest.labels,
            "thresholds": manifest.thresholds,
            "temperature": manifest.temperature,
            "max_tokens": manifest.max_tokens,
            "hidden_size": self.classifier.engine.hidden_size,
            "metrics": manifest.metrics,
            "max_inputs": self.settings.max_inputs,
            "max_text_characters": self.settings.max_text_characters,
            "max_body_bytes": self.settings.max_body_bytes,
            "max_queue_tokens": self.settings.max_queue_tokens,
            "request_timeout": self.settings.request_timeout,
        }

    def stuck(self) -> str | None:
        """Say why the model cannot compute now; None while it can."""
        if not self.batcher.alive:
            return "an inference thread has died"
        if self.batcher.longest_pass > self.settings.request_timeout:
            return "an inference thread hangs"
        return None

    def check_count(self, count: int, *, param: str = "inputs") -> None:
        """Raise ApiError if there are more texts than one request may hold."""
        if count > self.settings.max_inputs:
            raise ApiError(
                422,
                "inputs_too_many",
                f"{count} texts, at most {self.settings.max_inputs} a request; send them in several",
                param,
            )

    def check_size(self, dimensions: int | None) -> None:
        """Raise ApiError unless embeddings have so many numbers; None leaves it to the model."""
        size = self.classifier.engine.hidden_size
        if dimensions not in (None, size):
            raise ApiError(
                422, "request_invalid", f"dimensions: embeddings of this model have {size} numbers", "dimensions"
            )

    async def encode(
        self, texts: Sequence[str], call: Call, *, max_windows: int = 1, offsets: bool = True
    ) -> list[Encoded | TextError]:
        """
        Return the tokens of each text, as `inference.encoder.Encoder.encode` does.

        Raises:
            ApiError: there are too many texts.
        """
        self.check_count(len(texts))
        started = time.perf_counter()
        encoder, longest = self.classifier.encoder, self.settings.max_text_characters
        # Short requests are not worth a thread; long ones would keep everybody else waiting.
        if sum(map(len, texts)) <= min(LONG_REQUEST, longest):
            items = encoder.encode(texts, max_windows=max_windows, offsets=offsets)
        else:
            characters = sum(len(text) for text in texts if len(text) <= longest)
            if max_windows > 1 and characters > MAX_WINDOWED_CHARACTERS:
                raise ApiError(
                    422,
                    "inputs_too_many",
                    f"{characters} characters to be read in windows, at most {MAX_WINDOWED_CHARACTERS} a request; "
                    "send them in several",
                    "inputs",
                )
            items = await asyncio.to_thread(_encode_within, encoder, texts, longest, max_windows=max_windows)
        call.tokenize += time.perf_counter() - started
        return items

    async def read(
        self, texts: Sequence[str], call: Call, *, hidden: bool = False, truncate: bool = True, windows: bool = False
    ) -> list[Read | TextError]:
        """
        Run the model over each text.

        Args:
            texts: As sent.
            call: Takes the timings; its deadline bounds the wait.
            hidden: Also compute the token vectors.
            truncate: Read the start of a text that is too long; otherwise it is a `TextError` in its place.
            windows: Read a text that is too long in overlapping windows.

        Raises:
            ApiError: the queue is full, or there are too many texts.
        """
        max_windows = MAX_WINDOWS if windows else 1
        items = await self.encode(texts, call, max_windows=max_windows, offsets=hidden or windows)
        if windows or not truncate:
            items = [_whole(item, windows=windows) for item in items]
        return await self._run(items, call, hidden=hidden)

    async def encode_all(
        self, texts: Sequence[str], call: Call, *, truncate: bool = True, param: str = "inputs[{}]"
    ) -> list[Encoded]:
        """
        Return the tokens of texts that are answered together or not at all.

        Args:
            texts: As sent.
            call: Takes the timings.
            truncate: As in `read`.
            param: The field that held a text; `{}` stands for its place among them.

        Raises:
            ApiError: a text has no tokens, or there are too many texts.
        """
        self.check_count(len(texts), param=param.partition("[{}]")[0])
        items = await self.encode(texts, call)
        if not truncate:
            items = [_whole(item, windows=False) for item in items]
        return self._all(items, param)

    async def read_all(
        self,
        texts: Sequence[str],
        call: Call,
        *,
        hidden: bool = False,
        truncate: bool = True,
        param: str = "inputs[{}]",
    ) -> list[Read]:
        """
        Run the model over texts that are answered together or not at all; a flaw is found before it runs.

        Args:
            texts: As sent.
            call: As in `read`.
            hidden: As in `read`.
            truncate: As in `read`.
            param: As in `encode_all`.

        Raises:
            ApiError: a text has no answer, the queue is full, or there are too many texts.
        """
        items = await self.encode_all(texts, call, truncate=truncate, param=param)
        reads = self._all(await self._run(items, call, hidden=hidden), param)
        self.metrics.answered(ok=len(reads), failed=0)
        return reads

    async def _run(self, items: Sequence[Encoded | TextError], call: Call, *, hidden: bool) -> list[Read | TextError]:
        texts = [item for item in items if isinstance(item, Encoded)]
        jobs = [window for text in texts for window in text.windows]
        if hidden:
            self._check_vectors(sum(map(len, jobs)))
            call.rows = sum(map(len, jobs))
        call.tokens = sum(map(len, jobs))
        outputs = iter(await self._infer(jobs, call, hidden=hidden))
        self._count_cut(texts)
        return [
            item if isinstance(item, TextError) else self._read(item, [next(outputs) for _ in item.windows])
            for item in items
        ]

    def _all(self, items: Sequence[T | TextError], param: str) -> list[T]:
        """Return the items of a request that fails with the first flaw among them."""
        flawed = [(i, item) for i, item in enumerate(items) if isinstance(item, TextError)]
        if flawed:
            self.metrics.answered(ok=0, failed=len(flawed))
            i, error = flawed[0]
            raise ApiError.of_text(error, param.format(i))
        return [item for item in items if not isinstance(item, TextError)]

    def labels(self, read: Read, *, top_k: int | None = None, threshold: float | None = None) -> Prediction:
        """Return the labels of one text, and count them."""
        prediction = self.classifier.predict(read.text, read.logits, top_k=top_k, threshold=threshold)
        self.metrics.predicted([prediction.label], [prediction.score])
        if self.shadow and self.shadow.sample(1):
            given = tuple(label for label, _ in prediction.scores)
            self._offer(self.shadow, read, given, prediction.score, top_k=top_k, threshold=threshold)
        return prediction

    async def _answer(
        self, request: TextsRequest, call: Call, *, labels: bool, embeddings: Sequence[str]
    ) -> Json | Reply:
        windows = request.truncate == "windows"
        if windows and embeddings:
            raise ApiError(
                422, "request_invalid", "windows are read by classify only; embeddings come from one pass", "truncate"
            )
        reads = await self.read(
            request.texts, call, hidden=bool(embeddings), truncate=bool(request.truncate), windows=windows
        )
        items = iter(self._items(request, [read for read in reads if isinstance(read, Read)], labels=labels))
        turns = Turns()
        results = []
        for read in reads:
            if isinstance(read, TextError):
                results.append(_failure(read))
                continue
            result = next(items)
            if windows:
                result |= self._windows(request, read)
            if embeddings:
                result |= _embeddings(request, read, embeddings, binary=call.accepts(SAFETENSORS))
                await turns.give()
            results.append(result)
        answer = self._envelope(results)
        return to_safetensors(answer) if call.accepts(SAFETENSORS) else answer

    def _items(self, request: TextsRequest, reads: list[Read], *, labels: bool) -> list[Json]:
        """Return what is said of every text that was run: all texts of a request are ranked at once."""
        items = [_size(read.text) for read in reads]
        if not labels or not reads:
            return items
        model = self.classifier
        if any(len(read.outputs) > 1 for read in reads):
            scores = np.stack([model.aggregate(model.probabilities(read.window_logits)) for read in reads])
        else:
            logits = np.concatenate([read.outputs[0].logits for read in reads])
            scores = model.probabilities(logits.reshape(len(reads), -1))
        shown = np.stack([model.aggregate(read.window_logits) for read in reads]) if request.raw_scores else scores
        given = model.choose(scores, top_k=request.top_k, threshold=request.threshold)
        for item, labelled in zip(items, self._scores(given, shown), strict=True):
            item |= labelled
        best = [scores.item(i, chosen[0]) if len(chosen) else None for i, chosen in enumerate(given)]
        self.metrics.predicted([item["label"] for item in items], best)
        if self.shadow:
            for i in self.shadow.sample(len(reads)):
                names = tuple(model.labels[place] for place in given[i])
                self._offer(self.shadow, reads[i], names, best[i], top_k=request.top_k, threshold=request.threshold)
        return items

    def _offer(
        self,
        shadow: Shadow,
        read: Read,
        given: tuple[str, ...],
        score: float | None,
        *,
        top_k: int | None,
        threshold: float | None,
    ) -> None:
        labels = told_labels(self.classifier, given)
        windows = MAX_WINDOWS if len(read.outputs) > 1 else 1
        shadow.offer(Answered(read.text.text, labels, score, top_k, threshold, windows))

    async def _infer(self, encoded: list[Encoded], call: Call, *, hidden: bool) -> list[Output | Exception]:
        if not encoded:
            return []
        try:
            answer = await self.batcher.submit(encoded, hidden=hidden, patience=call.deadline - time.perf_counter())
        except QueueFull as full:
            raise queue_full(full) from None
        call.queue, call.infer = answer.queue_seconds, answer.infer_seconds
        return answer.outputs

    def _read(self, text: Encoded, outputs: list[Output | Exception]) -> Read | TextError:
        whole = _computed(text, outputs)
        return whole if isinstance(whole, TextError) else Read(text, whole)

    def _explained(self, outputs: list[Output | Exception], text: Encoded, label: str | None) -> Json:
        """Return what is said of a text by its own output and those of its variants."""
        computed = _computed(text, outputs)
        if isinstance(computed, TextError):
            return _failure(computed)
        logits = np.stack([output.logits for output in computed])
        found = importance(self.classifier, text, logits, label=label)
        tokens = token_rows(text.tokens(), special=True)
        for token, lost, weight in zip(tokens, found.probability, found.weight_of_evidence, strict=True):
            token |= {"importance": lost, "weight_of_evidence": weight}  # NaN is null in JSON
        return _size(text) | {"label": found.label, "score": found.score, "tokens": tokens}

    def _type_rows(self, ids: list[int]) -> NDArray[np.float32]:
        try:
            return self.classifier.engine.types.rows(ids)
        except ArtifactError as error:
            log.error("no word embeddings: %s", error)
            message = "the graph of this model does not show its word embeddings; the server's log says why"
            raise ApiError(501, "types_unknown", message) from None

    def _count_cut(self, texts: Sequence[Encoded]) -> None:
        """Count the texts that were cut, once they are computed: of what is refused nothing was read."""
        if truncated := sum(text.truncated for text in texts):
            self.metrics.cut(truncated)

    def _windows(self, request: TextsRequest, read: Read) -> Json:
        logits = read.window_logits
        scores = self.classifier.probabilities(logits)
        given = self.classifier.choose(scores, top_k=request.top_k, threshold=request.threshold)
        windows = []
        for window, labelled in zip(
            read.text.windows, self._scores(given, logits if request.raw_scores else scores), strict=True
        ):
            start, end = window.span()
            windows.append({"start": start, "end": end, "token_count": len(window)} | labelled)
        return {"windows": windows, "aggregate": WINDOW_AGGREGATES[self.classifier.problem_type]}

    def _scores(self, given: list[NDArray[np.intp]], values: NDArray[np.float32]) -> list[Json]:
        """
        Return of each text the labels it is given, best first, with their scores.

        A model may have hundreds of labels and a request a thousand texts: the lists are put together as JSON, of parts
        that are the same for every text and numbers in the fewest digits that float32 needs.

        Args:
            given: Of each text, places in `labels`.
            values: Shape (texts, labels).
        """
        sizes = [len(chosen) for chosen in given]
        columns = np.concatenate(given)
        parts: list[bytes] = [b""] * (2 * len(columns))
        if parts:
            rows = np.repeat(np.arange(len(given)), sizes) if len(given) > 1 else 0
            parts[::2] = self.score_heads[columns].tolist()
            parts[1::2] = to_json(values[rows, columns])[1:-1].split(b",")
        found: list[Json] = []
        start = 0
        for size, chosen in zip(sizes, given, strict=True):
            end = start + 2 * size
            if size:
                label, score = self.classifier.labels[chosen[0]], Fragment(parts[start + 1])
                parts[start] = b"[" + parts[start].removeprefix(SCORE_END)
                parts[end - 1] += b"}]"
                found.append({"label": label, "score": score, "scores": Fragment(b"".join(parts[start:end]))})
            else:
                found.append({"label": None, "score": None, "scores": []})
            start = end
        return found

    def _check_vectors(self, tokens: int) -> None:
        most = self.settings.max_vectors
        if tokens > most:
            raise ApiError(
                422,
                "inputs_too_many",
                f"embeddings of {tokens} tokens, at most {most} a request; send the texts in several",
                "inputs",
            )

    def _envelope(self, results: list[Json]) -> Json:
        failed = sum(result["status"] == "error" for result in results)
        self.metrics.answered(ok=len(results) - failed, failed=failed)
        if len(results) == 1 and failed:
            error = results[0]["error"]
            raise ApiError.of_text(TextError(error["code"], error["message"]))
        return {"model": self.model, "results": results}


def queue_full(full: QueueFull) -> ApiError:
    """Return the answer of a server that has more to do than it can bear."""
    seconds = str(full.retry_after)
    return ApiError(
        429, "queue_full", f"too much is waiting already; try again in {seconds} s", headers=(("retry-after", seconds),)
    )


def rows_of(items: Sequence[Encoded | TextError]) -> int:
    """Return how many tokens the texts have."""
    return sum(len(item) for item in items if isinstance(item, Encoded))


def token_rows(tokens: list[Token], *, special: bool) -> list[Json]:
    """Return tokens as JSON, with or without the model's own."""
    return [
        {"text": token.text, "id": token.id, "start": token.start, "end": token.end, "special": token.special}
        for token in tokens
        if special or not token.special
    ]


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a vector scaled to length 1; a zero vector stays one."""
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector


async def _each(items: Sequence[Encoded | TextError], told: Callable[[Encoded], Json]) -> list[Json]:
    """Return what is told of each text, and the error of one that has none; others have their turn meanwhile."""
    turns = Turns()
    results = []
    for item in items:
        if isinstance(item, TextError):
            results.append(_failure(item))
            continue
        results.append(told(item))
        await turns.give()
    return results


def _failure(error: TextError) -> Json:
    return {"status": "error", "error": {"code": error.code, "message": error.message}}


def _encode_within(
    encoder: Encoder, texts: Sequence[str], longest: int, *, max_windows: int
) -> list[Encoded | TextError]:
    """Return the tokens of each text; one of more than `longest` characters is an error in its place."""
    short = [text for text in texts if len(text) <= longest]
    items = iter(encoder.encode(short, max_windows=max_windows))
    return [
        next(items)
        if len(text) <= longest
        else TextError("text_too_long", f"the text has {len(text)} characters, at most {longest}; send it in parts")
        for text in texts
    ]


def _whole(text: Encoded | TextError, *, windows: bool) -> Encoded | TextError:
    """Return a text of which nothing is left out, and an error for any other."""
    if isinstance(text, TextError) or not text.truncated:
        return text
    if windows:
        reach = f"the {MAX_WINDOWS} windows of {len(text)} tokens that are read of one text; send it in parts"
    else:
        reach = f"the {len(text)} tokens that the model reads; shorten it, or send truncate: true"
    return TextError("text_too_long", f"the text has more than {reach}")


def _computed(text: Encoded, outputs: Sequence[Output | Exception]) -> tuple[Output, ...] | TextError:
    """Return the outputs of a text; where one failed, the error of the text."""
    whole = tuple([output for output in outputs if not isinstance(output, Exception)])
    if len(whole) == len(outputs):
        return whole
    error = next(output for output in outputs if isinstance(output, Exception))
    log.error("the model could not compute a text of %d tokens", len(text), exc_info=error)
    return TextError(INFERENCE_FAILED, "the model could not compute this text")


def _explicable(text: Encoded | TextError, special: int, most: int) -> Encoded | TextError:
    """Return a text that may be explained within so many tokens, and an error for any other."""
    if isinstance(text, TextError) or (tokens := cost(text, special)) <= most:
        return text
    return TextError(
        "text_too_long",
        f"explaining {len(text)} tokens takes {tokens}, since the text is read once more without each of them; "
        f"at most {most}: shorten it",
    )


def _size(text: Encoded) -> Json:
    return {"status": "ok", "token_count": text.total, "truncated": text.truncated}


def _array(values: NDArray[np.float32], encoding_format: EncodingFormat, dtype: Dtype, *, binary: bool) -> object:
    exact = typed(values, dtype)
    # JSON and safetensors write arrays themselves, far faster than lists of floats.
    return array_object(exact, dtype) if encoding_format == "base64" and not binary else exact


def _embeddings(request: TextsRequest, read: Read, wanted: Sequence[str], *, binary: bool) -> Json:
    array = partial(_array, encoding_format=request.encoding_format, dtype=request.dtype, binary=binary)

    result: Json = {}
    if "tokens" in wanted:
        rows = read.hidden if request.special_tokens else read.hidden[~read.text.special()]
        result["tokens"] = token_rows(read.text.tokens(), special=request.special_tokens)
        result["token_embeddings"] = array(rows)
    if "sentence" in wanted:
        result["sentence_embedding"] = array(sentence_embedding(read.hidden))
    return result
