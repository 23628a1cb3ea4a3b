"""Lines and planes through the weights of real runs: what must hold at their ends, and the page's words."""

import _thread
import copy
import json
import math
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from training.data import read_rows
from training.errors import DataError
from training.study import landscape
from training.study.batches import Batches, some
from training.study.course import Course, weights_of
from training.study.directions import around, beside, between, filter_normalised, plane_of
from training.study.ends import Ends
from training.study.landscape_page import report


@pytest.fixture(scope="module")
def stopped(model_folder, sentences, tmp_path_factory):
    """A study in the least time there is, stopped among its cells as by Ctrl-C, and gone on with; what was kept."""
    out = tmp_path_factory.mktemp("study") / "out"
    measured = out.parent / ".out.study" / "measured.jsonl"

    def stop():
        while not measured.is_file() or measured.read_bytes().count(b"\n") < 40:
            time.sleep(0.001)
        _thread.interrupt_main()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt):
        landscape.study(model_folder, sentences, out, minutes=0.01)
    signal.signal(signal.SIGINT, before)
    assert not out.exists()
    kept = {line["key"]: line["value"] for line in map(json.loads, measured.read_text().splitlines())}
    return kept, landscape.study(model_folder, sentences, out, minutes=0.01, resume=True), out


@pytest.fixture(scope="module")
def record(stopped):
    return stopped[1]


