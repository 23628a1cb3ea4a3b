"""Clients as people install them, against a real server: what they send is understood, what they get is right."""

import socket

import bentoml
import httpx
import huggingface_hub
import numpy as np
import openai
import pytest
import requests
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.support import serving

TEXTS = ["please refund my order", "login", "thank you great app"]
KEY = "a-key-of-some-length"


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch):
    """No client may look anywhere but at the server of the test."""
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def checked_connect(self, address):
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"), address
        return connect(self, address)

    def checked_resolve(host, *args, **kwargs):
        assert host in ("127.0.0.1", "localhost", None), host
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", checked_connect)
    monkeypatch.setattr(socket, "getaddrinfo", checked_resolve)


@pytest.fixture
def hub():
    """Let huggingface_hub talk to the loopback, which its offline mode would forbid as well."""
    huggingface_hub.configure_http_backend(requests.Session)
    yield huggingface_hub.InferenceClient
    huggingface_hub.configure_http_backend()


def unit(vector):
    return vector / np.linalg.norm(vector)


# BentoML


def test_bentoml_classifies_and_analyzes(server, classifier):
    with bentoml.SyncHTTPClient(server) as client:
        labelled = client.classify(inputs=TEXTS)["results"]
        analyzed = client.analyze(inputs=TEXTS)["results"]

    for result, analyzed_result, analysis in zip(labelled, analyzed, classifier.analyze(TEXTS), strict=True):
        assert result["label"] == analyzed_result["label"] == analysis.prediction.label
        assert result["score"] == pytest.approx(analysis.prediction.score, abs=1e-6)
        np.testing.assert_allclose(analyzed_result["token_embeddings"], analysis.token_embeddings, atol=1e-5)
        assert [token["text"] for token in analyzed_result["tokens"]] == [token.text for token in analysis.tokens]


# OpenAI


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"dimensions": 32, "user": "me"}])
def test_openai_embeds(server, classifier, options):
    """It asks for base64 unless told otherwise, and decodes it itself."""
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none needed") as client:
        answer = client.embeddings.create(model="tiny", input=TEXTS, **options)

    expected = [unit(analysis.sentence_embedding) for analysis in classifier.analyze(TEXTS)]
    np.testing.assert_allclose([row.embedding for row in answer.data], expected, atol=1e-6)
    assert answer.usage.total_tokens == sum(p.token_count for p in classifier.classify(TEXTS))


def test_openai_reads_our_errors(server):
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none needed", max_retries=0) as client:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            client.embeddings.create(model="tiny", input=["late", ""])
        assert (caught.value.code, caught.value.param) == ("text_empty", "input[1]")


# Hugging Face


@pytest.mark.parametrize("path", ["", "/predict"])
@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"function_to_apply": "softmax"}])
def test_hugging_face_classifies(server, hub, classifier, path, options):
    rows = hub(server + path).text_classification(TEXTS[0], **options)

    (prediction,) = classifier.classify(TEXTS[:1])
    expected = prediction.scores[: options.get("top_k")]
    assert [row.label for row in rows] == [label for label, _ in expected]
    np.testing.assert_allclose([row.score for row in rows], [score for _, score in expected], atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"normalize": False, "truncate": True, "truncation_direction": "Right"}])
def test_hugging_face_extracts_features(server, hub, classifier, options):
    vectors = hub(f"{server}/embed").feature_extraction(TEXTS[0], **options)

    vector = classifier.analyze(TEXTS[:1])[0].sentence_embedding
    np.testing.assert_allclose(vectors, [vector if options else unit(vector)], atol=1e-5)


def test_hugging_face_shows_our_errors(server, hub):
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="text_empty"):
        hub(server).text_classification(" ")


# Triton


@pytest.fixture
def triton_client(server):
    with triton.InferenceServerClient(server.removeprefix("http://")) as client:
        yield client


def text_input(texts, *, binary=True):
    array = np.array([text.encode() for text in texts], dtype=object)
    tensor = triton.InferInput("text", list(array.shape), "BYTES")
    return tensor.set_data_from_numpy(array, binary_data=binary)


def test_triton_finds_server_and_model(triton_client, classifier):
    version = classifier.manifest.version

    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready("tiny")
    assert triton_client.is_model_ready("tiny", version)
    assert not triton_client.is_model_ready("other")
    assert not triton_client.is_model_ready("tiny", "1")
    assert triton_client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert triton_client.get_model_metadata("tiny", version)["versions"] == [version]


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False, None])
def test_triton_infers(triton_client, classifier, binary_input, binary_output):
    """With no outputs named it asks for all as binary data."""
    names = ("label", "scores", "sentence_embedding", "score")
    asked = None
    if binary_output is not None:
        asked = [triton.InferRequestedOutput(name, binary_data=binary_output) for name in names]

    result = triton_client.infer("tiny", [text_input(TEXTS, binary=binary_input)], outputs=asked, request_id="7")

    expected = classifier.score(TEXTS)
    labels = [classifier.labels[i] for i in expected.argmax(axis=1)]
    found = result.as_numpy("label").tolist()
    assert [label.decode() if isinstance(label, bytes) else label for label in found] == labels
    np.testing.assert_allclose(result.as_numpy("scores"), expected, atol=1e-6)
    np.testing.assert_allclose(result.as_numpy("score"), expected.max(axis=1), atol=1e-6)
    assert result.get_output("scores")["parameters"]["labels"] == list(classifier.labels)
    assert result.get_response()["id"] == "7"
    if asked:
        vectors = [analysis.sentence_embedding for analysis in classifier.analyze(TEXTS)]
        np.testing.assert_allclose(result.as_numpy("sentence_embedding"), vectors, atol=1e-5)


def test_triton_hands_on_our_errors(triton_client):
    """Its `str(error)` wants a string and fails over our object; `error.message()` is the object."""
    with pytest.raises(InferenceServerException) as caught:
        triton_client.infer("tiny", [text_input(["late", ""])])
    assert caught.value.status() == "422"
    assert caught.value.message()["code"] == "text_empty"
    with pytest.raises(InferenceServerException) as caught:
        triton_client.infer("other", [text_input(["late"])])
    assert (caught.value.status(), caught.value.message()["code"]) == ("404", "model_unknown")


# Keys


def test_every_client_can_send_a_key_and_none_gets_in_without(model_folder, hub):
    with serving(model_folder, BERTRAND_API_KEYS=KEY) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
            assert client.embeddings.create(model="tiny", input="late").data
            client.api_key = "another"
            with pytest.raises(openai.AuthenticationError):
                client.embeddings.create(model="tiny", input="late")
        assert hub(url, token=KEY).text_classification("late")
        with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="401"):
            hub(url, token="another").text_classification("late")
        with triton.InferenceServerClient(url.removeprefix("http://")) as client:
            assert client.is_model_ready("tiny")
            assert client.infer("tiny", [text_input(["late"])], headers={"authorization": f"Bearer {KEY}"})
            with pytest.raises(InferenceServerException) as caught:
                client.infer("tiny", [text_input(["late"])])
            assert caught.value.status() == "401"
        for path in ("/info", "/v2", "/v2/models/tiny"):
            assert httpx.get(url + path).status_code == 401
