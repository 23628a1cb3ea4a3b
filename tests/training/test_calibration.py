"""Scores that mean what they say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from inference import Classifier
from inference.classifier import sigmoid, softmax
from tests.support import manifest_of, run_command, write_csv
from training import finished, pipeline
from training.calibration import Calibration, fit, fit_abstention, fit_temperature, fit_thresholds
from training.data import read_rows
from training.gates import faithfulness
from training.metrics import measure
from training.settings import TrainConfig

ROWS = 4000
LEAST = {3: 0.98, 9: 0, 30: 0.8}  # of the way, with a thousand rows, by how much larger the right label's logit is


@pytest.fixture(scope="module")
def drawn():
    """Logits whose softmax is the truth: each row's label was drawn from it."""
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=2, size=(ROWS, 5)).astype(np.float32)
    labels = [generator.choice(5, p=row / row.sum()) for row in softmax(logits).astype(float)]
    return logits, np.asarray(labels)[:, None] == np.arange(5)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_was_applied_is_found(drawn, temperature):
    logits, truth = drawn
    assert fit_temperature(logits * temperature, truth) == pytest.approx(temperature, rel=0.08)


def test_calibration_lowers_the_error_and_changes_no_label(drawn):
    logits, truth = drawn
    loud = logits * 3
    before = softmax(loud)
    after = softmax(loud / np.float32(fit(loud, truth).temperature))
    names = list("abcde")
    assert measure(after, truth, names).ece < measure(before, truth, names).ece / 4
    assert (after.argmax(axis=1) == before.argmax(axis=1)).all()


def test_several_labels_a_row_have_a_temperature_too():
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=2, size=(ROWS, 3)).astype(np.float32)
    truth = generator.random((ROWS, 3)) < 1 / (1 + np.exp(-logits))
    assert fit_temperature(logits * 2.5, truth, multi_label=True) == pytest.approx(2.5, rel=0.08)


@pytest.mark.parametrize("scale", [3, 9, 30])
@pytest.mark.parametrize("rows", [1, 4, 20, 1000])
def test_rows_that_are_all_right_are_believed_as_far_as_their_number_goes(rows, scale):
    """Whatever the model said: the next one is right (N + 1) of (N + 2) times, and no score becomes 1."""
    truth = np.arange(rows)[:, None] % 4 == np.arange(4)
    logits = truth.astype(np.float32) * scale
    scores = softmax(logits / np.float32(fit_temperature(logits, truth)))[truth]
    _nears(scores, start=softmax(logits)[truth], aim=(rows + 1) / (rows + 2), least=LEAST[scale] if rows == 1000 else 0)
    if rows == 1000:
        assert scores == pytest.approx((rows + 1) / (rows + 2), abs=1e-3)
    if scale != 9:  # which a thousand rows agree with: it gives .9996
        abstention = fit(logits, truth, min_precision=0.9).abstention
        assert (abstention is None) == (scores.mean() < 0.9)
        assert not abstention or abstention.threshold < 0.9995
    assert fit(logits[:0], truth[:0]) == Calibration()


@pytest.mark.parametrize("scale", [3, 9, 30])
@pytest.mark.parametrize("rows", [1, 4, 20, 1000])
def test_several_labels_that_are_all_right_are_believed_as_far_as_their_number_goes(rows, scale):
    truth = np.repeat([[True, False], [False, True]], rows, axis=0)
    logits = np.where(truth, scale, -scale).astype(np.float32) / 2
    scores = sigmoid(logits / np.float32(fit_temperature(logits, truth, multi_label=True)))
    start, aim = sigmoid(logits), (2 * rows + 1) / (2 * rows + 2)
    _nears(scores[truth], start=start[truth], aim=aim, least=LEAST[scale] if rows == 1000 else 0)
    if rows == 1000:
        assert scores[truth] == pytest.approx(aim, abs=1e-3)


