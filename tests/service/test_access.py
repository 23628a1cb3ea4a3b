"""Who may ask, from where and how much; and what is written down of it."""

import json
import re
import time
from http import HTTPStatus

import bentoml
import httpx
import psutil
import pytest

from service.http import BENTOML_PATHS
from service.routes import ROUTES
from tests.service import hostile
from tests.service.talk import connect, read, talk
from tests.support import serving, until

KEY, OTHER_KEY, FILE_KEY, NEW_KEY = (f"{name}-0123456789abcdef" for name in ("one", "two", "file", "new"))
APP, OTHER_APP = "https://app.example.org", "http://localhost:8080"
STRANGER = "https://evil.example.org"
PRIVATE = "my account number is 4711"
BODY = {"inputs": "login"}

OPERATIONS = [
    pytest.param(method, hostile.filled(template), route.group, id=f"{method} {template}")
    for template, methods in ROUTES.items()
    for method, route in methods.items()
]


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"# the app\n{FILE_KEY}\n")
    return file


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("log") / "stderr"


@pytest.fixture(scope="module")
def guarded(model_folder, key_file, log):
    """A server with keys, two origins and low limits, whose probes, metrics and pages are open."""
    with serving(
        model_folder,
        log=log,
        BERTRAND_API_KEYS=f"{KEY},{OTHER_KEY}",
        BERTRAND_API_KEYS_FILE=str(key_file),
        BERTRAND_CORS_ORIGINS=f"{APP}, {OTHER_APP}",
        BERTRAND_MAX_INPUTS="5",
        BERTRAND_MAX_BODY_BYTES="2000",
        BERTRAND_LOG_FORMAT="json",
    ) as url:
        yield url


@pytest.fixture(scope="module")
def caller(guarded):
    with httpx.Client(base_url=guarded, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def closed_log(tmp_path_factory):
    return tmp_path_factory.mktemp("log") / "stderr"


@pytest.fixture(scope="module")
def closed(model_folder, closed_log):
    """A server that answers nobody without a key, and pages of every origin."""
    with (
        serving(
            model_folder,
            log=closed_log,
            BERTRAND_API_KEYS=KEY,
            BERTRAND_KEYLESS="health",
            BERTRAND_CORS_ORIGINS="*",
            BERTRAND_LOG_FORMAT="json",
            BERTRAND_ACCESS_LOG="true",
        ) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client


def error_of(response, status, code):
    """The error of an answer, in the one shape."""
    assert response.status_code == status, response.text
    answer = response.json()
    assert answer.keys() == {"error", "request_id"}
    assert answer["error"].keys() == {"code", "message", "param"}
    assert answer["error"]["code"] == code
    assert answer["request_id"] == response.headers["x-request-id"]
    return answer["error"]


# --- Keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "group"), OPERATIONS)
def test_only_what_the_setting_names_is_open(caller, closed, method, path, group):
    for client, keyless in ((caller, ("health", "metrics", "docs")), (closed, ("health",))):
        response = client.request(method, path)
        if group in keyless:
            assert response.status_code in (200, 404)  # 404: a place in the path names something else here
        else:
            error_of(response, 401, "key_invalid")
            assert response.headers["www-authenticate"] == "Bearer"
            assert client.request(method, path, headers=bearer(KEY)).status_code != 401


def test_every_route_that_computes_needs_a_key():
    """Whether probes, metrics and pages are open is a setting; nothing that reads a body can be opened by it."""
    for methods in ROUTES.values():
        for route in methods.values():
            assert route.group == "inference" or route.request is None


@pytest.mark.parametrize("path", BENTOML_PATHS)
def test_what_bentoml_answers_is_closed_with_the_pages(caller, closed, path):
    assert caller.get(path).status_code == 200
    error_of(closed.get(path), 401, "key_invalid")
    assert closed.get(path, headers=bearer(KEY)).status_code == 200


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        KEY,
        f"Basic {KEY}",
        f"Token {KEY}",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY}x",
        f"Bearer {KEY.upper()}",
        f"Bearer {KEY},{OTHER_KEY}",
        f"Bearer {KEY} {OTHER_KEY}",
        f'Bearer "{KEY}"',
        f"Bearer Bearer {KEY}",
        f"Bearer {KEY}\u00e9",
        "Bearer # the app",
        "Bearer " + "a" * 60_000,
    ],
)
def test_what_is_not_a_key_does_not_open(caller, value):
    headers = {"authorization": value.encode("latin-1")}
    error = error_of(caller.post("/v1/classify", json=BODY, headers=headers), 401, "key_invalid")

    assert error["param"] == "authorization"
    assert KEY[:-1] not in error["message"]


@pytest.mark.parametrize("key", [KEY, OTHER_KEY, FILE_KEY])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_each_key_opens(caller, key, scheme):
    headers = {"authorization": f"{scheme} {key}"}
    assert caller.post("/v1/classify", json=BODY, headers=headers).status_code == 200


