"""The service as apps meet it: a real server, a real port, real requests."""

import base64
import json
import socket
import threading

import bentoml
import httpx
import numpy as np
import pytest

from inference import Classifier
from service.routes import ROUTES
from tests.support import manifest_of, serving, until

TEXT = "please refund my order"


def post(client, route, **body):
    return client.post(route, json=body)


def shortest(score):
    """The number that JSON carries of a float32: the fewest digits that give the same float32 again."""
    return float(str(np.float32(score)))


def only(response):
    """The single result of a good answer."""
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    return result


def test_classify_answers_as_the_classifier_does(client, classifier, model_folder):
    """One sentence becomes scores in one place: over HTTP nothing may change."""
    texts = [TEXT, "login", "thank you " * 40, "?"]
    answer = post(client, "/v1/classify", inputs=texts).json()

    assert answer["model"] == {
        "name": "tiny",
        "version": manifest_of(model_folder)["version"],
        "precision": classifier.precision,
    }
    for result, prediction in zip(answer["results"], classifier.classify(texts), strict=True):
        assert result == {
            "status": "ok",
            "label": prediction.label,
            "score": shortest(prediction.score),
            "scores": [{"label": label, "score": shortest(score)} for label, score in prediction.scores],
            "token_count": prediction.token_count,
            "truncated": prediction.truncated,
        }


def test_analyze_gives_predictions_tokens_and_vectors_of_one_pass(client, classifier):
    result = only(post(client, "/v1/analyze", inputs=TEXT))
    analysis = classifier.analyze([TEXT])[0]

    assert result["label"] == analysis.prediction.label
    assert [(t["text"], t["id"], t["start"], t["end"], t["special"]) for t in result["tokens"]] == [
        (t.text, t.id, t.start, t.end, t.special) for t in analysis.tokens
    ]
    np.testing.assert_allclose(result["token_embeddings"], analysis.token_embeddings, atol=1e-6)
    np.testing.assert_allclose(result["sentence_embedding"], analysis.sentence_embedding, atol=1e-6)


@pytest.mark.parametrize(("dtype", "code", "tolerance"), [("float32", "<f4", 0), ("float16", "<f2", 2e-3)])
def test_base64_gives_the_bytes_of_the_array(client, classifier, dtype, code, tolerance):
    result = only(
        post(client, "/v1/embed", inputs=TEXT, embeddings=["tokens", "sentence"], encoding_format="base64", dtype=dtype)
    )
    analysis = classifier.analyze([TEXT])[0]

    for name in ("token_embeddings", "sentence_embedding"):
        array = result[name]
        values = np.frombuffer(base64.b64decode(array["data"]), dtype=code).reshape(array["shape"])
        assert array["dtype"] == dtype
        np.testing.assert_allclose(values, getattr(analysis, name), atol=max(tolerance, 1e-6), rtol=tolerance)
    assert "label" not in result


def test_what_is_asked_for_is_what_comes(client):
    assert only(post(client, "/v1/embed", inputs=TEXT)).keys() == {
        "status",
        "token_count",
        "truncated",
        "sentence_embedding",
    }
    analysis = only(post(client, "/v1/analyze", inputs=TEXT, embeddings=["tokens"], special_tokens=False))
    assert "sentence_embedding" not in analysis
    assert [token["text"] for token in analysis["tokens"]] == TEXT.split()
    assert len(analysis["token_embeddings"]) == 4
    assert len(only(post(client, "/v1/classify", inputs=TEXT, top_k=2))["scores"]) == 2
    assert only(post(client, "/v1/classify", inputs=TEXT, threshold=1.0))["label"] is None
    halves = only(post(client, "/v1/embed", inputs=TEXT, dtype="float16"))["sentence_embedding"]
    halves = np.array(halves, dtype=np.float32)
    assert np.array_equal(halves.astype(np.float16), halves)


