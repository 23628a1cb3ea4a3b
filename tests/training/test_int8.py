"""The int8 graph of real models made small: how near it is to fp32, and what becomes of one that is not."""

import json
import math

import numpy as np
import onnx
import pytest
import transformers

from inference import Classifier
from inference.classifier import softmax
from inference.engine import Engine
from tests.support import make_base, manifest_of, scale_a_matrix
from training import finished, gates
from training.checkpoint import Checkpoint
from training.data import Row, read_rows
from training.export import export_graphs
from training.finished import verify

TEXTS = ["i want my money back", "login", "?", "a", "thank you " * 60, "qué 日本 🙂 naïve", "where is my order please"]


@pytest.fixture(scope="module")
def fp32(model_folder):
    return Classifier.load(model_folder, precision="fp32")


@pytest.fixture(scope="module")
def int8(model_folder):
    return Classifier.load(model_folder, precision="int8")


@pytest.fixture(scope="module")
def rows(sentences):
    return read_rows(sentences)


def with_graph(classifier, path):
    """The same model with another int8 graph."""
    return Classifier(classifier.manifest, classifier.encoder, Engine(path, classifier.encoder.pad_id), "int8")


def save_classifier(base, folder, **config):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, **config)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_every_matrix_of_every_family_is_multiplied_in_integers(tmp_path, family):
    """A matrix that is missed makes the graph slower and no gate fail."""
    checkpoint = Checkpoint.load(save_classifier(make_base(tmp_path / "base", family), tmp_path / "c", num_labels=3))

    export_graphs(checkpoint, fp32=tmp_path / "fp32.onnx", int8=tmp_path / "int8.onnx")

    nodes = [node for node in onnx.load(tmp_path / "int8.onnx").graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(nodes) == 2 * 6
    assert len({node.input[0] for node in nodes}) == 2 * 4, "query, key and value share their input"
    assert len({node.input[4] for node in nodes}) == 2, "a GELU has a zero of its own"
    ids = [checkpoint.tokenizer(text, truncation=True, max_length=64)["input_ids"] for text in TEXTS]
    batch = [np.array(text, dtype=np.int64) for text in ids]
    pad = checkpoint.tokenizer.pad_token_id
    ours, theirs = (Engine(tmp_path / f"{name}.onnx", pad).run(batch, hidden=True) for name in ("int8", "fp32"))
    for one, other in zip(ours, theirs, strict=True):
        cosines = (one.hidden * other.hidden).sum(axis=1) / (
            np.linalg.norm(one.hidden, axis=1) * np.linalg.norm(other.hidden, axis=1)
        )
        assert cosines.min() > 0.98
        assert not np.array_equal(one.hidden, other.hidden)


def test_a_model_that_is_faithful_in_int8_offers_it(model_folder):
    manifest = manifest_of(model_folder)

    assert manifest["precisions"] == ["fp32", "int8"]
    faster = manifest["gates"]["int8_speed"]["measured"]["int8_speedup"] > 1
    assert manifest["default_precision"] == ("int8" if faster else "fp32")
    measured = manifest["gates"]["int8_faithfulness"]["measured"]
    assert measured["mean_token_cosine"] > 0.998
    assert measured["accuracy_change_low"] <= measured["accuracy_change"] <= measured["accuracy_change_high"]
    assert measured["max_probability_change"] > 0, "fp32 compared with itself proves nothing"
    for file in ("report.html", "README.md"):
        text = (model_folder / file).read_text(encoding="utf-8")
        assert "int8" in text
        assert "at least 0.998" in text
        assert f"the default is {manifest['default_precision']}" in text


def test_the_figures_are_those_of_the_rows(rows, fp32, int8):
    """Computed again here from what callers see."""
    gate = gates.faithfulness(fp32, int8, rows, labelled=True)

    texts = [row.text for row in rows]
    before, after = fp32.analyze(texts), int8.analyze(texts)
    cosines = [
        float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
        for one, other in zip(before, after, strict=True)
        for a, b in zip(one.token_embeddings, other.token_embeddings, strict=True)
    ]
    change = np.abs(fp32.score(texts) - int8.score(texts)).max()
    labels = [[prediction.label for prediction in model.classify(texts)] for model in (fp32, int8)]
    assert gate.rows == len(rows)
    assert gate.measured["mean_token_cosine"] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert gate.measured["min_token_cosine"] == pytest.approx(min(cosines), abs=1e-6)
    assert gate.measured["max_probability_change"] == pytest.approx(change, abs=1e-6)
    assert gate.measured["labels_differing"] == np.mean([a != b for a, b in zip(*labels, strict=True)])


def test_a_damaged_graph_fails_on_every_bound(model_folder, tmp_path, rows, fp32):
    graph = tmp_path / "damaged.onnx"
    graph.write_bytes((model_folder / "model.int8.onnx").read_bytes())
    scale_a_matrix(graph, factor=-3)

    damaged = with_graph(fp32, graph)
    texts = [row.text for row in rows]
    gate = gates.faithfulness(fp32, damaged, rows, labelled=True)

    assert not gate.passed
    assert [gate.holds(name) for name in gate.bounds] == [False, False, False]
    before, after = (
        np.mean([said.label == row.labels[0] for said, row in zip(model.classify(texts), rows, strict=True)])
        for model in (fp32, damaged)
    )
    assert gate.measured["accuracy_change"] == pytest.approx(after - before, abs=1e-9)
    assert "worst for" in gate.detail


def test_a_graph_that_answers_nothing_fails_and_is_told_in_json(model_folder, tmp_path, rows, fp32):
    graph = tmp_path / "nan.onnx"
    graph.write_bytes((model_folder / "model.int8.onnx").read_bytes())
    scale_a_matrix(graph, factor=math.nan)

    outcomes = gates.check_int8(fp32, with_graph(fp32, graph), rows, labelled=False)

    assert [gate.passed for gate in outcomes] == [False, False]
    assert "NaN" not in (told := json.dumps([gate.to_json() for gate in outcomes]))
    assert "Infinity" not in told


def test_the_usual_dynamic_quantisation_does_not_pass(model_folder, tmp_path, rows, fp32):
    """One scale for all tokens of a batch is what this gate is there to keep out."""
    from onnxruntime.quantization import quantize_dynamic

    options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantize_dynamic(model_folder / "model.onnx", tmp_path / "usual.onnx", per_channel=True, extra_options=options)

    outcomes = gates.check_int8(fp32, with_graph(fp32, tmp_path / "usual.onnx"), rows, labelled=True)

    assert {gate.name: gate.passed for gate in outcomes}["int8_batch_invariance"] is False
    assert outcomes[1].measured["max_hidden_difference"] > 1e-3


def test_weights_that_8_bits_cannot_hold_leave_int8_out_and_the_model_whole(tmp_path, model_folder, sentences, capsys):
    """A channel that never speaks, with weights of its own size: fp32 does not notice, and 8 bits see nothing else."""

    def spoil(model):
        for layer in model.base_model.encoder.layer:
            layer.intermediate.dense.bias.data[0] = -1000
            layer.output.dense.weight.data[:, 0] = 1e5

    checkpoint = Checkpoint.load(str(model_folder / "checkpoint"))
    spoil(checkpoint.model)
    checkpoint.model.save_pretrained(tmp_path / "spoiled")
    checkpoint.tokenizer.save_pretrained(tmp_path / "spoiled")

    manifest = finished.export(str(tmp_path / "spoiled"), tmp_path / "out", data=sentences)

    assert (manifest.precisions, manifest.default_precision) == (("fp32",), "fp32")
    assert not (tmp_path / "out" / "model.int8.onnx").exists()
    assert "model.int8.onnx" not in manifest.sha256
    assert "int8_speed" not in manifest.gates
    told = manifest_of(tmp_path / "out")["gates"]["int8_faithfulness"]
    assert told["passed"] is False
    assert told["measured"]["mean_token_cosine"] < 0.998
    assert manifest.metrics["data"]["accuracy"] > 0.9
    assert "int8 is not offered, gate int8_faithfulness failed: labels differing" in capsys.readouterr().err
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "The int8 graph failed a gate, so fp32 alone is offered." in report
    assert "FAILED" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert [gate.name for gate in verify(tmp_path / "out", data=sentences)] == ["parity", "batch_invariance"]


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path, model_folder, sentences, rows):
    """Whatever rows it is proved on: nothing but the checkpoint decides the graph."""
    from tests.support import write_csv

    other = write_csv(tmp_path / "other.csv", [(row.text, row.labels[0]) for row in rows[::3]])
    source = str(model_folder / "checkpoint")

    again = finished.export(source, tmp_path / "again", data=sentences, measured=False)
    less = finished.export(source, tmp_path / "less", data=other)

    assert again.version == less.version == manifest_of(model_folder)["version"]
    assert (tmp_path / "less" / "model.int8.onnx").read_bytes() == (model_folder / "model.int8.onnx").read_bytes()