def test_without_a_key_nothing_is_read(guarded):
    """Whoever has none learns nothing of the routes, and costs nothing."""
    head = hostile.request(body=b"", content_length=b"1000")
    with connect(guarded) as connection:
        connection.sendall(head)
        assert read(connection)[0].status == 401


def test_a_changed_file_of_keys_is_taken_up(caller, key_file):
    def status(key):
        return caller.post("/v1/classify", json=BODY, headers=bearer(key)).status_code

    before = key_file.read_text()
    key_file.write_text(f"{NEW_KEY}\n")
    until(lambda: status(NEW_KEY) == 200)
    assert status(FILE_KEY) == 401
    assert status(KEY) == 200, "those of the environment stay"
    for useless in ("", "short\n"):
        key_file.write_text(useless)
        time.sleep(1.5)
        assert (status(NEW_KEY), status("short")) == (200, 401)
    key_file.write_text(before)
    until(lambda: status(FILE_KEY) == 200)
    assert status(NEW_KEY) == 401


def test_bentomls_client_sends_its_token(guarded, closed):
    for url in (guarded, str(closed.base_url)):
        with bentoml.SyncHTTPClient(url, token=KEY) as client:
            assert client.classify(inputs="login")["results"][0]["status"] == "ok"
    with (
        bentoml.SyncHTTPClient(guarded, token="x" * 20) as client,
        pytest.raises(bentoml.exceptions.BentoMLException, match="key_invalid"),
    ):
        client.classify(inputs="login")


# --- Pages of other origins ---------------------------------------------------------------------------------------

REQUESTS = [
    ("POST", "/v1/classify", {"json": BODY, "headers": bearer(KEY)}, 200),
    ("POST", "/v1/classify", {"json": BODY}, 401),
    ("GET", "/nothing", {}, 404),
    ("GET", "/v1/classify", {}, 405),
    ("POST", "/v1/classify", {"content": b"a" * 3000, "headers": bearer(KEY)}, 413),
    ("POST", "/v1/classify", {"content": b"a", "headers": bearer(KEY) | {"content-type": "text/plain"}}, 415),
    ("POST", "/v1/classify", {"json": {"inputs": 5}, "headers": bearer(KEY)}, 422),
    ("GET", "/livez", {}, 200),
]


@pytest.mark.parametrize(("method", "path", "options", "status"), REQUESTS)
def test_a_page_of_an_allowed_origin_may_read_every_answer(caller, method, path, options, status):
    """A page that may not read an error sees a failed connection, and its author searches in the wrong place."""

    def ask(origin):
        headers = options.get("headers", {}) | ({"origin": origin} if origin else {})
        response = caller.request(method, path, **(options | {"headers": headers}))
        assert response.status_code == status
        return response.headers

    for origin in (APP, OTHER_APP):
        headers = ask(origin)
        assert headers["access-control-allow-origin"] == origin
        assert "x-request-id" in headers["access-control-expose-headers"]
        assert headers["vary"] == "origin"
    for origin in (STRANGER, "null", APP + ".evil.org", APP.upper(), f"{APP}, {STRANGER}", f"{APP}/", None):
        headers = ask(origin)
        assert "access-control-allow-origin" not in headers
        assert headers["vary"] == "origin"


def test_every_origin_may_where_the_setting_says_so(closed):
    for headers in ({"origin": STRANGER}, {}):
        response = closed.post("/v1/classify", json=BODY, headers=headers)
        error_of(response, 401, "key_invalid")
        assert response.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(("method", "path", "_group"), OPERATIONS)
def test_a_browser_may_ask_before_it_sends(caller, client, method, path, _group):
    """A preflight carries no key."""
    headers = {"access-control-request-method": method, "access-control-request-headers": "authorization"}
    response = caller.options(path, headers=headers | {"origin": APP})

    assert response.status_code == 204
    assert response.content == b""
    assert response.headers["access-control-allow-origin"] == APP
    assert method in response.headers["access-control-allow-methods"].split(", ")
    assert {"authorization", "content-type"} <= set(response.headers["access-control-allow-headers"].split(", "))
    stranger = caller.options(path, headers=headers | {"origin": STRANGER})
    assert "access-control-allow-origin" not in stranger.headers
    # A server without origins knows no such question.
    error_of(client.options(path, headers=headers | {"origin": APP}), 405, "method_not_allowed")


# --- Limits -------------------------------------------------------------------------------------------------------


def test_no_more_texts_than_the_limit(caller):
    assert caller.post("/v1/classify", json={"inputs": ["a"] * 5}, headers=bearer(KEY)).status_code == 200
    response = caller.post("/v1/classify", json={"inputs": ["a"] * 6}, headers=bearer(KEY))

    assert error_of(response, 422, "inputs_too_many")["param"] == "inputs"


@pytest.mark.parametrize("chunked", [False, True])
def test_no_more_bytes_than_the_limit(caller, chunked):
    def post(size):
        content = json.dumps(BODY).encode().ljust(size)
        pieces = (content[i : i + 100] for i in range(0, size, 100))
        return caller.post("/v1/classify", content=pieces if chunked else content, headers=bearer(KEY))

    assert post(2000).status_code == 200
    assert "2000 bytes" in error_of(post(2001), 413, "body_too_large")["message"]


