"""Start and end of real fine-tuning runs, layer by layer: identities that hold for any model, and the page's words."""

import copy
import json
import shutil

import numpy as np
import pytest

from bertrand.__main__ import main
from tests.support import make_base
from training.base import load_config
from training.checkpoint import Checkpoint
from training.data import read_rows, split
from training.errors import BaseModelError, DataError
from training.finished import evaluate
from training.settings import TrainConfig
from training.study import layers
from training.study.batches import Batches
from training.study.cka import cka, cka_grid
from training.study.ends import Ends
from training.study.layers_page import report
from training.study.parts import MODULES, TABLES, Part, blocks, drift, part_of, rollbacks, rolled_back
from training.train import fine_tune, start_model


def checkpoint_of(base, sentences, work, **settings):
    config = TrainConfig(base=str(base), batch_size=8, max_tokens=32, epochs=2, soft_labels=0.0, consistency=0.0)
    train, dev = split(read_rows(sentences), share=0.1, seed=0)
    values = {name: value for name, value in vars(config).items() if name not in settings} | settings
    return fine_tune(TrainConfig(**values), train, dev, work)


@pytest.fixture(scope="module")
def random_model(tiny_base, sentences, tmp_path_factory):
    """A checkpoint that began with random weights, and whose embeddings learnt too."""
    return checkpoint_of(tiny_base, sentences, tmp_path_factory.mktemp("random"), init="random", learning_rate=3e-3)


@pytest.fixture(scope="module")
def records(model_folder, random_model, sentences, tmp_path_factory):
    """The studies of a model that began pretrained and of one that began at random."""
    out = tmp_path_factory.mktemp("studies")
    random = layers.study(random_model, sentences, out / "random", train=sentences)
    return {"pretrained": layers.study(model_folder, sentences, out / "pretrained"), "random": random}


@pytest.fixture(scope="module")
def ends(model_folder):
    return Ends.open(model_folder)


@pytest.mark.parametrize("init", ["pretrained", "types", "random"])
def test_the_start_is_the_model_that_training_began_with(tiny_base, sentences, tmp_path, init):
    """With next to no learning rate a run ends where it began; the head, drawn by the seed of the run, is its own."""
    still = {"learning_rate": 1e-9, "head_learning_rate": 1e-9, "epochs": 1}
    best = checkpoint_of(tiny_base, sentences, tmp_path, init=init, seed=5, **still)
    ends = Ends.open(best)

    assert max(drift(ends.start, ends.end.model).values()) < 1e-5


@pytest.mark.parametrize(("all_learnt", "count"), [(True, 96), (False, 87)], ids=["all", "but those that chose"])
def test_the_rows_learnt_from_are_those_of_the_record(model_folder, sentences, tmp_path, all_learnt, count):
    """Rows that chose the epoch may have been learnt in the end too."""
    checkpoint = shutil.copytree(model_folder / "checkpoint", tmp_path / "checkpoint")
    record = json.loads((checkpoint / "train.json").read_text())
    if not all_learnt:
        del record["final"]
    (checkpoint / "train.json").write_text(json.dumps(record))
    ends = Ends.open(checkpoint)

    learnt, exact = ends.learnt_rows(sentences)

    assert ends.describe()["rows"] == len(learnt) == count
    assert exact


def test_rolling_back_everything_gives_the_start_and_nothing_the_end_to_the_last_bit(ends, sentences):
    batches = Batches.of(read_rows(sentences), ends.end)
    everything = rolled_back(ends.start, ends.end.model, rollbacks(2)["everything"])
    nothing = rolled_back(ends.start, ends.end.model, ())

    np.testing.assert_array_equal(batches.logits(everything), batches.logits(ends.start))
    np.testing.assert_array_equal(batches.logits(nothing), batches.logits(ends.end.model))
    assert np.abs(batches.logits(everything) - batches.logits(nothing)).max() > 0.1


