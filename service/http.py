"""Bytes to requests and answers to bytes: every route, every header, every error."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel, ValidationError

from service import schema
from service.answers import Answers, Timings
from service.errors import ApiError
from service.openapi import DOCS_PAGE, document

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping

    from service.settings import Settings

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("bertrand.service")

JSON = "application/json"
READING = ("GET", "HEAD")
REQUEST_ID_LENGTH = 128
# What BentoML answers itself: the interface description its client reads, and the files of the API page.
BENTOML_PATHS = ("/schema.json", "/static_content/swagger-ui.css", "/static_content/swagger-ui-bundle.js")


@dataclass(frozen=True)
class Route:
    """A POST route: the request it reads, what answers it, and the shape of the answer."""

    request: type[schema.TextsRequest | schema.TokenizeRequest]
    answer: Callable[[Answers, Any, Timings], Awaitable[dict[str, Any]]]
    shape: type[BaseModel]


POST_ROUTES = {
    "/v1/classify": Route(schema.TextsRequest, Answers.classify, schema.ClassifyAnswer),
    "/v1/analyze": Route(schema.TextsRequest, Answers.analyze, schema.AnalyzeAnswer),
    "/v1/embed": Route(schema.TextsRequest, Answers.embed, schema.EmbedAnswer),
    "/v1/tokenize": Route(schema.TokenizeRequest, Answers.tokenize, schema.TokenizeAnswer),
}
GET_PATHS = ("/v1/info", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/")
PATHS = frozenset((*POST_ROUTES, *GET_PATHS))
OTHER = "other"  # the `route` label of paths that are none of these


@dataclass(frozen=True)
class _Reply:
    body: bytes
    media_type: str = JSON
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Front:
    """
    The ASGI application in front of BentoML's own.

    BentoML brings processes, sockets, lifecycle and its client; requests are answered here, before its middleware,
    so that every error has the one shape and no request pays for tracing or schema building it does not use.
    """

    def __init__(self, bentoml_app: App, answers: Callable[[], Answers], settings: Settings) -> None:
        self._bentoml = bentoml_app
        self._answers = answers  # asked for each request, so that the model can be exchanged between two
        self._settings = settings
        self._openapi = orjson.dumps(document(POST_ROUTES))
        self._get = {
            "/v1/info": self._info,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._render_metrics,
            "/docs": self._docs,
            "/openapi.json": self._describe,
            "/": self._home,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything but HTTP goes to BentoML."""
        path = scope.get("path", "")
        if scope["type"] != "http" or (path in BENTOML_PATHS and scope["method"] in READING):
            await self._bentoml(scope, receive, send)
            return
        started = time.perf_counter()
        metrics = self._answers().metrics
        headers = {name.lower(): value for name, value in scope["headers"]}
        request_id = _request_id(headers)
        try:
            reply = await self._reply(scope["method"], path, headers, receive)
        except ApiError as error:
            if error.status < 500:
                metrics.rejected.labels(error.code).inc()
            reply = _error(error, request_id)
        except Exception:
            log.exception("request %s to %s failed", request_id, path if path in PATHS else OTHER)
            reply = _error(
                ApiError(500, "internal", "an error of the server's own; its log has the details"), request_id
            )
        await _send(send, reply, request_id, head=scope["method"] == "HEAD")
        route = path if path in PATHS else OTHER
        metrics.requests.labels(route, str(reply.status)).inc()
        metrics.request_seconds.labels(route).observe(time.perf_counter() - started)

    async def _reply(self, method: str, path: str, headers: Mapping[bytes, bytes], receive: Receive) -> _Reply:
        if route := POST_ROUTES.get(path):
            _allow(method, ("POST",))
            _check_media_type(headers)
            body = await self._body(headers, receive)
            request = _parse(route.request, body)
            timings = Timings()
            answer = await _unless_gone(route.answer(self._answers(), request, timings), receive)
            return _Reply(to_json(answer), headers=(("server-timing", _server_timing(timings)),))
        if handler := self._get.get(path):
            _allow(method, READING)
            return await handler()
        if path in BENTOML_PATHS:
            _allow(method, READING)
        raise ApiError(404, "route_unknown", "there is nothing at this path; /docs lists what there is")

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        limit = self._settings.max_body_bytes
        too_large = ApiError(
            413, "body_too_large", f"the body is larger than {limit} bytes; send fewer texts a request"
        )
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit:
            raise too_large
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ApiError(400, "client_left", "the connection closed before the whole body had come")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > limit:
                raise too_large
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def _info(self) -> _Reply:
        return _Reply(to_json(await self._answers().info()))

    async def _livez(self) -> _Reply:
        return _Reply(b'{"status":"alive"}')

    async def _readyz(self) -> _Reply:
        if not self._answers().batcher.alive:
            raise ApiError(503, "not_ready", "an inference thread has died")
        return _Reply(b'{"status":"ready"}')

    async def _render_metrics(self) -> _Reply:
        return _Reply(self._answers().metrics.render(), "text/plain; version=0.0.4; charset=utf-8")

    async def _docs(self) -> _Reply:
        return _Reply(DOCS_PAGE, "text/html; charset=utf-8")

    async def _describe(self) -> _Reply:
        return _Reply(self._openapi)

    async def _home(self) -> _Reply:
        return _Reply(b"", "text/plain", 307, (("location", "/docs"),))


