"""How a run learns: its loss, its head, few examples, several settings, a teacher, several processes."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
import transformers
from sklearn.linear_model import LogisticRegression

from inference import Classifier, InputError
from inference.classifier import softmax
from tests.support import ROOT, free_port, manifest_of, run_command, run_or_trace, until, write_csv
from training import files, final, pipeline
from training.base import load_config
from training.checkpoint import Checkpoint
from training.data import Row, label_names, read_rows
from training.errors import DataError
from training.few import _Judged, _lead, _Way, fine_tune_few, name_rows
from training.goals import Goals
from training.head import INVERSE_PENALTY, fit_head
from training.metrics import accuracy_lead
from training.objective import Objective
from training.settings import Search, TrainConfig
from training.soft_labels import soft_labels
from training.train import _scorer, fine_tune, fit, optimizer, start_model
from training.trainer import Order, Trainer
from training.unfinished import alone

TINY = {"epochs": 6, "learning_rate": 3e-3, "batch_size": 8, "max_tokens": 32}


def few_of(sentences, folder, rows):
    """Keep the first rows of every label."""
    seen: Counter[str] = Counter()
    kept = []
    for row in read_rows(sentences):
        seen[row.labels[0]] += 1
        if seen[row.labels[0]] <= rows:
            kept.append((row.text, row.labels[0]))
    return write_csv(folder / f"few-{rows}.csv", kept)


@pytest.mark.parametrize("multi_label", [False, True])
def test_two_passes_that_agree_cost_nothing(multi_label):
    objective = Objective(multi_label, consistency=1.0)
    one, other = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[0.0, 1.0, 0.5]])
    assert objective.distance(one, one).item() == pytest.approx(0, abs=1e-6)
    assert objective.distance(one, other).item() == pytest.approx(objective.distance(other, one).item())
    assert objective.distance(one, other).item() > 0.1


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_teacher_is_followed_best_by_its_own_probabilities(multi_label):
    objective = Objective(multi_label, consistency=0.0)
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    taught = torch.sigmoid(logits) if multi_label else torch.softmax(logits, dim=-1)
    at_best = objective.follow(logits, taught).item()
    assert all(objective.follow(logits + shift, taught).item() > at_best for shift in torch.eye(3) * 0.3)


def test_balanced_labels_weigh_the_same():
    """Nine rows of one label, all wrong, are as bad as one row of the other."""
    truth = np.array([[1, 0]] * 9 + [[0, 1]], dtype=bool)
    objective = Objective.of(truth, TrainConfig(class_weights="balanced"))
    goals = torch.from_numpy(truth.argmax(axis=1))
    common_wrong = torch.tensor([[-5.0, 5.0]] * 10)
    rare_wrong = -common_wrong
    assert objective.loss(common_wrong, goals).item() == pytest.approx(objective.loss(rare_wrong, goals).item())


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_a_label_counts_the_same_by_its_place_and_as_probabilities(class_weights):
    """A batch without a rare label weighs no more than one with it, however many processes share it."""
    truth = np.array([[1, 0]] * 99 + [[0, 1]], dtype=bool)
    objective = Objective.of(truth, TrainConfig(class_weights=class_weights))
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    for goals in (torch.zeros(8, dtype=torch.long), torch.tensor([0] * 7 + [1])):
        soft = torch.nn.functional.one_hot(goals, 2).float()
        assert objective.loss(logits, goals).item() == pytest.approx(objective.loss(logits, soft).item())


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_what_was_pretrained_learns_more_slowly_than_the_classifier(tiny_base, pooling):
    config = TrainConfig(base=str(tiny_base), pooling=pooling).for_rows(100)
    model = start_model(config, load_config(config.base), ["a", "b"])
    rates = {id(p): group["lr"] for group in optimizer(model, config).param_groups for p in group["params"]}

    found = {name: rates[id(p)] for name, p in model.named_parameters() if id(p) in rates}

    fast = {name for name, rate in found.items() if rate == config.head_learning_rate}
    assert fast == {"classifier.weight", "classifier.bias"}
    assert max(rate for name, rate in found.items() if name not in fast) == config.learning_rate


@pytest.mark.parametrize("init", ["pretrained", "random", "types"])
def test_a_base_of_half_precision_learns_in_full(tiny_base, tmp_path, init):
    half = transformers.AutoModel.from_pretrained(tiny_base).half()
    half.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path)
    config = TrainConfig(base=str(tmp_path), init=init).for_rows(100)

    model = start_model(config, load_config(config.base), ["a", "b"])

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_what_was_learnt_for_a_study_speaks_in_full_precision(tiny_base):
    rows = [Row(f"{word} {other}", (word,)) for word in ("refund", "login") for other in "abcdefgh"]
    model, tokenizer = fit(TrainConfig(base=str(tiny_base), epochs=1), rows)
    read = tokenizer(["refund the order"], return_tensors="pt")
    with torch.no_grad():
        said = model(**read)["logits"]
        again = type(model).forward(model, **read)["logits"]
    assert torch.equal(said, again)


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_model_that_follows_what_it_says_stays_as_it_is(class_weights, multi_label):
    """Weights of labels are in what a model says already, and must not pull it further."""
    truth = np.array([[1, 0, 0]] * 6 + [[0, 1, 0]] * 3 + [[0, 0, 1]], dtype=bool)
    objective = Objective.of(truth, TrainConfig(class_weights=class_weights, multi_label=multi_label))
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 3.0]], requires_grad=True)
    said = torch.sigmoid(logits) if multi_label else torch.softmax(logits, dim=1)

    objective.loss(logits, objective.towards(said.detach())).backward()

    np.testing.assert_allclose(logits.grad, 0, atol=1e-7)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_label_that_every_row_has_is_learnt_under_balanced_weights(multi_label):
    """There is nothing to weigh it against: a weight of 0 would leave it to chance."""
    truth = np.array([[1, 0], [1, 1], [1, 0]] if multi_label else [[1, 0]] * 3, dtype=bool)[:, : 1 + multi_label]
    objective = Objective.of(truth, TrainConfig(class_weights="balanced", multi_label=multi_label))
    logits = torch.zeros(truth.shape, requires_grad=True)
    objective.loss(logits, torch.from_numpy(truth).float()).backward()
    assert not multi_label or (logits.grad[:, 0] < -0.05).all()
    assert objective.towards(torch.tensor(truth, dtype=torch.float32)).isfinite().all()


def test_a_fitted_head_of_several_labels_a_row_is_logistic_regression_of_each():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(300, 6))
    vectors = 7 * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = vectors[:, :3] + generator.normal(scale=3, size=(300, 3)) > 0
    layer = torch.nn.Linear(6, 3)
    objective = Objective(multi_label=True, consistency=0.0)
    fit_head(layer, torch.tensor(vectors, dtype=torch.float32), torch.from_numpy(truth).float(), objective)
    for label, ours in enumerate(layer.weight.detach().numpy()):
        known = LogisticRegression(C=INVERSE_PENALTY / 7**2, tol=1e-8, max_iter=1000).fit(vectors, truth[:, label])
        np.testing.assert_allclose(ours, known.coef_[0], atol=2e-3)


def test_the_fitted_head_is_logistic_regression():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(300, 6))
    vectors = 7 * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = (vectors[:, :3] + generator.normal(scale=3, size=(300, 3))).argmax(axis=1)
    layer = torch.nn.Linear(6, 3)
    objective = Objective(multi_label=False, consistency=0.0)
    fit_head(layer, torch.tensor(vectors, dtype=torch.float32), torch.from_numpy(labels), objective)
    known = LogisticRegression(C=INVERSE_PENALTY / 7**2, tol=1e-8, max_iter=1000).fit(vectors, labels)
    ours = layer.weight.detach().numpy()
    np.testing.assert_allclose(ours - ours.mean(axis=0), known.coef_ - known.coef_.mean(axis=0), atol=2e-3)


@pytest.mark.parametrize("rows", [2, 5])
def test_few_examples_all_teach_and_cross_validation_calibrates(tmp_path, tiny_base, sentences, rows):
    data = few_of(sentences, tmp_path, rows)
    options = ["--base", tiny_base, "--epochs", "4", "--learning-rate", "3e-3", "--max-tokens", "32"]
    done = run_command("train", data, "--test", sentences, "--out", tmp_path / "out", *options, "--patience", "2")
    assert done.returncode == 0, done.stderr
    assert "few examples" in done.stderr
    assert "warning: --patience without effect, since all of few examples are learnt from" in done.stderr
    record = json.loads((tmp_path / "out" / "checkpoint" / "train.json").read_text())
    asked = record["cross_validation"]
    named = asked["chosen"].endswith("-named")
    assert record["train_rows"]["count"] == 3 * rows + (3 if named else 0)
    assert asked["rows"] == 3 * rows
    assert asked["names"] == (3 if named else 0)
    assert [name.removesuffix("-named") for name in asked["ways"]] == ["frozen", "frozen", "tuned"]
    chosen = asked["ways"][asked["chosen"]]
    tuned, lead = list(asked["ways"])[-1], asked["lead"]
    frozen = {name: way["accuracy"] for name, way in asked["ways"].items() if name != tuned}
    assert frozen[lead["of"]] == max(frozen.values())
    assert lead["over_tuned"] == pytest.approx(frozen[lead["of"]] - asked["ways"][tuned]["accuracy"])
    assert asked["chosen"] == (lead["of"] if lead["over_tuned"] > lead["standard_error"] else tuned)
    assert manifest_of(tmp_path / "out")["temperature"] == pytest.approx(chosen["temperature"])
    assert {path.name for path in tmp_path.iterdir()} == {"out", data.name}


def test_a_label_with_one_text_is_always_learnt(tmp_path, tiny_base, sentences):
    """It is in no fold, so that every model knows all labels; copies and contradicted texts stay on one side."""
    rows = [(row.text, row.labels[0]) for row in read_rows(few_of(sentences, tmp_path, 3))]
    rows += [("alone in the world", "single"), rows[0], (rows[1][0], "praise")]
    data = write_csv(tmp_path / "odd.csv", rows)
    config = TrainConfig(base=str(tiny_base), **TINY)
    pipeline.train(config, data, out=tmp_path / "out")
    record = json.loads((tmp_path / "out" / "checkpoint" / "train.json").read_text())
    names = 4 if record["cross_validation"]["chosen"].endswith("-named") else 0
    assert record["train_rows"]["count"] == len(rows) + names
    assert record["cross_validation"]["rows"] == len(rows) - 1
    assert "single" in Checkpoint.load(str(tmp_path / "out" / "checkpoint")).labels


def test_a_label_that_other_rows_speak_against_is_learnt_less():
    """Of the real base; a label whose rows all are one text cannot be judged and stays as it is."""
    texts = {
        "refund": ["money back please", "I want my money back", "pay me back", "give back what I paid", "refund it"],
        "password": [
            "I forgot my password",
            "reset my password",
            "new password please",
            "password lost",
            "my password",
        ],
    }
    rows = [Row(text, (label,)) for label, written in texts.items() for text in written]
    wrong = len(rows)
    rows += [Row("please send my money back", ("password",)), Row("hello", ("single",))]

    soft = soft_labels(TrainConfig(soft_labels=0.4), rows)

    assert label_names(rows) == ["password", "refund", "single"]
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
    assert soft[-1].tolist() == [0, 0, 1]
    own = soft[np.arange(len(rows)), [label_names(rows).index(row.labels[0]) for row in rows]]
    assert own[:-1].argmin() == wrong
    assert (own >= 0.6 - 1e-6).all()
    assert soft[wrong, 1] > 0.2  # more than half of what could go there


def test_labels_stay_as_they_are_where_no_two_can_be_judged():
    rows = [Row("money back", ("refund",)), Row("refund me", ("refund",)), Row("hello", ("single",))]
    assert soft_labels(TrainConfig(), rows).tolist() == [[1, 0], [1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("settings", "rows", "share"),
    [
        ({}, 100, 0.3),
        ({}, 20_001, 0.0),
        ({"soft_labels": 0.1}, 20_001, 0.1),
        ({"soft_labels": 0.0}, 100, 0.0),
        ({"init": "random"}, 100, 0.0),
        ({"teacher": "models/other"}, 100, 0.0),
        ({"multi_label": True}, 100, 0.0),
    ],
)
def test_labels_are_soft_where_a_probe_can_say_something(settings, rows, share):
    assert TrainConfig(**settings).for_rows(rows).soft_labels == share


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({}, 0.5),
        ({"soft_labels": 0.0}, 0.0),
        ({"soft_labels": 0.0, "self_distillation": 0.4}, 0.4),
        ({"self_distillation": 0.0}, 0.0),
        ({"init": "random"}, 0.0),
        ({"multi_label": True}, 0.0),
    ],
)
def test_a_model_is_its_own_teacher_where_labels_are_soft(settings, share):
    assert TrainConfig(**settings).for_rows(100).self_distillation == share


def test_what_the_model_said_takes_the_place_of_soft_labels_and_then_of_a_part_of_the_labels():
    truth = np.array([[True, False], [False, True], [False, True]])
    soft = np.array([[0.7, 0.3], [0.0, 1.0], [0.1, 0.9]], dtype=np.float32)
    said = torch.tensor([[0.8, 0.2], [0.6, 0.4]])
    goals = Goals(truth, soft, share=0.5, epochs=4, towards=Objective(multi_label=False, consistency=0.0).towards)
    learnt = []
    for epoch in range(4):
        goals.epoch = epoch
        learnt.append(goals.of(torch.tensor([2, 0])))
        goals.hear(torch.tensor([2, 0]), said * (epoch + 1) / 4)
        goals.hear(torch.tensor([1, 0]), said * 0)  # a row may be passed twice, to fill the last batch
        goals.turn()

    np.testing.assert_array_equal(learnt[0], soft[[2, 0]])
    np.testing.assert_array_equal(learnt[1], soft[[2, 0]])
    before = np.array([[0.8, 0.2], [0.3, 0.2]])  # of the row that was passed twice, the mean
    half = 0.5 * soft[[2, 0]] + 0.25 * truth[[2, 0]] + 0.25 * before * 2 / 4
    np.testing.assert_allclose(learnt[2], half, atol=1e-6)
    np.testing.assert_allclose(learnt[3], 0.5 * truth[[2, 0]] + 0.5 * before * 3 / 4, atol=1e-6)


def test_what_the_model_said_by_weighed_labels_is_not_weighed_again():
    objective = Objective(multi_label=False, consistency=0.0, weights=torch.tensor([1.0, 4.0]))
    goals = Goals(np.array([[False, True]]), None, share=1.0, epochs=3, towards=objective.towards)
    goals.hear(torch.tensor([0]), torch.tensor([[0.5, 0.5]]))
    goals.turn()
    goals.epoch = 2
    np.testing.assert_allclose(goals.of(torch.tensor([0])), [[0.8, 0.2]])


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_of_one_or_two_epochs_learns_soft_labels_alone(epochs):
    soft = np.array([[0.7, 0.3]], dtype=np.float32)
    goals = Goals(
        soft > 0.5, soft, share=0.5, epochs=epochs, towards=Objective(multi_label=False, consistency=0.0).towards
    )
    goals.epoch = epochs - 1
    np.testing.assert_array_equal(goals.of(torch.tensor([0])), soft)


def test_a_model_that_is_its_own_teacher_is_less_sure_of_what_it_learnt(tmp_path, tiny_base, sentences):
    rows = read_rows(sentences)
    places = [label_names(rows).index(row.labels[0]) for row in rows]
    sure = {}
    for share in (0.0, 0.8):
        config = TrainConfig(base=str(tiny_base), soft_labels=0.0, self_distillation=share, **TINY | {"epochs": 16})
        made = fine_tune(config, rows, [], tmp_path / str(share))
        scores = softmax(Checkpoint.load(str(made)).logits([row.text for row in rows]))
        sure[share] = scores[range(len(rows)), places].mean()
    assert 0.5 < sure[0.8] < sure[0.0]


def order_of_rows(lengths, *, epoch=0.0, world_size=1, seed=0):
    arguments = SimpleNamespace(train_batch_size=8 // world_size, world_size=world_size, seed=seed)
    return list(Order(SimpleNamespace(args=arguments, state=SimpleNamespace(epoch=epoch)), lengths))


def test_every_epoch_has_an_order_of_its_own_that_processes_share():
    lengths = [5 + i % 7 for i in range(100)]
    first = order_of_rows(lengths)
    torch.rand(1)  # what dropout draws is of no matter
    assert order_of_rows(lengths) == order_of_rows(lengths, world_size=2) == first
    assert first not in (order_of_rows(lengths, epoch=1.0), order_of_rows(lengths, seed=1))


def test_every_process_measures_the_development_rows_in_one_order():
    """By chance, each would draw another order, and some rows would count twice in place of others."""
    rows = [{"input_ids": [0] * (5 + i % 7)} for i in range(20)]
    first = Trainer._get_eval_sampler(None, rows)
    torch.rand(1)
    assert list(Trainer._get_eval_sampler(None, rows)) == list(first)
    assert sorted(first) == list(range(20))


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 100, 1000])
def test_each_row_comes_once_in_an_epoch(rows):
    assert sorted(order_of_rows([5 + i % 7 for i in range(rows)])) == list(range(rows))


def test_a_batch_has_sentences_of_similar_length_and_batches_come_by_chance():
    lengths = np.random.default_rng(0).integers(1, 41, size=8 * 500)
    batches = lengths[order_of_rows(lengths.tolist())].reshape(-1, 8)
    assert np.ptp(batches, axis=1).mean() < 2  # of 40
    means = batches.mean(axis=1)
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.1  # none, where they fall: .9
    assert set(map(tuple, batches)) != set(map(tuple, lengths[order_of_rows(lengths, epoch=1.0)].reshape(-1, 8)))


@pytest.mark.parametrize(
    ("both", "frozen", "tuned", "chosen"),
    [(0, 0, 0, False), (80, 3, 0, True), (80, 10, 7, False), (0, 1, 0, False), (50, 20, 10, True), (50, 10, 20, False)],
)
def test_a_frozen_encoder_is_taken_where_more_than_chance_speaks_for_it(both, frozen, tuned, chosen):
    """Rows that both have right, or one alone, of a hundred; a standard error is the root of those that differ."""
    right = np.arange(100) < both + frozen
    other = right.copy()
    other[both : both + frozen] = False
    other[both + frozen : both + frozen + tuned] = True
    lead, error = accuracy_lead(other, right)
    assert lead == pytest.approx((frozen - tuned) / 100)
    assert (lead > error) is chosen


def test_a_search_killed_in_its_last_part_may_find_a_better_trial(tmp_path, tiny_base, sentences, monkeypatch, capsys):
    """What the other trial had begun to learn to the end is not gone on with."""

    def end(*_, **__):
        raise KeyboardInterrupt

    config = TrainConfig(
        base=str(tiny_base), epochs=1, learning_rate=3e-3, batch_size=16, max_tokens=32, dev_share=0.4, soft_labels=0.0
    )
    with monkeypatch.context() as patch:
        patch.setattr(final, "note", end)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(config, sentences, out=tmp_path / "out", search=Search(2, minutes=1e-9))
    assert "trial 2 of 2" not in capsys.readouterr().err, "the first is tried, however short the time"
    first = tmp_path / ".out.training" / "trial-0"
    assert (first / "final").is_dir()

    with monkeypatch.context() as patch:
        patch.setattr(final, "note", end)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(config, sentences, out=tmp_path / "out", search=Search(8), resume=True)
    assert "best of 8 trials: trial-0" not in capsys.readouterr().err
    assert not (first / "final").exists()
    pipeline.train(config, sentences, out=tmp_path / "out", search=Search(8), resume=True)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("lost_card", "lost card"),
        ("lost-card", "lost card"),
        ("LostCard", "Lost Card"),
        ("ATM", "ATM"),
        ("größe: klein", "größe klein"),
        ("カード", "カード"),
        ("7", "7"),
        ("???", None),
    ],
)
def test_the_name_of_a_label_is_a_text(label, text):
    assert name_rows([label]) == ([Row(text, (label,))] if text else [])


@pytest.mark.parametrize(
    ("labels", "texts"),
    [
        (["c", "c#", "c++", "go_lang"], ["c", "c#", "c++", "go lang"]),
        (["lost_card", "lost card", "fee"], ["fee"]),
        (["हिन्दी", "nai\u0308ve"], ["हिन्दी", "na\u00efve"]),
    ],
)
def test_names_of_labels_contradict_no_other(labels, texts):
    """Two labels of one text would be a contradiction that the data checks warn of."""
    assert [row.text for row in name_rows(labels)] == texts


def test_names_that_say_what_labels_mean_are_learnt_and_others_are_not(tmp_path):
    """Of the real base: two texts of each label say less than its name, if that is one."""
    texts = {
        "animals": ["she rode it across the field", "an eagle"],
        "music": ["violin", "he sang the last verse"],
        "weather": ["take an umbrella", "minus ten degrees"],
        "sport": ["they scored twice", "a racket"],
    }
    ways = {}
    for kind, names in {"meant": list(texts), "mixed": ["weather", "sport", "animals", "music"]}.items():
        rows = [Row(text, (name,)) for name, pair in zip(names, texts.values(), strict=True) for text in pair]
        checkpoint, _ = fine_tune_few(TrainConfig(freeze="encoder"), rows, tmp_path / kind)
        ways[kind] = json.loads((checkpoint / "train.json").read_text())["cross_validation"]
    assert ways["meant"]["chosen"] == "frozen-named"
    assert ways["mixed"]["chosen"] == "frozen"


def test_few_examples_learn_as_many_do_where_that_is_wanted(tmp_path, tiny_base, sentences):
    config = TrainConfig(base=str(tiny_base), few_examples="off", **TINY)
    pipeline.train(config, few_of(sentences, tmp_path, 5), out=tmp_path / "out")
    record = json.loads((tmp_path / "out" / "checkpoint" / "train.json").read_text())
    assert record["dev_rows"]["count"] == 3
    assert "cross_validation" not in record


def test_epochs_of_several_labels_are_judged_at_thresholds_that_suit_them():
    """After one of few epochs no probability may reach .5; all epochs would be as good as each other."""
    truth = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 5, dtype=np.float32)
    logits = np.where(truth > 0, -1.0, -3.0).astype(np.float32)

    score = _scorer(["a", "b"], TrainConfig(multi_label=True))(transformers.EvalPrediction(logits, truth))

    assert score["macro_f1"] == 1
    assert score["accuracy"] == 1


def test_one_text_a_label_is_refused(tmp_path, tiny_base, sentences):
    done = run_command("train", few_of(sentences, tmp_path, 1), "--base", tiny_base, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "every label has one text only" in done.stderr


def test_the_search_takes_the_best_trial_and_resumes(tmp_path, tiny_base, sentences, monkeypatch, capsys):
    """
    The first trial is what was asked for; a setting that was named is the same in all.

    Resumed with fewer trials, or with no time, the best of all that have ended is taken: no other has weights.
    """
    from training import folder

    config = TrainConfig(base=str(tiny_base), **TINY)
    wanted = Search(trials=3)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "build", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(config, sentences, out=tmp_path / "out", search=wanted)
        with pytest.raises(KeyboardInterrupt):  # its time was over when it was interrupted
            pipeline.train(config, sentences, out=tmp_path / "out", search=Search(5, minutes=1e-9), resume=True)
    assert "trial 3 of 5" in (told := capsys.readouterr().err)
    assert "trial 4 of 5" not in told
    work = tmp_path / ".out.training"
    weights = {path: path.stat().st_mtime_ns for path in work.glob("trial-*/best/model.safetensors")}
    assert len(weights) == 1  # of the best trial alone

    fewer = Search(trials=1, minutes=1e-9)
    pipeline.train(config, sentences, out=tmp_path / "out", search=fewer, resume=True)

    told = capsys.readouterr().err
    assert "--search is 1, but 3 trials have ended: all of them count" in told
    record = json.loads((tmp_path / "out" / "checkpoint" / "train.json").read_text())
    trials = record["search"]["trials"]
    assert len(trials) == 3
    assert "learning_rate" not in trials[0]
    assert len({trial["head_learning_rate"] for trial in trials}) == 3
    assert trials[0]["head_learning_rate"] == config.head_learning_rate
    (chosen,) = [epoch for epoch in record["history"] if epoch["epoch"] == record["chosen_epoch"]]
    assert chosen["dev_accuracy"] == max(trial["score"] for trial in trials)
    number, best = max(enumerate(trials, 1), key=lambda trial: trial[1]["score"])
    assert (
        f"trial {number} of 3 was best, {best['score']:.4f}: head_learning_rate {best['head_learning_rate']:.4g}, "
        in told
    )
    assert not work.exists()


def test_the_latest_epoch_within_one_standard_error_of_the_best_is_the_model(
    tmp_path, tiny_base, sentences, model_folder
):
    """Every label to learn from is wrong, so that scores fall; the other model keeps its best."""
    rows = read_rows(sentences) * 2  # fewer would choose no epoch
    names = label_names(rows)
    train = [Row(row.text, (names[(names.index(row.labels[0]) + 1) % 3],)) for row in rows]
    dev = rows
    config = TrainConfig(base=str(tiny_base), **TINY | {"epochs": 8, "patience": 8, "consistency": 0.0})
    checkpoint = fine_tune(config, train, dev, tmp_path / "work")

    chosen = {}
    for folder in (checkpoint, model_folder / "checkpoint"):
        record = json.loads((folder / "train.json").read_text())
        scores = {epoch["epoch"]: epoch["dev_accuracy"] for epoch in record["history"]}
        best = max(scores.values())
        error = math.sqrt(best * (1 - best) / record["dev_rows"]["count"])
        good = [epoch for epoch, score in scores.items() if score >= best - error]
        assert record["chosen_epoch"] == good[-1]
        chosen[folder] = len(good), good[-1] == record["history"][-1]["epoch"], record
    assert not chosen[checkpoint][1]  # the last epoch is not taken where it is worse
    assert chosen[model_folder / "checkpoint"][0] > 1  # nor the first of equal ones

    logits = Checkpoint.load(str(checkpoint)).logits([row.text for row in dev])
    goals = torch.tensor([names.index(row.labels[0]) for row in dev])
    loss = torch.nn.functional.cross_entropy(torch.tensor(logits), goals).item()
    record = chosen[checkpoint][2]
    losses = {epoch["epoch"]: epoch["dev_loss"] for epoch in record["history"]}
    assert min(losses, key=lambda epoch: abs(losses[epoch] - loss)) == record["chosen_epoch"]


def test_a_student_comes_nearer_to_its_teacher(tmp_path, tiny_base, sentences, model_folder):
    """Of one layer, on labels that are wrong for a fourth of the rows: a teacher's word weighs more."""
    rows = read_rows(sentences)
    names = label_names(rows)
    spoilt = [
        (row.text, names[(names.index(row.labels[0]) + 1) % 3] if i % 4 == 0 else row.labels[0])
        for i, row in enumerate(rows)
    ]
    data = write_csv(tmp_path / "spoilt.csv", spoilt)
    config = TrainConfig(base=str(tiny_base), layers=1, **TINY)
    pipeline.train(config, data, dev=sentences, out=tmp_path / "alone")
    pipeline.train(replace(config, teacher=str(model_folder)), data, dev=sentences, out=tmp_path / "taught")

    texts = [row.text for row in rows]
    teacher = Classifier.load(model_folder, precision="fp32").score(texts)
    distance = {
        name: np.abs(Classifier.load(tmp_path / name, precision="fp32").score(texts) - teacher).mean()
        for name in ("alone", "taught")
    }
    assert distance["taught"] < distance["alone"]
    assert Checkpoint.load(str(tmp_path / "taught" / "checkpoint")).model.config.num_hidden_layers == 1


