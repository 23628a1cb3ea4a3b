"""Fine-tuning, export and gates with real models made small: what a model folder holds, and when there is none."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import transformers

from inference import ArtifactError, Classifier, InputError
from inference.classifier import softmax
from tests.support import ROOT, make_base, manifest_of, run_command, write_csv
from training import finished, gates, pipeline
from training.checkpoint import Checkpoint
from training.data import Row, read_rows
from training.errors import BaseModelError, DataError, GateError
from training.folder import model_name
from training.record import read_run
from training.settings import TrainConfig
from training.vectors import layered_vectors, sentence_vectors

PROBES = ["i want my money back", "login", "?", "a", "thank you " * 60, "qué 日本 🙂 naïve", "where is my order please"]


@pytest.fixture(scope="module")
def checkpoint(model_folder):
    return Checkpoint.load(str(model_folder / "checkpoint"))


@pytest.fixture(scope="module")
def classifier(model_folder):
    return Classifier.load(model_folder, precision="fp32")


def test_the_model_learns(model_folder):
    """A pipeline that trains nothing would pass every parity test."""
    assert manifest_of(model_folder)["metrics"]["test"]["accuracy"] > 0.9


def said_of(model, rows):
    """What a service counts when it is asked about the rows: the best label of each, and its probability."""
    predictions = Classifier.load(model, precision="fp32").classify([row.text for row in rows])
    labels = Counter(prediction.label or "(none)" for prediction in predictions)
    scores = [prediction.score for prediction in predictions if prediction.label]
    return {label: count / len(rows) for label, count in labels.items()}, np.mean(scores)


def check_reference(model, figures, rows):
    shares, confidence = said_of(model, rows)
    labels = manifest_of(model)["labels"]

    assert figures["predicted"] == dict.fromkeys([*labels, "(none)"], 0.0) | shares
    assert sum(figures["predicted"].values()) == pytest.approx(1)
    assert figures["confidence"] == pytest.approx(confidence, abs=1e-6)


def test_the_manifest_says_what_traffic_is_held_against(model_folder, sentences):
    """Drift is the difference between these figures and what the service counts: both must count alike."""
    figures = manifest_of(model_folder)["metrics"]["test"]

    check_reference(model_folder, figures, read_rows(sentences))
    assert figures["predicted"]["(none)"] == 0
    assert figures["truncated"] == 0
    assert f"label is {figures['confidence']:.3f} on the test rows" in (model_folder / "README.md").read_text()


def test_texts_without_a_label_and_those_that_are_cut_are_told(tmp_path, model_folder, sentences):
    rows = [*read_rows(sentences), Row("money back " * 40, ("refund",)), Row("page the on box", ("login",))]
    path = write_csv(tmp_path / "rows.csv", [(row.text, row.labels[0]) for row in rows])
    checkpoint = shutil.copytree(model_folder / "checkpoint", tmp_path / "checkpoint")
    calibration = checkpoint / "calibration.json"
    unsure = json.loads(calibration.read_text()) | {"temperature": 3.0, "thresholds": [0.6, 0.7, 0.65]}
    calibration.write_text(json.dumps(unsure))

    finished.export(str(checkpoint), tmp_path / "out", data=path)

    figures = manifest_of(tmp_path / "out")["metrics"]["data"]
    check_reference(tmp_path / "out", figures, rows)
    assert 0 < figures["predicted"]["(none)"] < 1
    assert figures["truncated"] == 1 / len(rows)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "on the data rows, and " in card
    assert "\n\n\n" not in card


def test_the_folder_holds_what_the_design_names(model_folder):
    names = {path.name for path in model_folder.iterdir()}

    graphs = {"model.onnx", "model.int8.onnx"}
    assert names == graphs | {"model.json", "tokenizer.json", "checkpoint", "report.html", "README.md"}
    assert (model_folder / "checkpoint" / "train.json").is_file()
    assert not list(model_folder.parent.glob(".tiny*")), "work and staging folders are gone"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("tickets", "tickets"),
        ("tickets-2", "tickets"),
        ("tickets-v1.3", "tickets"),
        ("tickets-2026-01-31", "tickets"),
        ("trec-6-types", "trec-6-types"),
        ("banking77", "banking77"),
        ("a--2", "a--2"),
        ("-2", "-2"),
    ],
)
def test_versions_of_a_model_have_one_name(folder, name):
    assert model_name(Path("models", folder)) == name


def test_the_report_and_the_card_stand_alone(model_folder):
    """They are opened offline: nothing in them may be fetched."""
    report = (model_folder / "report.html").read_text(encoding="utf-8")

    assert "http" not in report.replace("http-equiv", "")
    for label in ("refund", "login", "praise"):
        assert label in report
        assert label in (model_folder / "README.md").read_text(encoding="utf-8")


def test_graph_and_pytorch_give_the_same_ids_logits_and_vectors(checkpoint, classifier):
    reference = checkpoint.run(PROBES)

    for text, analysis, (ids, logits, hidden) in zip(PROBES, classifier.analyze(PROBES), reference, strict=True):
        assert [token.id for token in analysis.tokens] == ids.tolist(), text
        np.testing.assert_allclose(analysis.token_embeddings, hidden, atol=1e-4)
        np.testing.assert_allclose(analysis.sentence_embedding, hidden.mean(axis=0), atol=1e-4)
        best = max(analysis.prediction.scores, key=lambda pair: pair[1])
        assert best[0] == checkpoint.labels[int(logits.argmax())]
    np.testing.assert_allclose(classifier.score(PROBES), checkpoint.score(PROBES), atol=1e-5)


OUTSIDE = """
import sys, transformers
consent = sys.argv[2] == "yes"
classify = transformers.pipeline("text-classification", model=sys.argv[1], device="cpu", trust_remote_code=consent)
for text in sys.argv[3:]:
    print(classify([text])[0]["label"], classify([text])[0]["score"])
