"""A server's life under load: overload, a new model, a worker that is killed, an end that loses nothing."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import orjson
import psutil
import pytest

from inference import Classifier
from tests.load import Load
from tests.service.talk import connect, read
from tests.support import (
    ROOT,
    free_port,
    manifest_of,
    run_command,
    until,
    wait_until_ready,
    with_another_temperature,
)

TEXT = "please refund my order"


@contextmanager
def running(model, *options, **environment):
    """A server whose process the test may send signals to: its address and the process."""
    port = free_port()
    command = [sys.executable, "-m", "bertrand", "serve", str(model), "--port", str(port), *options]
    variables = os.environ | {"BERTRAND_DRAIN_SECONDS": "0"} | environment
    process = subprocess.Popen(command, cwd=ROOT, env=variables)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process)
        yield url, process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def other_model(model_folder, tmp_path_factory):
    """The tiny model with another temperature: the same labels, other scores, another version."""
    return with_another_temperature(model_folder, tmp_path_factory.mktemp("other") / "tiny")


@pytest.fixture
def current(model_folder, tmp_path):
    """A link such as models/current."""
    link = tmp_path / "current"
    link.symlink_to(model_folder)
    return link


def switch(link: Path, target: Path) -> None:
    fresh = link.with_name("next")
    fresh.symlink_to(target)
    fresh.rename(link)


def listens(url):
    try:
        connect(url).close()
    except ConnectionRefusedError:
        return False
    return True


def metric(url, line):
    found = [row for row in httpx.get(f"{url}/metrics").text.splitlines() if row.startswith(line)]
    return float(found[0].rpartition(" ")[2]) if found else None


def workers_of(process):
    found = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.NoSuchProcess):  # one that was killed may go while we look
            if "_bentoml_impl" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def test_a_new_model_is_taken_up_without_a_failed_request(current, model_folder, other_model):
    """Every answer is of one version: the scores are those of the version that it names."""
    versions = {manifest_of(folder)["version"]: folder for folder in (model_folder, other_model)}
    scores = {version: Classifier.load(folder).classify([TEXT])[0].score for version, folder in versions.items()}

    with running(current, "--workers", "2") as (url, _), Load(url) as load:
        load.wait_for(20)
        switch(current, other_model)
        new = manifest_of(other_model)["version"]
        # A worker that starts later than the other may find the new model there already.
        until(lambda: metric(url, 'bertrand_reloads_total{outcome="taken_up"}') in (1, 2))
        until(lambda: {httpx.get(f"{url}/v1/info").json()["version"] for _ in range(10)} == {new})
        load.wait_for(20)
        precision = manifest_of(other_model)["default_precision"]
        assert metric(url, f'bertrand_model_info{{name="tiny",precision="{precision}",version="{new}"}}') == 1

    assert load.failures == []
    seen = {(a.json()["model"]["version"], np.float32(a.json()["results"][0]["score"])) for a in load.answers}
    assert seen == {(version, np.float32(score)) for version, score in scores.items()}


def test_a_rollback_is_one_command_and_loses_no_request(model_folder, other_model, tmp_path):
    """There and back under load, and the model that was left removed: each answer is of the version that it names."""
    models = tmp_path / "models"
    for name, folder in {"tiny-1": model_folder, "tiny-2": other_model}.items():
        shutil.copytree(folder, models / name)
    assert run_command("models", "use", "tiny-1", "--models", models).returncode == 0
    ids = {name: manifest_of(models / name)["version"] for name in ("tiny-1", "tiny-2")}
    scores = {ids[name]: np.float32(Classifier.load(models / name).classify([TEXT])[0].score) for name in ids}

    with running(models / "current", "--workers", "2") as (url, _), Load(url) as load:
        load.wait_for(20)
        for name in ("tiny-2", "tiny-1", "tiny-2"):
            done = run_command("models", "use", name, "--models", models)
            assert done.returncode == 0, done.stderr
            begun = len(load.answers)
            until(lambda begun=begun: len(load.answers) > begun + 40)
            # Two workers answer in turn, and each takes it up by itself.
            until(
                lambda name=name: {a.json()["model"]["version"] for a in load.answers[-40:]} == {ids[name]}, seconds=60
            )
        (models / "tiny-1" / "tokenizer.json").write_text("{}")
        assert run_command("models", "use", "tiny-1", "--models", models).returncode == 1
        assert run_command("models", "remove", "tiny-1", "--models", models).returncode == 0
        load.wait_for(40)
        assert metric(url, 'bertrand_reloads_total{outcome="refused"}') == 0

    assert load.failures == []
    seen = {(a.json()["model"]["version"], np.float32(a.json()["results"][0]["score"])) for a in load.answers}
    assert seen == set(scores.items())
    assert {a.json()["model"]["version"] for a in load.answers[-20:]} == {ids["tiny-2"]}


def test_a_broken_model_is_refused_and_the_old_one_keeps_serving(current, model_folder, other_model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(other_model, broken)
    graph = broken / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-100])

    with running(current) as (url, process):
        switch(current, broken)
        until(lambda: metric(url, 'bertrand_reloads_total{outcome="refused"}') == 1)
        assert httpx.get(f"{url}/v1/info").json()["version"] == manifest_of(model_folder)["version"]
        assert httpx.get(f"{url}/readyz").status_code == 200

        graph.write_bytes(whole)  # model.json is as it was: nothing shows that it is worth another look
        process.send_signal(signal.SIGHUP)
        until(lambda: httpx.get(f"{url}/v1/info").json()["version"] == manifest_of(other_model)["version"])


def test_the_end_of_a_server_loses_no_accepted_request(model_folder):
    """SIGTERM under load: not ready at once, everything that was accepted is answered, and the exit is clean."""
    with running(model_folder, BERTRAND_DRAIN_SECONDS="1") as (url, process), Load(url, callers=8) as load:
        load.wait_for(40)
        process.terminate()
        until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        assert httpx.get(f"{url}/readyz").json()["error"]["code"] == "not_ready"
        load.wait_for(20)
        assert process.wait(timeout=30) == 0

    assert load.failures == []


def test_the_end_of_a_server_cuts_no_large_answer_short(model_folder):
    """It is sent as fast as its caller reads: one who leaves harms nobody, one who reads on gets it whole."""
    texts = ["late " * 100] * 500
    body = orjson.dumps({"inputs": texts, "embeddings": ["tokens"], "special_tokens": True})
    request = b"POST /v1/embed HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with running(model_folder) as (url, process):
        with connect(url) as leaving:
            leaving.sendall(request)
            assert leaving.recv(12) == b"HTTP/1.1 200"
        with connect(url) as reading:
            reading.sendall(request)
            assert reading.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
            process.terminate()
            until(lambda: not listens(url))
            time.sleep(1)  # by now a server that waits for nobody has ended
            (answer,) = read(reading)
        assert process.wait(timeout=30) == 0

    assert len(answer.body) > 5 * 2**20  # more than the kernel holds
    assert [len(result["token_embeddings"]) for result in answer.json()["results"]] == [32] * len(texts)


def test_ctrl_c_ends_a_server_at_once(model_folder):
    with running(model_folder, BERTRAND_DRAIN_SECONDS="60") as (url, process):
        for pid in (*workers_of(process), process.pid):  # as a terminal does
            os.kill(pid, signal.SIGINT)
        assert process.wait(timeout=20) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/livez")


def test_a_killed_worker_comes_back_and_the_others_go_on(model_folder):
    with running(model_folder, "--workers", "2") as (url, process), Load(url) as load:
        until(lambda: len(workers_of(process)) == 2)
        load.wait_for(20)
        victim = workers_of(process)[0]
        os.kill(victim, signal.SIGKILL)
        load.wait_for(20)
        until(lambda: len(workers_of(process)) == 2 and victim not in workers_of(process))
        load.wait_for(20)

    # Only what the killed worker was answering is lost: at most one request of each caller.
    assert len(load.failures) <= 4
    assert all("RemoteProtocolError" in failure or "ReadError" in failure for failure in load.failures)


def test_a_server_ends_when_it_is_told_to_while_it_replaces_a_worker(model_folder):
    with running(model_folder, "--workers", "2") as (_, process):
        until(lambda: len(workers_of(process)) == 2)
        victim = workers_of(process)[0]
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while psutil.pid_exists(victim):  # once it is gone, its end is being dealt with, for a moment
            assert time.monotonic() < deadline
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_more_than_the_queue_holds_is_refused_and_told_when_to_come_back(model_folder):
    with running(model_folder, BERTRAND_MAX_QUEUE_TOKENS="50") as (url, _):
        with Load(url, callers=12, texts=[f"{TEXT} {i}" for i in range(200)]) as load:
            until(lambda: {a.status_code for a in load.answers} == {200, 429})
        refused = next(answer for answer in load.answers if answer.status_code == 429)
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        assert metric(url, 'bertrand_rejected_total{reason="queue_full"}') >= 1
        assert httpx.post(f"{url}/v1/classify", json={"inputs": TEXT}).status_code == 200

    assert load.failures == []


def test_an_answer_that_comes_too_late_is_not_waited_for(model_folder):
    with running(model_folder, BERTRAND_REQUEST_TIMEOUT="0.1", BERTRAND_MAX_INPUTS="20000") as (url, _):
        late = httpx.post(f"{url}/v1/classify", json={"inputs": [f"{TEXT} {i} " * 8 for i in range(20_000)]})
        assert late.status_code == 504
        assert late.json()["error"]["code"] == "deadline_exceeded"
        until(lambda: metric(url, "bertrand_queue_tokens") == 0)
        assert httpx.post(f"{url}/v1/classify", json={"inputs": TEXT}).status_code == 200


def test_a_text_answers_the_same_alone_and_under_load(model_folder):
    """Scores are compared to the last bit: company, padding and threads may change nothing."""
    texts = [TEXT, "login", "thank you great app " * 3, "?", "money back please", "i love it " * 7]
    with running(model_folder, BERTRAND_THREADS="2") as (url, _):
        alone = [httpx.post(f"{url}/v1/classify", json={"inputs": text}).json()["results"][0] for text in texts]
        seen = Counter()
        with Load(url, callers=6, texts=texts) as load:
            load.wait_for(60)
        for answer in load.answers:
            for i, result in enumerate(answer.json()["results"]):
                seen[i, result == alone[i]] += 1

    assert load.failures == []
    assert {key for key in seen if not key[1]} == set()
