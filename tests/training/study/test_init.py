"""What each start reaches with how many rows, and whether the page says what the numbers say."""

import json
import math
import random
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from bertrand.__main__ import main
from inference.errors import InputError
from tests.support import ROOT, until, write_csv
from training.data import Row
from training.rendering import coded
from training.settings import TrainConfig
from training.study import page
from training.study.curves import Curves, isotonic, pack, unpack
from training.study.init import best, careful, derived
from training.study.init_page import STARTS, report
from training.study.plan import EPOCHS, choose, spread, timed_rows
from training.study.starts import fit_frozen, fit_one, nested

SIZES = (50, 100, 200, 400, 800)
PACE = {"train_row": 0.01, "read_row": 0.002, "begin": 1.0, "vector_row": 0.004, "fit_row": 0.008, "processes": 2}


def record(test_rows=400, seeds=3, **levels):
    """A study.json in which each start has about these accuracies, one a size."""
    noise = np.random.default_rng(1)
    right = {
        start: {
            size: [pack(noise.random(test_rows) < level) for _ in range(seeds)]
            for size, level in zip(SIZES, levels[start], strict=True)
        }
        for start in STARTS
    }
    tried = {"0.0001": {"accuracy": 0.5, "loss": 1.0}, "0.001": {"accuracy": 0.6, "loss": 0.9}}
    rate = {"chosen": 0.001, "best": 0.001, "tried": tried, "rows": 200, "dev_rows": 100}
    found = {
        "base": "a-base",
        "freeze": None,
        "labels": 4,
        "rows": SIZES[-1],
        "test_rows": test_rows,
        "test_rows_seen": 2,
        "majority": 0.3,
        "seeds": list(range(seeds)),
        "seeds_asked": seeds,
        "sizes": list(SIZES),
        "steps": dict.fromkeys(map(str, SIZES), 100),
        "batch_size": 32,
        "repeated": [],
        "learning_rates": {start: dict(rate) for start in ("pretrained", "types", "random")},
    } | derived(right, test_rows)
    return {
        "created": "2026-01-01T00:00:00+00:00",
        "minutes": {"allowed": None, "taken": 1.0},
        "settings": {"data": "rows.csv"},
        "versions": {"torch": "2"},
        "result": json.loads(json.dumps(found)),
    }


GOOD, BAD = (0.7, 0.8, 0.85, 0.9, 0.92), (0.35, 0.4, 0.5, 0.62, 0.75)
LEVELS = {
    "pretrained": GOOD,
    "types": (0.45, 0.55, 0.6, 0.7, 0.8),
    "random": BAD,
    "frozen": (0.72, 0.78, 0.8, 0.83, 0.86),
}


def test_the_sentences_follow_the_numbers():
    usual = report(record(**LEVELS)).answer
    swapped = report(record(**LEVELS | {"pretrained": BAD, "random": GOOD})).answer

    assert usual[0].startswith("At every size the pretrained start is above the random one")
    assert swapped[0].startswith("At every size the pretrained start is below the random one")
    assert "pretraining is worth about" in usual[1]
    assert "pretraining is worth no labelled sentences" in swapped[1]
    assert "of the gain" in usual[2]
    assert "of the gain" not in swapped[2]
    assert "fine-tuning adds" in usual[3]
    assert "fine-tuning loses" in swapped[3]


def test_ties_and_gaps_that_chance_gives_are_told_as_such():
    even = record(**dict.fromkeys(LEVELS, (1.0,) * 5))
    assert "the same at every size" in report(even).answer[3]

    some = json.loads(json.dumps(even))
    some["result"]["curves"]["frozen"][0]["accuracy"] = 0.5
    assert "fine-tuning adds 0.0 points. It is ahead with 50." in report(some).answer[3]

    for gap in even["result"]["gaps"]["random"]:
        gap |= {"gap": 0.01, "interval": [-0.01, 0.03]}
    assert "neither above nor below the random one by more than chance" in report(even).answer[0]