@pytest.mark.parametrize("scale", [3, 9, 30])
@pytest.mark.parametrize("rows", [1, 4, 20, 1000])
def test_of_rows_that_are_all_right_the_temperature_is_the_likeliest_with_both_priors(rows, scale):
    """Exactly, on a grid: each row is right (N + 1) of (N + 2) times, and the logarithm is Cauchy's, of scale .1."""
    truth = np.arange(rows)[:, None] % 2 == np.arange(2)
    logits = truth.astype(np.float32) * scale
    grid = np.arange(np.log(0.05), np.log(20), 1e-4)
    aim, margin = (rows + 1) / (rows + 2), scale / np.exp(grid)
    surprise = rows * (aim * np.logaddexp(0, -margin) + (1 - aim) * np.logaddexp(0, margin))
    best = grid[(surprise + np.log(1 + (grid / 0.1) ** 2)).argmin()]
    assert np.log(fit_temperature(logits, truth)) == pytest.approx(best, abs=1e-3)


def _nears(scores, *, start, aim, least):
    """Scores went from where they were towards an aim and not beyond; most of the way, where rows say so clearly."""
    way = (scores - start) / (aim - start)
    assert way == pytest.approx(way[0], abs=1e-3)
    assert least < way[0] < 1.02


def test_few_rows_do_not_talk_a_model_out_of_what_is_right(drawn):
    """What was calibrated keeps nearly its temperature, whichever rows are drawn; without a prior it strays far."""
    logits, truth = drawn
    draws = [np.random.default_rng(seed).choice(ROWS, 30, replace=False) for seed in range(50)]
    found = np.log([fit_temperature(logits[rows], truth[rows]) for rows in draws])
    strayed = np.log([_likeliest(logits[rows], truth[rows]) for rows in draws])
    assert np.sqrt((found**2).mean()) < 0.5 * np.sqrt((strayed**2).mean())
    assert np.abs(found.mean()) < 0.05


@pytest.mark.parametrize("temperature", [0.25, 5.0])
def test_few_rows_that_speak_clearly_are_believed(drawn, temperature):
    logits, truth = drawn[0][:100] * temperature, drawn[1][:100]
    assert fit_temperature(logits, truth) == pytest.approx(_likeliest(logits, truth), rel=0.06)


def _likeliest(logits, truth, *, multi_label=False):
    """The temperature that is likeliest by the rows alone, on a grid."""

    def surprise(temperature):
        scaled = logits.astype(float) / temperature
        if multi_label:
            return np.logaddexp(0, np.where(truth, -scaled, scaled)).mean()
        return -log_softmax(scaled, axis=1)[truth].mean()

    return min(np.exp(np.arange(-2.5, 2.5, 0.002)), key=surprise)


@pytest.mark.parametrize("multi_label", [False, True])
def test_of_thousands_of_rows_the_prior_changes_nothing_that_can_be_seen(drawn, multi_label):
    logits, truth = drawn
    plain = _likeliest(logits, truth, multi_label=multi_label)
    assert fit_temperature(logits, truth, multi_label=multi_label) == pytest.approx(plain, rel=0.004)


def test_a_threshold_is_where_its_label_has_the_best_f1():
    """The first label is right from .3 on, the second from .8 on."""
    scores = np.linspace(0, 0.999, 1000, dtype=np.float32)
    probabilities = np.stack([scores, scores], axis=1)
    truth = np.stack([scores >= 0.3, scores >= 0.8], axis=1)
    assert fit_thresholds(probabilities, truth) == pytest.approx((0.3, 0.8), abs=0.011)


def test_of_equally_good_thresholds_the_middle_one_is_taken():
    """At the edge, the next score a hair lower would be on the wrong side."""
    truth = np.array([[1, 0]] * 20 + [[0, 1]] * 20, dtype=bool)
    assert fit_thresholds(np.where(truth, 0.9, 0.1).astype(np.float32), truth) == pytest.approx((0.5, 0.5), abs=0.02)