def test_a_teacher_of_several_labels_a_row_is_none_for_one(tmp_path, tiny_base, sentences, model_folder):
    config = TrainConfig(base=str(tiny_base), teacher=str(model_folder), multi_label=True)
    with pytest.raises(InputError, match="gives a row one label; expected a model that gives any number of them"):
        pipeline.train(config, sentences, out=tmp_path / "out")


def test_another_teacher_or_base_is_noticed_when_a_run_goes_on(tmp_path, tiny_base, sentences):
    rows = read_rows(sentences)
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    config = TrainConfig(base=str(base), soft_labels=0.0, **TINY | {"epochs": 1})
    said = np.full((len(rows), 3), 1 / 3, dtype=np.float32)
    fine_tune(config, rows, [], tmp_path / "run", teacher=said)
    with pytest.raises(DataError, match="the teacher answers differ"):
        fine_tune(config, rows, [], tmp_path / "run", teacher=said[:, ::-1] * [0.5, 1, 1.5], resume=True)
    tokenizer = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"]["lowercase"] = not tokenizer["normalizer"]["lowercase"]
    (base / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(DataError, match="the files of the base model differ"):
        fine_tune(config, rows, [], tmp_path / "run", teacher=said, resume=True)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"pooling": "first", "head_start": "fitted"}, "--head-start is 'fitted'"),
        ({"head_start": "fitted", "freeze": "encoder", "teacher": "models/other"}, "--teacher is 'models/other'"),
    ],
)
def test_what_would_change_nothing_is_refused(settings, told):
    with pytest.raises(InputError, match=told):
        TrainConfig(**settings)