def test_raw_scores_are_logits(client, classifier):
    scores = only(post(client, "/v1/classify", inputs=TEXT))["scores"]
    raw = only(post(client, "/v1/classify", inputs=TEXT, raw_scores=True))

    logits = np.array([score["score"] for score in raw["scores"]], dtype=np.float32)
    assert [score["label"] for score in raw["scores"]] == [score["label"] for score in scores]
    np.testing.assert_allclose(classifier.probabilities(logits), [score["score"] for score in scores], atol=1e-6)
    assert raw["score"] == raw["scores"][0]["score"]


def test_one_bad_text_among_many_fails_alone(client):
    response = post(client, "/v1/classify", inputs=["login", "", "late"])

    assert response.status_code == 200
    good, bad, other = response.json()["results"]
    assert good["status"] == other["status"] == "ok"
    assert bad == {"status": "error", "error": {"code": "text_empty", "message": bad["error"]["message"]}}


def test_a_text_that_may_not_be_cut_is_an_error_of_its_own(client):
    long = "late " * 100

    assert only(post(client, "/v1/classify", inputs=long))["truncated"] is True
    refused = post(client, "/v1/classify", inputs=[long, "late"], truncate=False).json()["results"]
    assert [result["status"] for result in refused] == ["error", "ok"]
    assert refused[0]["error"]["code"] == "text_too_long"


def test_no_texts_no_results(client):
    assert post(client, "/v1/classify", inputs=[]).json()["results"] == []


def test_tokenize_shows_what_the_model_sees(client):
    result = only(post(client, "/v1/tokenize", inputs="Café 🙂", special_tokens=False))

    assert [(token["text"], token["start"], token["end"]) for token in result["tokens"]] == [
        ("Café", 0, 4),
        ("🙂", 5, 6),
    ]
    assert result["token_count"] == 4


def test_info_says_what_the_model_is(client, model_folder):
    info = client.get("/v1/info").json()
    manifest = manifest_of(model_folder)

    for name in ("name", "version", "labels", "max_tokens", "problem_type", "metrics", "precisions"):
        assert info[name] == manifest[name]
    assert info["hidden_size"] == 32


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"", 400, "json_invalid", None),
        (b"not json", 400, "json_invalid", None),
        (b'{"inputs": "a"', 400, "json_invalid", None),
        (b'{"inputs": "\xff"}', 400, "json_invalid", None),
        (b'{"inputs": "\\ud800"}', 400, "json_invalid", None),
        (b"[" * 100_000, 400, "json_invalid", None),
        (b"[]", 422, "request_invalid", None),
        (b"{}", 422, "request_invalid", "inputs"),
        (b'{"inputs": 5}', 422, "request_invalid", "inputs"),
        (b'{"inputs": null}', 422, "request_invalid", "inputs"),
        (b'{"inputs": ["a", 5]}', 422, "request_invalid", "inputs[1]"),
        (b'{"inputs": "a", "topk": 1}', 422, "request_invalid", "topk"),
        (b'{"inputs": "a", "top_k": 0}', 422, "request_invalid", "top_k"),
        (b'{"inputs": "a", "top_k": "1"}', 422, "request_invalid", "top_k"),
        (b'{"inputs": "a", "threshold": NaN}', 422, "request_invalid", "threshold"),
        (b'{"inputs": "a", "threshold": 1.5}', 422, "request_invalid", "threshold"),
        (b'{"inputs": "a", "embeddings": ["words"]}', 422, "request_invalid", "embeddings[0]"),
        (b'{"inputs": "a", "dtype": "int8"}', 422, "request_invalid", "dtype"),
        (b'{"inputs": ""}', 422, "text_empty", "inputs"),
        (b'{"inputs": ["  "]}', 422, "text_empty", "inputs"),
        (json.dumps({"inputs": ["a"] * 1001}).encode(), 422, "inputs_too_many", "inputs"),
    ],
)
@pytest.mark.parametrize("route", ["/v1/classify", "/v1/analyze", "/v1/embed"])
def test_bad_input_has_one_error_shape(client, route, body, status, code, param):
    response = client.post(route, content=body, headers={"content-type": "application/json", "x-request-id": "abc"})

    assert response.status_code == status
    error = response.json()
    assert error == {
        "error": {"code": code, "message": error["error"]["message"], "param": param},
        "request_id": "abc",
    }
    assert error["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/nothing", {}, 404, "route_unknown"),
        ("POST", "/v1/classify/", {}, 404, "route_unknown"),
        ("GET", "/v1/classify", {}, 405, "method_not_allowed"),
        ("DELETE", "/livez", {}, 405, "method_not_allowed"),
        ("POST", "/v1/info", {}, 405, "method_not_allowed"),
        ("POST", "/schema.json", {}, 405, "method_not_allowed"),
        ("GET", "/static_content/index.css", {}, 404, "route_unknown"),
        ("GET", "/docs.json", {}, 404, "route_unknown"),
        ("GET", "/healthz", {}, 404, "route_unknown"),
        ("POST", "/v1/classify", {"content-type": "text/plain"}, 415, "media_type_unsupported"),
        ("POST", "/v1/classify", {"content-type": "application/vnd.bentoml+pickle"}, 415, "media_type_unsupported"),
        ("POST", "/v1/classify", {"content-type": "application/x-www-form-urlencoded"}, 415, "media_type_unsupported"),
    ],
)
def test_every_layer_answers_in_the_same_shape(client, method, path, headers, status, code):
    response = client.request(method, path, headers=headers, content=b"{}" if method == "POST" else None)

    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert response.json()["request_id"] == response.headers["x-request-id"]
    if status == 405:
        assert response.headers["allow"]