def test_a_label_with_one_row_follows_the_others():
    """Alone, its threshold would be wherever that row happens to lie."""
    scores = np.linspace(0, 0.999, 1000, dtype=np.float32)
    probabilities = np.stack([scores, scores], axis=1)
    truth = np.stack([scores >= 0.5, np.arange(1000) == 999], axis=1)
    common, rare = fit_thresholds(probabilities, truth)
    assert common == pytest.approx(0.5, abs=0.011)
    assert rare < 0.999
    assert fit_thresholds(probabilities, truth & False) == (0.5, 0.5)


def test_abstaining_answers_as_many_as_the_precision_allows():
    """From the surest down: right, right, wrong, right, right, wrong."""
    sure = np.array([0.95, 0.9, 0.85, 0.8, 0.7, 0.6], dtype=np.float32)
    probabilities = np.stack([sure, 1 - sure], axis=1)
    truth = np.array([[1, 0], [1, 0], [0, 1], [1, 0], [1, 0], [0, 1]], dtype=bool)
    found = fit_abstention(probabilities, truth, min_precision=0.8)
    assert (found.precision, found.coverage) == (0.8, 5 / 6)
    assert found.threshold == pytest.approx(0.7)
    assert fit_abstention(probabilities, truth, min_precision=1.0).coverage == 2 / 6
    assert fit_abstention(probabilities, ~truth, min_precision=0.9) is None
    assert fit_abstention(probabilities[:0], truth[:0], min_precision=0.9) is None


@pytest.mark.parametrize(("wanted", "rows"), [(0.95, 50), (0.95, 500), (0.99, 50), (0.99, 500)])
def test_answers_to_other_texts_are_as_precise_as_was_wanted(wanted, rows):
    """Of a calibrated model: the threshold that looks best on the rows at hand is not taken for what it looks like."""
    generator = np.random.default_rng(0)

    def drawn(count):
        sure = (0.5 + generator.beta(5, 1, size=count) / 2).astype(np.float32)
        return np.stack([sure, 1 - sure], axis=1), np.eye(2, dtype=bool)[(generator.random(count) > sure).astype(int)]

    sure = np.sort(drawn(100_000)[0][:, 0])[::-1]  # a calibrated score is how often it is right
    reached = np.cumsum(sure) / np.arange(1, len(sure) + 1)
    found = [fit_abstention(*drawn(rows), min_precision=wanted) for _ in range(200)]
    precisions = [reached[max(0, int((sure >= one.threshold).sum()) - 1)] for one in found if one]

    assert len(precisions) > 190
    assert np.mean(precisions) >= wanted
    assert np.quantile(precisions, 0.1) >= 1 - 1.3 * (1 - wanted)


def test_equally_sure_answers_are_given_together():
    sure = np.full(4, 0.9, dtype=np.float32)
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
    assert fit_abstention(np.stack([sure, 1 - sure], axis=1), truth, min_precision=0.9) is None


@pytest.fixture(scope="module")
def blurred(tiny_base, tmp_path_factory):
    """A model of labels that overlap, which answers only where it is right nine times of ten."""
    generator = np.random.default_rng(0)
    words = {"a": "refund money order card", "b": "login password page account", "c": "thank great love app"}
    rows = []
    for i in range(300):
        label = "abc"[i % 3]
        chosen = [generator.choice(words[label if generator.random() < 0.6 else "abc"[generator.integers(3)]].split())]
        rows.append((" ".join([*chosen, "the", *generator.choice(words[label].split(), 1), str(i % 7)]), label))
        if generator.random() < 0.25:
            rows[-1] = (rows[-1][0], "abc"[generator.integers(3)])
    folder = tmp_path_factory.mktemp("blurred")
    data = write_csv(folder / "train.csv", rows)
    config = TrainConfig(base=str(tiny_base), epochs=6, learning_rate=3e-3, batch_size=8, max_tokens=32, dev_share=0.3)
    config = replace(config, min_precision=0.9)
    pipeline.train(config, data, out=folder / "model")
    return folder


