"""Callers who send at a constant rate, whether they are answered or not: wrk's wait for their answers."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from rig.server import HOST

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_CONNECTIONS = 4000
REUSED_FOR = 4.0  # seconds without a request; a server may close a connection that is idle for longer
TIMER = 0.001  # seconds by which a timer may be late: what is due by then is sent together
BREATH = 16  # requests sent in a row before answers are read, when behind time


@dataclass(frozen=True, slots=True)
class Request:
    """One request, ready to be written."""

    kind: str  # its answers are counted under this name
    texts: int
    raw: bytes

    @classmethod
    def of(cls, kind: str, texts: int, path: str, body: bytes) -> Self:
        """Put an HTTP request together."""
        head = f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        return cls(kind, texts, head.encode() + b"\r\n\r\n" + body)


@dataclass(slots=True)
class Outcomes:
    """What became of the requests of one load."""

    seconds: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))  # by kind and status
    late: list[float] = field(default_factory=list)  # seconds after its time at which each request was sent
    unsent: int = 0  # all connections were taken
    lost: int = 0  # the connection ended in place of an answer
    abandoned: int = 0  # not answered yet when the callers left


class Callers:
    """As many connections as the load needs, kept alive, each with one request at a time."""

    def __init__(self, port: int) -> None:
        self.outcomes = Outcomes()
        self._port = port
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._leaving = False

    async def send(self, requests: Sequence[Request], *, rate: float, seconds: float) -> float:
        """Send `rate` requests a second, one after the other and from the start again; return the rate achieved."""
        started = time.perf_counter()
        count = int(seconds * rate)
        for number in range(count):
            due = started + number / rate
            if (ahead := due - time.perf_counter()) > TIMER:
                await asyncio.sleep(ahead)
            elif number % BREATH == 0:
                await asyncio.sleep(0)
            self._send(requests[number % len(requests)], due)
        return (count - self.outcomes.unsent) / max(seconds, time.perf_counter() - started)

    async def leave(self) -> None:
        """Close all connections, as callers do who have given up."""
        self._leaving = True
        self.outcomes.abandoned = self._unanswered
        for task in self._opening:
            task.cancel()
        for connection in tuple(self._open):
            connection.close()
        while self._open:
            await asyncio.sleep(TIMER)

    async def stay(self) -> None:
        """Wait for every answer, then close all connections."""
        while self._unanswered:
            await asyncio.sleep(TIMER)
        await self.leave()

    def answered(self, connection: _Connection, request: Request, status: int, seconds: float) -> None:
        """Note an answer; the connection is free for another request."""
        self.outcomes.seconds[request.kind, status].append(seconds)
        self._idle.append(connection)

    def closed(self, connection: _Connection, *, unanswered: bool) -> None:
        """Forget a connection."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if unanswered and not self._leaving:
            self.outcomes.lost += 1

    @property
    def _unanswered(self) -> int:
        return len(self._open) + len(self._opening) - len(self._idle)

    def _send(self, request: Request, due: float) -> None:
        now = time.perf_counter()
        self.outcomes.late.append(now - due)
        while self._idle:
            connection = self._idle.pop()  # the one that was used last
            if now - connection.free_since < REUSED_FOR:
                connection.send(request, now)
                return
            connection.close()
        if len(self._open) + len(self._opening) < MAX_CONNECTIONS:
            task = asyncio.ensure_future(self._send_on_new(request, now))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self.outcomes.unsent += 1

    async def _send_on_new(self, request: Request, now: float) -> None:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), HOST, self._port
            )
        except OSError:
            self.outcomes.lost += 1
            return
        self._open.add(connection)
        connection.send(request, now)


class _Connection(asyncio.Protocol):
    """One connection. Answers are looked at no closer than needed: the caller shares the server's cores."""

    def __init__(self, callers: Callers) -> None:
        self.free_since = 0.0
        self._callers = callers
        self._transport: Any = None
        self._request: Request | None = None
        self._sent_at = 0.0
        self._missing = -1  # bytes of the answer; -1 before its headers have come
        self._status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def send(self, request: Request, now: float) -> None:
        """Write a request."""
        self._request, self._sent_at, self._missing = request, now, -1
        self._transport.write(request.raw)

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer. Its headers come in one piece: the server writes them so, and they are short."""
        if self._missing < 0:
            self._status, size = _read_head(data)
            self._missing = size
        self._missing -= len(data)
        if self._missing <= 0 and self._request is not None:
            request, self._request = self._request, None
            self.free_since = time.perf_counter()
            self._callers.answered(self, request, self._status, self.free_since - self._sent_at)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's name for it
        """Note that nobody will answer any more."""
        self._callers.closed(self, unanswered=self._request is not None)

    def close(self) -> None:
        """Leave, whether there was an answer or not."""
        self._transport.abort()


class Probe:
    """One caller who waits for each answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        """Open the connection."""
        return cls(*await asyncio.open_connection(HOST, port))

    async def ask(self, request: Request) -> tuple[int, float]:
        """Return the status of the answer and the seconds it took."""
        started = time.perf_counter()
        self._writer.write(request.raw)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, size = _read_head(head)
        await self._reader.readexactly(size - len(head))
        return status, time.perf_counter() - started

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


def _read_head(data: bytes) -> tuple[int, int]:
    """Return the status and the size of a whole answer, of which `data` holds the headers at least."""
    head = data.index(b"\r\n\r\n")
    start = data.index(b"content-length: ", 0, head) + len(b"content-length: ")
    return int(data[9:12]), head + 4 + int(data[start : data.index(b"\r", start)])