def test_equal_starts_are_not_told_apart():
    answer = report(record(**LEVELS | {"pretrained": BAD, "random": BAD})).answer

    assert "neither above nor below" in answer[0] or "more than chance only with" in answer[0]
    assert "few labelled sentences" in answer[1] or "no labelled sentences" in answer[1]


def test_a_start_that_is_ahead_in_part_is_said_to_be_so():
    told = report(
        record(**LEVELS | {"pretrained": (0.7, 0.8, 0.5, 0.6, 0.6), "random": (0.3, 0.4, 0.5, 0.8, 0.9)})
    ).answer

    assert "above it by more than chance with 50 and 100 and below it by more than chance with 400 and 800" in told[0]
    assert "sentences; at the ends: +" in told[0], "which are not those that were named"


def test_what_the_random_start_has_from_the_fewest_sentences_is_a_bound():
    made = record(**LEVELS | {"pretrained": (0.3, 0.35, 0.4, 0.5, 0.6), "random": GOOD})
    usual = record(**LEVELS)

    bound = page.render(made, report(made))

    assert "takes no more than 50 from the random one, the fewest that were tried." in bound
    assert "times as many" not in bound
    assert "times as many" in page.render(usual, report(usual))


def test_a_run_that_was_repeated_is_told_of():
    made = record(**LEVELS)
    before = page.render(made, report(made))
    made["result"]["repeated"] = [{"start": "random", "rows": 800, "seed": 1, "rate": 1e-4}]

    told = page.render(made, report(made))

    assert "began again" not in before
    assert "Of 45 runs 1 had learnt nothing" in told
    assert "random with 800 rows and seed 1 (at last 0.0001)" in told


def test_of_rates_that_chance_does_not_tell_apart_the_lowest_is_taken():
    def tried(**accuracies):
        return {float(rate): {"accuracy": value, "loss": 1.0} for rate, value in accuracies.items()}

    rates = tried(**{"1e-4": 0.50, "3e-4": 0.69, "1e-3": 0.70, "3e-3": 0.71})  # of 400 rows, one error is .023
    assert (best(rates), careful(rates, 400), careful(rates, 40_000)) == (3e-3, 3e-4, 3e-3)
    assert careful(tried(**{"1e-4": 1.0, "3e-4": 1.0, "1e-3": 0.99}), 400) == 1e-4

    made = record(**LEVELS)
    assert "by less than chance, for the starts" not in page.render(made, report(made))
    made["result"]["learning_rates"]["random"]["best"] = 3e-3
    assert "was best, by less than chance, for the starts: random." in page.render(made, report(made))


def test_every_accuracy_in_the_prose_is_in_the_record():
    made = record(**LEVELS)
    last = {start: made["result"]["curves"][start][-1]["accuracy"] for start in STARTS}

    drawn = page.render(made, report(made))

    for value in last.values():
        assert page.percent(value) in drawn
    assert drawn.count("<svg") >= 2
    assert "http" not in drawn.replace("http-equiv", "")


def test_what_a_page_says_is_escaped_and_its_code_is_shown_as_code():
    assert coded("`bertrand train` <b>&</b>") == "<code>bertrand train</code> &lt;b&gt;&amp;&lt;/b&gt;"


def test_rows_needed_are_read_between_the_sizes_and_never_beyond():
    right = np.zeros((1, len(SIZES), 1, 10), dtype=np.float32)
    curves = Curves(("pretrained",), SIZES, right)
    curve = np.array([0.4, 0.6, 0.5, 0.8, 0.9])

    assert isotonic(curve).tolist() == pytest.approx([0.4, 0.55, 0.55, 0.8, 0.9])
    assert curves.needed(curve, 0.3) == 50
    assert curves.needed(curve, 0.9) == pytest.approx(800)
    assert curves.needed(curve, 0.675) == pytest.approx(math.sqrt(200 * 400))
    assert math.isinf(curves.needed(curve, 0.91))


def test_intervals_hold_the_mean_and_narrow_with_more_test_rows():
    wide, narrow = (record(test_rows=rows, **LEVELS)["result"]["curves"]["random"] for rows in (40, 4000))

    for point in narrow:
        low, high = point["interval"]
        assert low <= point["accuracy"] <= high
    width = [np.mean([high - low for low, high in (point["interval"] for point in one)]) for one in (wide, narrow)]
    assert width[1] < 0.4 * width[0]


