"""What a person reads of a model: the page in a real browser, the card in the hub's own parser."""

import json
import re
import shutil
from contextlib import contextmanager
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml

from inference.artifact import Manifest
from inference.classifier import sigmoid, softmax
from tests.support import manifest_of
from training import charts, confusion, finished, report, svg
from training.base import hub_id
from training.card import card
from training.data import Row
from training.facts import Facts
from training.gates import Gate
from training.metrics import Bin, Measured, measure, targets

HOSTILE = '</script><img src=x onerror=alert(1)>\u2028\u202e<!--<script>`${1}` {{ 7 * 7 }} & "quotes" \' \ud800'
ODD_LABELS = (
    *("a: b", 'say "no"', "l'été", "#1", "- x", "yes", "null"),
    *("a|b", "`tick`", "<b>", "日本語 🙂", "{x}", "*_[1](2)"),
)
GATES = [
    Gate("parity", 10, {"max_logit_difference": 1e-6}, {"max_logit_difference": ("at most", 1e-4)}, "detail <i>"),
    Gate(
        "int8_speed",
        64,
        {"int8_speedup": 2.5, "fp32_texts_per_second": 260.0, "int8_texts_per_second": 650.0},
        {},
        "one core",
    ),
]
RUN = {
    "config": {"base": "minilm", "multi_label": False, "epochs": None},
    "train_rows": {"count": 900},
    "dev_rows": {"count": 100},
    "history": [
        {"epoch": float(i), "loss": 2 / i, "dev_loss": 2.5 / i, "dev_accuracy": score, "dev_macro_f1": score - 0.01}
        for i, score in enumerate([0.7, 0.8, 0.91, 0.87], start=1)
    ],
    "chosen_epoch": 3.0,
    "precision": "float32",
    "versions": {"torch": "2"},
    "data": {
        "file": "train.csv",
        "rows": 1000,
        "labels": 77,
        "rows_of_a_label": {"least": 3, "median": 12.5, "most": 40},
        "tokens_of_a_text": {"least": 3, "median": 14, "most": 99},
        "label_counts": {"label 00 of many": 40, "label 01 of many": 3},
        "findings": [
            {"code": "leakage", "level": "warning", "count": 2, "message": "2 rows <known>", "examples": [HOSTILE[:40]]}
        ],
    },
}


def manifest(labels, **values):
    kinds = {"name": "made up", "version": "0123456789ab", "created": "2026-01-02T03:04:05+00:00"}
    fixed = {"base_model": "minilm", "labels": tuple(labels), "problem_type": "single_label", "max_tokens": 64}
    more = {"temperature": 1.0, "thresholds": None, "precisions": ("fp32", "int8"), "default_precision": "int8"}
    return Manifest(**{**kinds, **fixed, **more, "sha256": {}, **values})


def made(labels, rows=3000, *, multi_label=False, temperature=1.0, text=HOSTILE, seed=0):
    """Labelled rows and what a model that is mostly right says of them."""
    generator = np.random.default_rng(seed)
    truth = np.eye(len(labels), dtype=bool)[generator.integers(0, len(labels), rows)]
    logits = generator.normal(0, 1, truth.shape) + np.where(truth, *((1, -2) if multi_label else (4, 0)))
    give = sigmoid if multi_label else softmax
    before, probabilities = (give(logits.astype(np.float32) / np.float32(t)) for t in (1, temperature))
    data = [
        Row(f"{text} {i}", tuple(np.asarray(labels, dtype=object)[given].tolist())) for i, given in enumerate(truth)
    ]
    thresholds = (0.4,) * len(labels) if multi_label else None
    metrics = measure(probabilities, targets(data, labels), labels, multi_label=multi_label, thresholds=thresholds)
    return Measured(data, probabilities, before, metrics, thresholds)


MANY = [f"label {i:02} of many" for i in range(77)]


