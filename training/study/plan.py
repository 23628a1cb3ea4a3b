"""What a study of starting points measures within the time there is."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.errors import InputError
from training.study.run import clock
from training.study.starts import fit_frozen, nested, predict
from training.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.data import Row
    from training.settings import TrainConfig

SIZES = 6  # at most; never fewer than 5 unless there are too few rows
EPOCHS = (8, 7, 6, 5, 4, 3, 2)  # over the largest size: as many as there is time for
LEAST_STEPS = 30  # for each of these epochs, however few rows there are
RATES = (1e-4, 3e-4, 1e-3)  # learning rates of the top layer that are tried with each start
BEYOND = (3e-5, 3e-3)  # where the lowest of them is best, and where the highest is
TUNED = 3  # starts that learn as a whole
DEV_ROWS = 500  # at most, to choose the learning rates by
BATCH = 32
PACE_STEPS = 12
MARGIN = 0.9  # of the time that is left, what is planned to be used: other programs come and go
FITTED = 200  # rows by which the time of fitting a frozen start is told


@dataclass(frozen=True)
class Plan:
    """What is measured within the time there is."""

    sizes: tuple[int, ...]
    epochs: int  # over the largest size
    search_rows: int  # learnt from to choose the learning rates
    seconds: float  # that it should take

    def steps(self, rows: int) -> int:
        """Return the optimiser steps of every start on so many rows."""
        return self.passes(rows) * math.ceil(rows / BATCH)

    def passes(self, rows: int) -> int:
        """Return the epochs of every start on so many rows."""
        return max(self.epochs, math.ceil(LEAST_STEPS * self.epochs / math.ceil(rows / BATCH)))


def choose(
    pace: Mapping[str, float],
    full: int,
    labels: int,
    judged: int,
    seeds: int,
    seconds: float,
    *,
    epochs: Sequence[int] = EPOCHS,
) -> Plan:
    """
    Return the best that can be measured in a time: first all rows, then many epochs, then many sizes.

    Raises:
        InputError: not even the least can.
    """
    least: Plan | None = None
    largest = full
    smallest = max(2 * labels, min(50, full // 8))
    while largest >= max(4 * smallest, full // 50):
        for passes in epochs:
            for count in (SIZES, SIZES - 1):
                sizes = spread(min(smallest, largest // 2), largest, count)
                search_rows = min(sizes[len(sizes) // 2], full - min(DEV_ROWS, full // 4))
                plan = Plan(sizes, passes, search_rows, 0.0)
                plan = replace(plan, seconds=cost(plan, full, pace, seeds, judged))
                if plan.seconds <= seconds:
                    return plan
                least = plan
        largest = int(0.8 * largest)
    if least is None:  # fewer rows than the search for smaller sizes begins with
        sizes = spread(max(2, full // 4), full, SIZES - 1)
        least = Plan(sizes, epochs[-1], sizes[1], 0.0)
        least = replace(least, seconds=cost(least, full, pace, seeds, judged))
        if least.seconds <= seconds:
            return least
    raise InputError(
        f"the least there is to measure, {counted(least.sizes[-1], 'row')} and {counted(seeds, 'seed')}, takes about "
        f"{clock(least.seconds)} here; allow --minutes {math.ceil(least.seconds / MARGIN / 60) + 1}, or fewer --seeds"
    )


def spread(smallest: int, largest: int, count: int) -> tuple[int, ...]:
    """Return sizes in equal factors, each of two digits but the last."""
    sizes = [smallest * (largest / smallest) ** (i / (count - 1)) for i in range(count - 1)]
    digits = [10 ** max(0, math.floor(math.log10(size)) - 1) for size in sizes]
    rounded = [max(smallest, round(size / digit) * digit) for size, digit in zip(sizes, digits, strict=True)]
    return tuple(sorted({*rounded, largest}))


def cost(plan: Plan, full: int, pace: Mapping[str, float], seeds: int, judged: int) -> float:
    """Return the seconds that all runs should take, of sizes up to `full` rows."""
    one_seed = sum(run_cost(plan, size, pace, judged) for size in plan.sizes) * TUNED
    search = run_cost(plan, plan.search_rows, pace, DEV_ROWS) * TUNED * (len(RATES) + 1)
    fits = seeds * sum(plan.sizes) * pace["fit_row"]
    vectors = (min(full, seeds * plan.sizes[-1]) + judged) * pace["vector_row"]
    return (seeds * one_seed + search + fits) / pace["processes"] + vectors


def run_cost(plan: Plan, size: int, pace: Mapping[str, float], judged: int) -> float:
    """Return the seconds that one run on so many rows takes one process."""
    return pace["begin"] + plan.passes(size) * size * pace["train_row"] + judged * pace["read_row"]


def pace(pool: Any, config: TrainConfig, rows: list[Row], judged: list[Row]) -> dict[str, float]:
    """Measure how fast this machine trains and reads, with every core at work."""
    chosen = timed_rows(rows)
    timed = [value for _, value in pool.run(time_one, [(config, chosen, judged[:200])] * pool.size)]
    return {name: float(np.mean([one[name] for one in timed])) for name in timed[0]} | {"processes": pool.size}


def timed_rows(rows: list[Row]) -> list[Row]:
    """Return rows to time a training by: enough of them, and every label."""
    chosen = (rows * math.ceil(PACE_STEPS * BATCH / len(rows)))[: PACE_STEPS * BATCH]
    known = {row.labels[0] for row in chosen}
    return [*chosen, *{row.labels[0]: row for row in rows if row.labels[0] not in known}.values()]


def frozen_pace(config: TrainConfig, rows: list[Row], *, seed: int) -> dict[str, float]:
    """Measure how long the frozen start takes for a row: for its vector, and for all fits of one penalty to choose."""
    from training.vectors import sentence_vectors

    chosen = [rows[i] for i in nested(rows, seed=seed)[: max(FITTED, 2 * len({row.labels for row in rows}))]]
    sentence_vectors(config.base, [row.text for row in chosen[:1]], max_tokens=config.max_tokens)
    started = time.monotonic()
    vectors = sentence_vectors(config.base, [row.text for row in chosen], max_tokens=config.max_tokens)
    read = time.monotonic() - started
    labels = np.array([row.labels[0] for row in chosen])
    started = time.monotonic()
    fit_frozen(vectors, labels, vectors[:1], labels[:1], seed)
    return {"vector_row": read / len(chosen), "fit_row": (time.monotonic() - started) / len(chosen)}


def time_one(config: TrainConfig, rows: list[Row], judged: list[Row]) -> dict[str, float]:
    """Return the seconds that one process takes to train on a row, to read one, and before a run begins to train."""
    from training.train import fit

    timing = replace(config, init="random", epochs=1)
    fit(timing, rows[: len(rows) // 4])  # what only the first run of a process pays
    started = time.monotonic()
    fit(timing, rows[: len(rows) // 4])
    short = time.monotonic() - started
    started = time.monotonic()
    model, tokenizer = fit(timing, rows)
    long = time.monotonic() - started
    started = time.monotonic()
    predict(model, tokenizer, judged)
    reading = (time.monotonic() - started) / len(judged)
    each = max((long - short) / (len(rows) - len(rows) // 4), 1e-6)
    return {"train_row": each, "read_row": reading, "begin": max(short - each * (len(rows) // 4), 0.0)}
