"""The explorer page: its files and how a browser is told to treat them."""

import pytest

from service.page import FOLDER, MEDIA_TYPES, POLICY
from tests.service.talk import talk

FILES = sorted(path.name for path in FOLDER.iterdir())


def test_every_file_in_the_folder_is_of_a_kind_that_is_served():
    assert "index.html" in FILES
    assert {"." + name.rpartition(".")[2] for name in FILES} <= MEDIA_TYPES.keys()


@pytest.mark.parametrize("path", ["/", *(f"/web/{name}" for name in FILES)])
def test_a_file_comes_as_it_is_under_the_policy(client, path):
    name = path.rpartition("/")[2] or "index.html"
    response = client.get(path)

    assert response.status_code == 200
    assert response.content == (FOLDER / name).read_bytes()
    assert response.headers["content-type"] == MEDIA_TYPES["." + name.rpartition(".")[2]]
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-cache"
    head = client.head(path)
    assert head.content == b""
    assert {**head.headers, "date": "", "x-request-id": ""} == {**response.headers, "date": "", "x-request-id": ""}


def test_the_policy_lets_nothing_in_from_elsewhere_and_nothing_out():
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))

    assert rules.pop("img-src") == "'self' data:"
    assert {name for name, sources in rules.items() if sources == "'self'"} == {
        "script-src",
        "style-src",
        "connect-src",
    }
    assert {name for name, sources in rules.items() if sources == "'none'"} == {
        *("default-src", "base-uri", "form-action", "frame-ancestors"),
    }


@pytest.mark.parametrize(
    ("given", "status"),
    [("{}", 304), ("W/{}", 304), ('"other", {}', 304), ("*", 304), ('"other"', 200), ("", 200)],
)
def test_a_browser_that_has_the_page_is_not_sent_it_again(client, server, given, status):
    tag = client.get("/").headers["etag"]
    (answer,) = talk(server, f"GET / HTTP/1.1\r\nhost: a\r\nif-none-match: {given.format(tag)}\r\n\r\n".encode())

    assert answer.status == status
    assert answer.headers["etag"] == tag
    assert answer.headers["content-security-policy"] == POLICY
    assert (answer.body == b"") == ("content-length" not in answer.headers) == (status == 304)


@pytest.mark.parametrize(
    "path",
    [
        *("/web", "/web/", "/web/nothing.js", "/web/../app.py", "/web/..%2fapp.py", "/web/%2e%2e/app.py", "/web/."),
        *("/web/index.html/", "/web/index.html%00.js", "/web//etc/passwd", "/web/INDEX.HTML", "/index.html"),
    ],
)
def test_nothing_else_is_there(server, path):
    (answer,) = talk(server, f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())

    assert answer.status == 404
    assert answer.json()["error"]["code"] == "route_unknown"


def test_the_root_still_answers_text_embeddings_inferences_clients(client):
    (row, *_) = client.post("/", json={"inputs": "login"}).json()

    assert row.keys() == {"label", "score"}