class Elements(HTMLParser):
    """The elements of a page as a browser without scripts sees them."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def count(self, tag):
        return sum(name == tag for name, _ in self.found)


@pytest.fixture(scope="module")
def many():
    return made(MANY)


@pytest.fixture(scope="module")
def page(many):
    return report.page(manifest(MANY), {"dev": many, "test": many}, GATES, RUN)


def test_the_page_of_a_real_model_says_what_was_measured(model_folder):
    page = (model_folder / "report.html").read_text(encoding="utf-8")
    metrics = manifest_of(model_folder)["metrics"]["test"]

    assert f"{100 * metrics['accuracy']:.1f}\N{NO-BREAK SPACE}%" in page
    assert "95 % interval" in page
    for heading in ("Data", "Training", "Every label", "What is taken for what", "Calibration", "Gates", "Settings"):
        assert f">{heading}" in page
    assert Elements(page).count("figure") >= 4


def test_the_manifest_says_how_sure_the_figures_are(model_folder):
    for metrics in manifest_of(model_folder)["metrics"].values():
        low, high = metrics["accuracy_interval"]
        assert low <= metrics["accuracy"] <= high
        assert {"rows", "macro_f1", "ece", "ece_before"} <= metrics.keys()


def test_what_the_data_checks_found_travels_with_the_checkpoint(model_folder, tmp_path, sentences):
    """The checkpoint is all that is left of a run when it is exported again."""
    record = json.loads((model_folder / "checkpoint" / "train.json").read_text(encoding="utf-8"))
    assert record["data"]["label_counts"] == {"login": 32, "praise": 32, "refund": 32}
    assert "leakage" in {finding["code"] for finding in record["data"]["findings"]}, (
        "the fixture tests on what it learnt"
    )

    again = finished.export(str(model_folder / "checkpoint"), tmp_path / "again", data=sentences)

    page = (tmp_path / "again" / "report.html").read_text(encoding="utf-8")
    assert "<code>leakage</code>" in page
    assert 'id="training"' in page
    assert json.loads((tmp_path / "again" / "checkpoint" / "train.json").read_text(encoding="utf-8")) == record
    assert again.base_model == record["config"]["base"]


def test_a_record_of_something_else_is_no_record(model_folder, tmp_path, sentences):
    checkpoint = shutil.copytree(model_folder / "checkpoint", tmp_path / "checkpoint")
    (checkpoint / "train.json").write_text('[{"text": "somebody\'s training data"}]', encoding="utf-8")

    finished.export(str(checkpoint), tmp_path / "out", data=sentences)

    assert "no record of the run" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / "checkpoint" / "train.json").exists()


def test_texts_are_never_markup(page):
    """They are what users wrote: one of them may close the script it stands in."""
    elements = Elements(page)

    assert elements.count("script") == 2
    assert elements.count("img") == 0
    assert "</script><img" not in page
    assert "\u2028" not in page[page.index("application/json") : page.index("</script>")]
    assert "{{ 7 * 7 }}" in page
    page.encode("utf-8")  # half a surrogate pair was replaced


def test_nothing_is_fetched(page):
    policy = next(attributes["content"] for tag, attributes in Elements(page).found if "http-equiv" in attributes)

    assert policy.startswith("default-src 'none';")
    for tag, attributes in Elements(page).found:
        for name in ("src", "href", "srcset", "data", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:,")), (tag, attributes)


def test_the_texts_in_a_page_are_limited(many, page):
    cells = confusion.cells(many)

    texts = [example.text for cell in cells for example in cell.examples]
    assert len(texts) == confusion.ALL_EXAMPLES
    long = made(MANY[:3], 20, text="x" * 5000)
    assert max(len(e.text) for cell in confusion.cells(long) for e in cell.examples) == confusion.LONGEST_EXAMPLE
    assert len(page) < 1_500_000


def test_mistakes_come_first_and_the_surest_first():
    cells = confusion.cells(made(MANY[:4], 400))

    mistaken = [cell for cell in cells if cell.mistaken]
    assert cells[: len(mistaken)] == mistaken
    assert [cell.rows for cell in mistaken] == sorted((cell.rows for cell in mistaken), reverse=True)
    assert sum(cell.rows for cell in cells) == 400
    for cell in cells:
        surest_first = [e.probability for e in cell.examples]
        assert surest_first == sorted(surest_first, reverse=cell.mistaken)


def test_labels_that_are_confused_stand_side_by_side():
    counts = np.diag([50] * 6)
    counts[0, 5] = counts[5, 0] = 9
    counts[1, 3] = 8
    counts[3, 5] = 2

    assert confusion.order(counts) in ([0, 5, 3, 1, 2, 4], [1, 3, 5, 0, 2, 4])
    assert sorted(confusion.order(np.ones((30, 30)))) == list(range(30))


def test_a_model_of_several_labels_shows_what_it_missed_and_gave_wrongly():
    measured = made(MANY[:5], 300, multi_label=True, temperature=1.5)
    several = manifest(MANY[:5], problem_type="multi_label", thresholds=(0.4,) * 5, temperature=1.5)

    page = report.page(several, {"test": measured}, GATES, None)

    assert "any number of 5 labels" in page
    assert "missed" in page
    assert "given wrongly" in page
    assert ">Threshold" in page
    assert 'id="matrix"' not in page
    assert "Before: temperature 1<" in page
    assert "After: temperature 1.5<" in page
    missed = [cell for cell in confusion.cells(measured) if cell.given is None]
    assert sum(cell.rows for cell in missed) == (measured.truth & ~measured.decided).sum()


@pytest.mark.parametrize(
    ("threshold", "in_report", "in_card"),
    [(0.8, "0.8", "0.8"), (0.857, "0.86", "0.857"), (0.9961, "0.996", "0.996"), (0.99964, "0.9996", "0.9996")],
)
def test_a_threshold_below_1_is_not_rounded_up_to_1(threshold, in_report, in_card):
    """No text would be that sure."""
    model = manifest(MANY[:5], thresholds=(threshold,) * 5)

    assert f"less sure than {in_report}." in report.page(model, {}, GATES, None)
    assert f"a probability of {in_card}, else none" in card(model, {}, GATES, None)


def test_names_of_labels_that_were_learnt_as_texts_are_no_rows():
    few = RUN | {"train_rows": {"count": 847}, "cross_validation": {"names": 77}}

    for write in (report.page, card):
        assert "770 rows and the names of 77 labels to learn from" in write(manifest(MANY), {}, GATES, few)
        assert "900 rows to learn from" in write(manifest(MANY), {}, GATES, RUN)


def test_calibration_is_told_before_and_after():
    measured = made(MANY[:5], 500, temperature=2.0)

    page = report.page(manifest(MANY[:5], temperature=2.0), {"test": measured}, GATES, None)

    assert f"<b>{measured.ece_before:.4f}</b> before" in page
    assert f"<b>{measured.metrics.ece:.4f}</b> after" in page
    assert measured.ece_before != pytest.approx(measured.metrics.ece, abs=0.01)


def test_a_model_that_abstains_says_how_often():
    measured = made(MANY[:5], 500)

    page = report.page(manifest(MANY[:5], thresholds=(0.9,) * 5), {"test": measured}, GATES, None)

    (answered,) = measured.answered([0.9])
    assert "or none where it is less sure than 0.9" in page
    assert f"it answers {100 * answered.coverage:.1f}\N{NO-BREAK SPACE}% of these rows" in page
    assert "or none where" not in report.page(manifest(MANY[:5]), {"test": measured}, GATES, None)


@pytest.mark.parametrize("run", [None, RUN, {**RUN, "history": []}, {k: v for k, v in RUN.items() if k != "data"}])
@pytest.mark.parametrize("rows", [None, 0, 1])
def test_a_page_needs_neither_rows_nor_a_record(run, rows):
    measured = {} if rows is None else {"data": made(MANY[:3], rows) if rows else no_rows(MANY[:3])}
    alone = manifest(MANY[:3], precisions=("fp32",), default_precision="fp32")

    page = report.page(alone, measured, GATES[:1], run)

    assert ("nothing was measured" in page) == (not rows)
    assert "not offered" in page
    assert not re.search(r"\bnan\b", page)
    assert yaml.safe_load(card(alone, measured, GATES[:1], run).split("---\n")[1])["library_name"] == "transformers"


def no_rows(labels):
    one = made(labels, 1)
    empty = np.zeros((0, len(labels)), dtype=np.float32)
    return Measured([], empty, empty, one.metrics)


def test_the_chosen_epoch_is_the_one_that_the_run_took():
    def chosen_epoch(run):
        return Facts.of(manifest(MANY), {}, GATES, run).chosen

    assert chosen_epoch(RUN)["dev_loss"] == 2.5 / 3
    assert chosen_epoch({**RUN, "history": [], "chosen_epoch": None}) is None
    assert chosen_epoch(None) is None


def test_a_run_that_diverged_is_drawn_as_far_as_it_goes():
    line = charts.Line("loss", [(1, 2.0), (2, float("nan"))])

    drawn = charts.lines("Loss", [line], x="epoch", y="loss", mark=1).__html__()

    assert "nan" not in drawn
    assert drawn.count("<circle") == 1
    assert charts.lines("Loss", [charts.Line("loss", [])], x="epoch", y="loss") == ""
    assert "<circle" not in charts.reliability("Reliability", [Bin(0, 0, 0)] * 15).__html__()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.7976, 0.932), (1, 5), (1, 1), (0, 0), (0, 1234), (1, 500)])
def test_ticks_are_few_round_and_enclose_the_range(low, high):
    ticks = svg.ticks(low, high)

    assert ticks[0] <= low <= high <= ticks[-1]
    assert 2 <= len(ticks) <= 8


def test_the_card_is_one_that_the_hub_reads():
    from huggingface_hub import ModelCard

    measured = {"dev": made(ODD_LABELS, 300), "test": made(ODD_LABELS, 400)}
    odd = manifest(ODD_LABELS, name="x: \"y\" # '日本'", base_model="google-bert/bert-base-uncased")

    text = card(odd, measured, GATES, None)

    data = ModelCard(text).data
    assert data.pipeline_tag == "text-classification"
    assert data.base_model == "google-bert/bert-base-uncased"
    assert data.model_name == odd.name
    results = {(r.dataset_split, r.metric_type): r.metric_value for r in data.eval_results}
    assert results["test", "accuracy"] == pytest.approx(measured["test"].metrics.accuracy, abs=1e-4)
    assert results["dev", "f1"] == pytest.approx(measured["dev"].metrics.macro_f1, abs=1e-4)
    assert results["test", "ece"] == pytest.approx(measured["test"].metrics.ece, abs=1e-4)
    for heading in ("Intended use", "Labels", "Training data", "Figures", "Calibration", "Gates", "How to use it"):
        assert f"\n## {heading}\n\n" in text
    assert "`` `tick` ``" in text


def test_the_card_of_a_real_model_says_how_to_load_it(model_folder):
    text = (model_folder / "README.md").read_text(encoding="utf-8")

    assert "trust_remote_code=True" in text, "the fixture's classifier reads the mean of all tokens"
    assert "custom_code" in yaml.safe_load(text.split("---\n")[1])["tags"]
    assert "base_model" not in yaml.safe_load(text.split("---\n")[1]), "a local folder is nothing to the hub"
    assert "\n\n\n" not in text


def test_a_card_says_what_was_on_the_hub_when_it_was_trained():
    """A folder's name may be a stranger's by the time that the checkpoint is exported."""

    def front(run, **values):
        text = card(manifest(MANY, **values), {}, GATES, run)
        return yaml.safe_load(text.split("---\n")[1]), text

    of_folder, text = front(RUN | {"config": RUN["config"] | {"base": "bases/mine"}, "hub_id": None})
    assert "base_model" not in of_folder
    assert "bert" not in of_folder["tags"], "it may be of another family"
    assert "fine-tuned from `minilm`" in text
    of_hub, _ = front(RUN | {"hub_id": "some/base"})
    assert of_hub["base_model"] == "some/base"
    _, text = front(None, base_model="some/classifier")
    assert "exported from `some/classifier`" in text


@pytest.mark.parametrize(
    ("more", "decided"),
    [
        ({}, "chose the epoch and the calibration, so"),
        ({"dev_rows": {"count": 99}}, "chose the calibration, so"),
        (
            {"search": {"trials": [{}, {}]}},
            "chose the settings, the best of 2 trials, the epoch and the calibration, so",
        ),
    ],
)
def test_it_is_told_what_the_development_rows_chose(more, decided):
    measured = {"dev": made(MANY, 300)}
    for write in (report.page, card):
        assert decided in write(manifest(MANY), measured, GATES, RUN | more)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "the latest that is within one standard error"),
        ({"dev_rows": {"count": 99}}, "the last one, since 99 development rows cannot tell one from another"),
        (
            {"chosen_epoch": 0.0, "history": [{"epoch": 0.0, "dev_accuracy": 0.5, "dev_macro_f1": 0.5}]},
            "nothing else learns",
        ),
    ],
)
def test_it_is_told_why_it_is_this_epoch(more, told):
    assert told in report.page(manifest(MANY), {}, GATES, RUN | more)


def test_it_is_told_what_was_minimised():
    def page(history, **config):
        return report.page(manifest(MANY), {}, GATES, RUN | {"config": RUN["config"] | config, "history": history})

    recipe = page(RUN["history"], consistency=1.0, soft_labels=0.3, self_distillation=0.5)
    assert "on labels softened by what the other rows say and what the model said an epoch before and the" in recipe
    assert "the distance between two passes over a sentence. The development loss is" in recipe
    plain = page([{"epoch": 3.0, "loss": 0.5}], consistency=0.0, soft_labels=0.0, self_distillation=0.0)
    assert "minimised, with neurons dropped: the loss on the labels.</p>" in plain
    assert "development loss" not in plain.lower()
    assert plain.count('<th scope="col">Training objective</th></tr>') == 1


@pytest.mark.parametrize("write", [report.page, card])
def test_figures_of_cross_validation_are_those_of_other_models(write):
    run = RUN | {"dev_rows": {"count": 50}, "crossed": {"folds": 3, "rows": 300}}

    text = write(manifest(MANY), {"cross-validation": made(MANY, 300)}, GATES, run)

    assert "Models like it, each of which learnt without one of 3 parts of the rows, are right for" in text
    assert "of 300 rows that they had not learnt from (cross-validation;" in text
    assert "Those rows chose the calibration." in text
    assert "Measured on the fp32 graph" not in text, "nothing was"
    both = write(manifest(MANY), {"cross-validation": made(MANY, 300), "test": made(MANY, 90)}, GATES, run)
    assert "It is right for" in both
    assert "Measured on the fp32 graph, except the cross-validation rows." in both


@pytest.mark.parametrize("write", [report.page, card])
def test_it_is_told_that_cross_validation_chose_how_few_examples_were_learnt(write):
    scores = {"frozen": 0.6512, "frozen-named": 0.7512, "tuned-named": 0.8125}
    ways = {name: {"accuracy": score, "macro_f1": score} for name, score in scores.items()}
    crossed = {"folds": 3, "rows": 300, "ways": ways, "chosen": "tuned-named", "names": 0}

    text = write(
        manifest(MANY),
        {"cross-validation": made(MANY, 300)},
        GATES,
        RUN | {"dev_rows": {"count": 0}, "cross_validation": crossed},
    )

    assert "chose how to learn (the best of 3 ways) and the calibration, so their figures flatter." in text
    assert ", 0 rows to" not in text
    if write is report.page:
        named = "; names of labels as texts too"
        assert f"fine-tuned from the fitted classifier{named} (taken)</th><td>0.8125</td>" in text
        assert f"nothing else learns{named}</th><td>0.7512</td>" in text
        assert "nothing else learns</th><td>0.6512</td>" in text


@pytest.mark.parametrize("write", [report.page, card])
def test_an_abstaining_model_says_first_what_it_answers(write):
    measured = made(MANY[:5], 500)
    (answered,) = measured.answered([0.9])
    run = RUN | {"config": RUN["config"] | {"min_precision": 0.97}}

    text = write(manifest(MANY[:5], thresholds=(0.9,) * 5), {"test": measured}, GATES, run)

    share, right = (f"{100 * value:.1f}\N{NO-BREAK SPACE}%" for value in (answered.coverage, answered.precision))
    assert "Its best label is right for" in text
    assert f"It gives a label to {share} of them, and is right for {right} of those, where 97.0" in text
    never = write(manifest(MANY[:5], thresholds=(1.0,) * 5), {"test": measured}, GATES, None)
    assert "It is sure enough of none of them to give a label." in never


@pytest.mark.parametrize("write", [report.page, card])
def test_what_no_model_would_be_right_for_is_told_too(write):
    rows = [Row("a", ("spam",)), *(Row(f"b{i}", ("ham",)) for i in range(3))]
    scores = np.tile(np.float32([[0.9, 0.1]]), (4, 1))
    truth = targets(rows, ("ham", "spam"))
    measured = Measured(rows, scores, scores, measure(scores, truth, ("ham", "spam")))

    text = write(manifest(("ham", "spam")), {"test": measured}, GATES, RUN)

    assert "75.0\N{NO-BREAK SPACE}%" in text
    assert re.search("if all were given (<bdi>ham|`ham`)", text)


def test_a_ratio_of_nothing_is_no_zero():
    rows = [Row(f"{i}", ("ham",)) for i in range(4)]
    scores = np.tile(np.float32([[0.9, 0.06, 0.04]]), (4, 1))
    scores[0] = [0.1, 0.8, 0.1]
    labels = ("ham", "spam", "eggs")
    truth = targets([*rows, Row("e", ("eggs",))], labels)
    scores = np.vstack([scores, np.float32([[0.9, 0.05, 0.05]])])
    measured = Measured([*rows, Row("e", ("eggs",))], scores, scores, measure(scores, truth, labels))

    page = report.page(manifest(labels), {"test": measured}, GATES, None)

    def figures(label):
        row = re.search(rf"<bdi>{label}</bdi></th>(.*?)</tr>", page[page.index("Figures of every label") :])[1]
        return re.findall(r"<td data-value=\"[^\"]*\">(.*?)</td>", row)

    assert figures("ham") == ["0.750", "0.750", "0.750"]
    assert figures("spam") == ["0.000", "0.000", "–"], "it was given once, and no row has it"
    assert figures("eggs") == ["0.000", "–", "0.000"], "one row has it, and it was never given"


def test_the_card_says_of_which_rows_it_is_sure():
    metrics = {"test": {"predicted": {MANY[0]: 0.25, "(none)": 0.75}, "confidence": 0.625}}
    test = {"test": made(MANY, 300)}

    abstaining = card(manifest(MANY, thresholds=(0.6,) * 77, metrics=metrics), test, GATES, RUN)

    assert "of the best label, where one is given, is 0.625 on the test rows, and 75.0\N{NO-BREAK SPACE}%" in abstaining
    metrics["test"]["predicted"] = {MANY[0]: 1.0, "(none)": 0.0}
    assert "of the best label is 0.625 on the test rows.\n" in card(manifest(MANY, metrics=metrics), test, GATES, RUN)


def test_folders_of_this_machine_are_not_named():
    for write in (report.page, card):
        text = write(manifest(MANY, base_model="/home/somebody/bases/mine"), {}, GATES, RUN)
        assert "mine" in text
        assert "somebody" not in text


def test_a_base_has_a_name_on_the_hub_or_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()

    assert hub_id("minilm") == "sentence-transformers/all-MiniLM-L6-v2"
    assert hub_id("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"
    assert hub_id("roberta-base") == "roberta-base"
    for folder in ("models", "/a/base", "../base", "a/b/c"):
        assert hub_id(folder) is None, folder


@contextmanager
def opened(path, **options):
    """A page in headless Chromium, with everything that it asked for or complained of."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser's driver is missing: `make setup`")
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if not found:
        pytest.skip("no chromium on this machine: `make browser` installs it")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        tab = browser.new_page(**options)
        requests, complaints = [], []
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(path.as_uri())
        yield tab
        assert complaints == []
        assert requests == [path.as_uri()]
        browser.close()


