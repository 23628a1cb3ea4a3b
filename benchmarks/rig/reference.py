"""What the machine can do without a server: the same graph and the same texts, in process."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from inference.classifier import Classifier
from inference.encoder import Encoded
from inference.machine import cpu_count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from inference.engine import Engine

    Ids = NDArray[np.int64]


TEXTS = 8  # a call: what every ratio is against, whatever a server does


class Reference:
    """One model in one precision: a single-threaded session a core, each with a thread that keeps it busy."""

    def __init__(self, folder: Path, precision: str) -> None:
        self.classifier = Classifier.load(folder, precision=precision)
        others = [Classifier.load(folder, precision=precision).engine for _ in range(cpu_count() - 1)]
        self._engines = [self.classifier.engine, *others]

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Return the token ids of texts that all have some."""
        return [item.ids for item in self.classifier.encoder.encode(texts) if isinstance(item, Encoded)]

    def rate(self, ids: Sequence[Ids], seconds: float, *, hidden: bool = False, one_session: bool = False) -> float:
        """
        Return the texts a second of all cores: texts sorted by length, 8 a call, over and over.

        Args:
            ids: Token ids of each text.
            seconds: How long to run.
            hidden: Return the hidden states too.
            one_session: All threads share one session, as the threads of a server do.
        """
        by_length = sorted(ids, key=len)
        batches = [by_length[start : start + TEXTS] for start in range(0, len(ids), TEXTS)]
        random.Random(0).shuffle(batches)  # an unfinished round must not have been one of the short texts
        turns = itertools.cycle(batches)  # shared by the threads; next() is one step under the interpreter's lock
        started = time.perf_counter()

        def work(engine: Engine) -> int:
            done = 0
            while time.perf_counter() - started < seconds:
                batch = next(turns)
                engine.run(batch, hidden=hidden)
                done += len(batch)
            return done

        engines = [self._engines[0]] * len(self._engines) if one_session else self._engines
        with ThreadPoolExecutor(len(engines)) as pool:
            done = sum(pool.map(work, engines))
        return done / (time.perf_counter() - started)

    def one_at_a_time(self, ids: Sequence[Ids], seconds: float) -> float:
        """Return the median seconds of a call with one text, on one thread."""
        durations: list[float] = []
        end = time.perf_counter() + seconds
        for text in itertools.cycle(ids):
            started = time.perf_counter()
            if started > end:
                break
            self.classifier.engine.run([text])
            durations.append(time.perf_counter() - started)
        return statistics.median(durations)
