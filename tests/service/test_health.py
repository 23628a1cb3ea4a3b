"""Probes tell the truth: a process whose inference threads are gone must not look healthy."""

import asyncio
import threading
from dataclasses import replace

import httpx
import pytest

from service.http import Front
from service.metrics import Metrics
from service.models import Models
from service.routes import ROUTES
from service.settings import Settings
from tests.support import until


@pytest.fixture
def front(model_folder):
    """The application of a worker, without a server around it."""
    settings = replace(Settings.from_environment({"BERTRAND_MODEL": str(model_folder)}), request_timeout=0.2)
    metrics = Metrics(ROUTES)
    models = Models(settings, metrics)
    yield Front(None, models, metrics, settings)
    models.close()


def ask(front, path):
    async def get():
        transport = httpx.ASGITransport(app=front)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    answer = asyncio.run(get())
    body = answer.json()
    return answer.status_code, body["error"]["code"] if "error" in body else body.get("status")


def test_a_worker_that_can_do_its_work_is_alive_and_ready(front):
    assert ask(front, "/livez") == (200, "alive")
    assert ask(front, "/readyz") == (200, "ready")
    assert ask(front, "/v1/info")[0] == 200


def test_a_worker_whose_inference_threads_are_gone_is_neither(front):
    front._models.current.batcher.close()

    assert ask(front, "/livez") == (503, "not_alive")
    assert ask(front, "/readyz") == (503, "not_alive")


def test_a_worker_whose_inference_thread_hangs_is_neither(front):
    """Longer than any request is waited for: nobody can be answered any more."""
    answers = front._models.current
    engine, held = answers.batcher._runner, threading.Event()

    class Hanging:
        def run(self, batch, *, hidden=False):
            held.wait(30)
            return engine.run(batch, hidden=hidden)

    answers.batcher._runner = Hanging()

    async def hang():
        submitted = asyncio.create_task(answers.batcher.submit(answers.classifier.encoder.encode(["late"])))
        await asyncio.sleep(0.3)  # the request timeout is 0.2 s
        seen = await asyncio.to_thread(lambda: [ask(front, path) for path in ("/livez", "/readyz")])
        held.set()
        await submitted
        while answers.batcher.longest_pass:  # the thread is about to see that it is done
            await asyncio.sleep(0.001)
        return seen

    assert asyncio.run(hang()) == [(503, "not_alive")] * 2
    assert ask(front, "/livez") == (200, "alive")


def test_a_worker_about_to_end_is_alive_and_not_ready(front):
    front.draining = True

    assert ask(front, "/livez") == (200, "alive")
    assert ask(front, "/readyz") == (503, "not_ready")


def test_a_fault_while_a_model_is_looked_for_is_told_and_the_looking_goes_on(make_models, monkeypatch, caplog):
    """A thread that ended would leave the old model, and keys that were revoked, in use for ever."""
    monkeypatch.setattr("service.models.LOOK_EVERY", 0.01)
    looks = []

    def look():
        looks.append(len(looks))
        if len(looks) == 1:
            raise MemoryError("no room")

    held, metrics = make_models()
    held.watch(look)
    until(lambda: len(looks) > 2)

    assert 'bertrand_reloads_total{outcome="refused"} 1.0' in metrics.render().decode()
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [MemoryError]
