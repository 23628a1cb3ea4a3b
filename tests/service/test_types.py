"""The row of a word type, over HTTP: the same wherever the word stands."""

import asyncio
import base64
import json

import bentoml
import numpy as np
import onnx
import pytest
import safetensors
import safetensors.numpy

from inference.encoder import Encoded
from service.answers import Call
from service.errors import ApiError
from service.schema import TextsRequest, TypesRequest
from tests.support import signed_again

WORDS = ["refund", "refunds", "Login", "[MASK]", "card card"]
PIECES = [["refund"], ["refund", "s"], ["Login"], ["[MASK]"], ["card", "card"]]


def post(client, **body):
    return client.post("/v1/types", json=body)


@pytest.fixture(scope="module")
def table(model_folder):
    """The word embeddings that training left in the checkpoint, shape (types, hidden)."""
    weights = safetensors.numpy.load_file(model_folder / "checkpoint" / "model.safetensors")
    return next(rows for name, rows in weights.items() if name.endswith("word_embeddings.weight"))


def test_a_word_gives_the_rows_of_its_pieces(client, table):
    """To the last bit: JSON has all the digits that float32 needs."""
    answer = post(client, inputs=WORDS).json()

    info = client.get("/v1/info").json()
    assert answer["model"] == {name: info[name] for name in ("name", "version", "precision")}
    assert [[token["text"] for token in result["tokens"]] for result in answer["results"]] == PIECES
    for result in answer["results"]:
        assert result.keys() == {"status", "truncated", "tokens", "type_embeddings"}
        assert all(token.keys() == {"text", "id"} for token in result["tokens"])
        ids = [token["id"] for token in result["tokens"]]
        np.testing.assert_array_equal(np.array(result["type_embeddings"], dtype=np.float32), table[ids])
    card, again = answer["results"][-1]["type_embeddings"]
    assert card == again, "one row a type, whatever stands before it"


def test_a_type_is_the_same_where_its_tokens_are_not(client):
    """What the page shows: the context makes the difference, and this is without one."""
    results = [
        client.post("/v1/embed", json={"inputs": text, "embeddings": ["tokens"]}).json()["results"][0]
        for text in ("login", "the login page")
    ]
    first, second = (result["token_embeddings"][place] for result, place in zip(results, (1, 2), strict=True))
    types = post(client, inputs=["login", "the login page"]).json()["results"]

    assert types[0]["type_embeddings"][0] == types[1]["type_embeddings"][1]
    assert np.abs(np.subtract(first, second)).max() > 0.01


@pytest.mark.parametrize(("dtype", "code"), [("float32", "<f4"), ("float16", "<f2")])
def test_rows_come_as_base64_and_as_safetensors(client, table, dtype, code):
    body = {"inputs": ["refunds", "", "login"], "dtype": dtype}
    coded = client.post("/v1/types", json=body | {"encoding_format": "base64"}).json()
    binary = client.post("/v1/types", json=body, headers={"accept": "application/vnd.safetensors"})
    tensors = safetensors.numpy.load(binary.content)

    assert set(tensors) == {"0.type_embeddings", "2.type_embeddings"}
    for i in (0, 2):
        result = coded["results"][i]
        array = result["type_embeddings"]
        rows = table[[token["id"] for token in result["tokens"]]].astype(code)
        assert (array["dtype"], array["shape"]) == (dtype, list(rows.shape))
        assert base64.b64decode(array["data"]) == rows.tobytes()
        np.testing.assert_array_equal(tensors[f"{i}.type_embeddings"], rows)


def test_a_safetensors_body_carries_the_pieces_and_the_errors(client, tmp_path):
    file = tmp_path / "types.safetensors"
    body, accept = {"inputs": ["refunds", ""]}, {"accept": "application/vnd.safetensors"}
    file.write_bytes(client.post("/v1/types", json=body, headers=accept).content)
    with safetensors.safe_open(file, "numpy") as opened:
        answer = json.loads(opened.metadata()["answer"])

    plain = client.post("/v1/types", json=body).json()
    del plain["results"][0]["type_embeddings"]
    assert answer == plain


