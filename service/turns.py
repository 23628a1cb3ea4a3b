"""Much work for one caller on the event loop, which all callers share."""

from __future__ import annotations

import asyncio
import time

TURN = 0.005  # seconds that one caller's answer may hold the event loop


class Turns:
    """Lets everybody else have a turn every few milliseconds, from when it is made on."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def give(self) -> None:
        """Give the event loop away where this turn has been long enough; otherwise it costs next to nothing."""
        if time.perf_counter() - self._since > TURN:
            await asyncio.sleep(0)
            self._since = time.perf_counter()