@pytest.fixture(scope="module")
def page_file(page, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_person_explores_the_page(page_file, width, scheme):
    with opened(page_file, viewport={"width": width, "height": 800}, color_scheme=scheme) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for drawing in tab.locator("svg.chart, #matrix").all():
            assert drawing.bounding_box()["height"] > 100
        assert tab.locator("figure").count() == 4

        wrong = tab.locator("#matrix .wrong").first
        wrong.scroll_into_view_if_needed()
        wrong.hover()
        assert re.match(r"true label \d\d of many, given label \d\d of many: \d+ rows?, ", tab.inner_text("#told"))
        wrong.click()
        assert "onerror" in tab.inner_text("#texts li:first-child")
        assert tab.inner_text("#listed").startswith(tab.inner_text("#told"))
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [1280, 400])
def test_no_name_or_text_is_wide_enough_to_scroll_the_page(tmp_path, width):
    labels = [*("x" * 400 + str(i) for i in range(3)), "日本" * 60, "no_break_" * 30]
    wide = manifest(labels, name="n" * 300, base_model="b" * 200)
    run = {**RUN, "config": {"base": "z" * 300}}
    path = tmp_path / "report.html"
    path.write_text(report.page(wide, {"dev": made(labels, 200, text="w" * 500)}, GATES, run), encoding="utf-8")

    with opened(path, viewport={"width": width, "height": 800}) as tab:
        tab.locator("#matrix rect").nth(1).click()
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_scores_that_are_close_leave_the_name_of_their_axis_alone(tmp_path):
    path = tmp_path / "report.html"
    close = [{"epoch": float(i), "loss": 1.0, "dev_accuracy": 0.8731 + i / 1e4} for i in (1, 2)]
    path.write_text(report.page(manifest(MANY), {}, GATES, RUN | {"history": close, "chosen_epoch": 1.0}), "utf-8")

    with opened(path, viewport={"width": 1280, "height": 800}) as tab:
        chart = tab.locator("figure", has_text="Scores")
        name = chart.get_by_text("score", exact=True).bounding_box()
        ticks = [box for text in chart.locator("text[text-anchor=end]").all() if (box := text.bounding_box())]
        assert len(ticks) > 2
        assert min(box["x"] for box in ticks) > name["x"] + name["width"]


