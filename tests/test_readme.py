"""The README's first screen: its commands exist, and its answer is what the code gives."""

import json
import re

import httpx
import pytest

from inference.artifact import Artifact
from tests.support import ROOT, manifest_of, serving

README = (ROOT / "README.md").read_text(encoding="utf-8")


def shape(value):
    """Reduce an answer to what depends on neither weights nor CPU: keys, texts, ids, offsets, codes."""
    if isinstance(value, dict):
        varying = {"version", "precision", "token_embeddings"}
        return {key: shape(item) for key, item in value.items() if key not in varying}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return "number" if isinstance(value, float) else value


def test_the_request_gets_the_answer_that_is_shown(demo_model):
    body = re.search(r"-d '(.*?)'\n", README, re.DOTALL)[1]
    shown = json.loads(re.search(r"```json\n(.*?)```", README, re.DOTALL)[1])

    with serving(demo_model) as url:
        answer = httpx.post(f"{url}/v1/analyze", content=body, headers={"content-type": "application/json"}).json()

    result, expected = answer["results"][0], shown["results"][0]
    assert result["score"] == pytest.approx(expected["score"], abs=0.1)
    for row in (result, expected):
        row["scores"] = row["scores"][:1]  # which label comes second may differ from machine to machine
    assert shape(answer) == shape(shown)
    assert answer["model"]["version"] == manifest_of(demo_model)["version"]
    assert answer["model"]["precision"] == Artifact.open(demo_model).precision("auto")
    assert [len(vector) for vector in result["token_embeddings"]] == [384] * len(expected["tokens"])


def test_the_make_targets_and_commands_it_names_exist():
    from bertrand.__main__ import COMMANDS

    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make (demo|test|setup|\w+)  ", README)) <= set(targets)
    assert set(re.findall(r"^\| `bertrand ([\w-]+)", README, re.MULTILINE)) == set(COMMANDS)


def test_every_page_it_links_to_exists():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_setting_is_in_the_table():
    from dataclasses import fields

    from service.settings import Settings

    table = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    for field in fields(Settings):
        assert f"| `BERTRAND_{field.name.upper()}` |" in table