def test_a_block_rolled_back_alone_is_the_only_one_that_is_back(ends):
    for block in blocks(ends.end.model):
        model = rolled_back(ends.start, ends.end.model, (block,))
        moved = {part for (part, _), value in drift(model, ends.end.model).items() if value}
        assert moved <= {block}
        assert drift(ends.start, model)[block, "all"] == 0


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_every_weight_of_every_family_has_its_place(tmp_path, family, pooling):
    config = TrainConfig(base=str(make_base(tmp_path / family, family)), pooling=pooling)
    model = start_model(config, load_config(config.base), ["a", "b"])
    parts = {part_of(name) for name, _ in model.named_parameters()}

    tables = set(TABLES) - ({"segment embeddings"} if family == "distilbert" else set())
    expected = {Part("embeddings", table) for table in tables} | {Part("head", "head")}
    assert parts == expected | {Part(layer, module) for layer in ("layer 1", "layer 2") for module in MODULES}
    assert blocks(model) == ["embeddings", "layer 1", "layer 2", "head"]


def test_the_study_measures_what_the_other_commands_do(records, model_folder, ends, sentences):
    backs = {back["name"]: back for back in records["pretrained"]["result"]["rollbacks"]}
    logits = Checkpoint.load(str(model_folder / "checkpoint")).logits([row.text for row in read_rows(sentences)])
    batches = Batches.of(read_rows(sentences), ends.end)
    start = batches.score(batches.logits(ends.start))

    assert backs["nothing"]["accuracy"] == evaluate(model_folder, sentences, precision="fp32").accuracy
    assert backs["nothing"]["loss"] == pytest.approx(batches.score(logits).loss, abs=1e-5)
    assert backs["everything"]["accuracy"] == start.accuracy
    assert backs["everything"]["loss"] == pytest.approx(start.loss, abs=1e-6)
    assert backs["nothing"]["change"]["value"] == 0
    assert backs["everything"]["change"]["value"] == pytest.approx(start.accuracy - backs["nothing"]["accuracy"])


def test_drift_is_the_change_as_a_share_of_the_length_before(ends):
    longer = copy.deepcopy(ends.end.model)
    for parameter in longer.parameters():
        parameter.data *= 1.25

    assert set(drift(ends.end.model, ends.end.model).values()) <= {0.0, None}
    assert [value for value in drift(ends.end.model, longer).values() if value is not None] == pytest.approx(
        [0.25] * len(drift(ends.end.model, longer)), abs=1e-6
    )


def test_cka_is_one_for_vectors_that_are_only_turned_and_scaled():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(40, 6)) + 3
    turn, _ = np.linalg.qr(generator.normal(size=(6, 6)))

    assert cka(vectors, vectors) == pytest.approx(1, abs=1e-12)
    assert cka(vectors, 5 * vectors @ turn - 2) == pytest.approx(1, abs=1e-9)
    assert cka(vectors, vectors * [1, 1, 1, 9, 9, 9]) < 0.9


def test_cka_of_unrelated_vectors_is_near_zero_however_many_dimensions_they_have():
    """The plain estimator gives 0.9 here."""
    generator = np.random.default_rng(0)

    assert abs(cka(generator.normal(size=(50, 400)), generator.normal(size=(50, 400)))) < 0.1


def test_cka_is_that_of_its_definition():
    """Song et al. 2012, equation 5, written out with matrices of things by things."""
    generator = np.random.default_rng(1)
    first = generator.normal(size=(9, 3))
    second = first @ generator.normal(size=(3, 4)) + generator.normal(size=(9, 4))

    def hsic(one, other):
        k, m = one @ one.T, other @ other.T
        np.fill_diagonal(k, 0)
        np.fill_diagonal(m, 0)
        n = len(k)
        middle = k.sum() * m.sum() / ((n - 1) * (n - 2))
        return (np.trace(k @ m) + middle - 2 * (k @ m).sum() / (n - 2)) / (n * (n - 3))

    expected = hsic(first, second) / np.sqrt(hsic(first, first) * hsic(second, second))
    assert cka_grid([first], [first, second])[0, 1] == pytest.approx(expected, abs=1e-9)


