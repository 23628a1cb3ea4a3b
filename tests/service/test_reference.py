"""What traffic is held against: the figures of the model that answers, as model.json has them."""

import json
import signal

import httpx
import pytest

from inference import ArtifactError
from inference.artifact import Artifact
from inference.reference import Reference
from tests.service.test_lifecycle import metric, running, switch
from tests.support import manifest_of, serving, signed_again, until
from training.data import read_rows

RATIO = "bertrand_reference_label_ratio"
FIGURES = ("bertrand_reference_confidence", "bertrand_reference_truncated_ratio")


def shown(url):
    """The reference figures that a server shows: the shares by label, and the others."""
    lines = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith("bertrand_reference")]
    values = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
    shares = {name.split('"')[1]: share for name, share in values.items() if name.startswith(RATIO)}
    return shares, {name: value for name, value in values.items() if name in FIGURES}


def expected(figures):
    return figures["predicted"], {FIGURES[0]: figures["confidence"], FIGURES[1]: figures["truncated"]}


def with_metrics(model, target, metrics, **values):
    return signed_again(model, target, lambda _: None, metrics=metrics, **values)


@pytest.fixture(scope="module")
def old_model(model_folder, tmp_path_factory):
    """The tiny model, written before there were such figures."""
    old = {
        name: {key: value for key, value in figures.items() if key not in ("predicted", "confidence", "truncated")}
        for name, figures in manifest_of(model_folder)["metrics"].items()
    }
    return with_metrics(model_folder, tmp_path_factory.mktemp("old") / "tiny", old, name="old")


def test_traffic_like_the_measured_rows_shows_no_drift(model_folder, sentences):
    """Counted alike, the same texts give the same figures, whichever worker answers."""
    texts = [row.text for row in read_rows(sentences)]
    figures = manifest_of(model_folder)["metrics"]["test"]

    with serving(model_folder, "--workers", "2", "--precision", "fp32") as url:
        assert shown(url) == expected(figures)
        for start in range(0, len(texts), 8):
            httpx.post(f"{url}/v1/classify", json={"inputs": texts[start : start + 8]})
        until(lambda: metric(url, "bertrand_confidence_count") == len(texts))

        for label, share in figures["predicted"].items():
            assert metric(url, f'bertrand_predictions_total{{label="{label}"}}') / len(texts) == share
        mean = metric(url, "bertrand_confidence_sum") / len(texts)
        assert mean == pytest.approx(figures["confidence"], abs=1e-6)
        assert shown(url) == expected(figures)


def test_with_a_new_model_come_its_figures_and_those_of_the_old_one_go(model_folder, old_model, tmp_path):
    """A label that is left over would be drift for ever; so would zeros in place of figures that nobody measured."""
    other = {"predicted": {"a": 0.5, "login": 0.25, "c": 0.0, "(none)": 0.25}, "confidence": 0.75, "truncated": 0.125}
    renamed = with_metrics(model_folder, tmp_path / "renamed", {"dev": other}, labels=("a", "login", "c"))
    first = expected(manifest_of(model_folder)["metrics"]["test"])
    link = tmp_path / "current"
    link.symlink_to(model_folder)

    with running(link, "--workers", "2") as (url, process):
        assert shown(url) == first
        switch(link, renamed)
        until(lambda: shown(url) == expected(other))
        switch(link, old_model)
        until(lambda: shown(url) == ({}, {}))
        switch(link, model_folder)
        process.send_signal(signal.SIGHUP)
        until(lambda: shown(url) == first)


def test_a_model_without_the_figures_is_served_and_shows_none(old_model):
    with serving(old_model) as url:
        assert httpx.post(f"{url}/v1/classify", json={"inputs": "login"}).status_code == 200
        assert shown(url) == ({}, {})


@pytest.mark.parametrize("missing", [(), ("test",), ("test", "data"), ("test", "data", "cross-validation")])
def test_the_rows_that_nothing_was_chosen_on_come_first(missing):
    names = [name for name in ("dev", "cross-validation", "data", "test") if name not in missing]
    metrics = {name: {"predicted": {name: 1}, "confidence": None, "truncated": 0} for name in names}

    assert Reference.of(metrics) == Reference({names[-1]: 1.0}, None, 0.0)
    assert Reference.of({"test": {"accuracy": 1.0}}) is None


@pytest.mark.parametrize(
    "figures",
    [{"predicted": ["a"], "confidence": 1, "truncated": 0}, {"predicted": {"a": "x"}}, {"predicted": {"a": 1}}],
)
def test_figures_of_the_wrong_kind_are_found_on_loading(model_folder, tmp_path, figures):
    """Not when the model is already in its place."""
    model = with_metrics(model_folder, tmp_path / "model", {"test": figures})

    with pytest.raises(ArtifactError, match=r"model.json: a field is of the wrong kind"):
        Artifact.open(model)
    assert json.loads((model / "model.json").read_text())["metrics"]
