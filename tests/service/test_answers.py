"""Answers in forms of their own: binary bodies, and long texts read in windows."""

import itertools
import json

import httpx
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from service.answers import MAX_WINDOWS
from tests.support import serving

TEXT = "please refund my order"
# Different words all along: windows that say different things.
LONG = " ".join(["my password is not in"] * 6 + ["refund the order please"] * 9 + ["thank you great app"] * 8) + "."


def post(client, route, **body):
    return client.post(route, json=body)


def only(response):
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    return result


def scores_of(result):
    return {score["label"]: score["score"] for score in result["scores"]}


# safetensors


@pytest.mark.parametrize("accept", ["application/vnd.safetensors", "text/html, Application/vnd.SafeTensors;q=0.9"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 2e-3)])
def test_embeddings_come_as_safetensors_to_those_who_ask(client, classifier, accept, dtype, tolerance):
    response = client.post(
        "/v1/analyze", json={"inputs": [TEXT, "", "login"], "dtype": dtype}, headers={"accept": accept}
    )
    tensors = safetensors.numpy.load(response.content)
    expected = classifier.analyze([TEXT, "login"])

    assert response.headers["content-type"] == "application/vnd.safetensors"
    assert set(tensors) == {f"{i}.{name}" for i in (0, 2) for name in ("token_embeddings", "sentence_embedding")}
    for i, analysis in zip((0, 2), expected, strict=True):
        for name in ("token_embeddings", "sentence_embedding"):
            assert tensors[f"{i}.{name}"].dtype == dtype
            right = getattr(analysis, name)
            np.testing.assert_allclose(tensors[f"{i}.{name}"], right, atol=tolerance, rtol=tolerance)


def test_a_safetensors_body_carries_the_rest_of_the_answer(client, tmp_path):
    """The error of a text, its labels and its tokens have no place in a tensor."""
    plain = post(client, "/v1/analyze", inputs=[TEXT, ""]).json()
    response = client.post(
        "/v1/analyze", json={"inputs": [TEXT, ""]}, headers={"accept": "application/vnd.safetensors"}
    )
    file = tmp_path / "answer.safetensors"
    file.write_bytes(response.content)
    with safetensors.safe_open(file, "numpy") as opened:
        answer = json.loads(opened.metadata()["answer"])

    del plain["results"][0]["token_embeddings"], plain["results"][0]["sentence_embedding"]
    assert answer == plain


def test_an_error_is_json_whatever_is_accepted(client):
    response = client.post("/v1/embed", json={"inputs": ""}, headers={"accept": "application/vnd.safetensors"})

    assert (response.status_code, response.headers["content-type"]) == (422, "application/json")
    assert response.json()["error"]["code"] == "text_empty"


def test_embed_gives_only_what_is_asked_for_as_safetensors(client):
    body = {"inputs": [TEXT], "embeddings": ["tokens"], "special_tokens": False, "encoding_format": "base64"}
    response = client.post("/v1/embed", json=body, headers={"accept": "application/vnd.safetensors"})

    tensors = safetensors.numpy.load(response.content)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"0.token_embeddings": (4, 32)}


# Windows


@pytest.mark.parametrize(("model", "aggregate"), [("single_label", "mean"), ("multi_label", "max")])
def test_windows_cover_a_long_text_and_add_up_to_its_labels(request, model, aggregate):
    prefix = "" if model == "single_label" else "multi_label_"
    client = request.getfixturevalue(f"{prefix}client")
    classifier = request.getfixturevalue(f"{prefix}classifier")

    result = only(post(client, "/v1/classify", inputs=LONG, truncate="windows", threshold=0))
    windows = result["windows"]

    assert result["aggregate"] == aggregate
    assert len(windows) > 3
    assert (windows[0]["start"], windows[-1]["end"]) == (0, len(LONG))
    for before, after in itertools.pairwise(windows):
        assert before["start"] < after["start"] < before["end"] < after["end"], "they overlap and go on"
    assert result["token_count"] == sum(window["token_count"] for window in windows)
    assert result["truncated"] is False
    table = np.array([[scores_of(window)[label] for label in classifier.labels] for window in windows])
    whole = table.mean(axis=0) if aggregate == "mean" else table.max(axis=0)
    assert np.ptp(table, axis=0).max() > 0.5, "windows that say the same would prove nothing"
    np.testing.assert_allclose([scores_of(result)[label] for label in classifier.labels], whole, atol=1e-6)
    best = int(whole.argmax())
    assert (result["label"], result["score"]) == (
        classifier.labels[best],
        pytest.approx(whole[best], abs=1e-6),
    )


