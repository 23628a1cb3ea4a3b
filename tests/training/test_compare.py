"""Two models on the same rows: figures worked out by hand, and the command on two real models."""

import json
import shutil
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.support import run_commands, write_csv
from training.compare import compare, mcnemar
from training.data import Row
from training.metrics import score


@dataclass
class Answers:
    """A model that was taught its answers by heart."""

    given: dict[str, str]
    labels: tuple[str, ...] = ("x", "y", "z")
    problem_type: str = "single_label"
    thresholds: None = field(default=None)
    precision: str = "fp32"

    def score(self, texts):
        sets = [self.given[text].split("|") for text in texts]
        return np.array([[0.9 if label in labels else 0.05 for label in self.labels] for labels in sets], np.float32)


def models(table, **options):
    """Rows of a label each, and two models that answer a number of them alike: (count, label, of A, of B)."""
    cases = [case for case in table for _ in range(case[0])]
    rows = [Row(f"text {i}", tuple(case[1].split("|"))) for i, case in enumerate(cases)]
    a, b = (Answers({f"text {i}": case[k] for i, case in enumerate(cases)}, **options) for k in (2, 3))
    return a, b, rows


TABLE = [(40, "x", "x", "x"), (30, "y", "y", "y"), (1, "x", "x", "y"), (8, "y", "x", "y"), (1, "z", "x", "x")]


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1),
        (5, 5, 1),
        (0, 6, 2 / 64),
        (1, 8, 2 * (1 + 9) / 512),
        (10, 3, 2 * (1 + 13 + 78 + 286) / 8192),
    ],
)
def test_the_test_is_mcnemars_exact_one(only_a, only_b, p):
    assert mcnemar(only_a, only_b) == pytest.approx(p, rel=1e-9)


def test_the_figures_are_those_of_the_four_kinds_of_rows():
    a, b, rows = models(TABLE)

    compared = compare(a, b, rows, examples=2)

    assert (compared.both, compared.only_a, compared.only_b, compared.neither) == (70, 1, 8, 1)
    assert (compared.accuracy_a, compared.accuracy_b) == (71 / 80, 78 / 80)
    assert compared.accuracy_change.value == pytest.approx(7 / 80)
    assert compared.accuracy_change.low > 0
    # x: A names 41 + 8 + 1 of which 41 of 41 are right; y: 30 of 38; z: none.
    assert compared.macro_f1_a == pytest.approx((2 * 41 / (50 + 41) + 2 * 30 / (30 + 38) + 0) / 3)
    assert compared.macro_f1_a == pytest.approx(score(a, rows).macro_f1)
    assert compared.macro_f1_b == pytest.approx(score(b, rows).macro_f1)
    assert compared.macro_f1_change.low < compared.macro_f1_b - compared.macro_f1_a < compared.macro_f1_change.high
    assert [(label.label, label.rows, label.only_a, label.only_b) for label in compared.labels] == [
        ("y", 38, 0, 8),
        ("x", 41, 1, 0),
        ("z", 1, 0, 0),
    ]
    assert [(e.text, e.labels, e.a, e.b) for e in compared.only_a_right] == [("text 70", ("x",), ("x",), ("y",))]
    assert [example.text for example in compared.only_b_right] == ["text 71", "text 72"]
    assert compared.verdict().startswith("B is better, by more than chance (p = 0.039): accuracy 0.8875 of A and")
    assert compare(a, b, rows, examples=2) == compared


def test_the_other_way_round_is_the_same_with_the_sign_turned():
    a, b, rows = models(TABLE)

    one, other = compare(a, b, rows), compare(b, a, rows)

    assert (one.better, other.better, one.p) == ("b", "a", other.p)
    assert other.macro_f1_change.value == -one.macro_f1_change.value
    assert (other.macro_f1_change.low, other.macro_f1_change.high) == pytest.approx(
        (-one.macro_f1_change.high, -one.macro_f1_change.low)
    )


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ([(90, "x", "x", "x"), (3, "y", "x", "y")], "no difference that is more than chance (p = 0.25): accuracy"),
        ([(9, "x", "x", "x"), (1, "y", "x", "x")], "no difference: A and B have the same 9 of 10 rows right"),
    ],
)
def test_what_chance_may_have_made_is_called_no_difference(table, told):
    compared = compare(*models(table))

    assert compared.better is None
    assert compared.verdict().startswith(told)


