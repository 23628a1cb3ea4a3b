"""HTTP over a bare socket, for what no client library would send."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from email.message import Message


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def connect(url: str, timeout: float = 30) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=timeout)


def talk(url: str, *parts: bytes | float, answers: int = 1) -> list[Answer]:
    """
    Send the parts, a number being a pause in seconds, and read so many answers or as many as come.

    A server may answer and close while we still send: what it said before counts.
    """
    with connect(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):
            for part in parts:
                if isinstance(part, bytes):
                    connection.sendall(part)
                else:
                    time.sleep(part)
        return read(connection, answers)


def read(connection: socket.socket, answers: int = 1) -> list[Answer]:
    """Read so many answers, or as many as come before the other side closes."""
    found: list[Answer] = []
    with connection.makefile("rb") as stream, contextlib.suppress(ConnectionError):
        while len(found) < answers and (line := stream.readline()):
            version, status, *_ = line.split()
            assert version == b"HTTP/1.1", line
            headers = http.client.parse_headers(stream)
            if status == b"100":
                continue
            length = int(headers["content-length"] or 0)
            body = stream.read(length)
            assert len(body) == length, f"an answer of {length} bytes ended after {len(body)}"
            found.append(Answer(int(status), headers, body))
    return found