def test_a_window_says_what_its_words_say_alone(client, classifier):
    windows = only(post(client, "/v1/classify", inputs=LONG, truncate="windows"))["windows"]

    parts = [LONG[window["start"] : window["end"]] for window in windows]
    for window, prediction in zip(windows, classifier.classify(parts), strict=True):
        assert window["label"] == prediction.label
        assert window["token_count"] == prediction.token_count
        for label, score in prediction.scores:
            assert scores_of(window)[label] == pytest.approx(score, abs=1e-5)


def test_a_short_text_is_one_window(client):
    windowed = only(post(client, "/v1/classify", inputs=TEXT, truncate="windows"))
    plain = only(post(client, "/v1/classify", inputs=TEXT))

    (window,) = windowed.pop("windows")
    assert windowed.pop("aggregate") == "mean"
    assert windowed == plain
    assert (window["start"], window["end"]) == (0, len(TEXT))
    assert scores_of(window) == scores_of(plain)


def test_raw_scores_of_windows_are_logits(multi_label_client, multi_label_classifier):
    body = {"inputs": LONG, "truncate": "windows", "threshold": 0}
    result = only(post(multi_label_client, "/v1/classify", **body))
    raw = only(post(multi_label_client, "/v1/classify", **body, raw_scores=True))

    for one, other in zip([result, *result["windows"]], [raw, *raw["windows"]], strict=True):
        logits = np.array(list(scores_of(other).values()), dtype=np.float32)
        scores = multi_label_classifier.probabilities(logits)
        np.testing.assert_allclose(scores, list(scores_of(one).values()), atol=1e-5)
        assert scores_of(one).keys() == scores_of(other).keys()


@pytest.mark.parametrize("route", ["/v1/analyze", "/v1/embed"])
def test_windows_have_no_embeddings(client, route):
    """A token near an edge would have several vectors, and each only a part of its context."""
    response = post(client, route, inputs=LONG, truncate="windows")

    assert response.status_code == 422
    assert (response.json()["error"]["code"], response.json()["error"]["param"]) == ("request_invalid", "truncate")


def test_a_text_of_too_many_windows_is_an_error_of_its_own(client):
    """Of 30 words that a window of the tiny model holds it repeats 7, so each adds 23."""
    step = 23
    most, more = ("late " * (30 + step * (MAX_WINDOWS - 1) + extra) for extra in (0, 1))
    response = post(client, "/v1/classify", inputs=[most, more, TEXT], truncate="windows")

    assert response.status_code == 200
    whole, refused, short = response.json()["results"]
    assert [result["status"] for result in (whole, refused, short)] == ["ok", "error", "ok"]
    assert len(whole["windows"]) == MAX_WINDOWS
    assert whole["windows"][-1]["end"] == len(most.rstrip())
    assert refused["error"]["code"] == "text_too_long"
    assert str(MAX_WINDOWS) in refused["error"]["message"]


# limits of one request


def test_a_text_of_too_many_characters_is_an_error_of_its_own(client):
    long = "late " * 40_001
    results = post(client, "/v1/classify", inputs=["login", long, "late " * 39_999]).json()["results"]

    assert [result["status"] for result in results] == ["ok", "error", "ok"]
    assert results[1]["error"]["code"] == "text_too_long"
    assert "200005 characters, at most 200000" in results[1]["error"]["message"]
    assert post(client, "/v1/classify", inputs=long).status_code == 422


def test_embeddings_of_too_many_tokens_are_not_computed(model_folder):
    with serving(model_folder, BERTRAND_MAX_INPUTS="2000") as url:
        body = {"inputs": ["late " * 40] * 1025}  # the tiny model reads 32 tokens of each
        refused = httpx.post(f"{url}/v1/embed", json=body, timeout=60)
        assert refused.status_code == 422
        assert refused.json()["error"]["code"] == "inputs_too_many"
        assert httpx.post(f"{url}/v1/classify", json=body, timeout=60).status_code == 200


def test_windows_of_too_many_characters_are_not_read(client):
    texts = ["late " * 20_000] * 11
    refused = post(client, "/v1/classify", inputs=texts, truncate="windows")

    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "inputs_too_many"
