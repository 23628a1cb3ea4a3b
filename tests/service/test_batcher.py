"""Many callers, one engine: who shares a batch, who waits, and who fails."""

import asyncio
import threading
import time

import numpy as np
import pytest

from inference.engine import Output
from service.batcher import Batcher, QueueFull


class Text:
    """A text of so many tokens, as far as the batcher looks at it."""

    def __init__(self, length, mark=0):
        self.ids = np.full(length, mark, dtype=np.int64)

    def __len__(self):
        return len(self.ids)


class Runner:
    """A model that answers with the first token id, can be held back, and fails on id 13."""

    def __init__(self):
        self.batches = []  # of each pass, how long its texts were
        self.marks = []  # of each pass, the first token id of its texts
        self.gate = threading.Event()
        self.gate.set()

    def run(self, batch, *, hidden=False):
        self.batches.append([len(ids) for ids in batch])
        self.marks.append([int(ids[0]) for ids in batch])
        self.gate.wait(10)
        if any(ids[0] == 13 for ids in batch):
            raise RuntimeError("cannot compute 13")
        return [
            Output(np.array([ids[0]], dtype=np.float32), np.zeros((len(ids), 2)) if hidden else None) for ids in batch
        ]


class Observer:
    def __init__(self):
        self.seen = []

    def waiting(self, tokens):
        self.tokens = tokens

    def batch(self, lengths, waits, seconds):
        self.seen.append((list(lengths), list(waits), seconds))


@pytest.fixture
def runner():
    return Runner()


@pytest.fixture
def batcher(runner):
    batcher = Batcher(runner, Observer(), threads=1, max_batch_tokens=64, max_queue_tokens=10_000)
    yield batcher
    runner.gate.set()
    batcher.close()


async def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def behind_a_running_batch(batcher, runner, *calls):
    """Start the calls in order while the only thread is busy, then let it go."""
    runner.gate.clear()
    first = asyncio.create_task(batcher.submit([Text(1)]))
    await until(lambda: len(runner.batches) == 1)
    tasks = []
    for texts in calls:
        tasks.append(asyncio.create_task(batcher.submit(texts)))
        await asyncio.sleep(0)
    runner.gate.set()
    await first
    return [[int(output.logits[0]) for output in (await task).outputs] for task in tasks]


def test_answers_are_in_the_callers_order(batcher):
    texts = [Text(length, mark) for mark, length in enumerate([5, 60, 2, 30, 5, 1, 7, 9, 11, 3, 64], start=20)]

    answer = asyncio.run(batcher.submit(texts))

    assert [int(output.logits[0]) for output in answer.outputs] == list(range(20, 31))
    assert all(output.hidden is None for output in answer.outputs)


def test_an_idle_batcher_waits_for_no_company(batcher, runner):
    asyncio.run(batcher.submit([Text(4)]))

    assert runner.batches == [[4]]


def test_callers_who_wait_together_share_a_batch_of_similar_length(batcher, runner):
    answers = asyncio.run(
        behind_a_running_batch(batcher, runner, *([Text(length, length)] for length in (5, 30, 6, 31, 5)))
    )

    assert answers == [[5], [30], [6], [31], [5]]
    assert [sorted(batch) for batch in runner.batches[1:]] == [[5, 5, 6], [30, 31]]


@pytest.mark.parametrize(
    ("lengths", "batches"),
    [
        ((22, 26), [[22, 26]]),
        ((20, 31), [[20], [31]]),
        ((9, 13), [[9, 13]]),
        ((9, 9, 9, 13), [[9, 9, 9], [13]]),  # here the three would be padded
    ],
)
def test_texts_share_a_batch_while_padding_costs_less_than_a_pass(batcher, runner, lengths, batches):
    asyncio.run(behind_a_running_batch(batcher, runner, *([Text(length)] for length in lengths)))

    assert [sorted(batch) for batch in runner.batches[1:]] == batches


def test_a_batch_keeps_within_its_tokens(batcher, runner):
    asyncio.run(behind_a_running_batch(batcher, runner, [Text(20) for _ in range(10)]))

    assert all(len(batch) * max(batch) <= 64 for batch in runner.batches)


def test_a_text_longer_than_a_batch_may_be_still_runs(batcher, runner):
    asyncio.run(batcher.submit([Text(200)]))

    assert runner.batches == [[200]]


