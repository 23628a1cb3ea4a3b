"""What is refused before it is read: in a flood, a refusal must cost next to nothing."""

import asyncio
import threading
from dataclasses import replace

import orjson
import pytest

from service.http import Front
from service.metrics import Metrics
from service.models import Models
from service.routes import ROUTES
from service.settings import Settings

TEXT = "i want my money back please"
MANY = [TEXT] * 10


class Held:
    """The model, held back."""

    def __init__(self, engine):
        self.engine = engine
        self.gate = threading.Event()

    def run(self, batch, *, hidden=False):
        self.gate.wait(30)
        return self.engine.run(batch, hidden=hidden)


@pytest.fixture
def make_front(model_folder):
    """The application of a worker, without a server around it; its model is held back until `gate` is set."""
    made = []

    def make(**changes):
        settings = replace(Settings.from_environment({"BERTRAND_MODEL": str(model_folder)}), threads=1, **changes)
        metrics = Metrics(ROUTES)
        models = Models(settings, metrics)
        batcher = models.current.batcher
        batcher._runner = Held(batcher._runner)
        made.append(models)
        return Front(None, models, metrics, settings), batcher, batcher._runner.gate

    yield make
    for models in made:
        models.current.batcher._runner.gate.set()
        models.close()


def tokens_of(front, *texts):
    return sum(map(len, front._models.current.classifier.encoder.encode(texts)))


async def post(front, texts, reading):
    """Send texts to be classified; `reading` takes the size of every body that is read."""
    body = orjson.dumps({"inputs": texts})

    async def receive():
        if reading and reading[-1] is body:
            await asyncio.sleep(3600)  # the caller stays
        reading.append(body)
        return {"type": "http.request", "body": body}

    sent = []

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": "/v1/classify", "headers": headers}
    await front(scope, receive, send)
    return sent[0]["status"]


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def busy(front, batcher, gate):
    """Have requests answered, from which sizes are learnt, and then one that is held back; return its task."""
    gate.set()
    for _ in range(20):
        assert await post(front, MANY, []) == 200
    await until(lambda: not batcher.longest_pass)
    gate.clear()
    running = asyncio.create_task(post(front, TEXT, []))
    await until(lambda: batcher.longest_pass)
    return running


def test_what_the_queue_has_no_room_for_is_refused_unread(make_front):
    """How many tokens a body holds is known well enough from those before it."""
    front, batcher, gate = make_front(max_queue_tokens=1000)
    of_many, of_one = tokens_of(front, *MANY), tokens_of(front, TEXT)
    fitting = (1000 - of_one) // of_many

    async def scenario():
        read = []
        running = await busy(front, batcher, gate)
        waiting = [asyncio.create_task(post(front, MANY, [])) for _ in range(fitting)]
        await until(lambda: batcher.waiting_tokens == fitting * of_many)
        assert await post(front, MANY, read) == 429
        assert read == []
        small = asyncio.create_task(post(front, TEXT, read))
        await until(lambda: batcher.waiting_tokens == fitting * of_many + of_one)
        gate.set()
        return await asyncio.gather(running, small, *waiting)

    assert set(asyncio.run(scenario())) == {200}


def test_a_large_body_is_read_while_it_may_hold_little(make_front):
    """Long texts are cut: megabytes may be a few tokens, and must not be refused where there is room."""
    front, batcher, gate = make_front(max_queue_tokens=1000)
    of_many = tokens_of(front, *MANY)

    async def scenario():
        running = await busy(front, batcher, gate)
        waiting = asyncio.create_task(post(front, MANY, []))
        await until(lambda: batcher.waiting_tokens == of_many)
        large = asyncio.create_task(post(front, "late " * 20_000, []))
        await until(lambda: batcher.waiting_tokens == of_many + front._models.current.classifier.encoder.max_tokens)
        gate.set()
        return await asyncio.gather(running, waiting, large)

    assert set(asyncio.run(scenario())) == {200}


def test_what_would_come_too_late_is_refused_unread(make_front):
    front, batcher, gate = make_front(request_timeout=5.0)

    async def scenario():
        read = []
        running = await busy(front, batcher, gate)
        waiting = asyncio.create_task(post(front, MANY, []))
        await until(lambda: batcher.waiting_tokens == tokens_of(front, *MANY))
        batcher._speed = 10.0  # tokens a second: what waits takes longer than anybody does
        assert await post(front, TEXT, read) == 429
        assert read == []
        gate.set()
        return await asyncio.gather(running, waiting)

    assert set(asyncio.run(scenario())) == {200}