def test_a_matrix_of_77_labels_fits_where_it_is_drawn(page_file):
    with opened(page_file, viewport={"width": 1280, "height": 800}) as tab:
        region = tab.get_by_role("region", name="Confusion matrix", exact=True)
        assert region.evaluate("(region) => region.scrollWidth <= region.clientWidth")


@pytest.mark.parametrize("labels", [[f"ACCOUNT_{letter}_WITHDRAWAL_MMWW" for letter in "ABCDEF"], list("wMiI@")])
def test_names_beside_the_matrix_are_whole(tmp_path, labels):
    path = tmp_path / "report.html"
    path.write_text(report.page(manifest(labels), {"test": made(labels, 200)}, GATES, None), encoding="utf-8")

    with opened(path, viewport={"width": 1280, "height": 800}) as tab:
        field = tab.locator("#matrix").bounding_box()
        for name in tab.locator("#matrix .name").all():
            box = name.bounding_box()
            assert box["x"] >= field["x"]
            assert box["y"] >= field["y"]


def test_names_of_any_script_leave_numbers_in_order(tmp_path):
    labels = ["משיכה 24", "refund", "سحب"]
    path = tmp_path / "report.html"
    path.write_text(report.page(manifest(labels), {"test": made(labels, 3000)}, GATES, None), encoding="utf-8")

    with opened(path, viewport={"width": 1280, "height": 800}) as tab:
        tab.locator("#matrix .wrong").first.click()
        assert tab.locator("#listed bdi").count() == 2
        assert tab.locator("#texts li:first-child bdi").count() == 2
    for label in labels:
        name = re.escape(label)
        assert re.search(f"<bdi>{name}</bdi>", path.read_text(encoding="utf-8"))
        assert not re.search(rf"<b>{name}|\btrue {name}", path.read_text(encoding="utf-8"))


