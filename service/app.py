"""The BentoML service: what `bentoml serve` and `bentoml build` load."""

from __future__ import annotations

from typing import Any

import bentoml
import orjson
from _bentoml_sdk import Service

from inference.classifier import Classifier
from service.answers import Answers, Timings
from service.batcher import Batcher
from service.http import PATHS, Front, to_json
from service.metrics import Metrics
from service.schema import TextsRequest
from service.settings import Settings

SETTINGS = Settings.from_environment()
WARM_UP_TEXTS = ("ok", "A sentence of some length, as people write them when something does not work. " * 4)


class FrontedService(Service[Any]):
    """A BentoML service whose requests are answered by `service.http.Front`."""

    answers: Answers

    def to_asgi(self, is_main: bool = True) -> Any:
        """Return BentoML's application behind ours; as a dependency of another service, BentoML's alone."""
        app = super().to_asgi(is_main)
        return Front(app, lambda: self.answers, SETTINGS) if is_main else app

    def __call__(self) -> Any:
        """Make the instance, which loads the model; no request is taken before."""
        instance = super().__call__()
        self.answers = instance.answers
        return instance


@bentoml.service(
    name="bertrand",
    service_class=FrontedService,
    workers=SETTINGS.workers,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Bertrand:
    """
    Predictions and token embeddings from one fine-tuned BERT.

    The methods are what BentoML's clients, and services that depend on this one, see and call; over HTTP the same
    answers come from `service.http.Front`.
    """

    def __init__(self) -> None:
        classifier = Classifier.load(SETTINGS.model, precision=SETTINGS.precision)
        metrics = Metrics(PATHS)
        batcher = Batcher(
            classifier.engine, metrics, threads=SETTINGS.threads, max_batch_tokens=SETTINGS.max_batch_tokens
        )
        metrics.serve(classifier.manifest, classifier.precision)
        metrics.waiting(0)
        classifier.analyze(WARM_UP_TEXTS)
        self.answers = Answers(classifier, batcher, metrics, SETTINGS)

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Read the model folder once before any worker does: a worker that cannot load it would be started for ever."""
        Classifier.load(SETTINGS.model, precision=SETTINGS.precision)

    @bentoml.api(route="/v1/classify", input_spec=TextsRequest)
    async def classify(self, **request: Any) -> dict[str, Any]:
        """Label each text."""
        return _plain(await self.answers.classify(TextsRequest(**request), Timings()))

    @bentoml.api(route="/v1/analyze", input_spec=TextsRequest)
    async def analyze(self, **request: Any) -> dict[str, Any]:
        """Label each text and give its embeddings, from one forward pass."""
        return _plain(await self.answers.analyze(TextsRequest(**request), Timings()))

    @bentoml.api(route="/v1/embed", input_spec=TextsRequest)
    async def embed(self, **request: Any) -> dict[str, Any]:
        """Give the embeddings of each text."""
        return _plain(await self.answers.embed(TextsRequest(**request), Timings()))

    @bentoml.on_shutdown
    def finish(self) -> None:
        """Compute what waits, then end the inference threads."""
        self.answers.batcher.close()


def _plain(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer as BentoML's own encoder takes it: lists in place of arrays."""
    plain: dict[str, Any] = orjson.loads(to_json(answer))
    return plain