def test_one_text_does_not_wait_behind_a_thousand(batcher, runner):
    """Requests take turns: a caller with one text is served among the first batches of the large one."""

    async def scenario():
        runner.gate.clear()
        large = asyncio.create_task(batcher.submit([Text(8, 1) for _ in range(400)]))
        await until(lambda: len(runner.batches) == 1)
        small = asyncio.create_task(batcher.submit([Text(40, 2)]))
        await asyncio.sleep(0)
        runner.gate.set()
        await asyncio.gather(small, large)

    asyncio.run(scenario())

    assert runner.batches.index([40]) <= 2


def test_requests_of_one_size_are_answered_in_the_order_they_came(batcher, runner):
    """Taking turns text by text would finish all of them late: under overload, nobody would be answered in time."""

    async def scenario():
        runner.gate.clear()
        first = asyncio.create_task(batcher.submit([Text(1)]))
        await until(lambda: len(runner.batches) == 1)
        callers = []
        for name in range(6):
            texts = [Text(40, name) for _ in range(4)]  # each too long to share a batch
            callers.append(asyncio.create_task(batcher.submit(texts)))
            await asyncio.sleep(0)
        runner.gate.set()
        await asyncio.gather(first, *callers)

    asyncio.run(scenario())
    assert runner.marks[1:] == [[name] for name in range(6) for _ in range(4)]


def test_a_batch_that_fails_is_split_until_only_the_text_at_fault_fails(batcher):
    texts = [Text(5, mark) for mark in (1, 2, 13, 4, 5, 6, 7)]

    outputs = asyncio.run(batcher.submit(texts)).outputs

    assert [isinstance(output, RuntimeError) for output in outputs] == [mark == 13 for mark in (1, 2, 13, 4, 5, 6, 7)]


def test_texts_of_a_caller_who_left_are_not_computed(batcher, runner):
    async def scenario():
        runner.gate.clear()
        first = asyncio.create_task(batcher.submit([Text(1)]))
        await until(lambda: len(runner.batches) == 1)
        leaving = asyncio.create_task(batcher.submit([Text(50) for _ in range(20)]))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        staying = asyncio.create_task(batcher.submit([Text(3, 9)]))
        await asyncio.sleep(0)
        runner.gate.set()
        await first
        return (await staying).outputs

    assert int(asyncio.run(scenario())[0].logits[0]) == 9
    assert 50 not in [length for batch in runner.batches for length in batch]
    assert batcher.waiting_tokens == 0


def test_hidden_states_come_to_those_who_asked(batcher):
    async def scenario():
        return await asyncio.gather(batcher.submit([Text(4)], hidden=True), batcher.submit([Text(4)]))

    with_states, _ = asyncio.run(scenario())

    assert with_states.outputs[0].hidden.shape == (4, 2)


def test_close_finishes_what_waits(runner):
    batcher = Batcher(runner, Observer(), threads=2, max_batch_tokens=64, max_queue_tokens=10_000)

    async def scenario():
        task = asyncio.create_task(batcher.submit([Text(5, 7) for _ in range(30)]))
        await asyncio.sleep(0)
        await asyncio.to_thread(batcher.close)
        return (await task).outputs

    assert len(asyncio.run(scenario())) == 30
    assert not batcher.alive


def test_every_pass_is_observed(runner):
    observer = Observer()
    batcher = Batcher(runner, observer, threads=1, max_batch_tokens=64, max_queue_tokens=10_000)
    asyncio.run(batcher.submit([Text(5), Text(6), Text(30)]))
    batcher.close()

    assert sorted(length for lengths, _, _ in observer.seen for length in lengths) == [5, 6, 30]
    assert all(wait >= 0 for _, waits, _ in observer.seen for wait in waits)


def test_a_caller_whose_event_loop_has_ended_harms_nobody(batcher, runner):
    """The thread that meets a closed loop must go on with the next caller."""

    async def leave():
        runner.gate.clear()
        task = asyncio.create_task(batcher.submit([Text(4)]))
        await until(lambda: len(runner.batches) == 1)
        task.cancel()

    asyncio.run(leave())
    runner.gate.set()

    assert len(asyncio.run(asyncio.wait_for(batcher.submit([Text(5)]), 10)).outputs) == 1
    assert batcher.alive


