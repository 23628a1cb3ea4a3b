"""Many callers, one engine: requests that arrive together share forward passes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from inference.classifier import BATCH_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from inference.encoder import Encoded
    from inference.engine import Output


log = logging.getLogger("bertrand.service")


class Runner(Protocol):
    """What computes a batch: `inference.Engine`."""

    def run(self, batch: Sequence[NDArray[np.int64]], *, hidden: bool = False) -> list[Output]:
        """Return one output a text, in order."""


class Observer(Protocol):
    """Who is told of every forward pass: `service.metrics.Metrics`."""

    def waiting(self, tokens: int) -> None:
        """Take how many tokens wait for a thread now."""

    def batch(self, lengths: Sequence[int], waits: Sequence[float], seconds: float) -> None:
        """Take the tokens of each text, how long each waited, and how long the pass took, in seconds."""


@dataclass(slots=True)
class _Job:
    ids: NDArray[np.int64]
    caller: _Caller
    index: int
    taken: bool = False


@dataclass(slots=True)
class _Caller:
    """One request's texts, answered together."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Answer]
    hidden: bool
    arrived: float
    outputs: list[Output | Exception | None]
    waiting: deque[_Job] = field(default_factory=deque)
    unanswered: int = 0
    gone: bool = False
    first_taken: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request's texts, in their order, and where the time went."""

    outputs: list[Output | Exception]
    queue_seconds: float  # until the first of them was taken
    infer_seconds: float  # from then to the last of them


class Batcher:
    """
    Threads that compute whatever is waiting, in batches of texts of similar length.

    A text never waits for company: an idle thread starts with what is there, and batches form while all are busy.
    Requests take turns, so that a caller with one text does not wait behind another's thousand. A batch that fails
    is halved until only the text at fault fails.
    """

    def __init__(self, runner: Runner, observer: Observer, *, threads: int, max_batch_tokens: int) -> None:
        self._runner = runner
        self._observer = observer
        self._max_tokens = max_batch_tokens
        self._changed = threading.Condition()
        self._callers: deque[_Caller] = deque()  # with texts waiting, in turn
        self._by_length: defaultdict[int, deque[_Job]] = defaultdict(deque)
        self._waiting = 0
        self._waiting_tokens = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"inference-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait for a thread."""
        return self._waiting_tokens

    @property
    def alive(self) -> bool:
        """Whether every inference thread runs."""
        return all(thread.is_alive() for thread in self._threads)

    async def submit(self, texts: Sequence[Encoded], *, hidden: bool = False) -> Answer:
        """
        Wait for the outputs of the texts; a caller that is cancelled meanwhile frees its place.

        Args:
            texts: At least one.
            hidden: Also return the hidden states.
        """
        loop = asyncio.get_running_loop()
        caller = _Caller(loop, loop.create_future(), hidden, time.perf_counter(), [None] * len(texts))
        caller.unanswered = len(texts)
        with self._changed:
            for index, text in enumerate(texts):
                job = _Job(text.ids, caller, index)
                caller.waiting.append(job)
                self._by_length[len(text)].append(job)
                self._waiting_tokens += len(text)
            self._callers.append(caller)
            self._waiting += len(texts)
            self._changed.notify(len(texts))
        self._observer.waiting(self._waiting_tokens)
        try:
            return await caller.future
        finally:
            caller.gone = True

    def close(self) -> None:
        """Finish what waits, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                batch = self._take()
            if batch:
                try:
                    self._compute(batch)
                except Exception:
                    log.exception("an inference thread met an error outside the model, and goes on")
            self._observer.waiting(self._waiting_tokens)

    def _take(self) -> list[_Job]:
        """Choose the next batch: the text whose turn it is, and its nearest in length among all that wait."""
        first = self._next_in_turn()
        if first is None:
            return []
        batch = [first]
        length = longest = len(first.ids)
        slack = max(2, length // 8)  # padding a shorter text by so much costs less than another forward pass
        for width in sorted(range(length - slack, length + slack + 1), key=lambda width: abs(width - length)):
            jobs = self._by_length.get(width)
            while jobs and len(batch) < BATCH_SIZE and (len(batch) + 1) * max(longest, width) <= self._max_tokens:
                job = jobs.popleft()
                if not job.taken and self._claim(job):
                    batch.append(job)
                    longest = max(longest, width)
        if not self._waiting:
            self._by_length.clear()
        return batch

    def _next_in_turn(self) -> _Job | None:
        while self._callers:
            caller = self._callers.popleft()
            while caller.waiting:
                job = caller.waiting.popleft()
                if not job.taken and self._claim(job):
                    if caller.waiting:
                        self._callers.append(caller)
                    return job
        return None

    def _claim(self, job: _Job) -> bool:
        """Take a job off the queue; say whether somebody still waits for it."""
        job.taken = True
        self._waiting -= 1
        self._waiting_tokens -= len(job.ids)
        if job.caller.gone:
            return False
        job.caller.first_taken = job.caller.first_taken or time.perf_counter()
        return True

    def _compute(self, batch: list[_Job]) -> None:
        started = time.perf_counter()
        try:
            outputs = self._runner.run([job.ids for job in batch], hidden=any(job.caller.hidden for job in batch))
            if len(outputs) != len(batch):
                raise RuntimeError(f"{len(outputs)} outputs for {len(batch)} texts")
        except Exception as error:  # noqa: BLE001  whatever it is, only the text at fault may fail
            if len(batch) > 1:
                middle = len(batch) // 2
                self._compute(batch[:middle])
                self._compute(batch[middle:])
            else:
                self._answer(batch[0], error)
            return
        seconds = time.perf_counter() - started
        for job, output in zip(batch, outputs, strict=True):
            self._answer(job, output)
        self._observer.batch([len(job.ids) for job in batch], [started - job.caller.arrived for job in batch], seconds)

    def _answer(self, job: _Job, output: Output | Exception) -> None:
        caller = job.caller
        caller.outputs[job.index] = output
        with self._changed:
            caller.unanswered -= 1
            done = caller.unanswered == 0
        if done:
            now = time.perf_counter()
            outputs: Any = caller.outputs  # every place is filled by now
            answer = Answer(outputs, caller.first_taken - caller.arrived, now - caller.first_taken)
            try:
                caller.loop.call_soon_threadsafe(_resolve, caller.future, answer)
            except RuntimeError:  # the caller's event loop has ended, and nobody waits any more
                log.debug("an answer came after its caller's event loop had closed")


def _resolve(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():  # the caller may have left
        future.set_result(answer)
