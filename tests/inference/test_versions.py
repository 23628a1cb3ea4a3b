"""The models of one folder: what is there, which is served, and that nothing done to them is ever half-done."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from inference import ArtifactError, BertrandError, Classifier, InputError
from inference.artifact import staged
from inference.versions import RefusedError, Versions, prove
from tests.support import ROOT, manifest_of, signed_again

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def pair(model_folder, tmp_path_factory):
    """Two versions of the tiny model, without what serving does not read."""
    root = tmp_path_factory.mktemp("pair")
    small = signed_again(model_folder, root / "tiny-1", lambda folder: shutil.rmtree(folder / "checkpoint"))
    signed_again(small, root / "tiny-2", lambda _: None, temperature=2.0)
    return root


@pytest.fixture
def versions(pair, tmp_path):
    """A folder of two models of which the first is current."""
    root = shutil.copytree(pair, tmp_path / "models")
    (root / "current").symlink_to("tiny-1")
    return Versions(root)


def hidden(versions):
    return [path.name for path in versions.root.iterdir() if path.name.startswith(".")]


def killed_at(event, code):
    """Run code in a process that is killed, for good, the first time that the interpreter reports an event."""
    hook = (
        "import os, signal, sys\nfrom inference.versions import Versions\n"
        f"kill = lambda seen, _: os.kill(os.getpid(), signal.SIGKILL) if seen == {event!r} else None\n"
        "sys.addaudithook(kill)\n"
    )
    done = subprocess.run([sys.executable, "-c", hook + code], cwd=ROOT, env=ENVIRONMENT, check=False)
    assert done.returncode == -signal.SIGKILL


@contextmanager
def watching(versions):
    """Read the link all the while, and remember when it did not lead to a model."""
    lost = []
    done = threading.Event()

    def read():
        while not done.is_set():
            try:
                if not (versions.root / "current" / "model.json").is_file():
                    lost.append(1)
            except OSError as error:
                lost.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield lost
    finally:
        done.set()
        reader.join()


@contextmanager
def read_only(folder):
    """A folder in which nothing may be changed, also not by root, as on a volume that is mounted so."""
    folder.chmod(0o555)
    immutable = os.access(folder, os.W_OK) and shutil.which("chattr") is not None
    if immutable:
        immutable = subprocess.run(["chattr", "+i", folder], capture_output=True, check=False).returncode == 0
    try:
        if os.access(folder, os.W_OK) and not immutable:
            pytest.skip("this user may write everywhere, and the file system has no other way to forbid it")
        yield
    finally:
        if immutable:
            subprocess.run(["chattr", "-i", folder], check=True)
        folder.chmod(0o755)


def test_only_model_folders_are_listed_and_in_the_order_of_their_numbers(versions):
    root = versions.root
    for number in (10, 3):
        shutil.copytree(root / "tiny-2", root / f"tiny-{number}")
    (root / "README.md").write_text("format")
    (root / "notes").mkdir()
    (root / "lost+found").mkdir(mode=0)
    (root / ".tiny-4.training").mkdir()
    shutil.copytree(root / "tiny-2", root / ".tiny-4.partial-1-x")

    assert versions.names() == ["tiny-1", "tiny-2", "tiny-3", "tiny-10"]
    assert [one.folder for one in versions.all() if one.served] == ["tiny-1"]
    assert {one.error for one in versions.all()} == {None}
    assert versions.all()[0].manifest.version == manifest_of(root / "tiny-1")["version"]
    assert versions.all()[0].size == sum(path.stat().st_size for path in (root / "tiny-1").iterdir())


def test_a_broken_folder_is_listed_with_what_is_wrong(versions):
    root = versions.root
    for name, damage in {
        "b-1": lambda f: (f / "model.json").write_bytes((f / "model.json").read_bytes()[:200]),
        "b-2": lambda f: (f / "tokenizer.json").unlink(),
        "b-3": lambda f: (f / "model.json").unlink(),
        "b-4": lambda f: (f / "model.json").write_text("[" * 100_000),
        "b-5": lambda f: (f / "model.int8.onnx").unlink(),
    }.items():
        damage(shutil.copytree(root / "tiny-1", root / name))

    told = {one.folder: one.error for one in versions.all() if one.folder.startswith("b")}
    assert "not valid JSON" in told["b-1"]
    assert "tokenizer.json is missing" in told["b-2"]
    assert "model.json is missing" in told["b-3"]
    assert "not valid JSON" in told["b-4"]
    assert "model.int8.onnx is missing" in told["b-5"]
    with pytest.raises(InputError, match="may be anything"):
        versions.remove(["b-3"])


def test_the_accuracy_is_that_of_the_rows_that_tell_most(versions):
    """Figures are not part of the version: whatever stands there must not stop the listing."""
    one = versions.all()[0]

    def accuracy(metrics):
        return replace(one, manifest=replace(one.manifest, metrics=metrics)).accuracy

    assert one.accuracy == ("test", manifest_of(versions.root / "tiny-1")["metrics"]["test"]["accuracy"])
    assert accuracy({"dev": {"accuracy": 0.5}, "test": {"accuracy": 0.25}}) == ("test", 0.25)
    assert accuracy({"dev": {"accuracy": 0.5}, "data": {"accuracy": 0.25}}) == ("dev", 0.5)
    assert accuracy({"test": {"accuracy": "high"}, "dev": 7}) is None
    assert accuracy([]) is None


@pytest.mark.parametrize(
    ("arrange", "state", "target", "model"),
    [
        (lambda _: None, "missing", None, None),
        (lambda c: c.symlink_to("tiny-2"), "model", "tiny-2", "tiny-2"),
        (lambda c: c.symlink_to("../models/tiny-2"), "model", "../models/tiny-2", "tiny-2"),
        (lambda c: c.symlink_to("gone"), "nowhere", "gone", None),
        (lambda c: c.symlink_to("current"), "nowhere", "current", None),
        (lambda c: c.symlink_to(".."), "elsewhere", "..", None),
        (lambda c: c.mkdir(), "no_link", None, None),
        (lambda c: c.write_text("tiny-2"), "no_link", None, None),
    ],
)
def test_current_is_told_as_it_is(versions, arrange, state, target, model):
    (versions.root / "current").unlink()
    arrange(versions.root / "current")

    link = versions.current()

    assert (link.state, link.target, link.model) == (state, target, model)


def test_a_model_is_used_by_a_link_that_is_right_wherever_the_folder_lies(versions, tmp_path):
    done = versions.use("tiny-2")

    assert done.changed
    assert (done.before.model, done.folder, done.version) == (
        "tiny-1",
        "tiny-2",
        manifest_of(versions.root / "tiny-2")["version"],
    )
    moved = versions.root.rename(tmp_path / "elsewhere")
    assert (moved / "current").readlink() == Path("tiny-2")
    assert Classifier.load(moved / "current").manifest.version == done.version
    assert not Versions(moved).use("tiny-2").changed
    assert Versions(moved).use("tiny-1").before.model == "tiny-2"


def test_the_first_model_and_one_in_the_place_of_a_lost_one_are_used_too(versions):
    current = versions.root / "current"
    current.unlink()
    assert versions.use("tiny-1").before.state == "missing"
    versions.use("tiny-2")
    shutil.rmtree(versions.root / "tiny-2")
    done = versions.use("tiny-1")

    assert (done.before.state, done.before.target) == ("nowhere", "tiny-2")
    assert current.readlink() == Path("tiny-1")


def test_an_absolute_link_becomes_relative_without_another_model(versions):
    current = versions.root / "current"
    current.unlink()
    current.symlink_to(versions.root / "tiny-1")

    assert versions.current().model == "tiny-1"
    versions.use("tiny-1")
    assert current.readlink() == Path("tiny-1")


def test_a_version_id_names_a_model_and_so_does_its_beginning(versions):
    ids = {name: manifest_of(versions.root / name)["version"] for name in ("tiny-1", "tiny-2")}

    for name, version in ids.items():
        assert versions.find(version) == versions.find(version[:4]) == name
    with pytest.raises(InputError, match="holds no model"):
        versions.find(ids["tiny-1"][:3])
    shutil.copytree(versions.root / "tiny-2", versions.root / "copy-2")
    with pytest.raises(InputError, match="is that of copy-2, tiny-2; name one of these"):
        versions.find(ids["tiny-2"])
    shutil.copytree(versions.root / "tiny-1", versions.root / ids["tiny-2"][:6])
    assert versions.find(ids["tiny-2"][:6]) == ids["tiny-2"][:6], "a folder's own name comes first"


def test_a_removal_takes_no_version_ids(versions):
    """Digits that happen to fit must not delete anything."""
    with pytest.raises(InputError, match="holds no model"):
        versions.remove([manifest_of(versions.root / "tiny-2")["version"]])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("../tiny-2", "is a path; expected the name of a folder in .*, such as tiny-2"),
        ("tiny-2/", "is a path; .* such as tiny-2"),
        ("/tiny-2", "is a path"),
        ("", "is a path"),
        (".", "is a path"),
        ("..", "is a path"),
        ("current", "current is the link to a model"),
        (".hidden", "no model's name starts with a dot"),
        ("tiny-3", "holds no model 'tiny-3'; there are: tiny-1, tiny-2"),
        ("notes", "notes: is not a model folder"),
        ("README.md", "README.md: is not a model folder"),
        ("x" * 300, "holds no model"),
    ],
)
def test_what_is_no_model_of_the_folder_is_neither_used_nor_removed(versions, name, told):
    shutil.copytree(versions.root / "tiny-2", versions.root / ".hidden")
    shutil.copytree(versions.root / "tiny-2", versions.root.parent / "tiny-2")
    (versions.root / "notes").mkdir()
    (versions.root / "README.md").write_text("format")
    before = sorted(versions.root.parent.rglob("*"))

    with pytest.raises(InputError, match=told):
        versions.use(name)
    with pytest.raises(InputError, match=told):
        versions.remove(["tiny-2", name])

    assert sorted(versions.root.parent.rglob("*")) == before
    assert versions.current().model == "tiny-1"


@pytest.mark.parametrize("name", ["café-2", "チケット-2", "tickets 🎫-2", "a\nb-2", "-2", "²-2"])
def test_a_name_may_be_of_any_script(versions, name):
    (versions.root / "tiny-2").rename(versions.root / name)

    assert name in versions.names()
    assert versions.use(name).folder == name
    assert (versions.root / "current").resolve().name == name
    versions.use("tiny-1")
    assert versions.remove([name]) == [name]
    assert versions.names() == ["tiny-1"]


def test_a_name_that_is_not_utf8_is_listed_and_can_be_removed(versions):
    """No library opens files in such a folder, and serving could not either."""
    name = os.fsdecode(b"\xff-2")
    (versions.root / "tiny-2").rename(versions.root / name)

    assert versions.names() == ["tiny-1", name]
    with pytest.raises(RefusedError, match="surrogates not allowed"):
        versions.use(name)
    assert versions.remove([name]) == [name]


def spoil_scores(folder):
    """Make the bias of the classifier a number that is none, as a training that diverged does."""
    import onnx

    for graph in folder.glob("*.onnx"):
        model = onnx.load(graph)
        bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [3])
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) * float("nan"), bias.name))
        onnx.save(model, graph)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGES = [
    (lambda f: flip(f / "model.onnx"), "model.onnx: altered"),
    (lambda f: flip(f / "model.int8.onnx"), "model.int8.onnx: altered"),
    (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: cannot be read"),
    (lambda f: (f / "model.json").write_bytes((f / "model.json").read_bytes()[:300]), "not valid JSON"),
    (lambda f: (f / "model.json").unlink(), "model.json is missing"),
]
FAULTS = [  # of an exporter: the hashes are right
    (lambda f: (f / "model.onnx").write_bytes(b"graph"), {}, "cannot load it"),
    (lambda f: (f / "tokenizer.json").write_text("{}"), {}, "not a tokenizer"),
    (lambda _: None, {"max_tokens": 100_000}, "does not answer in"),
    (lambda _: None, {"temperature": "warm"}, "does not answer in"),
    (spoil_scores, {}, "scores that are no numbers"),
]


@pytest.mark.parametrize(("damage", "told"), DAMAGES)
def test_an_altered_model_is_refused_and_the_current_one_stays(versions, damage, told):
    damage(versions.root / "tiny-2")

    with pytest.raises(RefusedError, match=rf"current stays as it is \(tiny-1\): .*{told}"):
        versions.use("tiny-2")

    assert versions.current().target == "tiny-1"
    assert hidden(versions) == []


@pytest.mark.parametrize(("damage", "values", "told"), FAULTS)
def test_a_model_that_does_not_answer_is_refused_though_its_hashes_are_right(versions, damage, values, told):
    signed_again(versions.root / "tiny-1", versions.root / "tiny-3", damage, **values)

    with pytest.raises(RefusedError, match=told):
        versions.use("tiny-3")

    assert versions.current().target == "tiny-1"


def test_a_broken_current_one_is_not_called_current_already(versions):
    flip(versions.root / "tiny-1" / "model.onnx")

    with pytest.raises(RefusedError, match="altered"):
        versions.use("tiny-1")


def test_what_serving_does_not_read_stops_no_rollback_but_is_found_by_a_full_check(model_folder, versions):
    whole = shutil.copytree(model_folder, versions.root / "whole")
    assert prove(whole).version == manifest_of(model_folder)["version"]
    flip(whole / "checkpoint" / "model.safetensors")

    with pytest.raises(ArtifactError, match="safetensors: altered"):
        prove(whole)
    assert versions.use("whole").changed

    shutil.rmtree(whole / "checkpoint")  # as in a bento
    (whole / "report.html").unlink()
    assert prove(whole)
    (whole / "README.md").write_text("other")
    with pytest.raises(ArtifactError, match=r"README\.md: altered"):
        prove(whole)


def test_a_folder_called_current_is_not_replaced(versions):
    current = versions.root / "current"
    current.unlink()
    shutil.copytree(versions.root / "tiny-1", current)

    with pytest.raises(InputError, match=r"current: is no link, so it is not replaced; .*`mv .*current .*NAME-1`"):
        versions.use("tiny-2")
    assert Classifier.load(current).manifest.version == manifest_of(versions.root / "tiny-1")["version"]

    shutil.rmtree(current)
    current.write_text("tiny-1")
    with pytest.raises(InputError, match="is no link, so it is not replaced; remove it"):
        versions.use("tiny-2")
    assert current.read_text() == "tiny-1"


def test_removal_takes_all_or_nothing_and_never_the_current_one(versions):
    shutil.copytree(versions.root / "tiny-2", versions.root / "tiny-3")
    for wrong in ("tiny-1", "tiny-4", "../models"):
        with pytest.raises(InputError):
            versions.remove(["tiny-2", wrong])
    assert versions.names() == ["tiny-1", "tiny-2", "tiny-3"]

    assert versions.remove(["tiny-2", "tiny-3", "tiny-2"]) == ["tiny-2", "tiny-3"]
    assert sorted(path.name for path in versions.root.iterdir()) == ["current", "tiny-1"]


def test_a_link_to_a_model_is_removed_without_the_model(versions, tmp_path):
    elsewhere = (versions.root / "tiny-2").rename(tmp_path / "tiny-2")
    (versions.root / "stable").symlink_to(elsewhere)
    (versions.root / "same").symlink_to("tiny-1")

    assert versions.names() == ["same", "stable", "tiny-1"]
    with pytest.raises(InputError, match="current leads to same"):
        versions.remove(["same"])
    versions.remove(["stable"])
    assert prove(elsewhere)


def test_where_nothing_may_be_written_everything_stays_and_the_error_says_so(versions):
    with read_only(versions.root):
        assert not versions.use("tiny-1").changed
        for act in (lambda: versions.use("tiny-2"), lambda: versions.remove(["tiny-2"])):
            with pytest.raises(InputError, match=r"models: cannot be changed \(.+\); run this where"):
                act()

    assert versions.current().target == "tiny-1"
    assert versions.names() == ["tiny-1", "tiny-2"]
    assert hidden(versions) == []


def test_a_folder_that_is_missing_is_told(tmp_path):
    for act in (Versions.names, Versions.all, lambda v: v.use("x"), lambda v: v.remove(["x"])):
        with pytest.raises(InputError, match="no such folder of models"):
            act(Versions(tmp_path / "none"))


def test_a_use_killed_before_its_last_step_changes_nothing_and_the_next_clears_up(versions):
    killed_at("os.rename", f"Versions({str(versions.root)!r}).use('tiny-2')")
    assert versions.current().target == "tiny-1"
    assert len(hidden(versions)) == 1

    versions.use("tiny-2")
    assert versions.current().target == "tiny-2"
    assert hidden(versions) == []


@pytest.mark.parametrize(
    ("event", "left"), [("os.rename", True), ("shutil.rmtree", False), ("os.remove", False), ("os.rmdir", False)]
)
def test_a_removal_killed_at_any_step_leaves_a_whole_model_or_none(versions, event, left):
    (versions.root / ".removed-mine").mkdir()  # of somebody else: no name that a removal gives
    killed_at(event, f"Versions({str(versions.root)!r}).remove(['tiny-2'])")

    assert versions.names() == (["tiny-1", "tiny-2"] if left else ["tiny-1"])
    if left:
        assert prove(versions.root / "tiny-2")
    else:
        assert len(hidden(versions)) == 2
        versions.use("tiny-1")
    assert hidden(versions) == [".removed-mine"]


LOOP = """
import itertools, sys
from inference.versions import Versions
versions = Versions(sys.argv[1])
for name in itertools.cycle(["tiny-2", "tiny-1"]):
    versions.use(name)
    print(name, flush=True)