"""


def outside(folder, *arguments, **environment):
    """Run stock Transformers where none of our packages can be imported."""
    command = [sys.executable, "-P", "-c", OUTSIDE, str(folder / "checkpoint"), *arguments]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environment
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)


def test_the_checkpoint_loads_outside_bertrand_with_its_labels(model_folder, classifier, tmp_path):
    """By the hub's custom-code convention; without its consent, an error and never a random head."""
    loaded = outside(model_folder, "yes", *PROBES[:3], HF_HOME=str(tmp_path))
    refused = outside(model_folder, "no", *PROBES[:3], HF_HOME=str(tmp_path))

    uncalibrated = softmax(classifier.logits(PROBES[:3]))
    for line, ours in zip(loaded.stdout.splitlines(), uncalibrated, strict=True):
        assert line.split()[0] == classifier.labels[ours.argmax()]
        assert float(line.split()[1]) == pytest.approx(ours.max(), abs=1e-4)
    assert refused.returncode != 0
    assert "trust_remote_code" in refused.stderr


def test_with_first_token_pooling_the_checkpoint_is_a_stock_one(tmp_path, tiny_base, sentences):
    config = TrainConfig(base=str(tiny_base), epochs=1, pooling="first")
    pipeline.train(config, sentences, out=tmp_path / "out")

    loaded = outside(tmp_path / "out", "no", *PROBES[:3])

    uncalibrated = softmax(Classifier.load(tmp_path / "out", precision="fp32").logits(PROBES[:3]))
    for line, ours in zip(loaded.stdout.splitlines(), uncalibrated, strict=True):
        assert float(line.split()[1]) == pytest.approx(ours.max(), abs=1e-4)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_every_family_trains_from_a_base_and_from_a_checkpoint(tmp_path, family, pooling, sentences):
    base = make_base(tmp_path / "base", family)
    config = TrainConfig(base=str(base), epochs=1, pooling=pooling)
    first = pipeline.train(config, sentences, out=tmp_path / "first")
    again = pipeline.train(
        TrainConfig(base=str(tmp_path / "first" / "checkpoint"), epochs=1, pooling="mean"),
        sentences,
        out=tmp_path / "again",
    )

    assert first.gates["parity"]["passed"]
    assert again.gates["parity"]["passed"]


