"""No input breaks the service: an answer in the one shape to whatever is sent, and the next request as before."""

from __future__ import annotations

import json
import socket
import struct
import time

import httpx
import psutil
import pytest

from tests.service import hostile
from tests.service.talk import connect, read, talk
from tests.support import serving


@pytest.fixture(scope="module")
def server(model_folder):
    """A server of our own: what is left of it in the end is of our own doing."""
    with serving(model_folder) as url:
        yield url


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def impatient(model_folder):
    """A server that gives a request one second."""
    with serving(model_folder, BERTRAND_REQUEST_TIMEOUT="1") as url:
        yield url


@pytest.fixture(scope="module")
def usual(client):
    """What a plain request is answered before anything hostile came."""
    return client.post("/v1/classify", content=hostile.GOOD).json()


@pytest.fixture
def well(client, usual):
    """Afterwards a plain request is answered as ever."""
    yield
    assert client.post("/v1/classify", content=hostile.GOOD).json() == usual
    assert client.get("/readyz").status_code == 200


def check_shape(answer, *, head=False):
    """Every error is `{"error": {"code", "message", "param"}, "request_id"}`, and no answer names the software."""
    body = getattr(answer, "content", None) if isinstance(answer, httpx.Response) else answer.body
    status = answer.status_code if isinstance(answer, httpx.Response) else answer.status
    assert status < 500, body[:500]
    assert "server" not in answer.headers
    if status < 400 or head:
        return
    assert answer.headers["content-type"] == "application/json", body[:500]
    error = json.loads(body)
    assert error == {
        "error": {
            "code": error["error"]["code"],
            "message": error["error"]["message"],
            "param": error["error"]["param"],
        },
        "request_id": answer.headers["x-request-id"],
    }
    assert error["error"]["code"].isidentifier()
    assert error["error"]["message"]
    assert len(body) < 1000, "an error that repeats what was sent"


def check(answers, case):
    assert len(answers) == case.answers
    for answer in answers:
        check_shape(answer)
        assert answer.status in case.status, answer.body[:500]


def test_the_corpus_is_large_and_no_case_is_there_twice():
    groups = (
        *(hostile.BODIES, hostile.FIELD_BODIES, hostile.ODD_BODIES),
        *(hostile.HEADERS, hostile.TARGETS, hostile.CONNECTIONS),
    )
    names = [case.name for group in groups for case in group] + list(hostile.TEXTS)

    assert len(names) == len(set(names)) >= 200


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("case", hostile.BODIES, ids=lambda case: case.name)
def test_no_route_takes_a_bad_body(client, case):
    content = case.read()
    for route in hostile.INFERENCE_ROUTES:
        answer = client.post(route, content=content, headers=headers_of(case))
        check_shape(answer)
        assert answer.status_code in (case.status if route in hostile.V1_ROUTES else hostile.REFUSED), route


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("case", hostile.FIELD_BODIES, ids=lambda case: case.name)
def test_the_field_at_fault_is_named(client, case):
    content = case.read()
    for route in hostile.V1_ROUTES:
        answer = client.post(route, content=content, headers=headers_of(case))
        check_shape(answer)
        assert answer.status_code in case.status, route
        assert case.param is None or answer.json()["error"]["param"].startswith(case.param)


