"""The serving image: what is in it, what is not, and as whom it runs."""

import json
import shutil
import time

import httpx

from tests.containers.stack import BASE
from tests.support import ROOT, free_port, until

MOST_MEGABYTES = 350  # of our own layers


def test_it_is_small_and_holds_nothing_to_build_with(engine, image):
    layers = json.loads(engine("image", "inspect", image))[0]["RootFS"]["Layers"]
    base = json.loads(engine("image", "inspect", BASE))[0]
    assert layers[: len(base["RootFS"]["Layers"])] == base["RootFS"]["Layers"]
    own = json.loads(engine("image", "inspect", image))[0]["Size"] - base["Size"]
    assert 0 < own / 1e6 <= MOST_MEGABYTES

    look = """
import importlib.util, pathlib, shutil
for name in ("torch", "transformers", "optimum", "pip", "setuptools"):
    assert importlib.util.find_spec(name) is None, name
print(sorted(path.name for path in pathlib.Path("/opt/bertrand/bin").iterdir()))
places = map(pathlib.Path, ("/root/.cache", "/tmp", "/build", "/var/tmp"))
print([str(path) for place in places for path in place.rglob("*")])
"""
    tools, leftovers = engine(
        "run", "--rm", "--user", "0", "--entrypoint", "/opt/bertrand/bin/python3", image, "-c", look
    ).splitlines()
    assert "'bertrand'" in tools
    assert not {"'pip'", "'gcc'", "'cc'", "'make'"} & set(tools.strip("[]").split(", "))
    assert leftovers == "[]"


def test_it_says_what_it_is(engine, image):
    inspected = json.loads(engine("image", "inspect", image))[0]
    config = inspected["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert config["Entrypoint"] == ["bertrand"]
    assert config["Labels"]["org.opencontainers.image.title"] == "Bertrand"
    assert "/readyz" in json.dumps(config.get("Healthcheck") or inspected["Healthcheck"])  # as Docker has it, as podman


def test_it_serves_with_nothing_allowed_to_it_and_ends_well(engine, image, model_folder):
    port = free_port()
    options = ["--read-only", "--tmpfs=/tmp", "--cap-drop", "ALL", "--user", "10001"]
    options += ["--publish", f"127.0.0.1:{port}:3000", "--volume", f"{model_folder}:/models/current:ro"]
    container = engine("run", "--detach", *options, image).strip()
    try:
        until(lambda: _ready(port), 60)
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/classify", json={"inputs": "money back please"})
        assert answer.json()["results"][0]["label"] == "refund"
        status = engine("exec", container, "cat", "/proc/1/status")
        assert "Uid:\t10001\t10001\t10001\t10001" in status
        assert "CapEff:\t0000000000000000" in status
        assert "bertrand" not in engine(
            "exec", container, "sh", "-c", "touch /opt/x 2>&1; ls /opt", check=False
        ).replace("bertrand\n", "", 1)
        started = time.monotonic()
        engine("stop", "--time", "40", container)
        assert time.monotonic() - started < 35, "it was killed, not ended"
        assert json.loads(engine("inspect", container))[0]["State"]["ExitCode"] == 0
    finally:
        engine("rm", "--force", container)


def test_a_model_can_be_baked_into_it(engine, model_folder, tmp_path):
    """From a folder such as the project's, since only its models/ may go into an image."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("bertrand", "inference", "requirements", "scoring", "service", "training"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".dockerignore", "Dockerfile", "LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, project)
    shutil.copytree(model_folder, project / "models" / "tiny")
    options = ["--target", "baked", "--build-arg", "MODEL=models/tiny"]
    baked = engine.build("serve", *options, context=project, tag="baked-under-test")
    try:
        named = engine("run", "--rm", "--read-only", baked, "predict", "/models/current", "money back please")
        assert named.split("\t")[0].strip() == "refund"
        files = engine("run", "--rm", "--entrypoint", "ls", baked, "/models/current").split()
        assert set(files) == {"model.json", "model.onnx", "model.int8.onnx", "tokenizer.json"}
    finally:
        engine("rmi", "--force", baked)


def test_threads_and_queue_follow_the_limits_of_the_container(engine, image):
    look = (
        "from service.settings import Settings; s = Settings.from_environment(); print(s.threads, s.max_queue_tokens)"
    )
    command = ["run", "--rm", "--cpus", "1", "--entrypoint", "python3"]
    threads, few = map(int, engine(*command, "--memory", "384m", image, "-c", look).split())
    _, many = map(int, engine(*command, "--memory", "4g", image, "-c", look).split())
    assert threads == 1
    assert few < many == 65_536


def _ready(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