@pytest.mark.parametrize(
    ("family", "detokenize"), [("bert", None), ("roberta", None), ("bert", "none")], ids=["bert", "roberta", "left"]
)
def test_rows_split_as_in_the_treebank_teach_a_model_that_reads_natural_ones(
    tmp_path, sentences, capsys, family, detokenize
):
    """Who trains on a corpus of split words is asked later by people who split none."""
    rows = [(f"{row.text} , i do n't -LRB- please -RRB- .", row.labels[0]) for row in read_rows(sentences)]
    base = make_base(tmp_path / "base", family)
    config = TrainConfig(base=str(base), epochs=1, pooling="first", detokenize=detokenize, folds=0)
    split, natural = "my order , i do n't -LRB- late -RRB- .", "my order, i don't (late)."

    pipeline.train(config, write_csv(tmp_path / "data.csv", rows), out=tmp_path / "out")

    undone = detokenize is None
    assert ("Penn Treebank" in capsys.readouterr().err) == undone
    assert read_run(tmp_path / "out" / "checkpoint")["config"]["detokenize"] == ("treebank" if undone else "none")
    for precision in ("fp32", "int8"):
        one, other = Classifier.load(tmp_path / "out", precision=precision).logits([split, natural])
        assert np.array_equal(one, other) == undone
    one, other = outside(tmp_path / "out", "no", split, natural).stdout.splitlines()
    assert (one == other) == undone


def test_a_checkpoint_of_ours_gives_vectors_as_any_base_does(model_folder):
    texts = ["my order is late", "login"]
    checkpoint = str(model_folder / "checkpoint")

    vectors = sentence_vectors(checkpoint, texts, max_tokens=64)

    means = np.stack([states.mean(axis=0) for _, _, states in Checkpoint.load(checkpoint).run(texts)])
    np.testing.assert_allclose(vectors, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_layers_are_read_one_by_one_and_without_what_all_texts_share(tmp_path, family):
    """Texts of different lengths, in any order; what they have in common, as a text alone, tells nothing."""
    base = str(make_base(tmp_path / "base", family))
    texts = ["my order is late and where is it", "login", "money back please", "login page"]
    model = transformers.AutoModel.from_pretrained(base).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    parts = []
    for text in texts:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        first_words = [layer[0, 1] for layer in states[1:]]  # of two layers the middle one is the first
        parts.append([*(layer[0].mean(dim=0) for layer in states), *first_words, states[-1][0, 0]])
    expected = np.stack([torch.stack(part).numpy() for part in parts])
    expected -= expected.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True) * 6**0.5

    vectors = layered_vectors(base, texts, max_tokens=64)

    np.testing.assert_allclose(vectors, expected.reshape(len(texts), -1), atol=1e-4)
    assert not layered_vectors(base, texts[:1], max_tokens=64).any()
    assert layered_vectors(base, [], max_tokens=64).shape == (0, 6 * 32)


def test_a_text_of_one_token_has_a_first_word_too(tmp_path):
    """As a tokenizer makes it that adds no special tokens."""
    base = make_base(tmp_path / "base", "bert")
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    (base / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}))

    vectors = layered_vectors(str(base), ["login", "money"], max_tokens=64)

    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_every_family_exports_faithfully(tmp_path, family, sentences):
    """RoBERTa counts positions from its padding token and has byte-level offsets; DistilBERT has no segments."""
    base = make_base(tmp_path / "base", family)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    model.save_pretrained(tmp_path / "classifier")
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "classifier")

    manifest = finished.export(str(tmp_path / "classifier"), tmp_path / "out", data=sentences, measured=False)

    assert manifest.max_tokens == 64
    assert manifest.gates["parity"]["passed"]
    assert manifest.gates["fusion"]["Attention"] == 2
    text = "café, money 🙂 back"
    analysis = Classifier.load(tmp_path / "out", precision="fp32").analyze([text])[0]
    (reference,) = Checkpoint.load(str(tmp_path / "classifier")).run([text])
    np.testing.assert_allclose(analysis.token_embeddings, reference[2], atol=1e-4)


def test_a_multi_label_checkpoint_is_exported_as_one(tmp_path, tiny_base, sentences):
    """A sigmoid taken for a softmax changes every score: serving must follow the problem type."""
    labels = {0: "refund", 1: "login", 2: "praise"}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        tiny_base,
        problem_type="multi_label_classification",
        id2label=labels,
        label2id={v: k for k, v in labels.items()},
    )
    model.save_pretrained(tmp_path / "classifier")
    transformers.AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path / "classifier")

    manifest = finished.export(str(tmp_path / "classifier"), tmp_path / "out", data=sentences)

    assert manifest.problem_type == "multi_label"
    classifier = Classifier.load(tmp_path / "out", precision="fp32")
    scores = classifier.score(PROBES)
    np.testing.assert_allclose(scores, Checkpoint.load(str(tmp_path / "classifier")).score(PROBES), atol=1e-5)
    assert not np.allclose(scores.sum(axis=1), 1)
    for prediction, row in zip(classifier.classify(PROBES), scores, strict=True):
        assert {label for label, _ in prediction.scores} == {labels[i] for i in range(3) if row[i] >= 0.5}


