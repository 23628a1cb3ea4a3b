"""Many callers, one engine: requests that arrive together share forward passes."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from inference.machine import step_back

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from inference.encoder import Encoded
    from inference.engine import Output

MOST_TEXTS = 16  # of a forward pass: more gain nothing
# What a forward pass costs beside its tokens, in tokens: 4 to 8 with what is between two (MiniLM, int8 and fp32).
PASS_TOKENS = 6
# Differences in length, the least first; further away hardly any text would be worth it.
NEAREST = sorted(range(1 - PASS_TOKENS, PASS_TOKENS), key=lambda tokens: (abs(tokens), -tokens))
PROMISED = (
    0.7  # of a caller's patience: what is admitted shall be ready before, though the machine be slower than before
)
TYPICAL_SPEED = 10_000.0  # tokens a second, until one is measured
MEMORY = 0.9  # of the running mean of the computing speed, a pass

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


class QueueFull(Exception):  # noqa: N818  what happened, not a fault
    """The queue takes no more; `retry_after` is in how many seconds it probably will."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full for about {retry_after} s")
        self.retry_after = retry_after


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
    tokens: int  # of all its texts, while they are not all answered
    arrived: float
    outputs: list[Output | Exception | None]
    unanswered: int
    waiting: deque[_Job] = field(default_factory=deque)
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
    First comes the request that would be finished first if every request were alone: one text does not wait behind
    another's thousand, a thousand wait no longer than they take for those who come later, and requests of one size are
    answered in the order they came. The queue is bounded in tokens, which is what computing costs. A batch that fails
    is halved until only the text at fault fails.
    """

    def __init__(
        self, runner: Runner, observer: Observer, *, threads: int, max_batch_tokens: int, max_queue_tokens: int
    ) -> None:
        self._runner = runner
        self._observer = observer
        self._max_batch_tokens = max_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self._lock = threading.Lock()
        self._idle: list[threading.Condition] = []  # of the threads that wait, the last to come last
        self._callers: list[tuple[float, int, _Caller]] = []  # heap: when it would be finished alone, its number
        self._numbers = itertools.count()
        self._by_length: dict[int, deque[_Job]] = {}
        self._waiting = 0
        self._waiting_tokens = 0
        self._owed_tokens = 0  # of all requests that are not answered, those of their texts that are computed included
        self._speed = 0.0  # tokens a second of one thread; 0 before the first pass
        self._closed = False
        self._busy_since: dict[int, float] = {}  # thread number: when its pass began
        self._threads = [
            threading.Thread(target=self._work, args=(i,), name=f"inference-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait for a thread."""
        return self._waiting_tokens

    @property
    def at_rest(self) -> bool:
        """Whether nothing waits and a thread has nothing to do, so that a core is to spare."""
        return bool(self._idle) and not self._waiting

    @property
    def alive(self) -> bool:
        """Whether every inference thread runs."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def longest_pass(self) -> float:
        """For how many seconds the longest of the passes that run now has been running."""
        now = time.perf_counter()
        return max((now - since for since in tuple(self._busy_since.values())), default=0.0)

    def admit(self, tokens: int = 1, *, patience: float = math.inf) -> None:
        """
        Raise QueueFull unless so many tokens may join the queue and be computed in time.

        An empty queue takes a request of any size, so that none is too large to ever be answered.

        Args:
            tokens: Of all texts of the request.
            patience: Seconds after which nobody waits for the answer any more.
        """
        waiting = self._waiting_tokens
        if not waiting:
            return
        speed = self._speed * len(self._threads)
        # Little's law: a request leaves after as long as it takes to compute all that is in the system when it comes.
        # Of what waits alone, less would be told: texts at the end of the queue keep those at its start company.
        late = speed and (self._owed_tokens + tokens) / speed > patience * PROMISED
        if late or waiting + tokens > self._max_queue_tokens:
            excess = max(waiting + tokens - self._max_queue_tokens, waiting // 2)
            raise QueueFull(max(1, math.ceil(excess / speed)) if speed else 1)

    async def submit(self, texts: Sequence[Encoded], *, hidden: bool = False, patience: float = math.inf) -> Answer:
        """
        Wait for the outputs of the texts; a caller that is cancelled meanwhile frees its place.

        Args:
            texts: At least one.
            hidden: Also return the hidden states.
            patience: Seconds after which nobody waits for the answer any more.

        Raises:
            QueueFull: too much is waiting already; nothing of the request was queued.
        """
        loop = asyncio.get_running_loop()
        tokens = sum(map(len, texts))
        outputs: list[Output | Exception | None] = [None] * len(texts)
        caller = _Caller(loop, loop.create_future(), hidden, tokens, time.perf_counter(), outputs, len(texts))
        with self._lock:
            self.admit(tokens, patience=patience)
            for index, text in enumerate(texts):
                job = _Job(text.ids, caller, index)
                caller.waiting.append(job)
                self._by_length.setdefault(len(text), deque()).append(job)
            alone = tokens / (self._speed * len(self._threads) or TYPICAL_SPEED)
            heapq.heappush(self._callers, (caller.arrived + alone, next(self._numbers), caller))
            self._waiting += len(texts)
            self._waiting_tokens += tokens
            self._owed_tokens += tokens
            # The thread that went idle last goes first: its core still has the model in its cache.
            for _ in range(min(len(texts), len(self._idle))):
                self._idle.pop().notify()
        self._observer.waiting(self._waiting_tokens)
        try:
            return await caller.future
        except asyncio.CancelledError:
            self._withdraw(caller)
            raise

    def close(self) -> None:
        """Finish what waits, then end the threads."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().notify()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        step_back()
        work = threading.Condition(self._lock)
        while True:
            with self._lock:
                while not self._waiting and not self._closed:
                    self._idle.append(work)
                    work.wait()
                if not self._waiting:
                    return
                batch = self._take()
                waiting = self._waiting_tokens
            self._observer.waiting(waiting)
            self._busy_since[number] = time.perf_counter()
            try:
                self._compute(batch)
            finally:
                del self._busy_since[number]

    def _take(self) -> list[_Job]:
        """
        Take the text whose turn it is, and with it those most like it in length.

        One more joins while that makes a real token cheaper: it shares what every pass costs, and is padded or has the
        others padded.
        """
        first = self._next_in_turn()
        batch = [first]
        longest = real = length = len(first.ids)
        for distance in NEAREST:
            width = length + distance
            jobs = self._by_length.get(width)
            while jobs and jobs[0].taken:
                jobs.popleft()
            high = max(longest, width)
            while (
                jobs
                and len(batch) < MOST_TEXTS
                and (computed := high * (len(batch) + 1)) <= self._max_batch_tokens
                and (PASS_TOKENS + computed) * real < (PASS_TOKENS + longest * len(batch)) * (real + width)
            ):
                job = jobs.popleft()
                if not job.taken:
                    self._claim(job)
                    batch.append(job)
                    longest = high
                    real += width
        if not self._waiting:
            self._by_length.clear()
            self._callers.clear()
        return batch

    def _next_in_turn(self) -> _Job:
        while True:  # something is waiting, or this would not be called
            _, _, caller = self._callers[0]
            while caller.waiting:
                job = caller.waiting.popleft()
                if not job.taken:
                    self._claim(job)
                    return job
            heapq.heappop(self._callers)

    def _claim(self, job: _Job) -> None:
        job.taken = True
        self._waiting -= 1
        self._waiting_tokens -= len(job.ids)
        job.caller.first_taken = job.caller.first_taken or time.perf_counter()

    def _withdraw(self, caller: _Caller) -> None:
        """Take off the queue what nobody waits for any more."""
        with self._lock:
            for job in caller.waiting:
                if not job.taken:
                    self._claim(job)
            caller.waiting.clear()
            self._settle(caller)
            waiting = self._waiting_tokens
        self._observer.waiting(waiting)

    def _settle(self, caller: _Caller) -> None:
        self._owed_tokens -= caller.tokens
        caller.tokens = 0

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
                self._answer(batch, [error])
            return
        seconds = time.perf_counter() - started
        self._answer(batch, outputs)
        lengths = [len(job.ids) for job in batch]
        speed = sum(lengths) / max(seconds, 1e-9)
        self._speed = MEMORY * self._speed + (1 - MEMORY) * speed if self._speed else speed
        self._observer.batch(lengths, [started - job.caller.arrived for job in batch], seconds)

    def _answer(self, batch: list[_Job], outputs: Sequence[Output | Exception]) -> None:
        done: dict[asyncio.AbstractEventLoop, list[_Caller]] = {}
        with self._lock:
            for job, output in zip(batch, outputs, strict=True):
                caller = job.caller
                caller.outputs[job.index] = output
                caller.unanswered -= 1
                if caller.unanswered == 0:
                    self._settle(caller)
                    done.setdefault(caller.loop, []).append(caller)
        now = time.perf_counter()
        for loop, callers in done.items():
            try:
                loop.call_soon_threadsafe(_resolve, callers, now)  # one call for all: each wakes the loop's thread
            except RuntimeError:  # the callers' event loop has ended, and nobody waits any more
                log.debug("an answer came after its caller's event loop had closed")


def _resolve(callers: list[_Caller], now: float) -> None:
    for caller in callers:
        if not caller.future.done():  # the caller may have left
            outputs: Any = caller.outputs  # every place is filled by now
            answer = Answer(outputs, caller.first_taken - caller.arrived, now - caller.first_taken)
            caller.future.set_result(answer)