async def _unless_gone(answer: Awaitable[dict[str, Any]], receive: Receive) -> dict[str, Any]:
    """Wait for an answer as long as there is somebody to give it to; what is left of the work is dropped then."""
    work = asyncio.ensure_future(answer)
    await asyncio.sleep(0)  # what needs no model is done by now, and is not worth watching a connection for
    if work.done():
        return await work
    gone = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return await work
        raise ApiError(400, "client_left", "the connection closed before the answer was ready")
    finally:
        work.cancel()
        gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _allow(method: str, allowed: Iterable[str]) -> None:
    if method not in allowed:
        names = ", ".join(allowed)
        raise ApiError(
            405, "method_not_allowed", f"{method[:16]} is not answered here; use {names}", headers=(("allow", names),)
        )


def _check_media_type(headers: Mapping[bytes, bytes]) -> None:
    media_type = headers.get(b"content-type", JSON.encode()).split(b";")[0].strip().lower()
    if media_type != JSON.encode():
        raise ApiError(415, "media_type_unsupported", f"send the body as content-type: {JSON}", "content-type")


def _parse(model: type[BaseModel], body: bytes) -> BaseModel:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        flaws = error.errors(include_url=False, include_input=False, include_context=False)
    if flaws[0]["type"] == "json_invalid":
        raise ApiError(400, "json_invalid", f"the body is not valid JSON: {flaws[0]['msg'].partition(': ')[2]}")
    # A field that may be of several types has a complaint for each: the one that got furthest is about the real flaw.
    depth = max(len(flaw["loc"]) for flaw in flaws)
    deepest = [flaw for flaw in flaws if len(flaw["loc"]) == depth]
    field = deepest[0]["loc"][0] if deepest[0]["loc"] else None
    place = "".join(f"[{part}]" for part in deepest[0]["loc"][1:] if isinstance(part, int))
    param = None if field is None else f"{field}{place}"[:100]
    problems = {
        "unknown field" if flaw["type"] == "extra_forbidden" else flaw["msg"][:1].lower() + flaw["msg"][1:]
        for flaw in deepest
        if flaw["loc"][:1] == deepest[0]["loc"][:1]
    }
    raise ApiError(422, "request_invalid", f"{param or 'the body'}: {' or '.join(sorted(problems))}", param)


def to_json(value: object) -> bytes:
    """Return compact JSON; numpy arrays are written as nested lists."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _error(error: ApiError, request_id: str) -> _Reply:
    return _Reply(to_json(error.body(request_id)), status=error.status, headers=error.headers)


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the caller's own id where it is one that can be repeated safely, else a new one."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    if 0 < len(given) <= REQUEST_ID_LENGTH and given.isascii() and given.isprintable():
        return given
    return secrets.token_hex(8)


def _server_timing(timings: Timings) -> str:
    parts = (("queue", timings.queue), ("tokenize", timings.tokenize), ("infer", timings.infer))
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in parts)


async def _send(send: Send, reply: _Reply, request_id: str, *, head: bool) -> None:
    headers = [
        (b"content-type", reply.media_type.encode()),
        (b"content-length", str(len(reply.body)).encode()),
        (b"x-request-id", request_id.encode()),
        *((name.encode(), value.encode()) for name, value in reply.headers),
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else reply.body})