def test_training_on_several_labels_a_row_learns_them(tmp_path, tiny_base):
    rows = [("refund please", "money"), ("login please", "access"), ("refund login", "money|access"), ("thank you", "")]
    path = write_csv(tmp_path / "x.csv", [(f"{text} {word}", label) for text, label in rows for word in "abcdefghij"])
    config = TrainConfig(
        base=str(tiny_base), epochs=25, patience=25, learning_rate=3e-3, batch_size=8, multi_label=True
    )

    manifest = pipeline.train(config, path, dev=path, test=path, out=tmp_path / "out")

    assert manifest.metrics["test"]["accuracy"] > 0.9
    check_reference(tmp_path / "out", manifest.metrics["test"], read_rows(path, multi_label=True))
    assert manifest.metrics["test"]["predicted"]["(none)"] > 0.2
    given = Classifier.load(tmp_path / "out").classify(["refund login a", "thank you b"])
    assert {label for label, _ in given[0].scores} == {"money", "access"}
    assert given[1].label is None


@pytest.mark.parametrize(
    "settings",
    [
        {"init": "random"},
        {"init": "types"},
        {"freeze": "none"},
        {"freeze": "encoder"},
        {"freeze": "embeddings"},
        {"class_weights": "balanced"},
    ],
)
def test_starting_point_and_frozen_parts_are_what_the_setting_says(tmp_path, tiny_base, sentences, settings):
    from training.data import read_rows, split
    from training.train import fine_tune

    config = TrainConfig(base=str(tiny_base), epochs=1, learning_rate=1e-3, seed=1, **settings)  # 0 made the base
    train, dev = split(read_rows(sentences), share=0.2, seed=0)
    best = fine_tune(config, train, dev, tmp_path / "work")
    tuned = Checkpoint.load(str(best)).model.base_model.state_dict()
    base = transformers.AutoModel.from_pretrained(tiny_base).state_dict()

    base = {name: values for name, values in base.items() if not name.startswith("pooler.")}
    same = {name for name in base if np.array_equal(base[name], tuned[name])}
    close = {name for name in base if (base[name] - tuned[name]).abs().max() < 0.05}
    types, query = "embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"
    if settings.get("freeze") == "encoder":
        assert same == set(base)
    elif settings.get("freeze") == "embeddings":
        assert {name for name in same if name.startswith("embeddings.")} == {
            n for n in base if n.startswith("embeddings.")
        }
        assert query not in same
    else:
        assert (types in same) == ("freeze" not in settings and settings.get("init") != "random")
        assert (types in close) == (settings.get("init") != "random")
        assert (query in close) == ("init" not in settings)


def test_the_same_run_gives_the_same_model(tmp_path, tiny_base, sentences, model_folder):
    config = TrainConfig(base=str(tiny_base), epochs=12, learning_rate=3e-3, batch_size=8, max_tokens=32, folds=0)

    again = pipeline.train(config, sentences, test=sentences, out=tmp_path / "again")

    assert again.version == manifest_of(model_folder)["version"]


def test_the_parity_gate_sees_a_changed_weight(tmp_path, model_folder, checkpoint):
    """A gate that passes everything proves nothing: one weight of one layer is enough to fail it."""
    broken = shutil.copytree(model_folder, tmp_path / "broken")
    graph = onnx.load(broken / "model.onnx")
    weight = next(w for w in graph.graph.initializer if list(w.dims) == [32, 64])
    values = onnx.numpy_helper.to_array(weight).copy()
    values[3] += 0.01
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(graph, broken / "model.onnx")
    classifier = Classifier.load(model_folder, precision="fp32")
    from inference.engine import Engine

    damaged = Classifier(classifier.manifest, classifier.encoder, Engine(broken / "model.onnx", 0), "fp32")

    outcome = gates.parity(checkpoint, damaged, PROBES)

    assert not outcome.passed
    assert max(outcome.measured.values()) > gates.PARITY_BOUND
    assert outcome.measured["texts_tokenized_differently"] == 0
    assert gates.parity(checkpoint, classifier, PROBES).passed


