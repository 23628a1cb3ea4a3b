"""Callers who leave before they are answered: what was theirs goes with them."""

import asyncio
import gc
import weakref

import pytest

from service import garbage, http
from service.answers import Call
from service.errors import ApiError
from service.http import Front
from service.schema import ExplainRequest, TextsRequest
from tests.service.hostile import GOOD
from tests.service.test_admission import Held
from tests.support import until


class Caller:
    """One connection: it sends a part of its request, then closes."""

    def __init__(self, body, *, more):
        self.sends = [{"type": "http.request", "body": body, "more_body": more}]
        self.statuses = []

    async def receive(self):
        return self.sends.pop() if self.sends else {"type": "http.disconnect"}

    async def send(self, message):
        self.statuses += [message["status"]] if "status" in message else []


@pytest.mark.parametrize("more", [True, False], ids=["while it sends", "while it waits"])
def test_nothing_is_kept_of_a_caller_who_left(make_models, monkeypatch, more):
    """An error that is raised again and again would keep all that its requests held, models that were replaced too."""
    monkeypatch.setattr(http, "LEAVING_TAKES", 0)
    models, metrics = make_models()
    front = Front(None, models, metrics, models._settings)
    batcher = models.current.batcher
    held = batcher._runner = Held(batcher._runner)

    def leave():
        caller = Caller(GOOD, more=more)
        scope = {"type": "http", "method": "POST", "path": "/v1/classify", "headers": []}
        asyncio.run(front(scope, caller.receive, caller.send))
        assert caller.statuses == [400]
        return weakref.ref(caller)

    callers = [leave() for _ in range(3)]
    held.gate.set()
    until(lambda: batcher.at_rest)
    gc.collect()

    assert [caller() for caller in callers] == [None] * 3


def test_a_request_that_was_long_waited_for_goes_with_its_answer(make_models, monkeypatch):
    """Nobody looks for garbage while a server is busy: a request must not hold what it is held by."""
    monkeypatch.setattr(http, "LEAVING_TAKES", 0)
    models, metrics = make_models()
    front = Front(None, models, metrics, models._settings)
    held = models.current.batcher._runner = Held(models.current.batcher._runner)

    class Staying(Caller):
        async def receive(self):
            if not self.sends:
                asyncio.get_running_loop().call_later(0.01, held.gate.set)
                await asyncio.Event().wait()
            return self.sends.pop()

    async def answered():
        caller = Staying(GOOD, more=False)
        scope = {"type": "http", "method": "POST", "path": "/v1/classify", "headers": []}
        await front(scope, caller.receive, caller.send)
        assert caller.statuses == [200]
        return weakref.ref(caller)

    async def scenario():
        left = await answered()
        await asyncio.sleep(0.01)  # what was cancelled ends
        return left

    gc.disable()
    try:
        assert asyncio.run(scenario())() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(("busy", "late"), [(False, False), (True, False), (True, True)])
def test_garbage_is_looked_for_at_rest_and_at_the_latest_after_a_while(monkeypatch, busy, late):
    monkeypatch.setattr(garbage, "LOOK_EVERY", 0.001)
    monkeypatch.setattr(garbage, "LATEST", 0 if late else 60)

    class Link:
        pass

    async def scenario():
        looking = asyncio.create_task(garbage.collect_at_rest(lambda: not busy))
        await asyncio.sleep(0.01)
        links = [Link() for _ in range(2 * garbage.MANY)]
        for link in links:
            link.itself = link
        left = weakref.ref(links[0])
        del link, links
        await asyncio.sleep(0.1)
        looking.cancel()
        return left() is None

    try:
        assert asyncio.run(scenario()) == (late or not busy)
    finally:
        gc.enable()
        gc.unfreeze()


def test_texts_that_were_not_answered_do_not_count_as_cut(make_models):
    """Their share is told of the texts that were answered: a caller who tries again and again would raise it."""
    models, metrics = make_models(max_vectors=10)
    answers, long = models.current, "late " * 100
    held = answers.batcher._runner = Held(answers.batcher._runner)

    async def scenario():
        with pytest.raises(ApiError, match="inputs_too_many"):
            await answers.embed(TextsRequest(inputs=long), Call())
        asked = [
            (answers.classify, TextsRequest(inputs=long)),
            (answers.explain, ExplainRequest(inputs=long)),
        ]
        leaving = [asyncio.create_task(answer(request, Call())) for answer, request in asked]
        while not answers.batcher.longest_pass or not answers.batcher.waiting_tokens:
            await asyncio.sleep(0.001)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        held.gate.set()
        assert cut() == 0
        for answer, request in asked:
            await answer(request, Call())
        assert cut() == 2

    def cut():
        lines = metrics.render().decode().splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith("bertrand_truncated_total "))

    asyncio.run(asyncio.wait_for(scenario(), 30))