def test_the_model_is_stored_calibrated_and_abstains(blurred):
    manifest = manifest_of(blurred / "model")
    saved = json.loads((blurred / "model" / "checkpoint" / "calibration.json").read_text())
    assert manifest["temperature"] == saved["temperature"] != 1
    assert manifest["thresholds"] == saved["thresholds"]
    assert set(manifest["thresholds"]) == {saved["abstention"]["threshold"]}
    assert saved["abstention"]["precision"] >= 0.9
    classifier = Classifier.load(blurred / "model")
    texts = [row.text for row in read_rows(blurred / "train.csv")]
    given = [prediction.label for prediction in classifier.classify(texts)]
    sure = classifier.score(texts).max(axis=1) >= saved["abstention"]["threshold"]
    assert [label is not None for label in given] == sure.tolist()
    assert 0 < sure.sum() < len(texts)


def test_measuring_and_comparing_tell_what_an_abstaining_model_answers(blurred, model_folder, sentences):
    model, rows = blurred / "model", read_rows(blurred / "train.csv")
    measured = run_command("evaluate", model, blurred / "train.csv", "--json")
    compared = run_command("compare", model, model / "checkpoint", blurred / "train.csv", "--precision", "fp32")
    every = run_command("evaluate", model_folder, sentences, "--json")

    given = [one.label for one in Classifier.load(model).classify([row.text for row in rows])]
    right = [label == row.labels[0] for label, row in zip(given, rows, strict=True) if label]
    answered = json.loads(measured.stdout)["answered"]
    assert answered["coverage"] == pytest.approx(len(right) / len(rows))
    assert answered["precision"] == pytest.approx(np.mean(right))
    assert [line[:9] for line in compared.stdout.splitlines() if " of the rows, " in line] == ["A answers", "B answers"]
    assert json.loads(every.stdout)["answered"] is None


def test_answers_that_int8_alone_gives_or_withholds_are_counted(blurred):
    rows = read_rows(blurred / "train.csv")
    fp32, int8 = (Classifier.load(blurred / "model", precision=name) for name in ("fp32", "int8"))

    gate = faithfulness(fp32, int8, rows, labelled=True)

    texts = [row.text for row in rows]
    given = [[prediction.label for prediction in one.classify(texts)] for one in (fp32, int8)]
    assert gate.measured["answers_differing"] == np.mean([one != other for one, other in zip(*given, strict=True)])
    always = Classifier(replace(int8.manifest, thresholds=None), int8.encoder, int8.engine, "int8")
    assert "answers_differing" not in faithfulness(fp32, always, rows, labelled=True).measured


def test_exported_again_it_is_the_same_model(blurred, tmp_path):
    """What was fitted lies beside the weights, and PyTorch applies it too."""
    checkpoint = blurred / "model" / "checkpoint"
    done = run_command(
        "export", checkpoint, "--data", blurred / "train.csv", "--label-column", "label", "--out", tmp_path / "again"
    )
    assert done.returncode == 0, done.stderr
    first, again = manifest_of(blurred / "model"), manifest_of(tmp_path / "again")
    assert (again["temperature"], again["thresholds"]) == (first["temperature"], first["thresholds"])
    assert again["base_model"] == first["base_model"]
    in_graph = finished.evaluate(blurred / "model", blurred / "train.csv", precision="fp32")
    in_pytorch = finished.evaluate(checkpoint, blurred / "train.csv")
    assert in_pytorch.ece == pytest.approx(in_graph.ece, abs=1e-4)


def test_a_precision_is_wanted_of_one_label_a_sentence_only(tmp_path, sentences):
    done = run_command("train", sentences, "--multi-label", "--min-precision", "0.9", "--out", tmp_path / "m")
    assert done.returncode == 2
    assert "--min-precision" in done.stderr