def test_the_gates_see_a_model_that_answers_nothing(model_folder, checkpoint, tmp_path):
    """NaN compares as smaller than any bound: a run that diverged must not be proved faithful."""
    graph = onnx.load(model_folder / "model.onnx")
    weight = next(w for w in graph.graph.initializer if list(w.dims) == [32, 64])
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full((32, 64), np.nan, dtype=np.float32), weight.name))
    onnx.save(graph, tmp_path / "nan.onnx")
    from inference.engine import Engine

    whole = Classifier.load(model_folder, precision="fp32")
    empty = Classifier(whole.manifest, whole.encoder, Engine(tmp_path / "nan.onnx", 0), "fp32")

    assert [gate.passed for gate in gates.check(checkpoint, empty, PROBES)] == [False, False]


def test_texts_without_a_token_are_no_probes(checkpoint, classifier):
    outcome = gates.check(checkpoint, classifier, [*PROBES, "\u200b", "\ufeff\u0000"])

    assert all(gate.passed for gate in outcome)


def test_a_failed_gate_writes_no_folder_and_exits_1(tmp_path, model_folder, sentences, monkeypatch):
    monkeypatch.setattr(gates, "PARITY_BOUND", 0.0)

    with pytest.raises(GateError, match="not written, gate parity failed: max logit difference"):
        finished.export(str(model_folder / "checkpoint"), tmp_path / "out", data=sentences)

    assert list(tmp_path.iterdir()) == []


def test_probes_cover_every_kind_of_text():
    texts = gates.probes([f"sentence number {i} {'word ' * (i % 50)}" for i in range(2000)], max_tokens=32)

    assert len(texts) < 200
    assert {".", "?", "日本語"} <= set(texts)
    assert max(len(text.split()) for text in texts) > 32
    assert texts == gates.probes([f"sentence number {i} {'word ' * (i % 50)}" for i in range(2000)], max_tokens=32)


def test_a_model_of_another_family_is_refused_by_name(tmp_path):
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=10)
    transformers.GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "gpt")

    with pytest.raises(BaseModelError, match=r"of the family 'gpt2'; supported are bert, distilbert, roberta"):
        Checkpoint.load(str(tmp_path / "gpt"))


def test_a_base_without_a_classifier_is_not_exported(tiny_base, tmp_path, sentences):
    with pytest.raises(BaseModelError, match="not a sequence classifier; fine-tune it first"):
        finished.export(str(tiny_base), tmp_path / "out", data=sentences)


def test_a_base_that_cannot_be_had_says_how_to_get_it(tmp_path, sentences):
    # As on a machine without a network: nothing is told to be offline, the hub just does not answer.
    nowhere = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache")}
    done = run_command("train", sentences, "--base", "google-bert/bert-base-uncased", cwd=tmp_path, **nowhere)

    assert done.returncode == 2
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []
    (error,) = done.stderr.strip().splitlines()
    for part in ("google-bert/bert-base-uncased", "hub", "hf download", "cannot be reached", "minilm"):
        assert part in error
    assert "Traceback" not in done.stderr


def test_something_else_at_out_is_never_replaced(tmp_path, sentences, tiny_base):
    """A typing error in --out must not cost a folder of photographs, nor an hour of training before it is noticed."""
    precious = tmp_path / "out"
    precious.mkdir()
    (precious / "photograph.jpg").write_bytes(b"x")

    with pytest.raises(ArtifactError, match="holds something that is not a model"):
        pipeline.train(TrainConfig(base=str(tiny_base)), sentences, out=precious)

    assert (precious / "photograph.jpg").exists()


def test_unknown_labels_in_other_files_are_refused(tmp_path, sentences, tiny_base):
    other = write_csv(tmp_path / "test.csv", [("hello", "greeting")])

    with pytest.raises(DataError, match=r"'greeting' not among the 3 labels known"):
        pipeline.train(TrainConfig(base=str(tiny_base)), sentences, test=other, out=tmp_path / "out")