def test_on_paper_nothing_is_cut_off(page_file):
    with opened(page_file, viewport={"width": 718, "height": 1000}) as tab:
        tab.emulate_media(media="print")
        for region in tab.locator(".wide").all():
            assert region.evaluate("(region) => region.scrollWidth <= innerWidth"), region.get_attribute("aria-label")
        assert tab.locator("#matrix").bounding_box()["width"] <= 718
        assert tab.locator("#order").is_hidden()
        assert tab.locator("#told").is_hidden()


def test_the_matrix_is_reordered_filtered_and_walked_by_keys(page_file):
    with opened(page_file, viewport={"width": 1280, "height": 800}) as tab:
        name = tab.locator("#matrix .name.true").first
        before = name.get_attribute("transform")
        tab.select_option("#order", "name")
        assert name.get_attribute("transform") != before
        tab.check("#mistakes-only")
        assert tab.locator("#matrix .right").first.is_hidden()
        assert tab.locator("#matrix .wrong").first.is_visible()

        tab.focus("#matrix")
        assert tab.inner_text("#told").startswith("true label 00 of many, given label 00 of many")
        tab.keyboard.press("ArrowRight")
        assert tab.inner_text("#told").startswith("true label 00 of many, given label 01 of many")
        tab.keyboard.press("Home")
        tab.keyboard.press("PageDown")
        told = tab.inner_text("#told")
        assert ": 0 rows" not in told
        tab.keyboard.press("Enter")
        assert tab.locator("#texts li").count() >= 1
        assert tab.inner_text("#listed").startswith(told)


