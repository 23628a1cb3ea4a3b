"""The end of a run: the rows that chose the epoch are learnt too, and what is said of them is of before."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from inference import InputError
from inference.artifact import Artifact
from tests.support import run_command
from training import final, pipeline
from training.calibration import fit_temperature
from training.checkpoint import Checkpoint
from training.data import Row, label_names, read_rows, split
from training.final import learn_all
from training.goals import Goals
from training.metrics import targets
from training.record import read_run
from training.settings import TrainConfig
from training.soft_labels import soft_labels
from training.train import fine_tune

TINY = {"epochs": 6, "learning_rate": 3e-3, "batch_size": 8, "max_tokens": 32}


def loss(checkpoint, rows):
    """Return the mean cross-entropy of what a checkpoint says of rows."""
    logits = Checkpoint.load(str(checkpoint)).logits([row.text for row in rows]).astype(np.float64)
    truth = targets(rows, label_names(rows))
    return float((np.logaddexp.reduce(logits, axis=1) - logits[truth]).mean())


@pytest.mark.parametrize(
    ("settings", "rows", "epochs"),
    [
        ({}, 100, 10),
        ({"epochs": 4}, 100, 4),
        ({}, 960, 1),
        ({}, 959, 2),
        ({}, 5_000, 1),
        ({}, 5_001, 0),
        ({"final_epochs": 2}, 5_001, 2),
        ({"final_epochs": 0}, 100, 0),
        ({"multi_label": True}, 1000, 0),
        ({"multi_label": True, "final_epochs": 1}, 1000, 1),
        ({"head_start": "fitted"}, 1000, 1),
        ({"head_start": "fitted", "freeze": "encoder"}, 1000, 0),
        ({"head_start": "random", "freeze": "encoder"}, 1000, 1),
    ],
)
def test_all_rows_are_learnt_in_the_end_where_time_allows(settings, rows, epochs):
    assert TrainConfig(**settings).for_rows(rows).final_epochs == epochs


def test_the_rows_that_chose_the_epoch_are_learnt_and_no_other_is_forgotten(tmp_path, tiny_base, sentences):
    """Their loss falls, and would not if their labels said otherwise; what had been learnt stays."""
    rows = read_rows(sentences)
    names = label_names(rows)
    train, dev = split(rows, share=0.5, seed=0)
    config = TrainConfig(base=str(tiny_base), final_epochs=3, **TINY | {"epochs": 6, "learning_rate": 1e-3})
    chosen = fine_tune(config, train, dev, tmp_path / "work")

    made, before = learn_all(chosen, train, dev, tmp_path / "work" / "final")

    assert before.rows == dev
    said = Checkpoint.load(str(chosen)).logits([row.text for row in dev])
    np.testing.assert_allclose(before.logits, said, atol=1e-5)
    forged = [[Row(row.text, (names[names.index(row.labels[0]) - 1],)) for row in part] for part in (train, dev)]
    misled, _ = learn_all(chosen, train, forged[1], tmp_path / "misled")
    assert loss(made, dev) < loss(chosen, dev) < loss(misled, dev)
    unmoved, _ = learn_all(chosen, forged[0], dev, tmp_path / "unmoved")
    assert loss(unmoved, dev) == loss(made, dev)  # on old rows it follows itself, whatever their labels
    assert loss(made, train) < loss(chosen, train)
    first, whole = read_run(chosen), read_run(made)
    assert whole == first | {"final": {"epochs": 3, "learning_rate": 5e-4, "rows": len(rows)}}


def test_it_goes_on_from_the_chosen_model(tmp_path, tiny_base, sentences):
    """At a rate of next to nothing nothing moves, whatever the labels are softened by."""
    train, dev = split(read_rows(sentences), share=0.5, seed=0)
    config = TrainConfig(base=str(tiny_base), **TINY | {"epochs": 1})
    chosen = fine_tune(config, train, dev, tmp_path / "work")
    record = chosen / "train.json"
    run = json.loads(record.read_text())
    run["config"] |= {"learning_rate": 1e-9, "head_learning_rate": 1e-9, "self_distillation": 0.5}
    record.write_text(json.dumps(run))

    made, _ = learn_all(chosen, train, dev, tmp_path / "work" / "final")

    texts = [row.text for row in (*train, *dev)]
    one, other = (Checkpoint.load(str(folder)).logits(texts) for folder in (chosen, made))
    np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("multi_label", [False, True])
def test_rare_labels_that_weigh_more_do_not_take_over(tmp_path, tiny_base, sentences, multi_label):
    """What the model says has their weight already; learnt with it once more, it would say little else."""
    rows = [Row(row.text, ("rare" if i % 8 == 0 else "common",)) for i, row in enumerate(read_rows(sentences))]
    train, dev = split(rows, share=0.2, seed=0)
    config = TrainConfig(
        base=str(tiny_base),
        class_weights="balanced",
        multi_label=multi_label,
        final_epochs=6,
        **TINY | {"epochs": 3, "learning_rate": 1e-3},
    )
    chosen = fine_tune(config, train, dev, tmp_path / "work")

    made, _ = learn_all(chosen, train, dev, tmp_path / "work" / "final")

    texts = [row.text for row in train]
    before, after = (Checkpoint.load(str(folder)).score(texts)[:, 1].mean() for folder in (chosen, made))
    assert after < before + 0.1


def test_development_figures_and_calibration_are_of_before(model_folder, sentences, tiny_base, tmp_path):
    """The finished model is surer of these rows than it may be of others."""
    manifest = Artifact.open(model_folder).manifest
    train, dev = split(read_rows(sentences), share=0.1, seed=0)
    config = TrainConfig(base=str(tiny_base), **TINY | {"epochs": 12})  # of the model folder
    before = Checkpoint.load(str(fine_tune(config, train, dev, tmp_path / "work", soft=soft_labels(config, train))))
    finished = Checkpoint.load(str(model_folder / "checkpoint"))
    truth = targets(dev, finished.labels)
    fitted, other = (fit_temperature(one.logits([row.text for row in dev]), truth) for one in (before, finished))
    assert manifest.temperature == pytest.approx(fitted, abs=1e-4)
    assert manifest.temperature != pytest.approx(other, abs=1e-3)
    record = json.loads((model_folder / "checkpoint" / "train.json").read_text())
    assert record["final"]["rows"] == len(read_rows(sentences)) == 96
    (chosen,) = [epoch for epoch in record["history"] if epoch["epoch"] == record["chosen_epoch"]]
    assert manifest.metrics["dev"]["rows"] == record["dev_rows"]["count"]
    assert manifest.metrics["dev"]["accuracy"] == pytest.approx(chosen["dev_accuracy"])

    page, card = ((model_folder / name).read_text() for name in ("report.html", "README.md"))
    for told in (page, card):
        assert "They are of the PyTorch checkpoint before it learnt from these rows too." in told
        assert "and all 96 to learn from in the end" in told
    assert (
        "From there the model learnt from all rows for 3 epochs, at a learning rate of at most 0.0015 in the top layer."
        in page
    )


def test_rows_of_a_development_file_are_never_learnt(tmp_path, tiny_base, sentences):
    config = TrainConfig(base=str(tiny_base), **TINY | {"epochs": 1})
    pipeline.train(config, sentences, dev=sentences, out=tmp_path / "out")
    record = json.loads((tmp_path / "out" / "checkpoint" / "train.json").read_text())
    assert record["config"]["final_epochs"] == 0
    assert "final" not in record
    page = (tmp_path / "out" / "report.html").read_text()
    assert "is the model, the dashed upright line" in page
    assert "in the end" not in page

    with pytest.raises(InputError, match="--final-epochs is 1, but rows of a --dev are never learnt; leave one"):
        pipeline.train(replace(config, final_epochs=1), sentences, dev=sentences, out=tmp_path / "other")


def test_it_can_be_left_out(tmp_path, tiny_base, sentences):
    done = run_command(
        *("train", sentences, "--out", tmp_path / "out", "--base", tiny_base, "--epochs", "1", "--final-epochs", "0")
    )
    assert done.returncode == 0, done.stderr
    assert "in the end" not in done.stderr
    assert "final" not in json.loads((tmp_path / "out" / "checkpoint" / "train.json").read_text())


def test_a_teacher_is_followed_row_by_row(tmp_path, tiny_base, sentences):
    """What it says of the rows that are new is of these, and not of others."""
    train, dev = split(read_rows(sentences), share=0.5, seed=0)
    config = TrainConfig(base=str(tiny_base), final_epochs=3, **TINY | {"epochs": 1, "learning_rate": 1e-3})
    chosen = fine_tune(config, train, dev, tmp_path / "work")
    right = targets([*train, *dev], label_names(train)).astype(np.float32)
    wrong = right.copy()
    wrong[len(train) :] = np.roll(wrong[len(train) :], 1, axis=1)

    followed, misled = (
        learn_all(chosen, train, dev, tmp_path / name, teacher=said)[0]
        for name, said in (("followed", right), ("misled", wrong))
    )

    assert loss(followed, dev) < loss(misled, dev)


@pytest.mark.parametrize("kind", ["several labels", "a teacher"])
def test_hard_labels_and_those_of_a_teacher_are_learnt_to_the_end_too(
    tmp_path, tiny_base, sentences, model_folder, kind
):
    settings = {
        "several labels": {"multi_label": True, "final_epochs": 1},
        "a teacher": {"teacher": str(model_folder)},
    }[kind]
    pipeline.train(TrainConfig(base=str(tiny_base), folds=0, **TINY, **settings), sentences, out=tmp_path / "out")
    record = json.loads((tmp_path / "out" / "checkpoint" / "train.json").read_text())
    assert record["final"]["rows"] == 96
    assert Artifact.open(tmp_path / "out").manifest.metrics["dev"]["rows"] == record["dev_rows"]["count"]
    for page in ("report.html", "README.md"):
        assert "the development rows, which the model had learnt by then" in (tmp_path / "out" / page).read_text()


@pytest.mark.parametrize("within", [True, False], ids=["between two of its epochs", "at its end"])
def test_a_run_killed_in_its_last_part_goes_on_there(tmp_path, tiny_base, sentences, monkeypatch, capsys, within):
    """Neither what chose the epoch is learnt anew, nor is a model of other weights made."""
    turn, turns = Goals.turn, itertools.count(1)

    def end_epoch(goals):
        if next(turns) > 2 + 1:
            raise KeyboardInterrupt
        turn(goals)

    def end(*_, **__):
        raise KeyboardInterrupt

    config = TrainConfig(base=str(tiny_base), final_epochs=3, folds=0, **TINY | {"epochs": 2})
    pipeline.train(config, sentences, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(*((Goals, "turn", end_epoch) if within else (final, "note", end)))
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(config, sentences, out=tmp_path / "out")
    capsys.readouterr()

    pipeline.train(config, sentences, out=tmp_path / "out", resume=True)

    assert "epoch 1 of 2" not in capsys.readouterr().err
    one, other = (Artifact.open(tmp_path / name).manifest.version for name in ("whole", "out"))
    assert one == other


@pytest.mark.parametrize("epochs", [None, 20])
def test_a_fitted_head_learns_the_last_rows_where_that_is_wanted(tmp_path, tiny_base, sentences, capsys, epochs):
    """By itself it stays as it was fitted, on the rows to learn from."""
    config = TrainConfig(
        base=str(tiny_base),
        head_start="fitted",
        soft_labels=0.0,
        freeze="encoder",
        consistency=0.0,
        dev_share=0.5,
    )
    pipeline.train(replace(config, final_epochs=0), sentences, out=tmp_path / "fitted")
    assert "the fitted classifier: development accuracy" in capsys.readouterr().err
    pipeline.train(replace(config, final_epochs=epochs), sentences, out=tmp_path / "out")
    rows = read_rows(sentences)
    fitted, ended = (loss(tmp_path / name / "checkpoint", rows) for name in ("fitted", "out"))
    assert ended < fitted if epochs else ended == fitted
