"""Large answers are made and sent in pieces: the bytes are the same, and other callers have their turn meanwhile."""

import asyncio

import httpx
import pytest

from service import turns, wire
from service.answers import Call
from service.http import Front
from service.schema import TokenizeRequest, TypesRequest

TEXTS = ["refund the order please", "", 'a "quoted" [SEP]', "login " * 100]
INFER = {
    "id": '"outputs":[',
    "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["login", "late"]}],
    "outputs": [{"name": "label"}, {"name": "sentence_embedding"}],
}
ASKED = {
    "/v1/analyze": {"inputs": TEXTS},
    "/v1/embed": {"inputs": TEXTS, "embeddings": ["tokens"], "encoding_format": "base64"},
    "/v1/tokenize": {"inputs": TEXTS},
    "/v1/types": {"inputs": TEXTS},
    "/tokenize": {"inputs": ["login", "late late"]},
    "/embed": {"inputs": "login"},
    "/embed_all": {"inputs": ["login", "late late"]},
    "/v1/embeddings": {"input": ["login", "late late"]},
    "/v2/models/tiny/infer": INFER,
}


@pytest.fixture
def ask(make_models):
    """Ask an application without a server around it."""
    models, metrics = make_models(precision="int8")  # the same bits in any company
    front = Front(None, models, metrics, models._settings)

    async def post(path, body):
        transport = httpx.ASGITransport(app=front)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, json=body)

    return lambda path, body: asyncio.run(post(path, body))


@pytest.mark.parametrize("path", ASKED)
def test_an_answer_in_pieces_has_the_same_bytes(ask, monkeypatch, path):
    whole = ask(path, ASKED[path])
    monkeypatch.setattr(wire, "MOST_ROWS", 0)
    monkeypatch.setattr(wire, "PIECE_BYTES", 0)
    monkeypatch.setattr(turns, "TURN", 0)
    pieces = ask(path, ASKED[path])

    assert whole.status_code == pieces.status_code == 200
    assert int(pieces.headers["content-length"]) == len(whole.content)
    assert pieces.content == whole.content


@pytest.mark.parametrize("path", ["/v1/tokenize", "/tokenize", "/v1/types"])
def test_a_large_answer_comes_whole_from_a_server(client, path):
    """Megabytes, which uvicorn takes only as fast as they are read."""
    texts = [f"{text} {chr(ord('a') + i % 26)}" for i in range(250) for text in ("where to login", "late " * 40)]

    def results(texts):
        answer = client.post(path, json={"inputs": texts})
        assert answer.status_code == 200
        return answer.json()["results"] if isinstance(answer.json(), dict) else answer.json()

    assert results(texts) == [result for i in range(0, len(texts), 25) for result in results(texts[i : i + 25])]


@pytest.mark.parametrize(("route", "request_"), [("tokenize", TokenizeRequest), ("types", TypesRequest)])
def test_others_have_their_turn_while_much_is_made_for_one(make_models, monkeypatch, route, request_):
    monkeypatch.setattr(turns, "TURN", 0)
    monkeypatch.setattr(wire, "MOST_ROWS", 0)
    answers = make_models()[0].current
    texts = ["refund the order please"] * 300

    async def scenario():
        async def others():
            nonlocal count
            while True:
                count += 1
                await asyncio.sleep(0)

        call, count = Call(), 0
        task = asyncio.create_task(others())
        made = await getattr(answers, route)(request_(inputs=texts), call)
        making, count = count, 0
        reply = await wire.to_reply(made, call.rows)
        writing = count
        task.cancel()
        assert b"".join((reply.body, *reply.rest)) == wire.to_json(made)
        return making, writing

    assert min(asyncio.run(scenario())) >= 300
