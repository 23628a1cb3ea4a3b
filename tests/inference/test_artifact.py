"""The model folder: every way in which one can be broken has its own clear error, and none is ever half-written."""

import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from inference import ArtifactError, Classifier
from inference.artifact import Artifact, content_version, staged
from inference.machine import multiplies_int8
from tests.support import ROOT, manifest_of, without_int8


@pytest.fixture
def folder(model_folder, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(model_folder, tmp_path / "copy")


def rewrite(folder, **changes):
    """Change model.json as somebody with an editor would."""
    manifest = manifest_of(folder) | changes
    (folder / "model.json").write_text(json.dumps({key: value for key, value in manifest.items() if value is not ...}))


def resign(folder, **changes):
    """Change model.json and make its version fit again, as a faulty exporter would."""
    from inference.artifact import _manifest

    rewrite(folder, **changes, version="")
    raw = manifest_of(folder)
    from dataclasses import fields

    from inference.artifact import Manifest

    lists = {key: tuple(raw[key]) for key in ("labels", "precisions")}
    draft = Manifest(**{f.name: raw[f.name] for f in fields(Manifest)} | lists)
    rewrite(folder, version=content_version(draft))
    assert _manifest(folder, manifest_of(folder))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: shutil.rmtree(f), ["no such model folder", "bertrand train"]),
        (lambda f: (f / "model.json").unlink(), ["model.json is missing"]),
        (lambda f: (f / "model.json").write_text("{"), ["model.json: not valid JSON"]),
        (lambda f: (f / "model.json").write_text("[]"), ["no format_version"]),
        (lambda f: rewrite(f, format_version=99), ["format version 99, this Bertrand reads 1", "bertrand export"]),
        (lambda f: rewrite(f, labels=...), ["model.json: lacks labels"]),
        (lambda f: rewrite(f, labels=["login", "praise", "cancel"]), ["altered since it was exported"]),
        (lambda f: rewrite(f, temperature=2.0), ["altered since it was exported"]),
        (lambda f: rewrite(f, labels=["login", "login", "praise"]), ["labels must be distinct"]),
        (lambda f: rewrite(f, thresholds=[0.5]), ["1 thresholds for 3 labels"]),
        (lambda f: rewrite(f, precisions=["fp8"]), ["precisions ['fp8']", "known are fp32, int8"]),
        (lambda f: rewrite(f, labels=None), ["a field is of the wrong kind"]),
        (lambda f: rewrite(f, precisions=5), ["a field is of the wrong kind"]),
        (lambda f: rewrite(f, sha256=None), ["a field is of the wrong kind"]),
        (lambda f: (f / "model.onnx").unlink(), ["model.onnx: cannot be read", "restore it"]),
        (lambda f: (f / "model.onnx").write_bytes(b"x"), ["model.onnx: altered since it was exported", "sha256"]),
        (lambda f: (f / "tokenizer.json").write_text("{}"), ["tokenizer.json: altered"]),
        (lambda f: resign(f, labels=["login", "praise"]), ["scores 3 labels but model.json lists 2"]),
    ],
)
def test_each_damage_has_its_own_error(folder, damage, told):
    """A service that starts can answer; one that cannot says which file, what was expected and what to do."""
    damage(folder)

    with pytest.raises(ArtifactError) as error:
        Classifier.load(folder)

    for part in told:
        assert part in str(error.value)


def test_a_damaged_checkpoint_does_not_stop_serving_but_is_found_by_a_full_check(folder):
    (folder / "checkpoint" / "model.safetensors").write_bytes(b"x")

    assert Classifier.load(folder).classify(["money"])
    with pytest.raises(ArtifactError, match="safetensors: altered"):
        Artifact.open(folder).check_all()


def test_a_precision_that_is_not_offered_is_refused(model_folder, tmp_path):
    folder = without_int8(model_folder, tmp_path / "copy")

    with pytest.raises(ArtifactError, match="offers fp32, not int8"):
        Classifier.load(folder, precision="int8")


