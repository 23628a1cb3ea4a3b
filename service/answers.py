"""Requests to answers: what each route does once its request is read."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.classifier import sentence_embedding
from inference.encoder import Encoded
from inference.errors import TextError
from service.errors import ApiError
from service.metrics import ABSTAINED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inference.classifier import Classifier, Prediction
    from inference.encoder import Token
    from inference.engine import Output
    from service.batcher import Batcher
    from service.metrics import Metrics
    from service.schema import TextsRequest, TokenizeRequest
    from service.settings import Settings

Json = dict[str, Any]

LONG_REQUEST = 20_000  # characters, some milliseconds of tokenizing

log = logging.getLogger("bertrand.service")


@dataclass
class Timings:
    """Where the time of one request went, in seconds; sent back as Server-Timing."""

    tokenize: float = 0.0
    queue: float = 0.0
    infer: float = 0.0


@dataclass(frozen=True)
class Answers:
    """One loaded model and the ways to ask it."""

    classifier: Classifier
    batcher: Batcher
    metrics: Metrics
    settings: Settings
    model: Json = field(init=False)

    def __post_init__(self) -> None:
        manifest = self.classifier.manifest
        model = {"name": manifest.name, "version": manifest.version, "precision": self.classifier.precision}
        object.__setattr__(self, "model", model)

    async def classify(self, request: TextsRequest, timings: Timings) -> Json:
        """Label each text."""
        return await self._answer(request, timings, labels=True, embeddings=())

    async def analyze(self, request: TextsRequest, timings: Timings) -> Json:
        """Label each text and give its embeddings, from one forward pass."""
        wanted = ("tokens", "sentence") if request.embeddings is None else request.embeddings
        return await self._answer(request, timings, labels=True, embeddings=wanted)

    async def embed(self, request: TextsRequest, timings: Timings) -> Json:
        """Give the embeddings of each text."""
        wanted = ("sentence",) if request.embeddings is None else request.embeddings
        return await self._answer(request, timings, labels=False, embeddings=wanted)

    async def tokenize(self, request: TokenizeRequest, timings: Timings) -> Json:
        """Show each text as the model sees it."""
        items = await self._encode(self._texts(request.inputs), timings)
        return self._envelope(
            [
                _failure(item)
                if isinstance(item, TextError)
                else _size(item) | {"tokens": _tokens(item.tokens(), special=request.special_tokens)}
                for item in items
            ],
        )

    async def info(self) -> Json:
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
            "max_body_bytes": self.settings.max_body_bytes,
        }

    async def _answer(
        self, request: TextsRequest, timings: Timings, *, labels: bool, embeddings: Sequence[str]
    ) -> Json:
        items = await self._encode(self._texts(request.inputs), timings)
        if not request.truncate:
            items = [_too_long(item) if isinstance(item, Encoded) and item.truncated else item for item in items]
        encoded = [item for item in items if isinstance(item, Encoded)]
        outputs = iter(await self._infer(encoded, timings, hidden=bool(embeddings)))
        results = []
        for item in items:
            if isinstance(item, TextError):
                results.append(_failure(item))
                continue
            output = next(outputs)
            if isinstance(output, Exception):
                log.error("the model could not compute a text of %d tokens", len(item), exc_info=output)
                results.append(_failure(TextError("inference_failed", "the model could not compute this text")))
                continue
            result = _size(item)
            if labels:
                result |= self._labels(request, item, output)
            if embeddings:
                result |= _embeddings(request, item, output, embeddings)
            results.append(result)
        return self._envelope(results)

    def _texts(self, inputs: str | list[str]) -> list[str]:
        texts = [inputs] if isinstance(inputs, str) else inputs
        if len(texts) > self.settings.max_inputs:
            raise ApiError(
                422,
                "inputs_too_many",
                f"{len(texts)} texts, at most {self.settings.max_inputs} a request; send them in several",
                "inputs",
            )
        return texts

    async def _encode(self, texts: Sequence[str], timings: Timings) -> list[Encoded | TextError]:
        started = time.perf_counter()
        encode = self.classifier.encoder.encode
        # Short requests are not worth a thread; long ones would keep everybody else waiting.
        long = sum(map(len, texts)) > LONG_REQUEST
        items = await asyncio.to_thread(encode, texts) if long else encode(texts)
        timings.tokenize = time.perf_counter() - started
        self.metrics.truncated.inc(sum(isinstance(item, Encoded) and item.truncated for item in items))
        return items

    async def _infer(self, encoded: list[Encoded], timings: Timings, *, hidden: bool) -> list[Output | Exception]:
        if not encoded:
            return []
        answer = await self.batcher.submit(encoded, hidden=hidden)
        timings.queue, timings.infer = answer.queue_seconds, answer.infer_seconds
        return answer.outputs

    def _labels(self, request: TextsRequest, text: Encoded, output: Output) -> Json:
        prediction = self.classifier.predict(text, output.logits, top_k=request.top_k, threshold=request.threshold)
        self._count(prediction)
        scores = dict(prediction.scores)
        if request.raw_scores:
            logits = dict(zip(self.classifier.labels, output.logits.tolist(), strict=True))
            scores = {label: logits[label] for label in scores}
        return {
            "label": prediction.label,
            "score": None if prediction.label is None else scores[prediction.label],
            "scores": [{"label": label, "score": score} for label, score in scores.items()],
        }

    def _count(self, prediction: Prediction) -> None:
        self.metrics.predictions.labels(prediction.label or ABSTAINED).inc()
        if prediction.score is not None:
            self.metrics.confidence.observe(prediction.score)

    def _envelope(self, results: list[Json]) -> Json:
        failed = sum(result["status"] == "error" for result in results)
        self.metrics.items.labels("error").inc(failed)
        self.metrics.items.labels("ok").inc(len(results) - failed)
        if len(results) == 1 and failed:
            error = results[0]["error"]
            raise ApiError(
                500 if error["code"] == "inference_failed" else 422, error["code"], error["message"], "inputs"
            )
        return {"model": self.model, "results": results}


def _failure(error: TextError) -> Json:
    return {"status": "error", "error": {"code": error.code, "message": error.message}}


def _too_long(text: Encoded) -> TextError:
    return TextError(
        "text_too_long",
        f"the text has more than the {len(text)} tokens that the model reads; shorten it, or send truncate: true",
    )


def _size(text: Encoded) -> Json:
    return {"status": "ok", "token_count": len(text), "truncated": text.truncated}


def _tokens(tokens: list[Token], *, special: bool) -> list[Json]:
    return [
        {"text": token.text, "id": token.id, "start": token.start, "end": token.end, "special": token.special}
        for token in tokens
        if special or not token.special
    ]


def _embeddings(request: TextsRequest, text: Encoded, output: Output, wanted: Sequence[str]) -> Json:
    assert output.hidden is not None  # noqa: S101  asked for by the caller
    result: Json = {}
    if "tokens" in wanted:
        rows = output.hidden if request.special_tokens else output.hidden[~text.special()]
        result["tokens"] = _tokens(text.tokens(), special=request.special_tokens)
        result["token_embeddings"] = _array(rows, request)
    if "sentence" in wanted:
        result["sentence_embedding"] = _array(sentence_embedding(output.hidden), request)
    return result


def _array(values: NDArray[np.float32], request: TextsRequest) -> object:
    values = np.ascontiguousarray(values, dtype="<f2" if request.dtype == "float16" else "<f4")
    if request.encoding_format == "base64":
        return {
            "data": base64.b64encode(values.tobytes()).decode("ascii"),
            "shape": list(values.shape),
            "dtype": request.dtype,
        }
    return values  # the JSON encoder writes arrays itself, far faster than lists of floats
