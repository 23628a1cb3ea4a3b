"""Callers who leave before they are answered: what was theirs goes with them."""

import asyncio
import gc
import weakref

import pytest

from service import http
from service.http import Front
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