"""


def test_killed_at_any_moment_current_leads_to_a_whole_model(versions):
    picks = random.Random(0)
    with watching(versions) as lost:
        for _ in range(15):
            command = [sys.executable, "-c", LOOP, str(versions.root)]
            with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE) as process:
                process.stdout.readline()
                time.sleep(picks.random() / 5)
                process.kill()
            assert versions.current().model in ("tiny-1", "tiny-2")
            assert prove(versions.root / "current")

    assert lost == []
    versions.use("tiny-1")
    versions.use("tiny-2")
    assert hidden(versions) == []


def test_many_at_once_leave_one_of_their_models_and_nothing_else(versions):
    code = (
        "import sys\nfrom inference.versions import Versions\n"
        "for _ in range(8):\n    assert Versions(sys.argv[1]).use(sys.argv[2]).folder == sys.argv[2]\n"
    )
    with watching(versions) as lost:
        processes = [
            subprocess.Popen([sys.executable, "-c", code, str(versions.root), name], cwd=ROOT, env=ENVIRONMENT)
            for name in ("tiny-1", "tiny-2", "tiny-1", "tiny-2")
        ]
        codes = [process.wait(timeout=120) for process in processes]

    assert codes == [0, 0, 0, 0]
    assert lost == []
    assert versions.current().model in ("tiny-1", "tiny-2")
    assert hidden(versions) == []


def test_a_model_is_never_used_and_removed_at_once(versions):
    """Whoever comes first wins, and the other is told; `current` leads to a model in any case."""
    wins = {"use": 0, "remove": 0}
    with watching(versions) as lost:
        for _ in range(25):
            spare = shutil.copytree(versions.root / "tiny-2", versions.root.parent / "spare")
            outcomes = {}
            start = threading.Barrier(2)

            def attempt(name, act, outcomes=outcomes, start=start):
                start.wait()
                time.sleep(random.random() / 20 if name == "remove" else 0)
                try:
                    act()
                    outcomes[name] = "done"
                except BertrandError as error:
                    outcomes[name] = str(error)

            acts = {"use": lambda: versions.use("tiny-2"), "remove": lambda: versions.remove(["tiny-2"])}
            threads = [threading.Thread(target=attempt, args=one) for one in acts.items()]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert list(outcomes.values()).count("done") == 1, outcomes
            wins[next(name for name, outcome in outcomes.items() if outcome == "done")] += 1
            versions.use("tiny-1")
            if "tiny-2" not in versions.names():
                spare.rename(versions.root / "tiny-2")
            else:
                shutil.rmtree(spare)

    assert lost == []
    assert hidden(versions) == []


def test_a_training_goes_on_while_models_are_used_and_removed(versions, pair):
    """What it is writing is no model yet, and is touched by nobody."""
    target = versions.root / "tiny-3"
    with staged(target) as staging:
        shutil.copytree(pair / "tiny-2", staging, dirs_exist_ok=True)
        assert versions.names() == ["tiny-1", "tiny-2"]
        versions.use("tiny-2")
        versions.remove(["tiny-1"])
        with pytest.raises(InputError, match="holds no model"):
            versions.use("tiny-3")

    assert versions.names() == ["tiny-2", "tiny-3"]
    assert versions.use("tiny-3").changed


def test_a_model_that_is_removed_while_its_successor_is_trained_does_not_stop_that(versions, pair):
    with staged(versions.root / "tiny-2") as staging:
        shutil.copytree(pair / "tiny-2", staging, dirs_exist_ok=True)
        versions.remove(["tiny-2"])

    assert versions.use("tiny-2").changed