def test_a_bad_word_fails_alone_and_a_single_one_its_request(client):
    many = post(client, inputs=["login", " "]).json()["results"]
    assert [result["status"] for result in many] == ["ok", "error"]
    assert many[1]["error"]["code"] == "text_empty"
    alone = post(client, inputs="")
    assert (alone.status_code, alone.json()["error"]["code"]) == (422, "text_empty")
    assert post(client, inputs=[]).json()["results"] == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"inputs": "a", "special_tokens": False}, "special_tokens"),
        ({"inputs": "a", "dtype": "int8"}, "dtype"),
        ({"inputs": [1]}, "inputs[0]"),
        ({}, "inputs"),
    ],
)
def test_what_is_not_known_is_refused(client, body, param):
    response = post(client, **body)

    assert response.status_code == 422
    assert response.json()["error"]["param"] == param


def test_a_word_of_more_pieces_than_the_model_reads_is_cut_and_says_so(client):
    (result,) = post(client, inputs="a" * 20 + " b" * 100).json()["results"]

    assert result["truncated"] is True
    assert len(result["type_embeddings"]) == len(result["tokens"]) == 32 - 2


def test_bentomls_client_asks_too(server, table):
    with bentoml.SyncHTTPClient(server) as client:
        (result,) = client.types(inputs="login")["results"]

    row = np.array(result["type_embeddings"], dtype=np.float32)
    np.testing.assert_array_equal(row, table[[result["tokens"][0]["id"]]])


def test_limits_hold(make_models):
    models, _ = make_models(max_vectors=3, max_inputs=2)

    for words, message in ((["card card"] * 2, "embeddings of 4 tokens, at most 3"), (["a"] * 3, "3 texts, at most 2")):
        with pytest.raises(ApiError, match=message) as refused:
            ask(models, words)
        assert (refused.value.status, refused.value.code) == (422, "inputs_too_many")


def test_no_tokens_are_made_for_words_that_are_too_many(make_models, monkeypatch):
    """A refusal must cost next to nothing, however much it is that is refused."""
    models, _ = make_models(max_vectors=3)
    made = []
    monkeypatch.setattr(Encoded, "tokens", made.append)

    with pytest.raises(ApiError, match="embeddings of 4 tokens, at most 3"):
        ask(models, ["card card"] * 2)
    assert made == []


def test_the_models_own_tokens_do_not_count_though_a_text_spells_them(make_models):
    models, _ = make_models(max_vectors=3)

    (result,) = ask(models, "card [SEP] card")["results"]

    assert len(result["tokens"]) == len(result["type_embeddings"]) == 3


def test_a_graph_that_hides_its_rows_still_classifies(tmp_path, model_folder, make_models, caplog):
    """One column is split off and put back: onnxruntime computes the same, and no row stands in the file."""

    def split(folder):
        for path in (folder / "model.onnx", folder / "model.int8.onnx"):
            model = onnx.load(path)
            (tensor,) = (each for each in model.graph.initializer if "word_embeddings" in each.name)
            parts = np.split(onnx.numpy_helper.to_array(tensor), [1], axis=1)
            names = [f"{tensor.name}.{i}" for i in range(2)]
            model.graph.initializer.extend(map(onnx.numpy_helper.from_array, parts, names))
            model.graph.node.insert(0, onnx.helper.make_node("Concat", names, [tensor.name], axis=1))
            model.graph.initializer.remove(tensor)
            onnx.save(model, path)

    models, _ = make_models(model=str(signed_again(model_folder, tmp_path / "split", split)))
    with pytest.raises(ApiError) as hidden:
        ask(models, "login")

    assert (hidden.value.status, hidden.value.code) == (501, "types_unknown")
    assert "0 constant matrices are looked up by input_ids" in caplog.text
    assert str(tmp_path) not in hidden.value.message, "where the server keeps its files is nobody's business"
    labelled = asyncio.run(models.current.classify(TextsRequest(inputs="login"), Call()))
    assert labelled["results"][0]["status"] == "ok"


def ask(models, words):
    return asyncio.run(models.current.types(TypesRequest(inputs=words), Call()))