def test_which_rows_are_right_is_kept_whole():
    right = np.random.default_rng(0).random(37) < 0.5

    assert unpack(pack(right), 37).tolist() == right.astype(float).tolist()


def test_smaller_samples_begin_larger_ones_and_hold_every_label():
    rows = [Row(f"text {i}", (f"label {min(i % 40, 5)}",)) for i in range(400)]

    order = nested(rows, seed=3)

    assert sorted(order) == list(range(400))
    assert {rows[i].labels[0] for i in order[:6]} == {f"label {i}" for i in range(6)}
    assert order != nested(rows, seed=4)
    assert order == nested(rows, seed=3)


def test_more_time_buys_all_rows_first_and_then_epochs():
    plans = [choose(PACE, 5000, 6, 500, 3, minutes * 60) for minutes in (30, 60, 300)]

    assert [plan.sizes[-1] for plan in plans] == sorted(plan.sizes[-1] for plan in plans)
    assert plans[2].sizes[-1] == 5000
    assert plans[2].epochs == EPOCHS[0]
    assert plans[0].sizes[-1] < 5000 or plans[0].epochs < EPOCHS[0]
    for plan, minutes in zip(plans, (30, 60, 300), strict=True):
        assert plan.seconds <= minutes * 60
        assert len(plan.sizes) >= 5
    with pytest.raises(InputError, match="allow --minutes"):
        choose(PACE, 5000, 6, 500, 3, 10)


@pytest.mark.parametrize(("smallest", "largest"), [(50, 5452), (154, 9003), (8, 60), (2, 9)])
def test_sizes_rise_in_equal_factors_to_the_largest(smallest, largest):
    sizes = spread(smallest, largest, 6)

    assert sizes[0] == smallest
    assert sizes[-1] == largest
    assert list(sizes) == sorted(set(sizes))


def test_a_frozen_head_is_fitted_and_not_merely_tried():
    """A badly fitted head is what makes frozen vectors look useless."""
    chance = np.random.default_rng(0)
    labels = chance.choice(["a", "b", "c"], 300)
    centres = {name: chance.normal(size=16) for name in "abc"}
    vectors = np.array([centres[name] + chance.normal(size=16) * 0.8 for name in labels], dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    found = fit_frozen(vectors[:200], labels[:200], vectors[200:], labels[200:], 0)

    assert found["accuracy"] > 0.9
    # A label of a single row, which no fold can hold out and know.
    alone = fit_frozen(vectors[:21], np.array(["rare", *labels[1:21]]), vectors[200:], labels[200:], 0)
    assert alone["accuracy"] > 0.5


@pytest.mark.parametrize("labels", [["a"] * 19 + ["b"], ["a", "b"], ["a", "b", "b"]])
def test_a_frozen_head_is_fitted_on_labels_too_rare_for_cross_validation(labels):
    vectors = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    vectors[:, 0] = [3 if label == "a" else -3 for label in labels]

    assert fit_frozen(vectors, np.array(labels), vectors[-2:], np.array(labels[-2:]), 0)["accuracy"] >= 0.5


def test_the_rows_that_tell_the_pace_are_few_whatever_their_order():
    rows = [Row(f"text {i}", ("first" if i < 3000 else f"label {i % 50}",)) for i in range(6000)]

    chosen = timed_rows(rows)

    assert {row.labels for row in chosen} == {row.labels for row in rows}
    assert len(chosen) < 500


def test_a_run_that_learnt_nothing_begins_again_more_slowly(tiny_base):
    rows = [Row(f"{word} {other}", (word,)) for word in ("refund", "login") for other in "abcdefgh"]
    config = TrainConfig(base=str(tiny_base), learning_rate=1.0, epochs=4, consistency=0.0, init="random")

    once, again = (fit_one(config, rows, rows, repeat=repeat) for repeat in (False, True))

    assert once["rate"] == 1.0
    assert again["rate"] < 1.0


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory):
    chance = random.Random(0)
    kinds = {"refund": "refund money", "login": "password login", "praise": "great love"}
    fillers = "the a my is was not and please when where why it i we they to of on in for".split()
    rows = []
    for _ in range(130):
        label = chance.choice(list(kinds))
        words = [*chance.sample(fillers, chance.randint(2, 6)), chance.choice(kinds[label].split())]
        rows.append((" ".join(chance.sample(words, len(words))), label))
    return write_csv(tmp_path_factory.mktemp("study") / "rows.csv", rows)