CPUS = {
    "none": "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu sse4_2 avx2 avx512f avx512bw\n",
    "x86": "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n\nprocessor\t: 1\nflags\t\t: fpu avx512_vnni\n",
    "client": "processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\n",
    "arm": "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd aes asimddp\n",
    "uneven": "processor\t: 0\nFeatures\t: fp asimd asimddp\n\nprocessor\t: 1\nFeatures\t: fp asimd\n",
}


@pytest.mark.parametrize(
    ("cpu", "default", "wanted", "expected"),
    [
        ("x86", "int8", "auto", "int8"),
        ("client", "int8", "auto", "int8"),
        ("arm", "int8", "auto", "int8"),
        ("x86", "fp32", "auto", "fp32"),
        ("none", "int8", "auto", "fp32"),
        ("uneven", "int8", "auto", "fp32"),
        ("missing", "int8", "auto", "fp32"),
        ("x86", "int8", "fp32", "fp32"),
        ("none", "int8", "int8", "int8"),
    ],
)
def test_auto_is_int8_only_where_the_cpu_multiplies_it(folder, tmp_path, caplog, cpu, default, wanted, expected):
    """Elsewhere ONNX Runtime's sums overflow, and answers would differ from those that were proved."""
    rewrite(folder, default_precision=default)
    if cpu in CPUS:
        (tmp_path / "cpuinfo").write_text(CPUS[cpu])

    assert Artifact.open(folder).precision(wanted, cpuinfo=tmp_path / "cpuinfo") == expected
    assert ("without 8-bit dot products" in caplog.text) == (cpu == "none" and wanted == "int8")


def test_loading_follows_the_default_of_the_folder(folder):
    """Which is not part of the version: it depends on what was faster when the model was exported."""
    for default in ("fp32", "int8"):
        rewrite(folder, default_precision=default)
        expected = default if multiplies_int8() else "fp32"
        assert Classifier.load(folder).precision == expected
        assert Classifier.load(folder, precision="int8").precision == "int8"
        assert Classifier.load(folder, precision="fp32").precision == "fp32"


def test_an_opened_link_stays_one_version(folder, tmp_path):
    """Switching models/current between the reading of two files must not mix two models."""
    link = tmp_path / "current"
    link.symlink_to(folder)
    artifact = Artifact.open(link)
    link.unlink()
    link.symlink_to(tmp_path / "nowhere")

    assert artifact.graph("fp32").is_file()


def test_a_block_that_fails_leaves_what_was_there(folder, tmp_path):
    before = sorted(tmp_path.rglob("*"))

    def interrupted():
        with staged(folder) as staging:
            (staging / "model.json").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert sorted(tmp_path.rglob("*")) == before
    assert Classifier.load(folder).classify(["money"])


def test_a_replaced_folder_is_never_missing_to_a_reader(folder, tmp_path):
    missing = []
    done = threading.Event()

    def read():
        while not done.is_set():
            if not (folder / "model.json").is_file():
                missing.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        with staged(folder) as staging:
            (staging / "model.json").write_text("{}")
    done.set()
    reader.join()

    assert not missing
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path):
    target = tmp_path / "model"
    code = f"""
import os, signal, pathlib
from inference.artifact import staged
with staged(pathlib.Path({str(target)!r})) as staging:
    (staging / "model.onnx").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == [".model.partial"]

    with staged(target) as staging:
        (staging / "model.json").write_text("{}")

    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_that_is_removed_in_the_last_moment_does_not_stop_its_successor(folder):
    """Hours of training may lie in what is about to take its place."""
    code = f"""
import pathlib, shutil, sys
from inference.artifact import staged
target = pathlib.Path({str(folder)!r})
hook = lambda event, _: shutil.rmtree(target, ignore_errors=True) if event == "ctypes.dlopen" else None
with staged(target) as staging:
    (staging / "model.json").write_text("new")
    sys.addaudithook(hook)  # the C library is opened for the exchange alone: after the look, before the step
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})

    assert [path.name for path in folder.parent.iterdir()] == ["copy"]
    assert (folder / "model.json").read_text() == "new"
