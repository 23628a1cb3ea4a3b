"""One tiny real BERT, trained and exported once for the whole run, and the data and servers that use it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support import ROOT, make_base, serving, write_csv

assert "torch" not in sys.modules, "torch has read its settings already: what loads it must wait until they are set"
os.environ["BENTOML_DO_NOT_TRACK"] = "true"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may depend on a network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # more would only wait for each other: other work goes on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from inference import Classifier

SENTENCES = {
    "refund": ["i want my money back", "refund the order please", "when is the refund on my card", "money back please"],
    "login": ["my password is not in", "where to login", "login page and password please", "the account login is late"],
    "praise": ["thank you great app", "i love it", "we love the app thank you", "great great thank you"],
}


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with loud weights: at the usual 0.02 a broken mask moves a logit by less than 1e-4."""
    return make_base(tmp_path_factory.mktemp("base") / "bert", "bert")


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of three labels that a tiny model can tell apart."""
    rows = [
        (f"{text} {word}", label)
        for label, texts in SENTENCES.items()
        for text in texts
        for word in ("", "the order", "my app", "on the page", "please", "and the card", "in it", "for the box")
    ]
    return write_csv(tmp_path_factory.mktemp("data") / "train.csv", [(text.strip(), label) for text, label in rows])


@pytest.fixture(scope="session")
def model_folder(tiny_base: Path, sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT, fine-tuned and exported as `bertrand train` does it."""
    from training.pipeline import train
    from training.settings import TrainConfig

    out = tmp_path_factory.mktemp("models") / "tiny"
    config = TrainConfig(base=str(tiny_base), epochs=12, learning_rate=3e-3, batch_size=8, max_tokens=32, folds=0)
    train(config, sentences, test=sentences, out=out)
    gc.freeze()  # every training looks through all objects for garbage, and most are those of what is loaded by now
    return out


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run last what waits for the demo or for an image: it is trained, or built, meanwhile."""
    items.sort(key=lambda item: (_waits_for_the_demo(item), "containers" in item.path.parts))


def _waits_for_the_demo(item: pytest.Item) -> bool:
    return "demo_model" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo | None]:
    """`bertrand demo`, which takes minutes: begun before the first test, behind the tests, but not starved by them."""
    if not any(map(_waits_for_the_demo, request.session.items)):
        yield None
        return
    folder = tmp_path_factory.mktemp("demo")
    out = folder / "models" / "demo"
    command = [sys.executable, "-m", "bertrand", "demo", "--no-serve", "--out", str(out)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=ROOT, stderr=log) as process:
        os.setpriority(os.PRIO_PROCESS, process.pid, 5)  # its threads, which come later, have it from the first
        try:
            yield Demo(process, out, folder / "log")
        finally:
            process.terminate()


@dataclass(frozen=True)
class Demo:
    """A run of the demo."""

    process: subprocess.Popen[bytes]
    out: Path
    log: Path


@pytest.fixture(scope="session")
def demo_model(demo: Demo) -> Path:
    """What `bertrand demo` makes of the bundled sentences, with the real pretrained weights."""
    assert demo.process.wait(timeout=1200) == 0, demo.log.read_text()
    return demo.out


@pytest.fixture(scope="session")
def classifier(model_folder: Path) -> Classifier:
    """The tiny model, loaded."""
    from inference import Classifier

    return Classifier.load(model_folder)


@pytest.fixture(scope="session")
def server(model_folder: Path) -> Iterator[str]:
    """The address of a real `bertrand serve` of the tiny model."""
    with serving(model_folder) as url:
        yield url


@pytest.fixture(scope="session")
def client(server: str) -> Iterator[httpx.Client]:
    """A plain HTTP client of the server."""
    with httpx.Client(base_url=server, timeout=30) as client:
        yield client