def test_a_body_that_announces_too_much_is_refused_unread(server):
    host, _, port = server.removeprefix("http://").partition(":")
    head = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9000000\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_of_unannounced_size_is_cut_off_at_the_limit(client):
    def endless():
        for _ in range(200):
            yield b" " * 100_000

    try:
        response = client.post("/v1/classify", content=endless(), headers={"content-type": "application/json"})
    except httpx.WriteError:
        return  # the server closed the connection while we were still sending
    assert response.status_code == 413


def test_texts_of_a_caller_who_hung_up_are_not_computed(server, client):
    def computed():
        text = client.get("/metrics").text
        return sum(
            float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("bertrand_batch_items_sum")
        )

    body = json.dumps({"inputs": ["late order please " * 10] * 1000}).encode()
    head = (
        f"POST /v1/analyze HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    host, _, port = server.removeprefix("http://").partition(":")
    before = computed()
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head.encode() + body)

    assert only(post(client, "/v1/classify", inputs=TEXT))
    assert computed() - before < 20_000


@pytest.mark.parametrize(("given", "echoed"), [("my-id 7", True), ("x" * 129, False), ("", False), ("a\tb", False)])
def test_the_request_id_is_echoed_where_it_is_safe(client, given, echoed):
    response = client.get("/livez", headers={"x-request-id": given})

    assert (response.headers["x-request-id"] == given) is echoed
    assert response.headers["x-request-id"]


def test_server_timing_tells_where_the_time_went(client):
    timing = post(client, "/v1/classify", inputs=TEXT).headers["server-timing"]

    assert [part.split(";")[0] for part in timing.split(", ")] == ["queue", "tokenize", "infer"]


def test_no_header_names_the_software(client):
    headers = post(client, "/v1/classify", inputs=TEXT).headers

    assert "server" not in headers
    assert not any("bentoml" in name for name in headers)


def test_probes_and_pages(client):
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.head("/readyz").content == b""
    assert client.get("/").headers["content-type"].startswith("text/html")
    page = client.get("/docs").text
    for asset in ("/static_content/swagger-ui.css", "/static_content/swagger-ui-bundle.js", "/openapi.json"):
        assert asset in page
        assert client.get(asset).status_code == 200
    assert "googletagmanager" not in page


def test_openapi_describes_every_route(client):
    document = client.get("/openapi.json").json()

    assert set(document["paths"]) == set(ROUTES)
    schema = document["components"]["schemas"]["TextsRequest"]
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["inputs"]
    references = set()

    def collect(value):
        if isinstance(value, dict):
            references.update(v.rpartition("/")[2] for k, v in value.items() if k == "$ref")
            for child in value.values():
                collect(child)
        elif isinstance(value, list):
            for child in value:
                collect(child)

    collect(document)
    assert references <= document["components"]["schemas"].keys()


