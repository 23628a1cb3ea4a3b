"""When Python looks for reference cycles that nobody holds any more: while nobody waits."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_EVERY = 1.0  # seconds
LATEST = 60.0  # seconds that cycles are left for, however busy the server is
MANY = 700  # objects that may belong to one, more than at the last look: Python's own threshold


async def collect_at_rest(at_rest: Callable[[], bool]) -> None:
    """
    Collect garbage in moments of rest, for ever; what is there when it begins is never looked at again.

    Left to itself, Python looks when many objects have come, which is when many requests wait: it walked through all
    of them, up to a fifth of a second with a full queue, in whatever thread made the last object. Requests leave no
    cycles behind as a rule, so that looking can wait.

    Args:
        at_rest: Whether nobody would be held up now.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    last = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_EVERY)
        late = time.monotonic() - last > LATEST
        if gc.get_count()[0] > MANY and (late or at_rest()):
            gc.collect()
            last = time.monotonic()
