"""The bento: built without a network, and served by BentoML itself."""

import os
import shutil
import subprocess
import sys
import time

import httpx
import yaml

from tests.support import ROOT, free_port, manifest_of


def test_a_bento_is_built_and_served(tmp_path, model_folder):
    project = tmp_path / "project"
    for name in ("inference", "service", "requirements"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("bentofile.yaml", "README.md"):
        shutil.copy(ROOT / name, project)
    shutil.copytree(model_folder, project / "models" / "tiny")
    environment = os.environ | {"BENTOML_HOME": str(tmp_path / "home")}
    build = [sys.executable, "-m", "bentoml", "build"]
    done = subprocess.run(build, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    (bento,) = (path for path in (tmp_path / "home" / "bentos" / "bertrand").iterdir() if path.is_dir())
    assert not list((bento / "src").rglob("checkpoint")), "a checkpoint is for training, and doubles the size"
    assert yaml.safe_load((bento / "bento.yaml").read_text())["service"] == "service.app:Bertrand"
    port = str(free_port())
    command = [sys.executable, "-m", "bentoml", "serve", "bertrand:latest", "--host", "127.0.0.1", "--port", port]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline
            assert process.poll() is None
            try:
                info = httpx.get(f"http://127.0.0.1:{port}/v1/info", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        page = httpx.get(f"http://127.0.0.1:{port}/")
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/classify", json={"inputs": "login"})
    finally:
        process.terminate()
        process.wait(timeout=30)

    assert info.json()["version"] == manifest_of(model_folder)["version"]
    assert answer.json()["results"][0]["status"] == "ok"
    assert page.content == (ROOT / "service" / "web" / "index.html").read_bytes()
