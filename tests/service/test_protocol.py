"""What bounds a connection around the body: a real uvicorn with our protocol, and clocks that run out at once."""

import json
import threading
import time

import pytest
import uvicorn

from service import process
from tests.service.hostile import GOOD, get, request
from tests.service.talk import connect, read, talk

LARGE = 30_000_000


async def application(scope, receive, send):
    """Answer with what came: the path, and the size of the body where one is read."""
    if scope["path"] == "/large":
        body = bytes(LARGE)
    else:
        size, more = 0, scope["path"] != "/unread"
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        body = json.dumps({"path": scope["path"], "size": size}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def hasty():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "HEADER_SECONDS", 0.3)
        patch.setattr(process, "READER_SECONDS", 0.3)
        config = uvicorn.Config(application, port=0, http=process.Protocol, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        thread.join()


def seconds_until_closed(connection, part=b""):
    """How long the other side bears it; more than 3 seconds is too long."""
    started = time.monotonic()
    connection.settimeout(0.05)
    while True:
        assert time.monotonic() - started < 3, "still open"
        try:
            connection.sendall(part)
            if not connection.recv(65_536):
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - started


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: "])
def test_headers_that_take_too_long_are_refused(hasty, start):
    (answer,) = talk(hasty, start, *(part for _ in range(10) for part in (b"a", 0.05)))

    assert answer.status == 408
    assert answer.json()["error"]["code"] == "headers_too_slow"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("part", [b"", b"\r\n"])
def test_a_connection_that_asks_nothing_is_closed(hasty, part):
    with connect(hasty) as connection:
        assert 0.2 < seconds_until_closed(connection, part) < 1


def test_between_two_requests_too(hasty):
    with connect(hasty) as connection:
        connection.sendall(request())
        assert read(connection)[0].status == 200
        assert 0.2 < seconds_until_closed(connection, b"\r\n") < 1


def test_a_body_that_nobody_reads_is_not_taken_for_ever(hasty):
    with connect(hasty) as connection:
        connection.sendall(request(target=b"/unread", body=b"", content_length=b"%d" % 10**12))
        assert read(connection)[0].status == 200
        assert 0.2 < seconds_until_closed(connection, b"a" * 1000) < 1


def test_an_answer_that_nobody_reads_is_dropped(hasty):
    with connect(hasty) as connection:
        connection.sendall(get(b"/large"))
        time.sleep(1)
        received = 0
        try:
            while piece := connection.recv(1_000_000):
                received += len(piece)
        except ConnectionError:
            pass
    assert received < LARGE


def test_an_answer_that_is_read_slowly_arrives(hasty):
    with connect(hasty) as connection:
        connection.sendall(get(b"/large"))
        received = 0
        while received < LARGE:
            piece = connection.recv(1_000_000)
            assert piece, f"the connection ended after {received} bytes"
            received += len(piece)
            time.sleep(0.02)


def test_a_slow_body_is_the_applications_affair(hasty):
    half = len(GOOD) // 2
    assert talk(hasty, request()[:-half], 0.5, request()[-half:])[0].json()["size"] == len(GOOD)


@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nx-",
        b"GET / HTTP/1.1\r\nx-a: ",
        request(content_length=b"", transfer_encoding=b"chunked", body=b"1;a="),
        request(content_length=b"", transfer_encoding=b"chunked", body=b"0\r\nx-a: "),
    ],
)
def test_what_does_not_end_is_not_kept(hasty, start):
    """The parser keeps a header until it is whole, and puts its pieces together at quadratic cost."""
    sent = 0
    with connect(hasty) as connection:
        connection.sendall(start)
        try:
            while sent < 100_000_000:
                connection.sendall(b"a" * 65_536)
                sent += 65_536
        except ConnectionError:
            pass
        assert [answer.status for answer in read(connection)] in ([431], [])  # lost where it came while we sent
    assert sent < 50_000_000  # what the kernel buffers


UPGRADE = (b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABkAAQAAP__")


def test_an_upgrade_that_is_not_taken_up_loses_nothing(hasty):
    """Java's HTTP client asks for HTTP/2 with every request over plain HTTP."""
    chunked = {"content_length": b"", "transfer_encoding": b"chunked"}
    body = b"5\r\nhello\r\n0\r\n\r\n"
    answers = talk(
        hasty,
        request(target=b"/1", body=b"hello")
        + request(*UPGRADE, target=b"/2", body=b"hello")
        + request(*UPGRADE, target=b"/3", body=body, **chunked)
        + get(b"/4", *UPGRADE)
        + request(target=b"/5", body=b"hello"),
        request(*UPGRADE, target=b"/6", body=b"hello")[:-3],
        0.1,
        b"llo" + request(target=b"/7", body=b"hello"),
        answers=7,
    )

    assert [answer.json() for answer in answers] == [{"path": f"/{i}", "size": 0 if i == 4 else 5} for i in range(1, 8)]