def test_labels_are_matched_by_name():
    """Another order of outputs, or a label that the other does not have, is no difference."""
    a, _, rows = models(TABLE)

    compared = compare(a, Answers(a.given, labels=("more", "z", "y", "x")), rows)

    assert compared.only_a == compared.only_b == 0
    assert compared.macro_f1_a == compared.macro_f1_b


def test_of_several_labels_a_row_is_right_if_all_are():
    table = [(50, "x|y", "x|y", "x|y"), (7, "x|y", "x", "x|y"), (1, "z", "z", "y|z")]

    compared = compare(*models(table, problem_type="multi_label"))

    assert (compared.only_a, compared.only_b) == (1, 7)
    assert compared.p == pytest.approx(2 * (1 + 8) / 256)
    first = compared.labels[0]
    assert (first.label, first.only_a, first.only_b) == ("y", 0, 7)


def test_the_interval_of_macro_f1_is_that_of_resampled_rows():
    """Against the bootstrap in its plainest form."""
    a, b, rows = models(TABLE)
    generator = np.random.default_rng(7)

    changes = []
    for _ in range(400):
        sample = [rows[i] for i in generator.integers(len(rows), size=len(rows))]
        changes.append(score(b, sample).macro_f1 - score(a, sample).macro_f1)

    change = compare(a, b, rows).macro_f1_change
    assert (change.low, change.high) == pytest.approx(np.quantile(changes, (0.025, 0.975)).tolist(), abs=0.02)


def changed(model_folder, target, **values):
    """Copy the checkpoint of a model and change its configuration."""
    shutil.copytree(model_folder / "checkpoint", target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | values))
    return target


def test_the_command_compares_folders_and_checkpoints(model_folder, sentences, tmp_path):
    names = {"0": "praise", "1": "login", "2": "refund"}  # the first and the last change places
    confused = changed(model_folder, tmp_path / "confused", id2label=names, label2id={})

    printed, read, *evaluated = run_commands(
        ("compare", confused, model_folder / "checkpoint", sentences, "--examples", "1"),
        ("compare", confused, model_folder, sentences, "--precision", "fp32", "--examples", "1", "--json"),
        *(("evaluate", model, sentences, "--precision", "fp32", "--json") for model in (confused, model_folder)),
    )
    alone = [json.loads(done.stdout) for done in evaluated]

    assert (printed.returncode, printed.stderr) == (0, "")
    answer = json.loads(read.stdout)
    assert (answer["a"], answer["b"]) == (str(confused), str(model_folder))
    assert answer["better"] == "b"
    for name, figures in zip("ab", alone, strict=True):
        assert answer[f"accuracy_{name}"] == figures["accuracy"]
        assert answer[f"macro_f1_{name}"] == pytest.approx(figures["macro_f1"])
    assert [answer["graph_a"], answer["graph_b"]] == ["PyTorch", "fp32"]
    assert [figures["graph"] for figures in alone] == ["PyTorch", "fp32"]
    assert f"A: {confused}, by PyTorch\nB: {model_folder / 'checkpoint'}, by PyTorch\n" in printed.stdout
    assert answer["verdict"] in printed.stdout
    assert f"macro-F1    {answer['macro_f1_a']:.4f}  {answer['macro_f1_b']:.4f}" in printed.stdout
    assert "right by B alone:" in printed.stdout
    (example,) = answer["only_b_right"]
    assert example["labels"] == example["b"] != example["a"]


def test_models_that_cannot_be_compared_are_told(model_folder, sentences, tmp_path):
    several = changed(model_folder, tmp_path / "several", problem_type="multi_label_classification")
    strange = write_csv(tmp_path / "strange.csv", [("my order", "strange")])
    cases = [
        ((model_folder, several, sentences), f"{several} any number of labels; only models of the same kind"),
        ((model_folder, tmp_path / "none", sentences), "no such model folder"),
        ((model_folder, model_folder, strange), f"'strange' not among the 3 labels of {model_folder}"),
        ((model_folder, model_folder, sentences, "--examples", "-1"), "--examples is -1; expected 0 or more"),
        (
            (model_folder, model_folder / "checkpoint", sentences, "--precision", "int8"),
            "checkpoint: a checkpoint has no int8 graph",
        ),
    ]
    for done, (_, told) in zip(run_commands(*(("compare", *case) for case, _ in cases)), cases, strict=True):
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
        assert told in done.stderr
