"""Bytes to requests and answers to bytes: every header, every limit, every error."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from service.access import Cors, Keys
from service.answers import Call, queue_full
from service.batcher import QueueFull
from service.errors import ApiError
from service.openapi import document
from service.page import Page
from service.routes import OTHER, READING, ROUTES, Route, find, methods
from service.schema import parse
from service.wire import JSON, Reply, to_reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
    from types import TracebackType

    from service.batcher import Batcher
    from service.metrics import Metrics
    from service.models import Models
    from service.settings import Settings

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("bertrand.service")
access_log = logging.getLogger("bertrand.access")

REQUEST_ID_LENGTH = 128
LEAVING_TAKES = 0.3  # seconds: a request that is answered sooner is not watched for its caller's leaving
MEMORY = 0.9  # of the running mean of tokens a byte, a request
MISJUDGED = 0.125  # of the queue that a request may be refused too early by, since its size is not known yet
# What BentoML answers itself: the interface description its client reads, and the files of the API page.
BENTOML_PATHS = ("/schema.json", "/static_content/swagger-ui.css", "/static_content/swagger-ui-bundle.js")
BENTOML_HEADERS = (b"if-none-match", b"if-modified-since")  # of others, such as ranges, it would make errors of its own


class Front:
    """
    The ASGI application in front of BentoML's own.

    BentoML brings processes, sockets, lifecycle and its client; requests are answered here, before its middleware,
    so that every error has the one shape and no request pays for tracing or schema building it does not use.
    """

    def __init__(self, bentoml_app: App, models: Models, metrics: Metrics, settings: Settings) -> None:
        self._bentoml = bentoml_app
        self._models = models
        self._metrics = metrics
        self._settings = settings
        self._cors = Cors(settings.cors_origins)
        self.keys = Keys(settings)
        self.openapi: dict[str, Any] = document(ROUTES)
        self.page: Page = Page()
        self.draining = False
        self.active = 0  # requests that are being answered
        self._tokens_a_byte = 0.0  # of recent bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything but HTTP goes to BentoML."""
        if scope["type"] != "http":
            await self._bentoml(scope, receive, send)
            return
        started = time.perf_counter()
        self.active += 1
        template = OTHER
        method = scope["method"]
        headers = {name.lower(): value for name, value in scope["headers"]}
        request_id = _request_id(headers)
        call = Call(headers, deadline=started + self._settings.request_timeout)
        try:
            if scope["path"] in BENTOML_PATHS:
                _allow(method, READING)
                self._check_key("docs", headers)
                kept = [(name, value) for name, value in scope["headers"] if name in BENTOML_HEADERS]
                await self._bentoml({**scope, "headers": kept}, receive, send)
                return
            template, call.path = find(scope["path"])
            reply = await self._reply(method, ROUTES[template], call, receive)
        except ApiError as error:
            if error.status < 500:
                self._metrics.refused(error.code)
            reply = error.reply(request_id)
        except Exception:
            log.exception("request to %s failed", template, extra={"request_id": request_id})
            message = "an error of the server's own; its log has the details"
            reply = ApiError(500, "internal", message).reply(request_id)
        finally:
            self.active -= 1
        await self._send(send, reply, call, request_id, head=method == "HEAD")
        seconds = time.perf_counter() - started
        self._metrics.replied(template, reply.status, seconds)
        if self._settings.access_log:
            access_log.info(
                "%s %s %d",
                method[:16],
                template,
                reply.status,
                extra={"request_id": request_id, "milliseconds": round(seconds * 1000, 2)},
            )
        if reply.rest and method != "HEAD":
            for left, piece in zip(range(len(reply.rest) - 1, -1, -1), reply.rest, strict=True):
                # As fast as the caller reads.
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})

    def alive(self) -> dict[str, str]:
        """
        Say that the process can do its work; where it cannot, starting it anew is all that helps.

        Raises:
            ApiError: an inference thread has died or hangs.
        """
        if reason := self._models.current.stuck():
            raise ApiError(503, "not_alive", reason)
        return {"status": "alive"}

    def ready(self) -> dict[str, str]:
        """
        Say that requests will be answered.

        Raises:
            ApiError: they will not: the process is about to end, or cannot do its work.
        """
        if self.draining:
            raise ApiError(503, "not_ready", "the server is about to end")
        self.alive()
        return {"status": "ready"}

    def render_metrics(self) -> Reply:
        """Return the metrics of all workers."""
        return Reply(self._metrics.render(), "text/plain; version=0.0.4; charset=utf-8")

    async def _reply(self, method: str, routes: Mapping[str, Route], call: Call, receive: Receive) -> Reply:
        allowed = methods(routes)
        if method == "OPTIONS" and (permission := self._cors.preflight(call.headers, ", ".join(allowed))):
            return Reply(b"", "text/plain", 204, permission)
        _allow(method, allowed)
        route = routes["GET" if method == "HEAD" else method]
        self._check_key(route.group, call.headers)
        if route.server is not None:
            answer = route.server(self, call)
        else:
            assert route.model is not None  # noqa: S101  a route has one or the other
            with self._models.use() as answers, _Watch(receive, call.deadline) as watch:
                request = None
                if route.request is not None:
                    self._admit(answers.batcher, call)
                    _check_media_type(call.headers, binary=route.read is not None)
                    body = await self._body(call.headers, receive)
                    request = (route.read or parse)(route.request, body, call)
                    watch.body_has_come()
                try:
                    answer = await route.model(answers, request, call)
                finally:
                    if call.tokens:
                        self._tokens_a_byte += (1 - MEMORY) * (call.tokens / len(body) - self._tokens_a_byte)
        return answer if isinstance(answer, Reply) else await to_reply(answer, call.rows)

    def _check_key(self, group: str, headers: Mapping[bytes, bytes]) -> None:
        if group not in self._settings.keyless:
            self.keys.check(headers)

    def _admit(self, batcher: Batcher, call: Call) -> None:
        """Refuse before anything is read: in a flood, refusing must cost next to nothing."""
        length = call.headers.get(b"content-length", b"")
        size = int(length) if length.isdigit() else 0
        # What a body of this size holds as a rule. Of one that holds less, nearly everything may still be admitted.
        tokens = min(size * self._tokens_a_byte, self._settings.max_queue_tokens * MISJUDGED)
        try:
            batcher.admit(max(1, round(tokens)), patience=call.deadline - time.perf_counter())
        except QueueFull as full:
            raise queue_full(full) from None

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
                raise _client_left()
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > limit:
                raise too_large
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def _send(self, send: Send, reply: Reply, call: Call, request_id: str, *, head: bool) -> None:
        headers = [
            (b"content-type", reply.media_type.encode()),
            (b"x-request-id", request_id.encode()),
        ]
        if reply.status != HTTPStatus.NOT_MODIFIED:  # there it would be of the body that is not sent
            headers.append((b"content-length", b"%d" % reply.size))
        if call.tokenize:
            headers.append((b"server-timing", _server_timing(call)))
        extra = (*reply.headers, *self._cors.headers(call.headers))
        if self.draining:
            extra += (("connection", "close"),)
        headers += [(name.encode(), value.encode()) for name, value in extra]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        body, more = (b"", False) if head else (reply.body, bool(reply.rest))
        await send({"type": "http.response.body", "body": body, "more_body": more})


