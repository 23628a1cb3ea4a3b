"""The study of starting points: what accuracy each start reaches with how many labelled sentences."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.errors import InputError
from training.base import fingerprint_of
from training.copies import fold
from training.data import check_known, check_trainable, fingerprint, label_names, read_rows, split
from training.settings import TrainConfig
from training.study.curves import Curves, middle, unpack
from training.study.init_page import NAMES, STARTS, TUNED, report
from training.study.plan import (
    BATCH,
    BEYOND,
    DEV_ROWS,
    EPOCHS,
    MARGIN,
    RATES,
    Plan,
    choose,
    frozen_pace,
    pace,
    run_cost,
)
from training.study.run import Run, clock
from training.study.starts import fit_frozen, fit_one, nested
from training.wording import counted, joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.data import Row

FEWEST_TEST = 20


def study(
    data: Path,
    out: Path,
    *,
    test: Path | None = None,
    base: str = "minilm",
    seeds: int = 3,
    seed: int = 0,
    max_tokens: int = 128,
    epochs: int | None = None,
    freeze: str | None = None,
    minutes: float | None = None,
    text_column: str = "text",
    label_column: str = "label",
    resume: bool = False,
) -> dict[str, Any]:
    """
    Measure what each start reaches with how many rows, and write the folder `out`.

    The starts are the pretrained base; its word embeddings with all else random; all random; and the pretrained base
    frozen, with a logistic regression on its mean-pooled vectors. The first three learn with the same rows, steps and
    batches, each with a learning rate that did well for it on development rows (`careful`).

    Args:
        data: Rows to learn from, one label each.
        out: Becomes the folder of the study.
        test: Rows to measure on; by default a fifth of `data`.
        base: Hub id, local folder, or the default base.
        seeds: Runs of each start at each size: other rows, another random start, another order.
        seed: The first of them.
        max_tokens: Longer sentences are cut.
        epochs: Passes over the largest size; by default as many as there is time for.
        freeze: As of `TrainConfig`, for the starts that learn as a whole: by default pretrained embeddings.
        minutes: How long it may take.
        text_column: Column of the sentence.
        label_column: Column of the label.
        resume: Go on with the unfinished study of the same `out`.

    Raises:
        DataError: a file is not what training needs.
        BaseModelError: the base model cannot be had.
        InputError: the time is too short for the least there is to measure, or `seeds` is not from 1 to 100.
        ArtifactError: `out` is something other than a study.
    """
    if not 1 <= seeds <= 100:
        raise InputError(f"--seeds is {seeds}; expected a whole number from 1 to 100")
    if epochs is not None and epochs < 1:
        raise InputError(f"--epochs is {epochs}; expected a whole number from 1 up")
    config = TrainConfig(
        base=base, max_tokens=max_tokens, consistency=0.0, soft_labels=0.0, batch_size=BATCH, freeze=freeze
    )
    rows, judged = _read(data, test, seed, text_column, label_column)
    labels = label_names(rows)
    numbers = list(range(seed, seed + seeds))
    settings = {
        "data": data.name,
        "test": test.name if test else "a fifth of the data",
        "train_rows": fingerprint(rows),
        "test_rows": fingerprint(judged),
        "base": base,
        "weights": fingerprint_of(base),
        "seeds": numbers,
        "max_tokens": max_tokens,
        "epochs": epochs,
        "freeze": freeze,
    }
    from training.base import quiet_transformers

    quiet_transformers()
    with Run.open("init", out, settings, minutes=minutes, resume=resume) as run:
        return run.finish(_measure(run, config, rows, judged, labels, numbers, epochs), report)


def _read(data: Path, test: Path | None, seed: int, text_column: str, label_column: str) -> tuple[list[Row], list[Row]]:
    rows = read_rows(data, text_column=text_column, label_column=label_column)
    check_trainable(rows, data)
    if test:
        judged = read_rows(test, text_column=text_column, label_column=label_column)
        check_known(judged, label_names(rows), test)
    else:
        rows, judged = split(rows, share=0.2, seed=seed)
        check_trainable(rows, data)
    labels = label_names(rows)
    if len(judged) < FEWEST_TEST or len(rows) < 4 * len(labels):
        raise InputError(
            f"{data}: {counted(len(rows), 'row')} of {counted(len(labels), 'label')} to learn from and {len(judged)} "
            f"to measure on; expected at least 4 a label and {FEWEST_TEST}"
        )
    return rows, judged


def _measure(
    run: Run,
    config: TrainConfig,
    rows: list[Row],
    judged: list[Row],
    labels: list[str],
    seeds: list[int],
    epochs: int | None,
) -> dict[str, Any]:
    from training.study.pool import Pool

    orders = {number: nested(rows, seed=number) for number in seeds}
    with Pool() as pool:
        speed = run.measure("pace", lambda: pace(pool, config, rows, judged) | frozen_pace(config, rows, seed=seeds[0]))
        plan = _planned(run, speed, len(rows), len(labels), len(judged), len(seeds), epochs)
        frozen = _frozen(run, pool, config, rows, judged, orders, plan)
        run.expect(_cost_left(run, plan, speed, seeds, len(judged)))
        found = _search(run, pool, config, rows, orders[seeds[0]], plan, speed, seed=seeds[0])
        rates = {start: found[start]["chosen"] for start in TUNED}
        right: dict[str, dict[int, list[str]]] = {start: {size: [] for size in plan.sizes} for start in STARTS}
        complete: list[int] = []
        repeated: list[dict[str, Any]] = []
        slowest = 0.0
        for number in seeds:
            if complete and run.left < slowest and not _is_known(run, number, plan):
                run.say(f"time is up after {counted(len(complete), 'seed')} of {len(seeds)}; the others are left out")
                break
            began = time.monotonic()
            tuned = _tune(run, pool, config, rows, judged, orders[number], plan, speed, rates, number)
            slowest = max(slowest, time.monotonic() - began)
            for size in plan.sizes:
                for start in TUNED:
                    right[start][size].append(tuned[start, size]["right"])
                    if tuned[start, size]["rate"] != rates[start]:
                        rate = tuned[start, size]["rate"]
                        repeated.append({"start": start, "rows": size, "seed": number, "rate": rate})
                right["frozen"][size].append(frozen[number, size]["right"])
            complete.append(number)
    majority = Counter(row.labels[0] for row in rows).most_common(1)[0][0]
    train_texts = {fold(row.text) for row in rows}
    return {
        "base": config.base,
        "freeze": config.freeze,
        "labels": len(labels),
        "rows": len(rows),
        "test_rows": len(judged),
        "test_rows_seen": sum(fold(row.text) in train_texts for row in judged),
        "majority": sum(row.labels[0] == majority for row in judged) / len(judged),
        "seeds": complete,
        "seeds_asked": len(seeds),
        "sizes": list(plan.sizes),
        "steps": {str(size): plan.steps(size) for size in plan.sizes},
        "epochs": {str(size): plan.passes(size) for size in plan.sizes},
        "batch_size": BATCH,
        "learning_rates": found,
        "repeated": repeated,
        "search_rows": plan.search_rows,
        "strengths": {str(size): [frozen[number, size]["strength"] for number in complete] for size in plan.sizes},
        "right": {start: {str(size): runs for size, runs in by_size.items()} for start, by_size in right.items()},
    } | derived(right, len(judged))


def _planned(
    run: Run, speed: Mapping[str, float], full: int, labels: int, judged: int, seeds: int, epochs: int | None
) -> Plan:
    seconds = math.inf if run.minutes is None else 60 * run.minutes
    most = (epochs,) if epochs else EPOCHS
    kept = run.measure(
        "plan",
        lambda: vars(
            choose(speed, full, labels, judged, seeds, MARGIN * (seconds - run.elapsed), epochs=most),
        ),
    )
    plan = Plan(tuple(kept["sizes"]), kept["epochs"], kept["search_rows"], kept["seconds"])
    smaller = f"; there is no time for all {full}" if plan.sizes[-1] < full else ""
    run.say(
        f"{joined([f'{size:,}' for size in plan.sizes])} rows, {counted(seeds, 'seed')}, {plan.epochs} epochs over the "
        f"largest{smaller}; about {clock(plan.seconds)}"
    )
    return plan


def _frozen(
    run: Run,
    pool: Any,
    config: TrainConfig,
    rows: list[Row],
    judged: list[Row],
    orders: Mapping[int, list[int]],
    plan: Plan,
) -> dict[tuple[int, int], dict[str, Any]]:
    """Fit a logistic regression on frozen vectors for every seed and size."""
    keys = [(number, size) for number in orders for size in plan.sizes]
    open_ = [key for key in keys if _key("frozen", *key) not in run.known]
    if open_:
        from training.vectors import sentence_vectors

        needed = sorted({i for number, size in open_ for i in orders[number][:size]})
        run.say(f"vectors of {len(needed) + len(judged):,} sentences, as the base was pretrained")
        texts = [rows[i].text for i in needed] + [row.text for row in judged]
        vectors = sentence_vectors(config.base, texts, max_tokens=config.max_tokens)
        place = dict(zip(needed, range(len(needed)), strict=True))
        answers = np.array([row.labels[0] for row in judged])
        tasks = []
        for number, size in open_:
            chosen = orders[number][:size]
            learnt = vectors[[place[i] for i in chosen]]
            truth = np.array([rows[i].labels[0] for i in chosen])
            tasks.append((learnt, truth, vectors[len(needed) :], answers, number))
        for i, value in pool.run(fit_frozen, tasks):
            run.keep(_key("frozen", *open_[i]), value)
    return {key: run.known[_key("frozen", *key)] for key in keys}


def _search(
    run: Run,
    pool: Any,
    config: TrainConfig,
    rows: list[Row],
    order: list[int],
    plan: Plan,
    speed: Mapping[str, float],
    *,
    seed: int,
) -> dict[str, Any]:
    """Try learning rates with every start, on rows that the same order begins with; beyond those where it must be."""
    learnt = [rows[i] for i in order[: plan.search_rows]]
    dev = [rows[i] for i in order[plan.search_rows :][:DEV_ROWS]]
    tried: dict[str, dict[float, dict[str, float]]] = {start: {} for start in TUNED}

    def attempt(tries: Sequence[tuple[str, float]]) -> None:
        open_ = [one for one in tries if _key("rate", *one) not in run.known]
        tasks = [(_config(config, start, rate, plan.passes(len(learnt)), seed), learnt, dev) for start, rate in open_]
        each = run_cost(plan, plan.search_rows, speed, len(dev)) / speed["processes"]
        for i, value in pool.run(fit_one, tasks):
            run.keep(_key("rate", *open_[i]), {name: value[name] for name in ("accuracy", "loss")})
            run.advance(each, f"learning rate {open_[i][1]:g} from the {NAMES[open_[i][0]]} start")
        for start, rate in tries:
            tried[start][rate] = run.known[_key("rate", start, rate)]

    attempt([(start, rate) for start in TUNED for rate in RATES])
    lower = [(start, BEYOND[0]) for start in TUNED if careful(tried[start], len(dev)) == RATES[0]]
    attempt(lower + [(start, BEYOND[1]) for start in TUNED if best(tried[start]) == RATES[-1]])
    chosen = {start: careful(tried[start], len(dev)) for start in TUNED}
    run.say(f"learning rates: {joined([f'{chosen[start]:g} from the {NAMES[start]} start' for start in TUNED])}")
    return {
        start: {
            "chosen": chosen[start],
            "best": best(tried[start]),
            "tried": {f"{rate:g}": tried[start][rate] for rate in sorted(tried[start])},
            "rows": len(learnt),
            "dev_rows": len(dev),
        }
        for start in TUNED
    }


def best(tried: Mapping[float, Mapping[str, float]]) -> float:
    """Return the learning rate of the highest `accuracy`, and of those the lowest `loss`."""
    return max(tried, key=lambda rate: (tried[rate]["accuracy"], -tried[rate]["loss"]))


def careful(tried: Mapping[float, Mapping[str, float]], dev_rows: int) -> float:
    """
    Return the lowest learning rate that is within one standard error of the best (Breiman et al. 1984, 3.4.3).

    The rate serves for larger sizes as well, where runs are longer: one too low is made up for by their steps, one too
    high lets some of them end at nothing.
    """
    highest = tried[best(tried)]["accuracy"]
    error = math.sqrt(highest * (1 - highest) / dev_rows)
    return min(rate for rate in tried if tried[rate]["accuracy"] >= highest - error)


def _tune(
    run: Run,
    pool: Any,
    config: TrainConfig,
    rows: list[Row],
    judged: list[Row],
    order: list[int],
    plan: Plan,
    speed: Mapping[str, float],
    rates: Mapping[str, float],
    seed: int,
) -> dict[tuple[str, int], dict[str, Any]]:
    """Fine-tune every start on every size with one seed."""
    cells = [(start, size) for size in reversed(plan.sizes) for start in TUNED]  # the longest first: cores end together
    open_ = [(start, size) for start, size in cells if _key(start, seed, size) not in run.known]
    tasks = [
        (_config(config, start, rates[start], plan.passes(size), seed), [rows[i] for i in order[:size]], judged)
        for start, size in open_
    ]
    for i, value in pool.run(fit_one, tasks, repeat=True):
        start, size = open_[i]
        run.keep(_key(start, seed, size), value)
        run.advance(
            run_cost(plan, size, speed, len(judged)) / speed["processes"],
            f"{NAMES[start]} start, {counted(size, 'row')}, seed {seed}: accuracy {value['accuracy']:.3f}",
        )
    return {(start, size): run.known[_key(start, seed, size)] for start, size in cells}


def _config(config: TrainConfig, start: str, rate: float, epochs: int, seed: int) -> TrainConfig:
    return replace(config, init=start, learning_rate=rate, epochs=epochs, seed=seed)


def _key(*parts: object) -> str:
    return " ".join(map(str, parts))


def _cost_left(run: Run, plan: Plan, speed: Mapping[str, float], seeds: Sequence[int], judged: int) -> float:
    """Return the seconds that what is not known yet should take."""
    searched = run_cost(plan, plan.search_rows, speed, DEV_ROWS)
    rates = sum(_key("rate", start, rate) not in run.known for start in TUNED for rate in RATES) + len(TUNED)
    runs = [
        run_cost(plan, size, speed, judged)
        for start in TUNED
        for size in plan.sizes
        for number in seeds
        if _key(start, number, size) not in run.known
    ]
    return (rates * searched + sum(runs)) / speed["processes"]


def _is_known(run: Run, seed: int, plan: Plan) -> bool:
    return all(_key(start, seed, size) in run.known for start in TUNED for size in plan.sizes)


def derived(right: Mapping[str, Mapping[int, Sequence[str]]], test_rows: int) -> dict[str, Any]:
    """
    Return what follows from which test rows were right.

    Args:
        right: By start and size, what `curves.pack` made of each run.
        test_rows: How many they are.
    """
    sizes = tuple(sorted(next(iter(right.values()))))
    cube = [[[unpack(one, test_rows) for one in right[start][size]] for size in sizes] for start in STARTS]
    curves = Curves(STARTS, sizes, np.array(cube, dtype=np.float32))
    accuracy, resampled = curves.accuracy, curves.resampled()
    mean = accuracy.mean(axis=-1)
    shown: dict[str, Any] = {}
    for i, start in enumerate(STARTS):
        shown[start] = [
            {
                "rows": size,
                "accuracy": mean[i, j],
                "interval": middle(resampled[:, i, j]),
                "by_seed": accuracy[i, j].tolist(),
            }
            for j, size in enumerate(sizes)
        ]
    ours = STARTS.index("pretrained")
    gaps = {
        start: [
            {
                "rows": size,
                "gap": mean[ours, j] - mean[i, j],
                "interval": middle(resampled[:, ours, j] - resampled[:, i, j]),
            }
            for j, size in enumerate(sizes)
        ]
        for i, start in enumerate(STARTS)
        if i != ours
    }
    return {"curves": shown, "gaps": gaps, "worth": _worth(curves, mean, resampled)}


def _worth(curves: Curves, mean: NDArray[np.float64], resampled: NDArray[np.float64]) -> dict[str, Any]:
    """Return the rows that the pretrained start needs where another one needs n, and the reverse."""
    ours = STARTS.index("pretrained")

    def needed(start: int, by: int, j: int) -> dict[str, Any]:
        """Rows that `start` needs to be as good as `by` is with those of size j."""
        value = curves.needed(mean[start], mean[by, j])
        low, high = middle(np.array([curves.needed(one[start], one[by, j]) for one in resampled]))
        finite = [None if math.isinf(number) else round(number, 1) for number in (value, low, high)]
        return {"accuracy": mean[by, j], "rows": curves.sizes[j], "needed": finite[0], "interval": finite[1:]}

    last = len(curves.sizes) - 1
    return {
        "of_others": {
            start: needed(ours, STARTS.index(start), last) for start in ("random", "types", "frozen")
        },  # what of all rows they make, the pretrained start has with so many
        "of_pretrained": {
            start: [needed(STARTS.index(start), ours, j) for j in range(len(curves.sizes))]
            for start in ("random", "types", "frozen")
        },  # what the pretrained start makes of so many rows, they have with so many
    }