def test_a_run_that_was_stopped_early_and_killed_gives_the_model_it_had(tmp_path, tiny_base, sentences):
    """It has nothing left to learn: another epoch would make another model of it."""
    rows = read_rows(sentences)
    dev = [Row(row.text, ("login",)) for row in [*rows, *rows[:40]]]  # which no epoch tells better than the first
    config = TrainConfig(base=str(tiny_base), patience=1, soft_labels=0.0, **TINY | {"epochs": 50})
    first = fine_tune(config, rows, dev, tmp_path / "run")
    record, weights = json.loads((first / "train.json").read_text()), (first / "model.safetensors").read_bytes()
    assert len(record["history"]) < 50
    shutil.rmtree(first)  # as a kill before it was saved leaves it

    again = fine_tune(config, rows, dev, tmp_path / "run", resume=True)

    assert (again / "model.safetensors").read_bytes() == weights
    assert json.loads((again / "train.json").read_text()) == record


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_base_that_tells_other_labels_apart_lends_no_head(model_folder, pooling):
    """As many labels are not the same ones."""
    labels, checkpoint = ["a", "b", "c"], str(model_folder / "checkpoint")
    config = TrainConfig(base=checkpoint, pooling=pooling).for_rows(100)
    known = Checkpoint.load(checkpoint).model
    begun, other = (start_model(one, load_config(checkpoint), labels) for one in (config, replace(config, seed=1)))

    assert begun.classifier.weight.shape == known.classifier.weight.shape
    assert not torch.equal(begun.classifier.weight, known.classifier.weight)
    assert not torch.equal(begun.classifier.weight, other.classifier.weight)
    assert begun.classifier.weight.std() < 2 * known.config.initializer_range
    ours, theirs = (model.base_model.state_dict() for model in (begun, known))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_is_random_beside_pretrained_types_learns(tiny_base):
    config = TrainConfig(base=str(tiny_base), init="types").for_rows(100)
    model = start_model(config, load_config(str(tiny_base)), ["a", "b"])
    still = [name for name, weights in model.named_parameters() if not weights.requires_grad]
    assert still == ["bert.embeddings.word_embeddings.weight"]


