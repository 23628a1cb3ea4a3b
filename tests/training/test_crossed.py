"""Few development rows: cross-validation says how good and how sure a model is, the last epoch is taken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inference import InputError
from inference.artifact import Artifact
from tests.support import manifest_of, write_csv
from training import crossed, pipeline
from training.calibration import fit_temperature
from training.checkpoint import Checkpoint
from training.crossed import Folds, cross_validate
from training.data import Row, are_few, fingerprint, label_names, read_rows, split
from training.metrics import targets
from training.record import read_run
from training.settings import TrainConfig
from training.train import fine_tune

TINY = {"epochs": 2, "learning_rate": 3e-3, "batch_size": 16, "max_tokens": 32}


@pytest.mark.parametrize(
    ("settings", "rows", "folds"),
    [
        ({}, 891, 3),
        ({}, 900, 0),
        ({"multi_label": True}, 891, 3),
        ({"dev_share": 0.3}, 240, 0),
        ({"folds": 5}, 9_000, 5),
        ({"folds": 0}, 100, 0),
    ],
)
def test_folds_stand_in_for_development_rows_that_are_too_few(settings, rows, folds):
    assert TrainConfig(**settings).for_rows(rows).folds == folds


def test_rows_to_develop_on_are_counted_where_they_are_known():
    """A tenth of each label, rounded, may be fewer than a tenth of all; a --dev may be more."""
    assert TrainConfig().for_rows(1023).folds == 0
    assert TrainConfig().for_rows(1023, 99).folds == 3
    assert TrainConfig().for_rows(500, 200).folds == 0
    assert TrainConfig().for_rows(500, 200).epochs == 16
    assert TrainConfig().for_rows(500).epochs == 10


def test_every_row_is_judged_by_a_model_that_has_not_learnt_it(tmp_path, tiny_base, sentences):
    rows = read_rows(sentences)
    train, dev = split(rows, share=0.1, seed=0)
    said = np.random.default_rng(0).dirichlet(np.ones(3), len(rows)).astype(np.float32)
    chosen = fine_tune(
        TrainConfig(base=str(tiny_base), **TINY), train, dev, tmp_path / "run", teacher=said[: len(train)]
    )

    unseen = cross_validate(chosen, train, dev, tmp_path / "folds", teacher=said)

    texts = {row.text: i for i, row in enumerate([*train, *dev])}
    assert sorted(unseen.rows, key=lambda row: texts[row.text]) == [*train, *dev]
    start = 0
    for folder in sorted((tmp_path / "folds").iterdir()):
        record = read_run(folder / "best")
        held_out = unseen.rows[start : start + len(rows) - record["train_rows"]["count"]]
        learnt = [row for row in (*train, *dev) if row not in held_out]
        assert record["train_rows"] == fingerprint(learnt)
        assert record["config"] == read_run(chosen)["config"] | {"epochs": 3}  # which are as many steps
        own = said[[texts[row.text] for row in learnt]]
        assert record["teacher_answers"] == crossed_fingerprint(own)
        logits = Checkpoint.load(str(folder / "best")).logits([row.text for row in held_out])
        np.testing.assert_array_equal(unseen.logits[start : start + len(held_out)], logits)
        start += len(held_out)
    assert start == len(rows)


def crossed_fingerprint(answers):
    import hashlib

    return {"sha256": hashlib.sha256(answers.tobytes()).hexdigest()}


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_model_of_some_hundred_rows_is_calibrated_and_measured_on_all_of_them(
    tmp_path, tiny_base, sentences, multi_label, capsys
):
    data = sentences
    if multi_label:
        rows = read_rows(sentences)
        both = [
            (f"{a.text} {b.text}", f"{a.labels[0]}|{b.labels[0]}") for a, b in zip(rows[:40], rows[40:80], strict=True)
        ]
        data = write_csv(tmp_path / "data.csv", [*((row.text, row.labels[0]) for row in rows), *both])
    config = TrainConfig(base=str(tiny_base), multi_label=multi_label, **TINY)
    pipeline.train(config, data, out=tmp_path / "out")

    count = len(read_rows(data, multi_label=multi_label))
    manifest = manifest_of(tmp_path / "out")
    assert {name: one["rows"] for name, one in manifest["metrics"].items()} == {"cross-validation": count}
    assert manifest["temperature"] != 1
    assert "accuracy_change" in manifest["gates"]["int8_faithfulness"]["measured"], "all of these rows have labels"
    assert json.loads((tmp_path / "out" / "checkpoint" / "train.json").read_text())["crossed"] == {
        "folds": 3,
        "rows": count,
    }
    told = capsys.readouterr().err
    assert f"cross-validation: {count} rows are judged" in told
    assert "to develop on, 0 to test" in told
    for page in ("report.html", "README.md"):
        text = (tmp_path / "out" / page).read_text()
        assert "to choose the epoch by" not in text
        assert "within one standard error" not in text
    calibration = json.loads((tmp_path / "out" / "checkpoint" / "calibration.json").read_text())
    assert (calibration["thresholds"] is not None) == multi_label


def test_the_temperature_is_that_of_the_rows_judged(tmp_path, tiny_base, sentences, monkeypatch):
    said = []

    def kept(*arguments, **options):
        said.append(cross_validate(*arguments, **options))
        return said[0]

    monkeypatch.setattr(crossed, "cross_validate", kept)
    pipeline.train(TrainConfig(base=str(tiny_base), **TINY), sentences, out=tmp_path / "out")

    (unseen,) = said
    expected = fit_temperature(unseen.logits, targets(unseen.rows, label_names(unseen.rows)))
    assert manifest_of(tmp_path / "out")["temperature"] == expected


def test_cross_validation_that_was_killed_goes_on_with_the_fold_it_was_in(tmp_path, tiny_base, sentences, monkeypatch):
    begun = []

    def killed(config, rows, dev, work, **options):
        begun.append(work.name)
        if work.name == "1" and len(begun) < 3:
            raise KeyboardInterrupt
        return fine_tune(config, rows, dev, work, **options)

    config, out = TrainConfig(base=str(tiny_base), **TINY), tmp_path / "out"
    pipeline.train(config, sentences, out=tmp_path / "whole")
    monkeypatch.setattr(crossed, "fine_tune", killed)
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(config, sentences, out=out)
    weights = tmp_path / ".out.training" / "folds" / "0" / "best" / "model.safetensors"
    written = weights.stat().st_mtime_ns

    def checked(config, rows, dev, work, **options):
        made = fine_tune(config, rows, dev, work, **options)
        if work.name == "0":
            assert Path(made, "model.safetensors").stat().st_mtime_ns == written, "learnt again"
        return made

    monkeypatch.setattr(crossed, "fine_tune", checked)
    pipeline.train(config, sentences, out=out, resume=True)

    assert Artifact.open(out).manifest.version == Artifact.open(tmp_path / "whole").manifest.version


def test_few_development_rows_choose_no_epoch(tmp_path, tiny_base, sentences):
    """Their labels are wrong, so that the first epochs look best; a hundred rows would be believed."""
    rows = read_rows(sentences)
    names = label_names(rows)
    wrong = [Row(row.text, (names[(names.index(row.labels[0]) + 1) % 3],)) for row in rows]
    chosen = {}
    for count in (99, 100):
        config = TrainConfig(base=str(tiny_base), patience=1, consistency=0.0, **TINY | {"epochs": 6, "batch_size": 8})
        run = read_run(fine_tune(config, rows, (wrong * 2)[:count], tmp_path / str(count)))
        scores = [epoch["dev_accuracy"] for epoch in run["history"]]
        assert scores[-1] < scores[0]
        chosen[count] = run["chosen_epoch"], len(run["history"])
    assert chosen[99] == (6, 6)
    assert chosen[100][0] < chosen[100][1] < 6


def test_a_label_that_one_fold_has_all_of_is_always_learnt():
    rows = [Row(f"text {i}", ("a", "b") if i % 2 else ("b",)) for i in range(30)]
    rows += [Row("rare one", ("a", "rare")), Row("Rare one!", ("b",))]

    folds = Folds(rows, seed=0)

    assert folds.size == {"folds": 3, "rows": 30}
    for number, (learnt, held_out) in enumerate(folds.parts):
        assert rows[30] in learnt
        assert rows[31] in learnt
        assert label_names(learnt) == ["a", "b", "rare"]
        assert not {row.text for row in learnt} & {row.text for row in held_out}
        assert [row for row, own in zip(rows, folds.learnt(number), strict=True) if own] == learnt


def test_folds_and_development_rows_of_ones_own_exclude_each_other(tmp_path, sentences):
    with pytest.raises(InputError, match="--folds is 3, but with a --dev its rows calibrate"):
        pipeline.train(TrainConfig(folds=3), sentences, dev=sentences, out=tmp_path / "out")
    with pytest.raises(InputError, match="--folds is 1; expected 0, or 2 and more"):
        TrainConfig(folds=1)
    assert not list(tmp_path.iterdir())


def test_few_examples_are_not_learnt_without_folds(sentences):
    rows = read_rows(sentences)[::10]
    assert are_few(rows, TrainConfig())
    assert not are_few(rows, TrainConfig(folds=0))
