"""The processes of a server: signals, draining, and what uvicorn leaves open towards hostile connections."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from typing import TYPE_CHECKING, Any

import httptools
import psutil
import uvicorn
from bentoml._internal.utils import circus as manager
from circus.client import make_json
from circus.sighandler import SysHandler
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import ApiError
from service.wire import JSON

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.http import Front

log = logging.getLogger("bertrand.service")

MAX_HEADER_BYTES = 65_536  # request line and headers of one request
HEADER_SECONDS = 30.0  # for a request's headers; also for a first request to begin, and for a refused body to end
READER_SECONDS = 30.0  # an answer of which nothing was taken for so long is dropped
ENDING = signal.SIGUSR1  # from the parent to its workers: not one of you ends, the whole server does
ARRIVING = 0.3  # seconds: a connection accepted just before the end may still send its request


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with bounds on everything around the body, and with errors in our own shape."""

    _too_late: asyncio.TimerHandle | None = None
    _in_headers = False
    _header_bytes = 0  # of the request line and the whole headers
    _other_bytes = 0  # received since the last piece of a body: headers, chunk sizes, trailers
    _flaw: ApiError | None = None
    _reader: asyncio.TimerHandle | None = None
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a connection on which nothing is said is not held."""
        super().connection_made(transport)
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Read on, unless it has become too much."""
        self._unset_keepalive_if_required()
        if self.cycle is None or self.cycle.response_complete:  # nothing else bounds the time now
            self._start_clock()
        self._other_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_without_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._other_bytes > MAX_HEADER_BYTES:  # the parser keeps a header to itself until it is whole
            self._refuse(_headers_too_large())

    def on_message_begin(self) -> None:
        """Start the clock and the count of a request's headers."""
        super().on_message_begin()
        self._in_headers = True
        self._header_bytes = self._other_bytes = 0
        self._stop_clock()
        self._start_clock()

    def on_url(self, url: bytes) -> None:
        """Take a part of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the clock and hand the request on."""
        self._in_headers = False
        self._other_bytes = 0
        self._stop_clock()
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("no proxy")  # the parser stops, and `send_400_response` is called
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            writer = _Writer(self.transport, self.cycle.on_response)
            self.cycle.transport = writer  # type: ignore[assignment]  # all of a transport that a cycle uses
            self.cycle.on_response = writer.finish

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._other_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def pause_writing(self) -> None:
        """Begin to watch whether the answer is being read."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Stop watching: most of it has been."""
        super().resume_writing()
        self._forget_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_clock()
        self._forget_reader()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or is too much of it."""
        self._refuse(self._flaw or ApiError(400, "http_invalid", msg[:1].lower() + msg[1:].rstrip(".")))

    def _read_without_upgrade(self, rest: bytes) -> None:
        """
        Read a request again that asks for another protocol: it is answered in this one.

        The parser believes that what follows such a request's headers is no longer HTTP. Java's client asks for HTTP/2
        in this way with every request, and its bodies would be lost.
        """
        line = self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()
        kept = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.data_received(b"\r\n".join([line, *kept, b"", rest]))

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            self._flaw = _headers_too_large()
            raise ValueError("headers too large")  # the parser stops, and `send_400_response` is called

    def _start_clock(self) -> None:
        if self._too_late is None:
            self._too_late = self.loop.call_later(HEADER_SECONDS, self._late)

    def _stop_clock(self) -> None:
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None

    def _late(self) -> None:
        if self._in_headers:
            self._refuse(ApiError(408, "headers_too_slow", "the headers did not come in time"))
        else:
            self.transport.close()

    def _watch_reader(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._reader = self.loop.call_later(READER_SECONDS, self._drop_idle_reader)

    def _drop_idle_reader(self) -> None:
        if self.transport.get_write_buffer_size() < self._unsent:
            self._watch_reader()
        else:
            self.transport.abort()

    def _forget_reader(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _refuse(self, error: ApiError) -> None:
        self._stop_clock()
        if self.transport.is_closing():
            return
        request_id = os.urandom(8).hex()
        reply = error.reply(request_id)
        head = (
            f"HTTP/1.1 {error.status} {'Bad Request' if error.status == 400 else error.code}\r\n"
            f"content-type: {JSON}\r\ncontent-length: {len(reply.body)}\r\nx-request-id: {request_id}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + reply.body)
        self.transport.close()


class _Writer:
    """
    The transport of one answer: its head waits for its body, so that one system call sends both.

    Two would also wake the caller twice, the first time for nothing.
    """

    def __init__(self, transport: asyncio.Transport, on_response: Callable[[], None]) -> None:
        self._transport = transport
        self._on_response = on_response
        self._head: bytes | None = None
        self._begun = False

    def write(self, data: bytes) -> None:
        if self._begun:
            self._transport.writelines([self._head, data] if self._head else [data])
            self._head = None
        elif data.startswith(b"HTTP/1.1 100 "):
            self._transport.write(data)
        else:
            self._begun, self._head = True, data

    def finish(self) -> None:
        self._flush()
        self._on_response()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = None


def _headers_too_large() -> ApiError:
    return ApiError(431, "headers_too_large", f"the headers are larger than {MAX_HEADER_BYTES} bytes")


def adopt(front: Front, reload: Callable[[], None], *, drain_seconds: float, request_timeout: float) -> None:
    """
    Take charge of the uvicorn server that is about to serve `front` in this process.

    BentoML makes the server and gives no access to it; the signal handler that it has installed by now is its own.

    Args:
        front: What it serves.
        reload: Called on SIGHUP.
        drain_seconds: After SIGTERM, go on answering for so long while saying that we are not ready.
        request_timeout: The longest that a request in flight is waited for.
    """
    exit_now = signal.getsignal(signal.SIGTERM)
    server = getattr(exit_now, "__self__", None)
    if not isinstance(server, uvicorn.Server):  # another server runs the application: its shutdown is its own
        log.warning("not served by uvicorn: no draining, no reload on SIGHUP, no bounds on headers")
        return
    server.config.http_protocol_class = Protocol
    loop = asyncio.get_running_loop()
    draining: list[asyncio.Task[None]] = []
    whole_server_ends: list[int] = []

    async def drain() -> None:
        front.draining = True
        log.info("draining: answering for %g s more, then what is in flight", drain_seconds)
        await asyncio.sleep(drain_seconds)
        if whole_server_ends:
            loop.set_exception_handler(_but_for_the_listener)
            for connection in [each for listener in server.servers for each in _stop_listening(listener)]:
                await loop.connect_accepted_socket(_protocol_factory(server, loop), connection)
        for listener in server.servers:
            listener.close()
        await asyncio.sleep(ARRIVING)
        latest = time.monotonic() + request_timeout
        while front.active and time.monotonic() < latest:
            await asyncio.sleep(0.02)
        server.handle_exit(signal.SIGTERM, None)

    def begin() -> None:
        if not draining:
            draining.append(loop.create_task(drain()))

    def on_sigterm(number: int, frame: Any) -> None:
        if server.should_exit:
            server.handle_exit(number, frame)
        else:
            loop.call_soon_threadsafe(begin)

    signal.signal(signal.SIGTERM, on_sigterm)
    signal.signal(ENDING, lambda number, _: whole_server_ends.append(number))
    signal.signal(signal.SIGHUP, lambda *_: reload())


def lead_workers() -> None:
    """
    Have the parent process tell its workers what BentoML's process manager does not.

    On SIGHUP they reload their model; the manager would end them all at once, with nobody to answer in between. On
    SIGTERM they are told first that the whole server ends. Whoever may give the manager commands is its own user: by
    itself it listens on loopback ports, where anybody on the machine could have it run a program.
    """
    control = tempfile.mkdtemp(prefix="bertrand-control-")
    atexit.register(shutil.rmtree, control, ignore_errors=True)

    class Arbiter(manager.Arbiter):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            places = {name: f"ipc://{control}/{name}" for name in ("endpoint", "pubsub_endpoint")}
            super().__init__(*arguments, **options | places)

    def send(number: int) -> None:
        for child in psutil.Process().children():
            child.send_signal(number)

    def end(handler: SysHandler) -> None:
        send(ENDING)
        handler.quit()

    def quit_when_free(handler: SysHandler) -> None:
        # While it replaces a worker that has died, Circus drops every other command, and with it the signal to end.
        arbiter, loop = handler.controller.arbiter, handler.controller.loop

        def ask() -> None:
            if arbiter._exclusive_running_command is None:
                handler.controller.dispatch((None, make_json("quit")))
            else:
                loop.call_later(0.05, ask)

        loop.add_callback_from_signal(ask)

    SysHandler.SIGNALS = [number for number in SysHandler.SIGNALS if number != signal.SIGHUP]
    SysHandler.handle_term = end
    SysHandler.quit = quit_when_free
    manager.Arbiter = Arbiter  # type: ignore[misc]
    signal.signal(signal.SIGHUP, lambda number, _: send(number))


def _but_for_the_listener(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what goes wrong in a loop, except that another worker stopped the listening on the socket we share."""
    error = context.get("exception")
    if not (isinstance(error, OSError) and error.errno == errno.EINVAL):
        loop.default_exception_handler(context)


def _stop_listening(listener: asyncio.Server) -> list[socket.socket]:
    """
    Have the kernel refuse new connections, and return those that it had accepted before.

    The parent process holds the socket too: merely closing it here would leave callers connecting to a server that
    never answers. Between the last accept and the shutdown lie microseconds.
    """
    accepted = []
    for listening in listener.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as shared:
            shared.setblocking(False)
            with contextlib.suppress(OSError):  # BlockingIOError: none is left; EINVAL: another worker was first
                while True:
                    accepted.append(shared.accept()[0])
            with contextlib.suppress(OSError):
                shared.shutdown(socket.SHUT_RD)
    return accepted


def _protocol_factory(server: uvicorn.Server, loop: asyncio.AbstractEventLoop) -> Callable[[], asyncio.Protocol]:
    """Return what makes the protocol of a connection, as uvicorn does it for those it accepts itself."""
    return lambda: Protocol(server.config, server.server_state, server.lifespan.state, loop)