def test_few_examples_with_balanced_labels_are_judged_by_macro_f1():
    """Nine of ten rows right by never giving the rare label, or eight with it: the wish chooses."""
    truth = np.eye(2, dtype=bool)[[0] * 80 + [1] * 20]
    common = np.eye(2, dtype=bool)[[0] * 100]
    both = np.eye(2, dtype=bool)[[0] * 58 + [1] * 42]
    ways = [_Judged(_Way(name, TrainConfig()), None, given, truth, 1.0) for name, given in (("c", common), ("b", both))]
    assert max(ways, key=lambda way: way.score("accuracy")).way.name == "c"
    assert max(ways, key=lambda way: way.score("macro_f1")).way.name == "b"
    ahead, error = _lead(*ways, "macro_f1")
    assert ahead == pytest.approx(ways[1].score("macro_f1") - ways[0].score("macro_f1"))
    assert ahead > error > 0
    assert _lead(*ways, "accuracy")[0] < 0


def test_a_teacher_of_other_labels_is_refused(tmp_path, tiny_base, sentences, model_folder):
    other = write_csv(tmp_path / "other.csv", [(row.text, row.labels[0] + "s") for row in read_rows(sentences)])
    with pytest.raises(InputError, match="expected a model of the same labels"):
        pipeline.train(TrainConfig(base=str(tiny_base), teacher=str(model_folder)), other, out=tmp_path / "out")


