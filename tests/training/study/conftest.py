"""What the tests of studies share."""

import signal

import pytest


@pytest.fixture(autouse=True)
def own_signals():
    """The command, called in this process, answers SIGTERM in its own way: give the handler back afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