def words(record):
    page = report(record)
    return " ".join([*page.answer, *(text for section in page.sections for text in section.says)])


def test_the_page_says_whether_embeddings_moved(records):
    frozen, free = words(records["pretrained"]), words(records["random"])

    assert "embedding tables are as they were" in frozen
    assert "Rolling back the embeddings changes nothing" in frozen
    assert "embedding tables moved by" in free
    assert "Which words moved" in [section.title for section in report(records["random"]).sections]
    assert "Which words moved" not in [section.title for section in report(records["pretrained"]).sections]
    top = records["random"]["result"]["types"]["top"]
    assert all(one["learnt"] and one["data"] for one in top[:5]), "what moved most is what was read"
    assert "the weights of" in report(records["pretrained"]).about[0]
    assert "random weights" in report(records["random"]).about[0]


def test_the_sentences_change_with_the_numbers(records):
    """Layers exchanged, bottom and top, and the page says the opposite."""
    record = copy.deepcopy(records["pretrained"])
    for one in record["result"]["drift"]:
        one["drift"] *= {"layer 1": 1, "layer 2": 2}.get(one["block"], 1)
    costs = {"layer 1": -0.01} | dict.fromkeys(("layer 2", "lowest 2", "everything"), -0.6)
    for back in record["result"]["rollbacks"]:
        value = costs.get(back["name"], 0.0)
        back.update(change={"value": value, "low": value - 0.02, "high": value + 0.02}, p=0.4 if value > -0.1 else 1e-9)
    said = words(record)
    assert "the weights of layer 2 most" in said
    assert "mostly in the upper half" in said
    assert "The lowest layer can be undone" in said
    assert "undoing layer 2 costs more than chance would: 60.0 points" in said

    names = {"layer 1": "layer 2", "layer 2": "layer 1"}
    for one in record["result"]["drift"]:
        one["block"] = names.get(one["block"], one["block"])
    for back in record["result"]["rollbacks"]:
        back["name"] = names.get(back["name"], back["name"])
    said = words(record)
    assert "the weights of layer 1 most" in said
    assert "mostly in the lower half" in said
    assert "Already the lowest layer cannot be undone" in said
    assert "undoing layer 1 costs more than chance would: 60.0 points" in said


def test_the_command_writes_a_study(model_folder, sentences, tmp_path, capsys):
    out = tmp_path / "studies" / "layers"
    assert main(["study", "layers", str(model_folder), str(sentences), "--minutes", "1e-6", "--out", str(out)]) == 0

    record = json.loads((out / "study.json").read_text())
    rows = record["result"]["rows"]
    assert rows["measured"] == 32, "the fewest that are measured on"
    assert (rows["given"], rows["shared"]) == (96, 96), "those that chose the epoch were learnt in the end"
    assert any("Of the 96 rows of DATA, 96" in text for text in report(record).about)
    assert capsys.readouterr().out.splitlines() == list(report(record).answer)
    assert "<svg" in (out / "study.html").read_text()
    assert len(list((out / "figures").iterdir())) == 7


def test_a_model_without_a_record_needs_its_base_named(model_folder, tiny_base, tmp_path):
    bare = shutil.copytree(model_folder / "checkpoint", tmp_path / "bare")
    (bare / "train.json").unlink()

    with pytest.raises(BaseModelError, match=r"no train\.json.*--base"):
        Ends.open(bare)
    named = Ends.open(bare, base=str(tiny_base))
    assert drift(named.start, Ends.open(model_folder).start)["layer 1", "all"] == 0
    with pytest.raises(BaseModelError, match=r"cannot be what .* was fine-tuned from"):
        Ends.open(bare, base="minilm")


def test_labels_that_the_model_does_not_know_are_refused(model_folder, tmp_path):
    data = tmp_path / "other.csv"
    data.write_text("text,label\nhello,greeting\n")

    with pytest.raises(DataError, match="'greeting' not among the 3 labels"):
        layers.study(model_folder, data, tmp_path / "out")
