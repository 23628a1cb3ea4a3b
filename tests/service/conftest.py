"""What the service's tests need beside a server: a model whose texts may have any number of labels, and no server."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from inference import Classifier
    from service.metrics import Metrics
    from service.models import Models

THRESHOLDS = (0.95, 0.9, 0.85)
TEMPERATURE = 1.5  # far from 1, where forgetting it would not show


@pytest.fixture(scope="session")
def multi_label_folder(tiny_base: Path, sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A tiny model that learnt hard labels, so that its scores lie far apart; its logits are read one by one.

    Of the first seeds it is the one whose scores a word still moves: the others are sure of a text without it too.
    """
    from inference.artifact import write_manifest
    from training.pipeline import train
    from training.settings import TrainConfig

    folder = tmp_path_factory.mktemp("models") / "many"
    settings = {"epochs": 12, "learning_rate": 3e-3, "batch_size": 8, "max_tokens": 32, "seed": 1}
    train(TrainConfig(base=str(tiny_base), soft_labels=0.0, final_epochs=0, **settings), sentences, out=folder)
    manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    for name in ("version", "sha256"):
        del manifest[name]
    changed = {"name": "many", "problem_type": "multi_label", "thresholds": THRESHOLDS, "temperature": TEMPERATURE}
    write_manifest(folder, **manifest | changed)
    return folder


@pytest.fixture(scope="session")
def multi_label_classifier(multi_label_folder: Path) -> Classifier:
    """The multi-label model, loaded."""
    from inference import Classifier

    return Classifier.load(multi_label_folder)


@pytest.fixture(scope="session")
def multi_label_client(multi_label_folder: Path) -> Iterator[httpx.Client]:
    """A client of a real server of the multi-label model."""
    with serving(multi_label_folder) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
def make_models(model_folder: Path) -> Iterator[Callable[..., tuple[Models, Metrics]]]:
    """A maker of what a worker answers with, and counts in, without a server around it; it takes settings."""
    from service.metrics import Metrics
    from service.models import Models
    from service.routes import ROUTES
    from service.settings import Settings

    made = []

    def make(**changes: Any) -> tuple[Models, Metrics]:
        metrics = Metrics(ROUTES)
        settings = replace(Settings.from_environment({"BERTRAND_MODEL": str(model_folder)}), threads=1, **changes)
        made.append(Models(settings, metrics))
        return made[-1], metrics

    yield make
    for models in made:
        models.close()