def test_one_label_is_nothing_to_learn(tmp_path, tiny_base):
    path = write_csv(tmp_path / "one.csv", [("a", "x"), ("b", "x")])

    with pytest.raises(DataError, match="2 rows with only the label 'x'; expected at least two labels"):
        pipeline.train(TrainConfig(base=str(tiny_base)), path, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"epochs": 0}, "--epochs"),
        ({"learning_rate": "fast"}, "--learning-rate"),
        ({"init": "x"}, "--init"),
        ({"seed": -1}, "--seed"),
        ({"soft_labels": 1.5}, "--soft-labels"),
        ({"soft_labels": 0.3, "multi_label": True}, "--soft-labels"),
        ({"self_distillation": 0.3, "multi_label": True}, "--self-distillation"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, told):
    with pytest.raises(InputError, match=f"{told} is .*; expected"):
        TrainConfig(**settings)


def test_a_killed_run_resumes_to_the_same_model_as_one_that_was_not(tmp_path, tiny_base, sentences, model_folder):
    """Order of rows, optimiser, schedule and what the model said of the rows go on as if nothing had happened."""
    out = tmp_path / "out"
    options = [
        "--base",
        tiny_base,
        "--epochs",
        "12",
        "--learning-rate",
        "3e-3",
        "--batch-size",
        "8",
        "--max-tokens",
        "32",
        "--folds",
        "0",
    ]
    command = ["train", sentences, "--test", sentences, "--out", out, *options]
    process = subprocess.Popen([sys.executable, "-m", "bertrand", *map(str, command)], cwd=ROOT, stderr=subprocess.PIPE)
    work = tmp_path / ".out.training"
    deadline = time.monotonic() + 120
    states: set[Path] = set()
    while len(states) < 2:  # after the second epoch labels begin to follow what was said in it
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
        states.update(work.glob("checkpoint-*/trainer_state.json"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()

    refused = run_command(*command, "--resume", "--seed", "5")
    done = run_command(*command, "--resume")

    assert refused.returncode == 2
    assert "seed was 0 and is 5" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert "resuming after checkpoint-" in done.stderr
    assert "starting anew" not in done.stderr, "of parts that had not begun"
    assert manifest_of(out)["version"] == manifest_of(model_folder)["version"]
    assert not work.exists()


def test_a_run_killed_after_training_does_not_train_again(tmp_path, tiny_base, sentences, monkeypatch):
    """Early stopping had ended it; going on would choose another epoch."""
    from training import folder

    def killed(*_, **__):
        raise KeyboardInterrupt

    config = TrainConfig(base=str(tiny_base), epochs=2, learning_rate=3e-3)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "build", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(config, sentences, out=tmp_path / "out")
    best = tmp_path / ".out.training" / "final" / "best" / "model.safetensors"
    weights, written = best.read_bytes(), best.stat().st_mtime_ns

    pipeline.train(config, sentences, out=tmp_path / "out", resume=True)

    assert written
    assert (tmp_path / "out" / "checkpoint" / "model.safetensors").read_bytes() == weights


def test_a_mistyped_base_costs_no_unfinished_run(tmp_path, sentences):
    work = tmp_path / ".out.training"
    work.mkdir()
    (work / "precious").touch()

    with pytest.raises(BaseModelError, match="hub gave no such model"):
        pipeline.train(TrainConfig(base="no/such-base"), sentences, out=tmp_path / "out")

    assert (work / "precious").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_partial_folder(tmp_path, tiny_base, sentences, number):
    out = tmp_path / "out"
    command = ["train", sentences, "--out", out, "--base", tiny_base, "--epochs", "500", "--patience", "500"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bertrand", *map(str, command)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it puts into the background with Ctrl-C ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stderr:
        if line.startswith("epoch 1 "):
            break
    os.kill(process.pid, number)
    _, rest = process.communicate(timeout=60)

    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert "Traceback" not in rest
    assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} <= {".out.training"}


def test_the_record_of_a_run_has_all_that_repeats_it(model_folder):
    record = json.loads((model_folder / "checkpoint" / "train.json").read_text())

    assert record["config"]["seed"] == 0
    decided = {
        name: record["config"][name] for name in ("epochs", "consistency", "soft_labels", "self_distillation", "freeze")
    }
    assert decided == {
        "epochs": 12,
        "consistency": 1.0,
        "soft_labels": 0.3,
        "self_distillation": 0.5,
        "freeze": "embeddings",
    }
    assert record["train_rows"]["count"] + record["dev_rows"]["count"] == 96
    assert len(record["history"]) <= 12
    assert {"torch", "transformers"} <= record["versions"].keys()