def test_a_killed_study_goes_on_and_keeps_what_it_had(rows_file, tiny_base, tmp_path, capsys):
    out = tmp_path / "out"
    command = list(
        map(str, ["study", "init", rows_file, "--base", tiny_base, "--out", out, "--seeds", 1, "--epochs", 2])
    )
    kept = tmp_path / ".out.study" / "measured.jsonl"
    first = subprocess.Popen(
        [sys.executable, "-m", "bertrand", *map(str, command)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    until(lambda: kept.is_file() and kept.read_bytes().count(b"\n") > 8, 240)
    workers = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGKILL)
    first.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert workers
    assert not alive
    before = kept.read_text().splitlines()
    kept.write_bytes(kept.read_bytes() + b'{"key": "torn')

    capsys.readouterr()
    assert main([*command, "--resume", "--max-tokens", "64"]) == 2
    assert "cannot resume, max_tokens was 128 and is 64" in capsys.readouterr().err
    assert main([*command, "--resume", "--json"]) == 0
    done = capsys.readouterr()

    found = json.loads(done.out)
    assert found == json.loads((out / "study.json").read_bytes())
    assert "resuming: " in done.err
    assert not kept.exists()
    rates = [json.loads(line) for line in before if '"rate ' in line]
    for line in rates:
        _, start, rate = line["key"].split()
        assert found["result"]["learning_rates"][start]["tried"][f"{float(rate):g}"] == line["value"]
    sizes = found["result"]["sizes"]
    assert len(sizes) >= 5
    assert (
        sizes[-1]
        == found["result"]["rows"]
        == len(rows_file.read_text().splitlines()) - 1 - found["result"]["test_rows"]
    )
    assert set(found["result"]["curves"]) == set(STARTS)
    assert found["result"]["curves"]["random"][-1]["accuracy"] > found["result"]["majority"]
    assert {path.name for path in out.iterdir()} == {"study.json", "study.html", "figures"}
    figures = [path.read_text() for path in (out / "figures").iterdir()]
    assert len(figures) == 2
    assert all(text.startswith("<svg") and "var(--paper)" in text for text in figures)


def test_what_cannot_be_studied_is_said_before_anything_is_measured(
    rows_file, tiny_base, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    few = write_csv(tmp_path / "few.csv", [("refund", "a"), ("login", "b")] * 3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")

    for arguments, message in [
        ((few, "--base", tiny_base), "expected at least 4 a label"),
        ((rows_file, "--base", tiny_base, "--out", tmp_path / "mine"), "holds something that is not a study"),
        ((rows_file, "--base", tiny_base, "--minutes", "0"), "--minutes is 0; expected a number above 0"),
        ((rows_file, "--base", tiny_base, "--seeds", "0"), "--seeds is 0"),
        ((rows_file, "--base", tiny_base, "--seed", 2**32 - 2), f"--seed is {2**32 - 2}; expected a whole number from"),
        ((rows_file, "--base", tiny_base, "--max-tokens", "-5"), "--max-tokens is -5; expected a whole number from 4"),
        ((tmp_path / "none.csv",), "No such file"),
    ]:
        assert main(["study", "init", *map(str, arguments)]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "studies").exists() or not list((tmp_path / "studies").glob("*/study.json"))
    with pytest.raises(SystemExit, match="2"):
        main(["study", "nothing"])
    with pytest.raises(SystemExit, match="0"):
        main(["study", "--help"])
    assert "init" in capsys.readouterr().out