def test_two_processes_train_one_model_as_one_does(tmp_path, tiny_base, sentences, model_folder):
    """Each takes half of every batch; one of them writes and speaks. Killed, both go on; one alone is refused."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--local-addr", "127.0.0.1"]
    options = ["--epochs", "12", "--learning-rate", "3e-3", "--batch-size", "8", "--max-tokens", "32"]
    options += ["--folds", "0"]
    out = tmp_path / "out"
    command = ["train", sentences, "--test", sentences, "--out", out, "--base", tiny_base, *options]
    log = tmp_path / "log"

    def together(*more):
        return [sys.executable, *launch, "--master-port", str(free_port()), "-m", "bertrand", *map(str, command), *more]

    # The launcher looks the machine's name up some twenty times, each for 10 s where no name server answers.
    environment = {"RES_OPTIONS": "timeout:1 attempts:1"}
    with log.open("w") as output:
        killed = subprocess.Popen(together(), cwd=ROOT, env=os.environ | environment, stderr=output)
    until(lambda: "epoch 2 of 12" in log.read_text(), 200)
    for process in (first := psutil.Process(killed.pid), *first.children(recursive=True)):
        process.kill()
    killed.wait()
    begun = log.read_text()
    done = run_command(*command, "--resume")
    assert done.returncode == 2
    assert "processes was 2 and is 1" in done.stderr

    returncode = run_or_trace(together("--resume"), log, **environment)
    told = begun + log.read_text()
    assert returncode == 0, told
    assert "resuming after checkpoint-" in told
    assert "newly initialized" not in told, "Transformers is quiet in all processes"
    assert told.count("epoch 1 of 12") == told.count("learning from all 96 rows in the end") == 1
    record = json.loads((out / "checkpoint" / "train.json").read_text())
    assert (record["processes"], record["final"]["rows"]) == (2, 96)
    chosen = next(epoch for epoch in record["history"] if epoch["epoch"] == record["chosen_epoch"])
    assert chosen["dev_accuracy"] == pytest.approx(manifest_of(out)["metrics"]["dev"]["accuracy"])
    shared, alone = (manifest_of(folder)["metrics"]["test"]["accuracy"] for folder in (out, model_folder))
    assert shared == pytest.approx(alone, abs=0.05)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "log"}


def test_one_process_in_place_of_several_is_told(tmp_path, tiny_base, monkeypatch, capsys):
    """On CPUs accelerate starts one, says nothing, and sets no WORLD_SIZE."""
    rows = [(f"{word} {i}", label) for i in range(40) for word, label in (("refund", "a"), ("login", "b"))]
    data = write_csv(tmp_path / "data.csv", [*rows, ("\ufffd", "a")])
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(DataError, match="leaves nothing"):
        pipeline.train(TrainConfig(base=str(tiny_base)), data, out=tmp_path / "out")
    assert "accelerate launch has started one process of several" in capsys.readouterr().err

    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(DataError, match="leaves nothing"):
        pipeline.train(TrainConfig(base=str(tiny_base)), data, out=tmp_path / "out")
    assert "accelerate" not in capsys.readouterr().err


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path, tiny_base, sentences, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="--batch-size is 32; expected a multiple of 3"):
        pipeline.train(TrainConfig(base=str(tiny_base)), sentences, out=tmp_path / "out")


def test_two_runs_of_one_model_at_once_are_refused(tmp_path, tiny_base, sentences):
    """Each would take the other's states away."""
    config, out = TrainConfig(base=str(tiny_base), **TINY | {"epochs": 1}), tmp_path / "out"
    with alone(tmp_path / ".out.training"), pytest.raises(InputError, match="another process is at work there"):
        pipeline.train(config, sentences, out=out)
    assert list(tmp_path.iterdir()) == []

    (tmp_path / ".out.training.lock").touch()  # as a killed process leaves it
    assert pipeline.train(config, sentences, out=out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('multi-label = "no"', "--multi-label is 'no'; expected true or false"),
        ("base = 3", "--base is 3; expected a text"),
        ('label_column = ""', "--label-column is ''; expected a name"),
        ('epochs = "3"', "--epochs is '3'; expected a whole number"),
        ('teacher = ""', "--teacher is ''; expected a model, or no --teacher"),
        ("max-tokens = 3\nmax_tokens = 32", "max-tokens and max_tokens are one setting"),
        (
            "head-learning_rate = 0.1\nhead_learning-rate = 0.2",
            "head-learning_rate and head_learning-rate are one setting",
        ),
        ("epoch = 3", "unknown setting 'epoch'"),
        ("epochs", "not a TOML file"),
    ],
)
def test_settings_of_a_file_that_cannot_be_are_refused(tmp_path, sentences, content, told):
    (tmp_path / "settings.toml").write_text(content)
    done = run_command("train", sentences, "--out", tmp_path / "out", "--config", tmp_path / "settings.toml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert told in done.stderr


def test_settings_come_from_a_file_and_options_win(tmp_path, sentences, tiny_base):
    settings, out = tmp_path / "settings.toml", tmp_path / "out"
    settings.write_text(f"base = {json.dumps(str(tiny_base))}\nepochs = 2\nmax-tokens = 16\nlayers = 1\n")
    done = run_command("train", sentences, "--out", out, "--config", settings, "--epochs", "1", "--freeze", "none")
    assert done.returncode == 0, done.stderr
    config = json.loads((out / "checkpoint" / "train.json").read_text())["config"]
    assert [config[name] for name in ("epochs", "max_tokens", "layers", "freeze")] == [1, 16, 1, "none"]


def test_a_search_is_for_one_process(tmp_path, tiny_base, sentences, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="a search runs in one process; found 2"):
        pipeline.train(TrainConfig(base=str(tiny_base)), sentences, out=tmp_path / "out", search=Search(2))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--search", "0"], "--search is 0; expected"),
        (["--search", "2", "--search-minutes", "-1"], "--search-minutes is -1.0; expected"),
        (["--search-minutes", "5"], "say --search N too"),
        (
            [
                *("--search", "2", "--learning-rate", "3e-3", "--head-learning-rate", "2e-3", "--layer-decay", "0.8"),
                *("--batch-size", "8", "--consistency", "0.5", "--weight-decay", "0.02"),
            ],
            "--search has nothing to try: all that it would try is set",
        ),
        (
            ["--search", "2", "--head-start", "fitted", "--freeze", "encoder"],
            "--search has nothing to try: only a fitted head learns",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused(tmp_path, sentences, options, told):
    done = run_command("train", sentences, "--out", tmp_path / "out", *options)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_search_is_not_cleared_away_by_a_run_that_forgot_it(tmp_path, tiny_base, sentences, monkeypatch):
    """Whoever leaves an option out of the command that resumes would lose all that was trained."""
    from training import folder

    config = TrainConfig(base=str(tiny_base), folds=0, **TINY | {"epochs": 1})
    with monkeypatch.context() as patch:
        patch.setattr(folder, "build", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(config, sentences, out=tmp_path / "out", search=Search(1))
    work = tmp_path / ".out.training"
    kept = {path: path.stat().st_mtime_ns for path in work.rglob("*")}

    with pytest.raises(DataError, match="cannot resume, what is unfinished there is a search"):
        pipeline.train(config, sentences, out=tmp_path / "out", resume=True)

    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == kept


@pytest.mark.parametrize(
    ("begun", "asked", "told"),
    [
        ("train.json", "search", "one run from many rows"),
        ("train.json", "few", "one run from many rows"),
        ("frozen-named-0/train.json", "run", "learning from few examples"),
        ("frozen-0/train.json", "few", None),
        ("trial-0/train.json", "search", None),
        ("train.json", "run", None),
        (None, "search", None),
    ],
)
def test_what_was_begun_otherwise_is_told_by_what_it_left(tmp_path, begun, asked, told):
    if begun:
        (tmp_path / begun).parent.mkdir(exist_ok=True)
        (tmp_path / begun).touch()

    with pytest.raises(DataError, match=f"unfinished there is {told}") if told else nullcontext():
        pipeline._check_begun(tmp_path, asked)


def test_layers_that_the_base_does_not_have_are_refused(tiny_base, sentences, tmp_path):
    """They would be random ones on top of what was pretrained."""
    config = TrainConfig(base=str(tiny_base), layers=3, **TINY)

    with pytest.raises(InputError, match=r"--layers is 3, but .* has 2; expected at most so many"):
        pipeline.train(config, sentences, out=tmp_path / "m")


def test_more_tokens_than_the_base_reads_are_told_counted_and_recorded_as_what_is_read(tiny_base, tmp_path, capsys):
    rows = [(f"{'refund ' * (70 if i == 3 else 1)}{'money' if i % 2 else 'login'} {i}", "ab"[i % 2]) for i in range(30)]
    data = write_csv(tmp_path / "data.csv", rows)
    config = TrainConfig(base=str(tiny_base), **TINY | {"max_tokens": 100, "epochs": 1}, few_examples="off")

    checked, _ = files.check_data(config, data)
    assert "--max-tokens is 100, but" in capsys.readouterr().err
    (finding,) = [one for one in checked.findings if one.code == "too_long"]
    assert (finding.count, "more than 64 tokens" in finding.message) == (1, True)

    rows = read_rows(data)
    best = fine_tune(config, rows, [], tmp_path / "work")
    assert json.loads((best / "train.json").read_text())["config"]["max_tokens"] == 64
    assert fine_tune(config, rows, [], tmp_path / "work", resume=True) == best