def test_a_finger_need_not_hit_the_cell(page_file):
    with opened(page_file, viewport={"width": 400, "height": 800}, has_touch=True, is_mobile=True) as tab:
        wrong = tab.locator("#matrix .wrong").first
        wrong.scroll_into_view_if_needed()
        box = wrong.bounding_box()
        tab.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert ": 0 rows" not in tab.inner_text("#told")
        assert tab.locator("#texts li").count() >= 1


def test_tables_are_sorted_by_any_column(page_file, many):
    with opened(page_file, viewport={"width": 1280, "height": 800}) as tab:
        table = tab.locator("#labels table.sortable")
        column = (
            "[...document.querySelectorAll('#labels table.sortable tbody tr')].map((row) => row.cells[1].textContent)"
        )
        table.get_by_role("button", name="F1").click()
        falling = tab.evaluate(column)
        assert [float(value) for value in falling] == sorted((float(value) for value in falling), reverse=True)
        assert table.locator("th[aria-sort=descending]").count() == 1
        table.get_by_role("button", name="F1").click()
        assert float(tab.evaluate(column)[0]) == pytest.approx(min(x.f1 for x in many.metrics.labels), abs=1e-3)


def test_without_scripts_the_page_still_tells_everything(page_file):
    with opened(page_file, viewport={"width": 400, "height": 800}, java_script_enabled=False) as tab:
        assert tab.locator("#matrix .wrong").first.is_visible()
        assert tab.locator("#order").is_hidden()
        assert "onerror" in tab.inner_text("#confusion ol li:first-child .texts")


def test_the_page_of_a_real_model_opens_without_complaint(model_folder):
    with opened(model_folder / "report.html", viewport={"width": 400, "height": 800}) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tab.locator("#matrix .right").first.click()
        assert tab.locator("#texts li").count() >= 1


@pytest.mark.parametrize(
    ("rows", "told"), [("dev", "the development rows, which"), ("cross-validation", "rows which"), ("test", None)]
)
def test_it_is_told_where_int8_was_compared_on_learnt_rows(rows, told):
    final = RUN | {"final": {"epochs": 1, "learning_rate": 5e-5, "rows": 1000}}
    for write in (report.page, card):
        text = write(manifest(MANY), {rows: made(MANY, 300)}, GATES, final)
        assert ("had learnt by then" in text) == bool(told)
        assert not told or f"compared on {told} the model had learnt by then" in text