def test_a_flood_of_flaws_is_refused_at_once(client):
    """Whoever describes each of them answers nobody else meanwhile: of numbers, for 25 seconds."""
    started = time.perf_counter()
    numbers = b'{"inputs": "a", "embeddings": [' + b"1," * 3_900_000 + b"1]}"
    answer = client.post("/v1/embed", content=numbers)
    assert answer.json()["error"]["param"] == "embeddings[0]"
    fields = b'{"inputs": "a"' + b"".join(b',"f%d":1' % i for i in range(600_000)) + b"}"
    answer = client.post("/v1/embed", content=fields)
    assert "600000 flaws" in answer.json()["error"]["message"]
    assert time.perf_counter() - started < 10


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("case", hostile.ODD_BODIES, ids=lambda case: case.name)
def test_what_is_odd_but_legal_is_answered(client, case):
    content = case.read()
    for route in hostile.V1_ROUTES:
        answer = client.post(route, content=content, headers=headers_of(case))
        assert answer.status_code in case.status, answer.text


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("name", hostile.TEXTS)
@pytest.mark.parametrize("truncate", [True, "windows"])
def test_any_text_is_read_or_refused_as_a_text(client, name, truncate):
    for route in hostile.V1_ROUTES if truncate is True else ["/v1/classify"]:
        fields = {} if truncate is True else {"truncate": truncate}
        answer = client.post(route, json={"inputs": [hostile.TEXTS[name], "login"], **fields})
        check_shape(answer)
        odd, plain = answer.json()["results"]
        assert plain["status"] == "ok"
        assert odd["status"] == "ok" or odd["error"]["code"] in ("text_empty", "text_too_long")


def test_an_address_is_a_text_and_nobody_goes_there(client):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        texts = [address.format(listener.getsockname()[1]) for address in hostile.ADDRESSES]
        for route in hostile.V1_ROUTES:
            results = client.post(route, json={"inputs": texts}).json()["results"]
            assert {result["status"] for result in results} == {"ok"}
            for text in texts:
                answer = client.post(route, content=hostile.GOOD, headers={"referer": text, "content-location": text})
                assert answer.status_code == 200
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("case", hostile.HEADERS, ids=lambda case: case.name)
def test_no_header_breaks_it(server, case):
    check(talk(server, *case.parts, answers=case.answers), case)


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("case", hostile.TARGETS, ids=lambda case: case.name)
def test_no_path_and_no_method_breaks_it(server, case):
    check(talk(server, *case.parts, answers=case.answers), case)


@pytest.mark.parametrize("case", hostile.CONNECTIONS, ids=lambda case: case.name)
def test_no_connection_holds_it_up(impatient, case):
    check(talk(impatient, *case.parts, answers=case.answers), case)
    assert talk(impatient, hostile.request())[0].status == 200


def test_a_crowd_of_half_requests_keeps_nobody_waiting(impatient):
    """Slow callers cost a connection each, and no more: whoever sends a whole request is answered at once."""
    crowd = [connect(impatient) for _ in range(300)]
    try:
        for connection in crowd:
            connection.sendall(hostile.request()[:-5])
        started = time.perf_counter()
        assert talk(impatient, hostile.request())[0].status == 200
        assert time.perf_counter() - started < 0.9
        assert [read(connection)[0].status for connection in crowd] == [408] * len(crowd)
    finally:
        for connection in crowd:
            connection.close()


def test_a_connection_that_is_reset_is_forgotten(impatient):
    for size in range(20, len(hostile.request()), 7):
        connection = connect(impatient)
        connection.sendall(hostile.request()[:size])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets
        connection.close()
    assert talk(impatient, hostile.request())[0].status == 200


def test_nothing_is_left_over(server, impatient, client):
    """After all that, no connection is held and nothing waits in the queue."""
    client.close()
    ports = {int(url.rpartition(":")[2]) for url in (server, impatient)}
    deadline = time.monotonic() + 10  # kept alive for five seconds
    while held := [
        connection
        for connection in psutil.net_connections("tcp")
        if connection.laddr.port in ports and connection.status in ("ESTABLISHED", "CLOSE_WAIT")
    ]:
        assert time.monotonic() < deadline, held
        time.sleep(0.1)
    for url in (server, impatient):
        metrics = talk(url, hostile.get(b"/metrics"))[0].body.decode()
        assert "bertrand_queue_tokens 0.0" in metrics
        assert 'bertrand_requests_total{code="5' not in metrics


def headers_of(case):
    # Bytes, since a header may hold what is no ASCII.
    return {name: value.encode() for name, value in case.headers.items()}