class _Watch:
    """
    Ends a request whose time is up or whose caller has left: what is left of its work is dropped then.

    It costs two timers, not two tasks: a request that is answered at once is never looked after.
    """

    def __init__(self, receive: Receive, deadline: float) -> None:
        self._receive = receive
        self._left = deadline - time.perf_counter()
        self._reason: ApiError | None = None
        self._pending: list[asyncio.TimerHandle | asyncio.Task[None]] = []
        self._too_late = ApiError(
            408, "body_too_slow", "the body did not come in time", headers=(("connection", "close"),)
        )

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  a request is answered in a task
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._pending.append(self._loop.call_later(max(0.0, self._left), self._expire))
        return self

    def body_has_come(self) -> None:
        """From now on the caller waits for us, and may leave."""
        self._too_late = ApiError(504, "deadline_exceeded", "the answer was not ready in time; it is not computed on")
        self._pending.append(self._loop.call_later(LEAVING_TAKES, self._look))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Each of them holds this too: what is not let go of stays until somebody looks for garbage.
        while self._pending:
            self._pending.pop().cancel()
        if self._reason and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise self._reason

    def _expire(self) -> None:
        self._end(self._too_late)

    def _look(self) -> None:
        self._pending.append(self._loop.create_task(self._until_gone()))

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._end(_client_left())

    def _end(self, reason: ApiError) -> None:
        if self._reason is None:
            self._reason = reason
            self._task.cancel()


def _client_left() -> ApiError:
    # A new one each time: raising adds to the traceback, and one that stays would keep every request that it ended.
    return ApiError(400, "client_left", "the connection closed before the answer was ready")


def _allow(method: str, allowed: Sequence[str]) -> None:
    if method not in allowed:
        names = ", ".join(allowed)
        message = f"{method[:16]} is not answered here; use {names}"
        raise ApiError(405, "method_not_allowed", message, headers=(("allow", names),))


def _check_media_type(headers: Mapping[bytes, bytes], *, binary: bool) -> None:
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding != b"identity":
        raise ApiError(
            415, "encoding_unsupported", "compressed bodies are not read; send it as it is", "content-encoding"
        )
    media_type = headers.get(b"content-type", JSON.encode()).split(b";")[0].strip().lower()
    if media_type != JSON.encode() and not (binary and media_type == b"application/octet-stream"):
        raise ApiError(415, "media_type_unsupported", f"send the body as content-type: {JSON}", "content-type")


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the caller's own id where it is one that can be repeated safely, else a new one."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    if 0 < len(given) <= REQUEST_ID_LENGTH and given.isascii() and given.isprintable():
        return given
    return f"{random.getrandbits(64):016x}"  # to tell requests apart, not to keep a secret: no system call for each


def _server_timing(call: Call) -> bytes:
    return b"queue;dur=%.2f, tokenize;dur=%.2f, infer;dur=%.2f" % (
        call.queue * 1000,
        call.tokenize * 1000,
        call.infer * 1000,
    )
