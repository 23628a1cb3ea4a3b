"""The interfaces of other servers: right answers in their shapes, and errors in ours."""

import asyncio
import base64
import json
import struct

import httpx
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from inference.classifier import sigmoid, softmax
from service.answers import Call
from service.dialects import oip
from service.errors import ApiError
from service.http import Front
from service.metrics import Metrics
from service.models import Models
from service.routes import ROUTES
from service.settings import Settings
from tests.support import manifest_of

TEXTS = ["please refund my order", "login", "thank you " * 40, "日本語 ?"]
INFER = "/v2/models/tiny/infer"


def post(client, route, **body):
    response = client.post(route, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def get(client, route):
    response = client.get(route)
    assert response.status_code == 200, response.text
    return response.json()


def predictions(scores, labels):
    """The rows of a TEI answer: every label, best first."""
    return sorted(
        ({"label": label, "score": score} for label, score in zip(labels, scores.tolist(), strict=True)),
        key=lambda row: -row["score"],
    )


def same(rows, expected):
    assert [row["label"] for row in rows] == [row["label"] for row in expected]
    np.testing.assert_allclose([row["score"] for row in rows], [row["score"] for row in expected], atol=1e-6)


def unit(vector):
    return vector / np.linalg.norm(vector)


# text-embeddings-inference


@pytest.mark.parametrize("route", ["/predict", "/"])
def test_predict_gives_every_label_best_first(client, classifier, route):
    expected = [predictions(scores, classifier.labels) for scores in classifier.score(TEXTS)]

    same(post(client, route, inputs=TEXTS[0]), expected[0])
    for rows, right in zip(post(client, route, inputs=[[text] for text in TEXTS]), expected, strict=True):
        same(rows, right)


@pytest.mark.parametrize("parameters", [{}, {"top_k": None, "function_to_apply": None}])
def test_with_parameters_one_text_has_a_list_of_its_own(client, parameters):
    """Hugging Face's client takes the first of the lists, text-embeddings-inference sends it bare."""
    assert post(client, "/", inputs=TEXTS[0], parameters=parameters) == [post(client, "/", inputs=TEXTS[0])]


@pytest.mark.parametrize("model", ["single_label", "multi_label"])
@pytest.mark.parametrize(
    ("function", "apply"),
    [("softmax", softmax), ("sigmoid", sigmoid), ("none", None)],
    ids=["softmax", "sigmoid", "none"],
)
def test_the_function_that_is_asked_for_is_applied(request, model, function, apply):
    client = request.getfixturevalue("client" if model == "single_label" else "multi_label_client")
    classifier = request.getfixturevalue("classifier" if model == "single_label" else "multi_label_classifier")
    raw = {row["label"]: row["score"] for row in post(client, "/predict", inputs=TEXTS[0], raw_scores=True)}
    logits = np.array([raw[label] for label in classifier.labels], dtype=np.float32)
    np.testing.assert_allclose(classifier.probabilities(logits), classifier.score(TEXTS[:1])[0], atol=1e-6)
    scores = logits if apply is None else apply(logits / np.float32(classifier.manifest.temperature))

    (rows,) = post(client, "/", inputs=TEXTS[0], parameters={"function_to_apply": function, "top_k": 2})

    same(rows, predictions(scores, classifier.labels)[:2])


def test_predict_gives_every_label_of_a_multi_label_model(multi_label_client, multi_label_classifier):
    """Whatever its threshold: there is no way to ask for the others."""
    for text in TEXTS:
        rows = post(multi_label_client, "/predict", inputs=text)
        same(rows, predictions(multi_label_classifier.score([text])[0], multi_label_classifier.labels))


def test_embed_gives_sentence_embeddings_of_length_one(client, classifier):
    expected = [analysis.sentence_embedding for analysis in classifier.analyze(TEXTS)]

    answer = post(client, "/embed", inputs=TEXTS, prompt_name=None, dimensions=32, truncate=None)
    np.testing.assert_allclose(answer, [unit(vector) for vector in expected], atol=1e-6)
    answer = post(client, "/embed", inputs=TEXTS[0], normalize=False, truncation_direction="Right", truncate=True)
    np.testing.assert_allclose(answer, expected[:1], atol=1e-5)


def test_embed_all_gives_the_vectors_of_all_tokens(client, classifier):
    answer = post(client, "/embed_all", inputs=TEXTS)

    for vectors, analysis in zip(answer, classifier.analyze(TEXTS), strict=True):
        np.testing.assert_allclose(vectors, analysis.token_embeddings, atol=1e-5)


def test_tokenize_gives_character_offsets(client):
    """Where text-embeddings-inference counts bytes, which cut words in half in every language but English."""
    text = "Café cafe\u0301 日本 👩‍👩‍👧 refunds"
    (tokens,) = post(client, "/tokenize", inputs=text)

    assert [tokens[0], tokens[-1]] == [
        {"id": 2, "text": "[CLS]", "special": True, "start": None, "stop": None},
        {"id": 3, "text": "[SEP]", "special": True, "start": None, "stop": None},
    ]
    words = ["Café", "cafe\u0301", "日", "本", "👩‍👩‍👧", "refund", "s"]
    assert [token["text"] for token in tokens[1:-1]] == words
    assert [text[token["start"] : token["stop"]] for token in tokens[1:-1]] == words
    assert not any(token["special"] for token in tokens[1:-1])
    assert post(client, "/tokenize", inputs=[text, "login"], add_special_tokens=False)[0] == tokens[1:-1]


def test_info_says_what_the_model_is_and_no_software_version(client, model_folder):
    manifest = manifest_of(model_folder)
    info = get(client, "/info")

    assert (info["model_id"], info["model_sha"]) == ("tiny", manifest["version"])
    assert (info["model_dtype"], info["max_input_length"], info["max_client_batch_size"]) == ("float32", 32, 1000)
    names = info["model_type"]["classifier"]
    assert names["id2label"] == {str(i): label for i, label in enumerate(manifest["labels"])}
    assert {label: int(i) for i, label in names["id2label"].items()} == names["label2id"]
    assert info["version"] is info["sha"] is info["docker_label"] is None


# OpenAI


def test_embeddings_are_of_length_one_and_count_their_tokens(client, classifier):
    analyses = classifier.analyze(TEXTS)
    answer = post(client, "/v1/embeddings", input=TEXTS, model="text-embedding-3-small", dimensions=32, user="me")

    assert (answer["object"], answer["model"]) == ("list", "tiny")
    assert [(row["object"], row["index"]) for row in answer["data"]] == [("embedding", i) for i in range(4)]
    np.testing.assert_allclose(
        [row["embedding"] for row in answer["data"]],
        [unit(analysis.sentence_embedding) for analysis in analyses],
        atol=1e-6,
    )
    tokens = sum(analysis.prediction.token_count for analysis in analyses)
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_base64_embeddings_are_little_endian_floats(client):
    floats = post(client, "/v1/embeddings", input=TEXTS[0])["data"][0]["embedding"]
    encoded = post(client, "/v1/embeddings", input=TEXTS[0], encoding_format="base64")["data"][0]["embedding"]

    assert np.frombuffer(base64.b64decode(encoded), dtype="<f4").tolist() == np.float32(floats).tolist()


# Open Inference Protocol


def tensor(data=None, *, shape=None, **fields):
    fields = {"name": "text", "datatype": "BYTES", "shape": shape or [len(data or [])]} | fields
    return fields if data is None else fields | {"data": data}


def elements(texts):
    """A binary BYTES tensor."""
    encoded = [text if isinstance(text, bytes) else text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def infer_binary(client, data, *, shape, size=None, header=None, **request):
    size = len(data) if size is None else size
    head = json.dumps(request | {"inputs": [tensor(shape=shape, parameters={"binary_data_size": size})]}).encode()
    length = str(len(head)) if header is None else header
    return client.post(INFER, content=head + data, headers={oip.JSON_LENGTH: length, "content-type": oip.OCTETS})


def outputs_of(answer):
    return {output["name"]: output for output in answer["outputs"]}


def rows_of(output):
    return np.reshape(output["data"], output["shape"])


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("version", ["", "/versions/{}"])
def test_infer_gives_labels_and_scores_as_tensors(client, classifier, nested, version):
    route = f"/v2/models/tiny{version.format(classifier.manifest.version)}/infer"
    given = tensor([[text] for text in TEXTS], shape=[4, 1]) if nested else tensor(TEXTS)
    answer = post(client, route, inputs=[given], id="42")
    expected = classifier.score(TEXTS)

    assert (answer["model_name"], answer["model_version"]) == ("tiny", classifier.manifest.version)
    assert answer["id"] == "42"
    outputs = outputs_of(answer)
    assert {name: (output["datatype"], output["shape"]) for name, output in outputs.items()} == {
        "label": ("BYTES", [4]),
        "score": ("FP32", [4]),
        "scores": ("FP32", [4, 3]),
    }
    assert outputs["label"]["data"] == [classifier.labels[i] for i in expected.argmax(axis=1)]
    np.testing.assert_allclose(rows_of(outputs["score"]), expected.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(rows_of(outputs["scores"]), expected, atol=1e-6)
    assert outputs["scores"]["parameters"] == {"labels": list(classifier.labels)}


def test_infer_gives_the_outputs_that_are_asked_for(client, classifier):
    asked = [{"name": "sentence_embedding"}, {"name": "label", "parameters": {"binary_data": False}}]
    answer = post(client, INFER, inputs=[tensor(TEXTS)], outputs=asked)

    assert [output["name"] for output in answer["outputs"]] == ["sentence_embedding", "label"]
    assert "id" not in answer
    expected = [analysis.sentence_embedding for analysis in classifier.analyze(TEXTS)]
    np.testing.assert_allclose(rows_of(answer["outputs"][0]), expected, atol=1e-5)


@pytest.mark.parametrize("by", ["request", "output"])
def test_binary_tensors_hold_what_json_holds(client, by):
    """The sizes tell where each begins: a wrong one shifts all that follow."""
    names = ["label", "scores", "score", "sentence_embedding"]
    own = {"parameters": {"binary_data": True}} if by == "output" else {}
    rest = {"parameters": {"binary_data_output": True}} if by == "request" else {}
    # Of the last one the output's own word counts, whatever the request says.
    last = {"parameters": {"binary_data": False}}
    asked = [{"name": name} | (last if name == names[-1] else own) for name in names]
    expected = outputs_of(post(client, INFER, inputs=[tensor(TEXTS)], outputs=[{"name": name} for name in names]))

    response = infer_binary(client, elements(TEXTS), shape=[4], outputs=asked, **rest)

    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    answer, data = json.loads(response.content[:length]), response.content[length:]
    for output in answer["outputs"][:-1]:
        assert "data" not in output
        size = output["parameters"]["binary_data_size"]
        part, data = data[:size], data[size:]
        right = expected[output["name"]]
        assert output["shape"] == right["shape"]
        if output["name"] == "label":
            assert part == elements(right["data"])
        else:
            np.testing.assert_allclose(np.frombuffer(part, dtype="<f4"), right["data"], atol=1e-6)
    assert data == b""
    assert outputs_of(answer)["scores"]["parameters"]["labels"] == expected["scores"]["parameters"]["labels"]
    np.testing.assert_allclose(answer["outputs"][-1]["data"], expected[names[-1]]["data"], atol=1e-5)


def test_no_texts_have_tensors_of_no_rows(client):
    asked = [{"name": name} for name in ("label", "score", "scores", "sentence_embedding")]
    outputs = post(client, INFER, inputs=[tensor([])], outputs=asked)["outputs"]

    assert [(output["shape"], output["data"]) for output in outputs] == [
        ([0], []),
        ([0], []),
        ([0, 3], []),
        ([0, 32], []),
    ]
    assert infer_binary(client, b"", shape=[0, 1]).json()["outputs"] == outputs[:3]


def test_a_text_without_a_label_has_an_empty_one(multi_label_client, multi_label_classifier):
    texts = ["?", "a", "order the page", "my app", *TEXTS]
    expected = multi_label_classifier.classify(texts)
    assert {prediction.label is None for prediction in expected} == {True, False}, "the test needs one of each"
    outputs = outputs_of(post(multi_label_client, "/v2/models/many/infer", inputs=[tensor(texts)]))

    assert outputs["label"]["data"] == [prediction.label or "" for prediction in expected]
    np.testing.assert_allclose(outputs["score"]["data"], [p.score or 0 for p in expected], atol=1e-6)
    np.testing.assert_allclose(rows_of(outputs["scores"]), multi_label_classifier.score(texts), atol=1e-6)


def test_metadata_names_the_tensors_that_infer_takes_and_gives(client, classifier):
    version = classifier.manifest.version
    metadata = get(client, "/v2/models/tiny")

    assert metadata == get(client, f"/v2/models/tiny/versions/{version}")
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("tiny", [version], "onnxruntime")
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    asked = [{"name": output["name"]} for output in metadata["outputs"]]
    outputs = post(client, INFER, inputs=[tensor(TEXTS)], outputs=asked)["outputs"]
    for output, described in zip(outputs, metadata["outputs"], strict=True):
        assert output["datatype"] == described["datatype"]
        assert output["shape"] == [4 if size == -1 else size for size in described["shape"]]
    server = get(client, "/v2")
    assert (server["name"], server["extensions"]) == ("bertrand", ["binary_tensor_data"])


@pytest.mark.parametrize("place", ["other", "other/versions/{}", "tiny/versions/0", "tin%79/versions/{}x"])
@pytest.mark.parametrize("action", ["", "/ready", "/infer"])
def test_another_model_or_version_is_unknown(client, classifier, place, action):
    path = f"/v2/models/{place.format(classifier.manifest.version)}{action}"
    response = client.post(path, json={"inputs": [tensor(["a"])]}) if action == "/infer" else client.get(path)

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_unknown"


@given(
    st.lists(st.one_of(st.integers(0, 2**32 - 1).map(lambda n: struct.pack("<I", n)), st.binary(max_size=9))).map(
        b"".join
    ),
    st.integers(-1, 2**63),
    st.one_of(st.none(), st.binary(max_size=25)),
)
@example(elements(["late", "é"]), 2, None)
@example(struct.pack("<I", 2**32 - 1), 1, None)
@example(b"\x01\x00\x00", 1, None)
def test_whatever_a_binary_body_says_it_is_read_or_refused(data, count, header):
    """Nothing of the caller's making may end in an exception of another kind, which would be a 500."""
    parameters = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": [tensor(shape=[count], parameters=parameters)]}).encode()
    length = str(len(head)).encode() if header is None else header
    call = Call({oip.JSON_LENGTH.encode(): length})
    try:
        read = oip.read_infer(oip.InferRequest, head + data, call).texts()
    except ApiError as error:
        read = error

    if isinstance(read, ApiError):
        assert 400 <= read.status < 500
        assert read.message
    else:
        assert len(read) == count
        assert elements(read) == data


# Errors


BAD_TEXTS = {
    "/predict": ({"inputs": [["late"], ["login"], [" "]]}, "inputs[2]"),
    "/": ({"inputs": ""}, "inputs"),
    "/embed": ({"inputs": ["late", "", ""]}, "inputs[1]"),
    "/embed_all": ({"inputs": ["", "late"]}, "inputs[0]"),
    "/tokenize": ({"inputs": ["late", "\u200b"]}, "inputs[1]"),
    "/v1/embeddings": ({"input": ["late", "login", "", "late"]}, "input[2]"),
    INFER: ({"inputs": [tensor(["late", ""])]}, "inputs[0].data[1]"),
}


@pytest.mark.parametrize("route", BAD_TEXTS)
def test_a_bad_text_fails_its_request_and_is_named(client, route):
    """These protocols have no errors of single items."""
    body, param = BAD_TEXTS[route]

    check_error(client.post(route, json=body), 422, "text_empty", param)


LONG = "late " * 100
SIZE = "inputs[0].parameters.binary_data_size"


@pytest.mark.parametrize(
    ("route", "body", "code", "param"),
    [
        ("/predict", {"inputs": ["a", "b"]}, "request_invalid", "inputs"),
        ("/predict", {"inputs": ["a"]}, "request_invalid", "inputs"),
        ("/predict", {"inputs": [["a"], ["b", "c"]]}, "request_invalid", "inputs[1]"),
        ("/predict", {"inputs": [["a"], ["b", "c", "d"]]}, "request_invalid", "inputs[1]"),
        ("/predict", {"inputs": [["a"], []]}, "request_invalid", "inputs[1]"),
        ("/predict", {"inputs": [["a"], "b"]}, "request_invalid", "inputs[1]"),
        ("/predict", {"inputs": [["a"], [5]]}, "request_invalid", "inputs[1][0]"),
        ("/predict", {"inputs": []}, "request_invalid", "inputs"),
        ("/predict", {"inputs": 5}, "request_invalid", "inputs"),
        ("/predict", {}, "request_invalid", "inputs"),
        ("/predict", {"inputs": "a", "truncation_direction": "left"}, "request_invalid", "truncation_direction"),
        ("/predict", {"inputs": "a", "top_k": 1}, "request_invalid", "top_k"),
        ("/predict", {"inputs": LONG, "truncate": False}, "text_too_long", "inputs"),
        ("/predict", {"inputs": [["a"]] * 1001}, "inputs_too_many", "inputs"),
        ("/", {"inputs": "a", "parameters": {"top_k": 0}}, "request_invalid", "parameters.top_k"),
        ("/", {"inputs": "a", "parameters": {"padding": 1}}, "request_invalid", "parameters.padding"),
        (
            "/",
            {"inputs": "a", "parameters": {"function_to_apply": "relu"}},
            "request_invalid",
            "parameters.function_to_apply",
        ),
        ("/", {"inputs": "a", "parameters": {}, "raw_scores": True}, "request_invalid", "raw_scores"),
        ("/embed", {"inputs": []}, "request_invalid", "inputs"),
        ("/embed", {"inputs": [[1, 2]]}, "request_invalid", "inputs[0]"),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, "request_invalid", "prompt_name"),
        ("/embed", {"inputs": "a", "dimensions": 16}, "request_invalid", "dimensions"),
        ("/embed", {"inputs": "a", "normalize": 1}, "request_invalid", "normalize"),
        ("/embed", {"inputs": ["a", LONG], "truncate": False}, "text_too_long", "inputs[1]"),
        ("/embed_all", {"inputs": ["a", LONG], "truncate": False}, "text_too_long", "inputs[1]"),
        ("/embed_all", {"inputs": "a", "normalize": True}, "request_invalid", "normalize"),
        ("/tokenize", {"inputs": "a", "special_tokens": True}, "request_invalid", "special_tokens"),
        ("/tokenize", {"inputs": ["a"] * 1001}, "inputs_too_many", "inputs"),
        ("/v1/embeddings", {"input": [1, 2]}, "request_invalid", "input"),
        ("/v1/embeddings", {"input": [[1, 2]]}, "request_invalid", "input"),
        ("/v1/embeddings", {"input": []}, "request_invalid", "input"),
        ("/v1/embeddings", {"inputs": "a"}, "request_invalid", "input"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, "request_invalid", "encoding_format"),
        ("/v1/embeddings", {"input": "a", "dimensions": 16}, "request_invalid", "dimensions"),
        ("/v1/embeddings", {"input": "a", "model": 5}, "request_invalid", "model"),
        ("/v1/embeddings", {"input": ["a"] * 1001}, "inputs_too_many", "input"),
        (INFER, {}, "request_invalid", "inputs"),
        (INFER, {"inputs": []}, "request_invalid", "inputs"),
        (INFER, {"inputs": [tensor(["a"]), tensor(["b"])]}, "request_invalid", "inputs"),
        (INFER, {"inputs": [tensor(["a"], name="ids")]}, "request_invalid", "inputs[0].name"),
        (INFER, {"inputs": [tensor(["a"], datatype="INT64")]}, "request_invalid", "inputs[0].datatype"),
        (INFER, {"inputs": [tensor()]}, "request_invalid", "inputs[0].data"),
        (INFER, {"inputs": [tensor(["a", "b"], shape=[3])]}, "request_invalid", "inputs[0].data"),
        (INFER, {"inputs": [tensor(["a", "b"], shape=[1])]}, "request_invalid", "inputs[0].data"),
        (INFER, {"inputs": [tensor(["a", "b"], shape=[1, 2])]}, "request_invalid", "inputs[0].shape"),
        (INFER, {"inputs": [tensor(["a", "b"], shape=[2, 1, 1])]}, "request_invalid", "inputs[0].shape"),
        (INFER, {"inputs": [tensor(["a"], shape=[-1])]}, "request_invalid", "inputs[0].shape[0]"),
        (INFER, {"inputs": [tensor(["a"], shape=[10**30])]}, "request_invalid", "inputs[0].shape[0]"),
        (INFER, {"inputs": [tensor(["a"], shape=[1.0])]}, "request_invalid", "inputs[0].shape[0]"),
        (INFER, {"inputs": [tensor(["a"], shape=[2**62])]}, "inputs_too_many", "inputs[0].shape"),
        (INFER, {"inputs": [tensor([["a"], ["b"]], shape=[2])]}, "request_invalid", "inputs[0].data"),
        (INFER, {"inputs": [tensor([["a", "b"]], shape=[2, 1])]}, "request_invalid", "inputs[0].data[0]"),
        (INFER, {"inputs": [tensor(["a"], contents=5)]}, "request_invalid", "inputs[0].contents"),
        (
            INFER,
            {"inputs": [tensor(shape=[1], parameters={"binary_data_size": -1})]},
            "request_invalid",
            "inputs[0].parameters.binary_data_size",
        ),
        (
            INFER,
            {"inputs": [tensor(shape=[1], parameters={"binary_data_size": 2**62})]},
            "request_invalid",
            "inputs[0].parameters.binary_data_size",
        ),
        (
            INFER,
            {"inputs": [tensor(["a"], parameters={"binary_data_size": 0})]},
            "request_invalid",
            "inputs[0].data",
        ),
        (
            INFER,
            {"inputs": [tensor(["a"], parameters={"shared_memory_region": "r"})]},
            "request_invalid",
            "inputs[0].parameters.shared_memory_region",
        ),
        (INFER, {"inputs": [tensor(["a"])], "outputs": [{"name": "logits"}]}, "request_invalid", "outputs[0].name"),
        (
            INFER,
            {"inputs": [tensor(["a"])], "outputs": [{"name": "label"}, {"name": "label"}]},
            "request_invalid",
            "outputs[1].name",
        ),
        (
            INFER,
            {"inputs": [tensor(["a"])], "outputs": [{"name": "scores", "parameters": {"classification": 2}}]},
            "request_invalid",
            "outputs[0].parameters.classification",
        ),
        (INFER, {"inputs": [tensor(["a"])], "parameters": {"timeout": 5}}, "request_invalid", "parameters.timeout"),
        (INFER, {"inputs": [tensor(["a"])], "id": 42}, "request_invalid", "id"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_name(client, route, body, code, param):
    check_error(client.post(route, json=body), 422, code, param)


def test_an_error_speaks_of_the_field_it_names_only(client):
    flawed = tensor(["a"], name="ids", datatype="INT64")
    error = client.post(INFER, json={"inputs": [flawed]}).json()["error"]

    assert error["param"] == "inputs[0].name"
    assert error["message"] == "inputs[0].name: input should be 'text'"


@pytest.mark.parametrize(
    ("options", "status", "code", "param"),
    [
        ({"data": elements(["a", "b"]), "shape": [3]}, 422, "request_invalid", "inputs[0].data"),
        ({"data": elements(["a", "b"]), "shape": [1]}, 422, "request_invalid", "inputs[0].data"),
        ({"data": elements(["a"])[:-1], "shape": [1]}, 422, "request_invalid", "inputs[0].data[0]"),
        ({"data": b"\x01\x00", "shape": [1]}, 422, "request_invalid", "inputs[0].data[0]"),
        ({"data": elements(["a"]) + b"\xff\xff\xff\xff", "shape": [2]}, 422, "request_invalid", "inputs[0].data[1]"),
        ({"data": elements(["a", b"\xff"]), "shape": [2]}, 422, "text_invalid", "inputs[0].data[1]"),
        ({"data": elements(["a", ""]), "shape": [2]}, 422, "text_empty", "inputs[0].data[1]"),
        ({"data": elements(["a"]), "shape": [1], "size": 6}, 422, "request_invalid", SIZE),
        ({"data": elements(["a"]), "shape": [1], "size": 4}, 422, "request_invalid", SIZE),
        ({"data": elements(["a"]), "shape": [1], "size": 0}, 422, "request_invalid", SIZE),
        ({"data": elements(["a"]), "shape": [2**40]}, 422, "inputs_too_many", "inputs[0].shape"),
        ({"data": elements([""] * 5000), "shape": [5000]}, 422, "inputs_too_many", "inputs[0].shape"),
        ({"data": elements(["a"]), "shape": [1], "header": "9999999"}, 422, "request_invalid", oip.JSON_LENGTH),
        ({"data": elements(["a"]), "shape": [1], "header": "-1"}, 422, "request_invalid", oip.JSON_LENGTH),
        ({"data": elements(["a"]), "shape": [1], "header": "+9"}, 422, "request_invalid", oip.JSON_LENGTH),
        ({"data": elements(["a"]), "shape": [1], "header": "9" * 5000}, 422, "request_invalid", oip.JSON_LENGTH),
        ({"data": elements(["a"]), "shape": [1], "header": ""}, 422, "request_invalid", oip.JSON_LENGTH),
        ({"data": elements(["a"]), "shape": [1], "header": "0"}, 400, "json_invalid", None),
        ({"data": elements(["a"]), "shape": [1], "header": "10"}, 400, "json_invalid", None),
    ],
)
def test_a_binary_tensor_that_contradicts_itself_is_refused(client, options, status, code, param):
    check_error(infer_binary(client, **options), status, code, param)


def check_error(response, status, code, param):
    error = response.json()

    assert (response.status_code, error["error"]["code"], error["error"]["param"]) == (status, code, param)
    assert error["request_id"] == response.headers["x-request-id"]
    assert error["error"]["message"]
    assert len(error["error"]["message"]) < 300


# What holds for all of them


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/predict", {"inputs": "late"}),
        ("/predict", {"inputs": [["late"]]}),
        ("/embed", {"inputs": "late"}),
        ("/embed_all", {"inputs": "late"}),
        ("/tokenize", {"inputs": "late"}),
        ("/v1/embeddings", {"input": "late"}),
        ("/v1/embeddings", {"input": "late", "encoding_format": "base64"}),
        ("/v2/models/{name}/infer", {"inputs": [tensor(["late"])], "id": "1"}),
        ("/info", None),
        ("/health", None),
        ("/v2", None),
        ("/v2/health/live", None),
        ("/v2/health/ready", None),
        ("/v2/models/{name}", None),
        ("/v2/models/{name}/ready", None),
    ],
)
def test_answers_are_as_the_description_says(client, route, body):
    path = route.replace("{name}", "tiny")
    answer = get(client, path) if body is None else post(client, path, **body)
    shape = TypeAdapter(ROUTES[route]["GET" if body is None else "POST"].shape)

    assert shape.dump_python(shape.validate_python(answer), exclude_unset=True) == answer


def test_texts_are_counted_whichever_route_they_take(client):
    def count(outcome):
        lines = client.get("/metrics").text.splitlines()
        name = f'bertrand_items_total{{outcome="{outcome}"}} '
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    before = count("ok"), count("error")
    post(client, "/predict", inputs=[["late"], ["login"]])
    post(client, "/tokenize", inputs="late")
    post(client, "/v1/embeddings", input=["late"])
    post(client, INFER, inputs=[tensor(["late"])])
    client.post("/embed", json={"inputs": ["", "late", ""]})

    assert (count("ok"), count("error")) == (before[0] + 5, before[1] + 2)


READY = ("/readyz", "/health", "/v2/health/ready")
WORKING = ("/livez", "/v2/health/live", "/v2/models/tiny/ready")


def test_probes_of_every_dialect_say_what_ours_say(model_folder):
    """A balancer that asks one of them must not send work to a server that cannot do it."""
    settings = Settings(model=str(model_folder))
    metrics = Metrics(ROUTES)
    models = Models(settings, metrics)
    front = Front(None, models, metrics, settings)

    async def ask():
        transport = httpx.ASGITransport(app=front)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return {path: (await client.get(path)).status_code for path in (*READY, *WORKING)}

    assert asyncio.run(ask()) == dict.fromkeys((*READY, *WORKING), 200)
    front.draining = True
    assert asyncio.run(ask()) == dict.fromkeys(READY, 503) | dict.fromkeys(WORKING, 200)
    front.draining = False
    models.close()
    assert asyncio.run(ask()) == dict.fromkeys((*READY, *WORKING), 503)


def test_only_probes_metrics_and_pages_may_be_open():
    """A new route that nobody thought about needs a key."""
    free = {path for path, methods in ROUTES.items() for route in methods.values() if route.group != "inference"}

    assert free == {*READY, "/livez", "/v2/health/live", "/metrics", "/docs", "/openapi.json", "/", "/web/{name}"} | {
        "/v2/models/{name}/ready",
        "/v2/models/{name}/versions/{version}/ready",
    }
    assert {method: route.group for method, route in ROUTES["/"].items()} == {"GET": "docs", "POST": "inference"}