def test_bentomls_own_client_works(server):
    with bentoml.SyncHTTPClient(server) as client:
        many = client.classify(inputs=["login", ""])
        one = client.analyze(inputs=TEXT, embeddings=["sentence"])

        assert [result["status"] for result in many["results"]] == ["ok", "error"]
        assert len(one["results"][0]["sentence_embedding"]) == 32
        with pytest.raises(bentoml.exceptions.BentoMLException, match="text_empty"):
            client.classify(inputs="")


def test_metrics_count_what_happened(model_folder):
    """At a server of its own: another test's callers who hung up may still be counted at the shared one."""

    def value(name):
        lines = client.get("/metrics").text.splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " "))

    with serving(model_folder) as url, httpx.Client(base_url=url) as client:
        items = value('bertrand_items_total{outcome="ok"}')
        errors = value('bertrand_items_total{outcome="error"}')
        requests = value('bertrand_requests_total{code="200",route="/v1/classify"}')
        post(client, "/v1/classify", inputs=["login", "", "late"])
        client.get("/a/path/of/its/own")

        assert value('bertrand_items_total{outcome="ok"}') == items + 2
        assert value('bertrand_items_total{outcome="error"}') == errors + 1
        assert value('bertrand_requests_total{code="200",route="/v1/classify"}') == requests + 1
        text = client.get("/metrics").text
    assert "/a/path" not in text, "a raw path as a label would let anybody fill the memory"
    assert 'bertrand_model_info{name="tiny"' in text


def test_metrics_are_there_before_the_first_request(model_folder):
    """A rate over a restart needs a start at zero."""
    with serving(model_folder) as url:
        text = httpx.get(f"{url}/metrics").text
    for name in (
        'requests_total{code="200",route="/v1/analyze"} 0.0',
        'items_total{outcome="error"} 0.0',
        'predictions_total{label="login"} 0.0',
        "queue_tokens 0.0",
        "truncated_total 0.0",
        "batch_items_count 0.0",
        "padding_ratio_count 0.0",
    ):
        assert f"bertrand_{name}" in text


def test_requests_that_arrive_together_share_batches_and_keep_their_answers(server, classifier):
    texts = [f"{word} my order is {'late ' * (i % 9)}" for i, word in enumerate(["where", "why", "please"] * 40)]
    expected = [prediction.scores for prediction in classifier.classify(texts)]
    answers = [None] * len(texts)

    def ask(start):
        with httpx.Client(base_url=server, timeout=60) as client:
            for i in range(start, len(texts), 12):
                result = only(post(client, "/v1/classify", inputs=texts[i]))
                answers[i] = tuple((score["label"], score["score"]) for score in result["scores"])

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for answer, right in zip(answers, expected, strict=True):
        assert [label for label, _ in answer] == [label for label, _ in right]
        np.testing.assert_allclose([s for _, s in answer], [s for _, s in right], atol=1e-6)


def test_two_workers_answer_and_count_together(model_folder):
    with serving(model_folder, "--workers", "2") as url:
        for _ in range(20):
            httpx.post(f"{url}/v1/classify", json={"inputs": "login"})
        # What the other worker counted is seen a moment later.
        until(lambda: 'bertrand_items_total{outcome="ok"} 20.0' in httpx.get(f"{url}/metrics").text.splitlines())


def test_the_service_class_answers_in_process_too(model_folder, monkeypatch):
    """BentoML services that depend on this one, and notebooks, call it without HTTP."""
    import asyncio

    import service.app
    from service.settings import Settings

    monkeypatch.setattr(service.app, "SETTINGS", Settings(model=str(model_folder)))
    instance = service.app.Bertrand()
    try:
        answer = asyncio.run(instance.analyze(inputs=TEXT))
    finally:
        instance.finish()

    expected = Classifier.load(model_folder).analyze([TEXT])[0]
    assert answer["results"][0]["label"] == expected.prediction.label
    np.testing.assert_allclose(answer["results"][0]["sentence_embedding"], expected.sentence_embedding, atol=1e-6)
