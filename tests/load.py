"""Callers of a server, in threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import httpx

from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

TEXT = "please refund my order"


class Load:
    """Callers in threads who ask one thing after another until told to stop, and remember every answer."""

    def __init__(self, url: str, callers: int = 4, texts: Sequence[str] = (TEXT,)) -> None:
        self.url = url
        self.texts = list(texts)
        self.answers: list[httpx.Response] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def wait_for(self, count: int) -> None:
        """Wait until so many more answers have come."""
        target = len(self.answers) + count
        until(lambda: len(self.answers) >= target)

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    response = client.post("/v1/classify", json={"inputs": self.texts})
                except httpx.ConnectError:
                    return  # nobody listens any more: this request was not accepted
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                else:
                    self.answers.append(response)
                    if response.status_code not in (200, 429):
                        self.failures.append(response.text)
