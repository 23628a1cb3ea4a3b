"""The BentoML service: what `bentoml serve` and `bentoml build` load."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import bentoml
import orjson
from _bentoml_sdk import Service

from service import log, process
from service.answers import Call
from service.folder import Folder
from service.garbage import collect_at_rest
from service.http import Front
from service.metrics import Metrics
from service.models import Models
from service.routes import ROUTES
from service.schema import ExplainRequest, TextsRequest, TypesRequest
from service.settings import Settings, named
from service.wire import to_json

SETTINGS = Settings.from_environment()
# A thread that comes out of a forward pass needs Python only for a moment, to fetch its next batch: at the usual 5 ms
# it would stand behind the event loop for as long as half a pass takes.
sys.setswitchinterval(0.0005)
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads would take the cores of the forward passes
log.configure(SETTINGS.log_format)


class FrontedService(Service[Any]):
    """A BentoML service whose requests are answered by `service.http.Front`."""

    def to_asgi(self, is_main: bool = True) -> Any:
        """Return our application with BentoML's behind it; as a dependency of another service, BentoML's alone."""
        app = super().to_asgi(is_main)
        return _Started(app, lambda: self._instance) if is_main else app

    def __call__(self) -> Any:
        """Make the instance, which loads the model; no request is taken before."""
        self._instance = super().__call__()
        return self._instance


class _Started:
    """Hands requests to the front of an instance that exists only once the application has started."""

    def __init__(self, app: Any, instance: Any) -> None:
        self._app = app
        self._instance = instance
        self._front: Front | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._front is not None:
            await self._front(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, self._on_started(send))

    def _on_started(self, send: Any) -> Any:
        async def watched(message: Any) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._front = self._instance().front(self._app)
            await send(message)

        return watched


@bentoml.service(
    name="bertrand",
    service_class=FrontedService,
    workers=SETTINGS.workers,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": SETTINGS.request_timeout + 5},  # ours ends a request before
)
class Bertrand:
    """
    Predictions and token embeddings from one fine-tuned BERT.

    The methods are what BentoML's clients, and services that depend on this one, see and call; over HTTP the same
    answers come from `service.http.Front`.
    """

    def __init__(self) -> None:
        self._metrics = Metrics(ROUTES)
        self.models = Models(SETTINGS, self._metrics)

    def front(self, bentoml_app: Any) -> Front:
        """Return the application that answers requests, ready to."""
        front = Front(bentoml_app, self.models, self._metrics, SETTINGS)
        self.models.watch(front.keys.read_again)
        loop = asyncio.get_running_loop()
        self._writing = loop.create_task(self._metrics.keep_written())
        self._collecting = loop.create_task(collect_at_rest(lambda: self.models.current.batcher.at_rest))
        process.adopt(
            front,
            self.models.reload,
            drain_seconds=SETTINGS.drain_seconds,
            request_timeout=SETTINGS.request_timeout,
        )
        return front

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Load every model once before a worker does: a worker that cannot load one would be started for ever."""
        Folder(SETTINGS.model, precision=SETTINGS.precision, role="model").load()
        if SETTINGS.shadow_model is not None:
            with named("SHADOW_MODEL"):
                Folder(SETTINGS.shadow_model, precision=SETTINGS.precision, role="candidate").load()
        process.lead_workers()

    @bentoml.api(route="/v1/classify", input_spec=TextsRequest)
    async def classify(self, **request: Any) -> dict[str, Any]:
        """Label each text."""
        with self.models.use() as answers:
            return _plain(await answers.classify(TextsRequest(**request), Call()))

    @bentoml.api(route="/v1/analyze", input_spec=TextsRequest)
    async def analyze(self, **request: Any) -> dict[str, Any]:
        """Label each text and give its embeddings, from one forward pass."""
        with self.models.use() as answers:
            return _plain(await answers.analyze(TextsRequest(**request), Call()))

    @bentoml.api(route="/v1/embed", input_spec=TextsRequest)
    async def embed(self, **request: Any) -> dict[str, Any]:
        """Give the embeddings of each text."""
        with self.models.use() as answers:
            return _plain(await answers.embed(TextsRequest(**request), Call()))

    @bentoml.api(route="/v1/types", input_spec=TypesRequest)
    async def types(self, **request: Any) -> dict[str, Any]:
        """Give the rows of the word-embedding matrix that stand for each word."""
        with self.models.use() as answers:
            return _plain(await answers.types(TypesRequest(**request), Call()))

    @bentoml.api(route="/v1/explain", input_spec=ExplainRequest)
    async def explain(self, **request: Any) -> dict[str, Any]:
        """Tell what each token of each text contributed to its label."""
        with self.models.use() as answers:
            return _plain(await answers.explain(ExplainRequest(**request), Call()))

    @bentoml.on_shutdown
    def finish(self) -> None:
        """Compute what waits, then end the threads."""
        self.models.close()
        self._metrics.flush()


def _plain(answer: object) -> dict[str, Any]:
    """Return an answer as BentoML's own encoder takes it: lists in place of arrays."""
    plain: dict[str, Any] = orjson.loads(to_json(answer))
    return plain