def test_of_many_rows_a_choice_is_compared_the_same_each_time(rows, fp32, int8, monkeypatch):
    monkeypatch.setattr(gates, "INT8_ROWS", 20)

    one, other = (gates.faithfulness(fp32, int8, rows, labelled=False) for _ in range(2))

    assert one == other
    assert one.rows == 20
    assert "accuracy_change" not in one.measured | one.bounds


def test_of_several_labels_a_row_all_must_agree(tmp_path, tiny_base, sentences):
    """The best of several labels may be the same where another one is no longer given."""
    names = {0: "refund", 1: "login", 2: "praise"}
    source = save_classifier(
        tiny_base, tmp_path / "classifier", problem_type="multi_label_classification", id2label=names
    )
    export_graphs(Checkpoint.load(source), fp32=tmp_path / "fp32.onnx", int8=tmp_path / "int8.onnx")
    finished.export(source, tmp_path / "out", data=sentences)
    fp32 = Classifier.load(tmp_path / "out", precision="fp32")
    coarse = tmp_path / "int8.onnx"
    scale_a_matrix(coarse, factor=0.5)
    rows = read_rows(sentences, multi_label=True)
    texts = [row.text for row in rows]

    gate = gates.faithfulness(fp32, with_graph(fp32, coarse), rows, labelled=True)

    given = [
        [{label for label, _ in prediction.scores} for prediction in model.classify(texts)]
        for model in (fp32, with_graph(fp32, coarse))
    ]
    assert gate.measured["labels_differing"] == np.mean([a != b for a, b in zip(*given, strict=True)]) > 0


def test_texts_without_a_token_are_not_compared(fp32, int8):
    gate = gates.faithfulness(fp32, int8, [Row("\u200b", ()), *(Row(text, ()) for text in TEXTS)], labelled=False)

    assert gate.rows == len(TEXTS)


def test_any_input_has_a_finite_answer(int8):
    """A token that rounds to nothing, or far beyond what was seen in training, divides by no zero."""
    for text in [*TEXTS, "\U0010ffff", "e\u0301" * 500, "." * 1000]:
        (output,) = int8.engine.run([int8.encoder.encode([text])[0].ids], hidden=True)
        assert np.isfinite(output.hidden).all()
        assert np.isfinite(softmax(output.logits)).all()