def test_a_study_that_was_stopped_goes_on_where_it_was(stopped):
    kept, record, out = stopped

    assert 40 <= len(kept) < 200
    assert kept["line of model at 0.2: test"] == record["result"]["lines"]["model"]["test"][2]
    assert kept["random: path"] == record["result"]["runs"]["random"]["steps"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
    assert len(list((out / "figures").iterdir())) == 8


def test_the_ends_of_the_line_are_the_losses_of_both_models(record, model_folder, sentences):
    ends = Ends.open(model_folder)
    rows = {"test": read_rows(sentences), "train": ends.learnt_rows(None)[0]}
    line = record["result"]["lines"]["model"]

    for name, some_rows in rows.items():
        batches = Batches.of(some(some_rows, record["result"]["plan"]["rows"], seed=0), ends.end)
        for place, model in ((0.0, ends.start), (1.0, ends.end.model)):
            score = batches.score(batches.logits(model))
            cell = line[name][line["places"].index(place)]
            assert cell["loss"] == pytest.approx(score.loss, abs=1e-6)
            assert cell["accuracy"] == score.accuracy
    losses = [cell["loss"] for cell in line["test"]]
    assert losses[line["places"].index(0.0)] > losses[line["places"].index(1.0)] + 0.1


@pytest.mark.parametrize("init", ["pretrained", "random"])
def test_in_the_middle_of_each_plane_is_the_end(record, init):
    result = record["result"]
    line = result["lines"][init]
    end = line["train"][line["places"].index(1.0)]["loss"]

    for plane in (result["planes"][init], result["around"][init]):
        assert plane["loss"][plane["y"].index(0.0)][plane["x"].index(0.0)] == pytest.approx(end, abs=1e-6)
    assert result["sharpness"][init]["loss"] == pytest.approx(end, abs=1e-6)
    assert result["planes"][init]["path"][-1] == [0.0, 0.0]


def test_both_starts_have_the_same_steps_and_the_rate_that_did_best(record):
    runs = record["result"]["runs"]

    assert runs["pretrained"]["steps"] == runs["random"]["steps"]
    for run in runs.values():
        best = min(run["tried"], key=lambda trial: trial["loss"])
        assert run["learning_rate"] == best["learning_rate"]


def test_a_line_is_exact_at_its_ends_and_goes_on_beyond_them():
    start, end = {"w": torch.randn(5, 3)}, {"w": torch.randn(5, 3)}

    assert between(start, end, 0.0)["w"].equal(start["w"])
    assert between(start, end, 1.0)["w"].equal(end["w"])
    torch.testing.assert_close(between(start, end, 1.5)["w"], end["w"] + 0.5 * (end["w"] - start["w"]))


def test_a_path_that_lies_in_a_plane_is_held_whole(tmp_path):
    """Points are found again from their places in the plane."""
    torch.manual_seed(0)
    one, other = torch.randn(4, 6), torch.randn(4, 6)
    places = [(-4.0, 1.0), (-3.0, -1.0), (-1.0, 2.0), (-0.5, 0.3), (0.0, 0.0)]
    points = [{"a": (1 + x * one + y * other)[:2], "b": (x * one + y * other)[2:].flatten()} for x, y in places]
    for step, point in enumerate(points):
        save_file({name: weight.contiguous() for name, weight in point.items()}, tmp_path / f"{step}.safetensors")
    course = Course(tmp_path, list(range(5)))
    plane = plane_of(course)

    assert sum(plane.shares) == pytest.approx(1)
    for point, (x, y) in zip(points, plane.path, strict=True):
        found = beside(course.end, plane.first, plane.second, x, y)
        for name, weight in point.items():
            torch.testing.assert_close(found[name], weight, atol=1e-4, rtol=0)
    inner = sum(float((plane.first[name] * plane.second[name]).sum()) for name in plane.first)
    assert inner == pytest.approx(0, abs=1e-5)
    assert math.hypot(*(float(plane.first[name].norm()) for name in plane.first)) == pytest.approx(1, abs=1e-5)


def test_every_path_comes_from_the_left(tmp_path):
    """Principal directions have no sign of their own: pictures of two runs would be mirrored by chance."""
    for seed in range(60):
        torch.manual_seed(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for step, point in enumerate(torch.randn(3, 7).cumsum(dim=0)):
            save_file({"w": point.clone()}, folder / f"{step}.safetensors")
        assert plane_of(Course(folder, [0, 1, 2])).path[0][0] < 0


def test_random_directions_are_as_long_as_each_neuron(model_folder):
    weights = weights_of(Ends.open(model_folder).end.model)
    direction = filter_normalised(weights, seed=1)

    assert direction.keys() == {
        name for name, weight in weights.items() if weight.dim() == 2 and ".embeddings." not in name
    }
    for name, way in direction.items():
        torch.testing.assert_close(way.norm(dim=1), weights[name].norm(dim=1))
    other = filter_normalised(weights, seed=2)
    assert all(not way.equal(other[name]) for name, way in direction.items())


@pytest.mark.parametrize(("low", "high", "count"), [(-3.0, 0.4, 7), (-1.0, 1.0, 5), (0.0, 2.0, 4), (-0.1, 0.0, 3)])
def test_a_side_covers_its_span_and_has_zero_on_it(low, high, count):
    places = around(low, high, count)

    assert 0.0 in places
    assert places[0] <= low + 1e-9
    assert places[-1] >= high - 1e-9
    assert count <= len(places) <= count + 1
    np.testing.assert_allclose(np.diff(places), places[1] - places[0])


def words(record):
    page = report(record)
    return " ".join([*page.answer, *(text for section in page.sections for text in section.says)])


def exchanged(record):
    """The study as it would be, had each start come where the other did."""
    other = copy.deepcopy(record)
    for name in ("runs", "lines", "planes", "around", "sharpness"):
        part = other["result"][name]
        part["pretrained"], part["random"] = part["random"], part["pretrained"]
    return other


def test_the_sentences_change_with_the_numbers(record):
    known = copy.deepcopy(record)
    result = known["result"]
    places = result["lines"]["model"]["places"]
    falling = [{"loss": 3.0 - 2.5 * min(1.0, place), "accuracy": 0.95 if place > 0.5 else 0.3} for place in places]
    hilly = [{"loss": 2.0 if place in (0.4, 0.6) else 1.1 - 0.6 * (place >= 1), "accuracy": 0.4} for place in places]
    for name, line in (("pretrained", falling), ("random", hilly)):
        result["lines"][name] |= {"test": line, "train": line}
    for name, rise in (("pretrained", 0.01), ("random", 0.9)):
        result["sharpness"][name]["rises"] = [[rise * (1 + k / 100)] * 4 for k in range(3)]
        result["planes"][name]["shares"] = {"pretrained": [0.9, 0.06], "random": [0.5, 0.1]}[name]
        for i, squares in enumerate(result["around"][name]["loss"]):
            squares[:] = [0.1 if name == "pretrained" or i == 0 else 5.0] * len(squares)
    said, other = words(known), words(exchanged(known))

    assert "the pretrained start is ahead by 55.0 points" in said
    assert "the random start is ahead by 55.0 points" in other
    assert "the pretrained start falls from 3.00 to 0.50 without a hill" in said
    assert "the random start rises from 1.10 to 2.00 at 0.4 of the way" in said
    assert "the pretrained start rises from 1.10 to 2.00 at 0.4 of the way" in other
    assert "the pretrained start leads to the flatter end" in said
    assert "the random start leads to the flatter end" in other
    assert "From the pretrained start, the plane holds 96" in said
    assert "From the random start, the plane holds 96" in other
    assert "around the end from the pretrained start is the wider" in said
    assert "around the end from the random start is the wider" in other

    for cell in [*falling, *hilly]:
        cell["accuracy"] = 0.9
    result["sharpness"]["random"] = result["sharpness"]["pretrained"]
    assert "no difference that so many rows can show" in words(known)
    for place, cell in zip(places, falling, strict=True):
        cell["loss"] = 3.0 + place
    assert "the pretrained start rises from 3.00 to 4.00: that end is worse than its start" in words(known)
    assert "which is the flatter, these directions do not say" in words(known)


def test_rows_to_learn_from_must_be_named_where_the_model_names_none(model_folder, sentences, tmp_path):
    moved = shutil.copytree(model_folder / "checkpoint", tmp_path / "moved")
    run = json.loads((moved / "train.json").read_text())
    run["data"]["file"] = "gone.csv"
    (moved / "train.json").write_text(json.dumps(run))

    with pytest.raises(DataError, match=r"learnt from gone.csv, which is not here; .*--train"):
        landscape.study(moved, sentences, tmp_path / "out", minutes=0.01)
    found = Ends.open(moved).learnt_rows(sentences)
    assert found[1], "the split of the run is found again in the named file"

    renamed = tmp_path / "renamed.csv"
    renamed.write_text(sentences.read_text().replace("text,label", "sentence,kind", 1))
    columns = {"text_column": "sentence", "label_column": "kind"}
    assert Ends.open(moved).learnt_rows(renamed, **columns) == found
