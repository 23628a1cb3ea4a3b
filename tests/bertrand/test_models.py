"""`bertrand models` as people use it: what it prints, and with which exit code."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inference import Classifier
from tests.support import ROOT, manifest_of, run_command, signed_again


@pytest.fixture(scope="module")
def pair(model_folder, tmp_path_factory):
    """Two versions of the tiny model."""
    root = tmp_path_factory.mktemp("pair")
    shutil.copytree(model_folder, root / "tiny-1")
    signed_again(model_folder, root / "tiny-2", lambda _: None, name="tiny", temperature=2.0)
    return root


@pytest.fixture
def root(pair, tmp_path):
    """A folder of two models of which the first is current."""
    root = shutil.copytree(pair, tmp_path / "models")
    (root / "current").symlink_to("tiny-1")
    return root


@pytest.fixture
def models(root):
    """The command, on that folder."""
    return lambda *arguments: run_command("models", *arguments, "--models", root)


def refused(done, code, *told):
    """Whether a command ended with a code and one line that says certain things."""
    assert (done.returncode, done.stdout) == (code, ""), (done.returncode, done.stdout, done.stderr)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for part in told:
        assert part in done.stderr
    return True


def test_list_has_a_line_for_every_model_and_marks_the_current_one(models, root):
    broken = shutil.copytree(root / "tiny-2", root / "tiny-10")
    (broken / "model.json").write_text('{"format_version": 1')
    (root / "README.md").write_text("format")
    first = manifest_of(root / "tiny-1")

    done = models("list")

    header, *lines = [line.split() for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert header == ["folder", "name", "version", "created", "default", "accuracy", "size", "state"]
    accuracy = f"{first['metrics']['test']['accuracy']:.4f}"
    told = ["tiny", first["version"], first["created"], first["default_precision"], accuracy, "test"]
    assert lines[0][:8] == ["*", "tiny-1", *told]
    assert lines[0][-2:] == ["MB", "complete"]
    assert [line[0] for line in lines[1:]] == ["tiny-2", "tiny-10"]
    assert done.stdout.splitlines()[-1].endswith(
        f"broken: {broken}/model.json: not valid JSON (Expecting ',' delimiter: line 1 column 21 (char 20)); "
        "restore the file or export the model again"
    )


def test_list_as_json_has_the_same(models, root):
    (root / "tiny-2" / "tokenizer.json").unlink()

    told = json.loads(models("list", "--json").stdout)

    first, second = told["models"]
    manifest = manifest_of(root / "tiny-1")
    assert told["folder"] == str(root)
    assert told["current"] == {"state": "model", "target": "tiny-1", "model": "tiny-1"}
    for field in ("name", "version", "created", "precisions", "default_precision"):
        assert first[field] == manifest[field]
    assert first["accuracy"] == {"rows": "test", "value": manifest["metrics"]["test"]["accuracy"]}
    assert first["bytes"] == sum(path.stat().st_size for path in (root / "tiny-1").rglob("*") if path.is_file())
    assert (first["current"], first["error"]) == (True, None)
    assert second["current"] is False
    assert "tokenizer.json is missing" in second["error"]


def test_list_of_nothing_says_so(tmp_path):
    empty = run_command("models", "list", "--models", tmp_path)
    none = run_command("models", "list", cwd=tmp_path)

    assert (empty.returncode, empty.stdout) == (0, f"{tmp_path}: no models yet; `bertrand train` makes one\n")
    assert refused(none, 2, "models: there is no such folder of models", "--models", "--out models/NAME-1")


@pytest.mark.parametrize(
    ("arrange", "told"),
    [
        (lambda _: None, "current is not there; `bertrand models use NAME` makes it"),
        (lambda c: c.symlink_to("tiny-9"), "current leads to tiny-9, which is not there"),
        (lambda c: c.symlink_to(".."), "current leads to .., which is none of these"),
        (lambda c: c.mkdir(), "current is a folder or file of its own, not a link"),
    ],
)
def test_list_tells_what_is_odd_about_current(models, root, arrange, told):
    (root / "current").unlink()
    arrange(root / "current")

    done = models("list")

    assert done.returncode == 0
    assert told in done.stdout.splitlines()[-1]
    assert len(done.stdout.splitlines()) == 5


def test_any_name_is_shown_on_one_line_and_in_json(models, root):
    names = ["チケット 🎫-1", "a\nb\x1b[2J-2", os.fsdecode(b"\xff-3")]
    for name in names:
        shutil.copytree(root / "tiny-2", root / name)

    done = models("list")
    told = json.loads(models("list", "--json").stdout)

    assert len(done.stdout.splitlines()) == 6
    assert "\x1b" not in done.stdout
    assert "a\\nb\\x1b[2J-2" in done.stdout
    assert "チケット 🎫-1" in done.stdout
    assert {model["folder"] for model in told["models"]} == {"tiny-1", "tiny-2", *names}


def test_use_switches_and_says_how_to_go_back(models, root):
    first, second = (manifest_of(root / name)["version"] for name in ("tiny-1", "tiny-2"))

    there = models("use", "tiny-2")
    again = models("use", "tiny-2")
    *_, back = there.stdout.splitlines()
    returned = subprocess.run(
        ["bash", "-c", back.removeprefix("back: bertrand ").join((f"{sys.executable} -m bertrand ", ""))],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    by_version = models("use", second[:6], "--json")

    assert (there.returncode, there.stderr) == (0, "")
    assert there.stdout.splitlines()[0] == f"{root}/current: tiny-1 -> tiny-2 ({second})"
    assert (again.returncode, again.stdout) == (0, f"{root}/current is tiny-2 ({second}) already\n")
    assert returned.stdout.splitlines()[0] == f"{root}/current: tiny-2 -> tiny-1 ({first})"
    assert json.loads(by_version.stdout) == {
        "folder": "tiny-2",
        "version": second,
        "changed": True,
        "before": {"state": "model", "target": "tiny-1", "model": "tiny-1"},
    }
    assert (root / "current").readlink() == Path("tiny-2")


def test_use_of_a_broken_model_exits_1_and_changes_nothing(models, root):
    graph = root / "tiny-2" / "model.int8.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])

    done = models("use", "tiny-2")

    assert refused(done, 1, f"{root}/current stays as it is (tiny-1)", "model.int8.onnx: altered")
    assert (root / "current").readlink() == Path("tiny-1")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("use", "../tiny-2"), "'../tiny-2' is a path"),
        (("use", "models/tiny-2"), "such as tiny-2"),
        (("use", "current"), "current is the link to a model"),
        (("use", ".tiny-2.partial-1-x"), "starts with a dot"),
        (("use", "tiny-3"), "holds no model 'tiny-3'; there are: tiny-1, tiny-2"),
        (("verify", "tiny-1", "tiny-3"), "holds no model 'tiny-3'"),
        (("remove", "tiny-1"), "leads to tiny-1, so it is not removed; `bertrand models use` another one first"),
        (("remove", "tiny-2", "tiny-3"), "holds no model 'tiny-3'"),
        (("use",), "models use takes the name of one model, 0 given"),
        (("use", "tiny-1", "tiny-2"), "models use takes the name of one model, 2 given"),
        (("remove",), "models remove takes one name or more, 0 given"),
        (("list", "tiny-1"), "models list takes no name, 1 given"),
    ],
)
def test_what_cannot_be_meant_exits_2_with_one_line(models, root, arguments, told):
    before = sorted(root.rglob("*"))

    assert refused(models(*arguments), 2, told)
    assert sorted(root.rglob("*")) == before


def test_an_unknown_action_is_bad_usage(models):
    done = models("switch", "tiny-2")

    assert done.returncode == 2
    assert "usage: bertrand models" in done.stderr
    assert "choose from 'list', 'use', 'verify', 'remove'" in done.stderr


def test_verify_has_a_line_for_every_model_and_exits_1_if_one_is_broken(models, root):
    versions = {name: manifest_of(root / name)["version"] for name in ("tiny-1", "tiny-2")}
    whole = models("verify")
    (root / "tiny-2" / "checkpoint" / "config.json").write_text("{}")
    broken = models("verify")
    other = models("verify", "tiny-1")
    told = models("verify", "tiny-2", "tiny-1", "--json")

    assert whole.returncode == 0
    assert whole.stdout.splitlines() == [f"passed  {name}: version {version}" for name, version in versions.items()]
    assert broken.returncode == 1
    assert broken.stdout.splitlines()[0] == whole.stdout.splitlines()[0]
    assert broken.stdout.splitlines()[1].startswith(f"FAILED  tiny-2: {root}/tiny-2/checkpoint/config.json: altered")
    assert (other.returncode, other.stdout) == (0, whole.stdout.splitlines(keepends=True)[0])
    assert told.returncode == 1
    outcome = json.loads(told.stdout)
    assert (outcome["folder"], outcome["passed"]) == (str(root), False)
    assert [(one["folder"], one["passed"]) for one in outcome["models"]] == [("tiny-2", False), ("tiny-1", True)]
    assert "config.json: altered" in outcome["models"][0]["error"]


def test_verify_of_nothing_does_not_pass(tmp_path):
    """Whoever checks a volume every night wants to hear that it is not mounted."""
    assert refused(run_command("models", "verify", "--models", tmp_path), 2, "no models to verify")


def test_remove_deletes_and_says_so(models, root):
    shutil.copytree(root / "tiny-2", root / "tiny-3")

    done = models("remove", "tiny-2", "tiny-3")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{root}: removed tiny-2, tiny-3\n", "")
    assert sorted(path.name for path in root.iterdir()) == ["current", "tiny-1"]


def test_the_folder_is_where_the_served_link_lies(root, tmp_path):
    """In the image that is /models, and nobody has to say so."""
    elsewhere = run_command("models", "use", "tiny-2", cwd=tmp_path, BERTRAND_MODEL=str(root / "current"))
    other = run_command("models", "list", "--json", cwd=tmp_path, BERTRAND_MODEL="/nowhere/tiny-7")

    assert elsewhere.returncode == 0, elsewhere.stderr
    assert elsewhere.stdout.splitlines()[-1] == "back: bertrand models use tiny-1"
    assert json.loads(other.stdout)["folder"] == "models"


def test_neither_torch_nor_the_web_is_needed(root):
    """The command works where only serving's packages are."""
    code = (
        "import sys\nfrom bertrand.__main__ import main\n"
        f"for action in (['list'], ['use', 'tiny-2'], ['verify'], ['remove', 'tiny-1']):\n"
        f"    assert main(['models', *action, '--models', {str(root)!r}]) == 0\n"
        "heavy = {'torch', 'transformers', 'optimum', 'onnx', 'bentoml', 'starlette'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert Classifier.load(root / "current").labels