def test_the_limits_are_told(caller):
    info = caller.get("/v1/info", headers=bearer(KEY)).json()
    assert (info["max_inputs"], info["max_body_bytes"]) == (5, 2000)


# --- What is told and written down --------------------------------------------------------------------------------

USUAL_HEADERS = {
    *("date", "content-type", "content-length", "x-request-id", "server-timing", "connection", "allow"),
    *("www-authenticate", "vary", "access-control-allow-origin", "access-control-expose-headers"),
    *("last-modified", "etag", "accept-ranges"),
    *("cache-control", "content-security-policy", "referrer-policy", "x-content-type-options"),
}
SOFTWARE = "bento|uvicorn|python|starlette|bertrand"


def test_no_answer_tells_what_software_gave_it(caller, guarded):
    answers = [caller.request(method, path, **options) for method, path, options, _ in REQUESTS]
    answers += [caller.get(path) for path in ("/", "/docs", "/metrics", "/readyz", *BENTOML_PATHS)]
    answers += talk(guarded, b"nonsense\r\n\r\n")
    answers += talk(guarded, hostile.request(b"x-a: " + b"a" * 70_000))
    for answer in answers:
        assert {name.lower() for name in answer.headers} <= USUAL_HEADERS
        for value in answer.headers.values():
            assert not re.search(SOFTWARE, value, re.IGNORECASE), value


def test_only_one_port_is_open(guarded):
    """Nothing takes pickles, and BentoML's process manager, which runs what it is told, takes no stranger's word."""
    port = guarded.rpartition(":")[2]
    (parent,) = (each for each in psutil.process_iter(["cmdline"]) if (each.info["cmdline"] or [])[-1:] == [port])
    processes = [parent, *parent.children(recursive=True)]
    listening = [each for process in processes for each in process.net_connections("tcp") if each.status == "LISTEN"]

    assert len(processes) > 1
    assert {each.laddr.port for each in listening} == {int(port)}


def ask_in_every_way(client, request_ids):
    """Send requests that succeed and that fail, with a secret wherever one can be."""

    def ask(method, path, **options):
        headers = options.pop("headers", {}) | {"x-request-id": next(request_ids), "referer": PRIVATE}
        return client.request(method, path, headers=headers, **options).status_code

    statuses = {
        ask("POST", "/v1/classify", json={"inputs": PRIVATE}, headers=bearer(KEY)),
        ask("POST", "/v1/classify", json={"inputs": PRIVATE}, headers=bearer(NEW_KEY)),
        ask("POST", "/v1/analyze", json={"inputs": [PRIVATE, 5]}, headers=bearer(KEY)),
        ask("POST", "/v1/embed", json={"inputs": "a", PRIVATE: PRIVATE}, headers=bearer(KEY)),
        ask("POST", "/v1/classify", content=PRIVATE, headers=bearer(KEY)),
        ask("POST", "/v1/classify", content=PRIVATE * 200, headers=bearer(KEY)),
        ask("POST", "/v1/classify", content=PRIVATE, headers=bearer(KEY) | {"content-type": PRIVATE}),
        ask("GET", f"/{PRIVATE}", params={"q": PRIVATE}),
        ask("GET", "/v1/classify", params={"key": KEY}),
        ask("GET", "/livez"),
    }
    assert statuses >= {200, 401, 422, 400, 415, 404, 405}
    host = str(client.base_url).removesuffix("/")
    talk(host, PRIVATE.encode() + b"\r\n\r\n")
    talk(host, hostile.request(PRIVATE.encode()))
    with connect(host) as connection:
        connection.sendall(hostile.request(body=PRIVATE.encode())[:-3])


def lines_of(log):
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        assert {"time", "level", "logger", "process", "message"} <= line.keys()
    return lines


def check_no_secrets(log):
    text = log.read_text()
    for secret in (PRIVATE, "4711", KEY, OTHER_KEY, FILE_KEY, NEW_KEY, "please refund"):
        assert secret not in text


def test_the_log_is_json_and_holds_no_secrets(caller, log):
    ids = iter([f"quiet-{i}" for i in range(10)])
    ask_in_every_way(caller, ids)

    assert any(line["message"].startswith("serving ") for line in lines_of(log))
    assert not [line for line in lines_of(log) if "request_id" in line], "a line for each only where it is asked for"
    check_no_secrets(log)


def test_a_line_for_every_request_holds_no_secrets_either(closed, closed_log):
    names = [f"loud-{i}" for i in range(10)]
    ask_in_every_way(closed, iter(names))
    until(lambda: names[-1] in closed_log.read_text())

    lines = {line["request_id"]: line for line in lines_of(closed_log) if "request_id" in line}
    assert names == [name for name in names if name in lines]
    assert lines["loud-0"]["message"] == "POST /v1/classify 200"
    assert lines["loud-7"]["message"] == f"GET other {HTTPStatus.NOT_FOUND}"
    assert lines["loud-0"]["milliseconds"] > 0
    check_no_secrets(closed_log)