def test_a_full_queue_takes_no_more_and_says_for_how_long(runner):
    """What waits is bounded in tokens; an idle batcher takes a request of any size, or it could never be answered."""
    batcher = Batcher(runner, Observer(), threads=1, max_batch_tokens=64, max_queue_tokens=100)

    async def scenario():
        await batcher.submit([Text(500)])
        runner.gate.clear()
        running = asyncio.create_task(batcher.submit([Text(1)]))
        await until(lambda: len(runner.batches) == 2)
        waiting = [asyncio.create_task(batcher.submit([Text(60)]))]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as full:
            await batcher.submit([Text(41)])
        waiting.append(asyncio.create_task(batcher.submit([Text(40)])))
        await asyncio.sleep(0)
        before = batcher.waiting_tokens
        runner.gate.set()
        await asyncio.gather(running, *waiting)
        return full.value.retry_after, before

    assert asyncio.run(scenario()) == (1, 100)
    assert batcher.waiting_tokens == 0
    assert batcher._owed_tokens == 0
    batcher.close()


def test_what_cannot_be_computed_in_time_is_refused_at_once(runner):
    batcher = Batcher(runner, Observer(), threads=1, max_batch_tokens=64, max_queue_tokens=10**9)

    async def scenario():
        runner.gate.clear()
        first = asyncio.create_task(batcher.submit([Text(10)]))
        await until(lambda: len(runner.batches) == 1)
        await asyncio.sleep(0.1)  # 10 tokens in a tenth of a second
        runner.gate.set()
        await first
        runner.gate.clear()
        first = asyncio.create_task(batcher.submit([Text(10)]))
        await until(lambda: len(runner.batches) == 2)
        second = asyncio.create_task(batcher.submit([Text(50)]))
        await asyncio.sleep(0)
        batcher.admit(50, patience=60)
        with pytest.raises(QueueFull) as full:
            batcher.admit(5000, patience=1)
        runner.gate.set()
        await asyncio.gather(first, second)
        return full.value.retry_after

    assert asyncio.run(scenario()) >= 1
    batcher.close()


def test_what_is_computed_for_an_unfinished_request_counts_for_those_who_come_later(runner):
    """Texts that kept earlier ones company are done, but their requests still have their turn before it."""
    batcher = Batcher(runner, Observer(), threads=1, max_batch_tokens=64, max_queue_tokens=10**9)

    async def scenario():
        runner.gate.clear()
        first = asyncio.create_task(batcher.submit([Text(30), Text(2)]))
        await until(lambda: len(runner.batches) == 1)
        batcher._speed = 10.0  # tokens a second
        second = asyncio.create_task(batcher.submit([Text(20)]))
        await asyncio.sleep(0)
        assert batcher.waiting_tokens == 22
        batcher.admit(1, patience=5.4 / 0.7)
        with pytest.raises(QueueFull):
            batcher.admit(1, patience=5.2 / 0.7)  # 53 tokens are to be computed until it has its turn
        second.cancel()
        await asyncio.sleep(0)
        batcher.admit(1, patience=3.4 / 0.7)
        runner.gate.set()
        await first

    asyncio.run(scenario())
    assert batcher._owed_tokens == 0
    batcher.close()


def test_a_pass_that_hangs_can_be_seen(batcher, runner):
    async def scenario():
        assert batcher.longest_pass == 0
        runner.gate.clear()
        hanging = asyncio.create_task(batcher.submit([Text(1)]))
        await until(lambda: batcher.longest_pass > 0.01)
        runner.gate.set()
        await hanging
        await until(lambda: batcher.longest_pass == 0)

    asyncio.run(scenario())


def test_the_queue_of_a_caller_who_leaves_is_free_at_once(runner):
    batcher = Batcher(runner, Observer(), threads=1, max_batch_tokens=64, max_queue_tokens=1000)

    async def scenario():
        runner.gate.clear()
        first = asyncio.create_task(batcher.submit([Text(1)]))
        await until(lambda: len(runner.batches) == 1)
        leaving = asyncio.create_task(batcher.submit([Text(50) for _ in range(20)]))
        await asyncio.sleep(0)
        assert batcher.waiting_tokens == 1000
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        freed = batcher.waiting_tokens
        runner.gate.set()
        await first
        return freed

    assert asyncio.run(scenario()) == 0
    batcher.close()
