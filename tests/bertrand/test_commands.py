"""The command as people use it: what it prints, where, and with which exit code."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest

from bertrand.serve import check_address
from inference import Classifier
from tests.support import (
    ROOT,
    free_port,
    manifest_of,
    run_command,
    run_commands,
    scale_a_matrix,
    serving,
    signed_again,
    wait_until_ready,
    without_int8,
    write_csv,
)

GATES = ["parity", "batch_invariance", "int8_faithfulness", "int8_batch_invariance", "int8_speed"]
COMMANDS = [
    "demo", "train", "pretrain", "check-data", "sample", "export", "verify", "evaluate", "compare", "predict", "serve",
    "models",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command):
    """Help within 0.3 s means that neither torch nor onnxruntime nor bentoml is imported for it."""
    code = (
        "import sys\nfrom bertrand.__main__ import main\n"
        f"try: main([{command!r}, '--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'numpy', 'bentoml', 'tokenizers'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "usage: bertrand" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["train"],
        ["serve", "--port", "x"],
        ["predict", "--precision", "int4", "m"],
        ["evaluate", "m", "rows.csv", "--label-column", ""],
        ["verify", "m", "--label-column", ""],
        ["sample", "rows.csv", "--text-column", ""],
    ],
)
def test_bad_usage_exits_2(arguments):
    done = run_command(*arguments)

    assert done.returncode == 2
    assert "usage: bertrand" in done.stderr


def test_version_is_the_packages():
    assert run_command("--version").stdout.startswith("bertrand 0.")


def test_predict_prints_a_label_a_line(model_folder, classifier):
    texts = ["my order is late", "thank you"]
    expected = [prediction.label for prediction in classifier.classify(texts)]

    assert run_command("predict", model_folder, *texts).stdout.splitlines() == expected
    assert run_command("predict", model_folder, stdin="my order is late\r\nthank you\n").stdout.splitlines() == expected


def test_predict_as_json_has_every_score(model_folder, classifier):
    done = run_command("predict", model_folder, "--json", "thank you 🙂")

    (line,) = map(json.loads, done.stdout.splitlines())
    prediction = classifier.classify(["thank you 🙂"])[0]
    assert line["text"] == "thank you 🙂"
    assert [(score["label"], score["score"]) for score in line["scores"]] == list(prediction.scores)


def test_predict_keeps_lines_in_step_with_bad_ones(model_folder):
    """A caller who pastes labels beside texts must not have them shift by one where a text is empty."""
    done = run_command("predict", model_folder, stdin=b"login\n\nca\xe9f\xff\nthank you\n")

    assert done.returncode == 2
    labels = done.stdout.split("\n")
    assert len(labels) == 5
    assert labels[0]
    assert labels[1] == labels[2] == ""
    assert "text 2: the text is empty" in done.stderr
    assert "text 3: character 2 is a lone surrogate" in done.stderr


def test_predict_of_nothing_prints_nothing(model_folder):
    done = run_command("predict", model_folder, stdin="")

    assert (done.returncode, done.stdout) == (0, "")


def test_a_reader_who_has_seen_enough_is_no_error(model_folder):
    pipe = f"yes login | head -5000 | {sys.executable} -m bertrand predict {model_folder} | head -1"
    done = subprocess.run(["bash", "-c", pipe], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("closed", "code"), [("<&-", 0), (">&-", 0), ("2>&-", 2)])
def test_a_closed_stream_is_no_error(model_folder, closed, code):
    """What a scheduler closes is not written to, and all else is as ever: a line for each text."""
    text = {"<&-": "login", ">&-": "login", "2>&-": ""}[closed]
    command = f"{sys.executable} -m bertrand predict {model_folder} '{text}' refund {closed}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, "unexpected" in done.stderr) == (code, False)
    assert done.stdout.count("\n") == (0 if closed == ">&-" else 2)


def test_evaluate_measures_graph_and_checkpoint_alike(model_folder, sentences):
    graph = ("evaluate", model_folder, sentences, "--precision", "fp32")
    checkpoint = ("evaluate", model_folder / "checkpoint", sentences, "--json")
    done, as_text, by_torch = run_commands((*graph, "--json"), graph, checkpoint)

    figures, reference = json.loads(done.stdout), json.loads(by_torch.stdout)
    assert figures["accuracy"] == reference["accuracy"] == manifest_of(model_folder)["metrics"]["test"]["accuracy"]
    assert figures["confusion"] == reference["confusion"]
    assert f"accuracy {figures['accuracy']:.4f}" in as_text.stdout
    assert "refund" in as_text.stdout


def test_verify_passes_a_faithful_model_and_fails_another(model_folder, sentences, tmp_path):
    changed = shutil.copytree(model_folder, tmp_path / "changed")
    weights = changed / "checkpoint" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 0x40  # the exponent of one weight
    weights.write_bytes(bytes(content))
    broken = shutil.copytree(changed, tmp_path / "broken")
    _sign_again(broken)
    good, altered, bad = run_commands(
        ("verify", model_folder, "--data", sentences), ("verify", changed), ("verify", broken, "--json")
    )

    assert good.returncode == 0, good.stderr
    assert [line.split()[:2] for line in good.stdout.splitlines()] == [["passed", f"{name}:"] for name in GATES]
    assert "without labels, accuracy was not compared" in good.stdout
    assert altered.returncode == 2
    assert "model.safetensors: altered" in altered.stderr
    assert bad.returncode == 1
    outcome = json.loads(bad.stdout)
    assert outcome["passed"] is False
    assert {gate["name"]: gate["passed"] for gate in outcome["gates"]} == {name: name != "parity" for name in GATES}


def test_verify_proves_int8_too(model_folder, sentences, tmp_path):
    """And with labels, what it costs in accuracy."""
    broken = signed_again(model_folder, tmp_path / "broken", lambda folder: scale_a_matrix(folder / "model.int8.onnx"))
    strange = write_csv(tmp_path / "strange.csv", [("my order", "strange")])
    good, bad, unknown = run_commands(
        ("verify", model_folder, "--data", sentences, "--label-column", "label", "--json"),
        ("verify", broken, "--data", sentences),
        ("verify", model_folder, "--data", strange, "--label-column", "label"),
    )

    outcome = {gate["name"]: gate for gate in json.loads(good.stdout)["gates"]}
    assert good.returncode == 0
    assert outcome["int8_faithfulness"]["bounds"]["accuracy_change"] == ["at least", -0.003]
    assert outcome["int8_faithfulness"]["measured"]["accuracy_change"] == 0
    assert bad.returncode == 1
    assert [line.split()[1] for line in bad.stdout.splitlines() if line.startswith("FAILED")] == ["int8_faithfulness:"]
    assert unknown.returncode == 2
    assert "not among the 3 labels known" in unknown.stderr


def test_predict_and_evaluate_use_the_precision_they_are_told(model_folder, sentences):
    texts = ["my order is late", "thank you"]
    precisions = ("fp32", "int8")
    predicting = [("predict", model_folder, "--precision", name, "--json", *texts) for name in precisions]
    evaluating = [("evaluate", model_folder, sentences, "--precision", name, "--json") for name in precisions]
    results = run_commands(*predicting, *evaluating)
    scores = {}
    for precision, done, evaluated in zip(precisions, results[:2], results[2:], strict=True):
        expected = Classifier.load(model_folder, precision=precision).classify(texts)
        scores[precision] = [json.loads(line)["score"] for line in done.stdout.splitlines()]
        assert scores[precision] == [prediction.score for prediction in expected]
        assert json.loads(evaluated.stdout)["accuracy"] > 0.9
    assert scores["fp32"] != scores["int8"]


def _sign_again(folder):
    from inference.artifact import sha256

    manifest = manifest_of(folder)
    manifest["sha256"]["checkpoint/model.safetensors"] = sha256(folder / "checkpoint" / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(manifest))


def test_settings_come_from_a_file_and_options_override_it(tmp_path, sentences, tiny_base):
    (tmp_path / "run.toml").write_text(f'\ufeffbase = "{tiny_base}"\nepochs = 1\nlearning-rate = 0.001\nseed = 4\n')
    out = tmp_path / "out"

    done = run_command("train", sentences, "--out", out, "--config", tmp_path / "run.toml", "--seed", "6", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == manifest_of(out)["version"]
    config = json.loads((out / "checkpoint" / "train.json").read_text())["config"]
    assert (config["epochs"], config["learning_rate"], config["seed"]) == (1, 0.001, 6)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("sentence,label\nhi,a\n", "no column 'text'"),
        ("text,label\nhi,a\nho,a\n", "only the label 'a'"),
        ("text,label\nhi,a\n,b\n", "line 3: 'text' is empty"),
        ("text,label\nhi,a\ncaf\udce9,b\n", "line 3: byte 0xE9 is not UTF-8"),
    ],
)
def test_bad_data_exits_2_with_one_line(tmp_path, content, told):
    path = tmp_path / "data.csv"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")

    done = run_command("train", path, "--out", tmp_path / "out")

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert str(path) in done.stderr
    assert told in done.stderr
    assert "Traceback" in run_command("train", path, "--out", tmp_path / "out", "--debug").stderr


def test_serve_says_at_once_what_is_wrong(model_folder, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cases = [
            ((tmp_path / "none",), "no such model folder"),
            ((without_int8(model_folder, tmp_path / "fp32"), "--precision", "int8"), "offers fp32, not int8"),
            ((model_folder, "--workers", "0"), "BERTRAND_WORKERS is '0'"),
            ((model_folder, "--port", port), "cannot listen at"),
            ((model_folder, "--host", "no.such.host"), "cannot listen at"),
            ((model_folder, "--host", "x" * 300), "cannot listen at"),
            ((model_folder, "--port", 70_000), "cannot listen at"),
        ]
        for done, (_, told) in zip(run_commands(*(("serve", *case) for case, _ in cases)), cases, strict=True):
            assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
            assert told in done.stderr


@contextmanager
def served_from(folder, **variables):
    """A server at `localhost`, started in a folder of the user's own, where `bertrand` is no module; its address."""
    port = free_port()
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from bertrand.__main__ import main; main()"
    command = [sys.executable, "-P", "-c", script, "serve", "--host", "localhost", "--port", str(port)]
    process = subprocess.Popen(command, cwd=folder, env=os.environ | variables)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_serve_is_not_led_astray_by_a_folder_of_the_same_name(model_folder, tmp_path):
    """Users have folders called service and training too."""
    for name in ("service", "inference", "training"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not this one')")
    shutil.copytree(model_folder, tmp_path / "models" / "mine")
    (tmp_path / "models" / "current").symlink_to("mine")
    with served_from(tmp_path) as url:
        answer = httpx.get(f"{url}/v1/info", timeout=5).json()

    assert answer["version"] == manifest_of(model_folder)["version"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1"])
def test_what_serve_listens_at_may_be_a_name(host):
    """BentoML takes IP addresses alone, and says so only when it has loaded the model."""
    assert check_address(host, free_port()) == "127.0.0.1"


def test_paths_count_from_where_serve_is_started(model_folder, tmp_path):
    """BentoML changes the directory: what is checked before must be what is read after."""
    shutil.copytree(model_folder, tmp_path / "mine")
    (tmp_path / "keys").write_text("a-key-of-enough-characters")
    paths = {"BERTRAND_MODEL": "mine", "BERTRAND_SHADOW_MODEL": "./mine", "BERTRAND_API_KEYS_FILE": "keys"}
    with served_from(tmp_path, **paths) as url:
        keys = ("another-key-as-long-as-that", "a-key-of-enough-characters")
        headers = [{"authorization": f"Bearer {key}"} for key in keys]
        statuses = [httpx.get(f"{url}/v1/info", headers=each, timeout=5).status_code for each in headers]

    assert statuses == [401, 200]


def test_a_served_model_stops_at_sigterm_and_ctrl_c(model_folder):
    for number in (signal.SIGTERM, signal.SIGINT):
        port = free_port()
        command = [sys.executable, "-m", "bertrand", "serve", str(model_folder), "--port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        os.kill(process.pid, number)
        process.wait(timeout=30)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5)


def test_a_signal_while_an_object_goes_is_not_lost():
    """No exception leaves `__del__`: whoever sends SIGTERM then would wait for the end of the work."""
    script = """
import os, signal, sys, time
from types import SimpleNamespace
from bertrand import __main__ as command

class Old:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.01)

def run(options):
    Old()
    time.sleep(30)
    return 0

command.COMMANDS["slow"] = SimpleNamespace(__doc__="Slow.", add_arguments=lambda parser: None, run=run)
sys.exit(command.main(["slow"]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=25)

    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


def test_the_demo_path_with_the_real_base(demo_model):
    """What a stranger does first, with the real pretrained weights: train, then ask over HTTP."""
    assert manifest_of(demo_model)["metrics"]["test"]["accuracy"] >= 0.9
    assert (demo_model.parent / "current").readlink().name == "demo"
    text = "I was charged twice, please refund me"
    with serving(demo_model) as url:
        result = httpx.post(f"{url}/v1/analyze", json={"inputs": [text]}).json()["results"][0]
    assert result["label"] == Classifier.load(demo_model).classify([text])[0].label == "refund"
    assert [len(vector) for vector in result["token_embeddings"]] == [384] * len(result["tokens"])
    for token in result["tokens"]:
        assert text[token["start"] : token["end"]] == token["text"] or token["special"]


def test_the_example_sentences_are_what_they_claim():
    from collections import Counter

    from bertrand import example
    from training.data import read_rows

    train, test = read_rows(example.TRAIN), read_rows(example.TEST)

    assert min(Counter(row.labels for row in train).values()) >= 60
    assert min(Counter(row.labels for row in test).values()) >= 20
    assert len({row.labels for row in train}) == 8
    texts = [
        " ".join("".join(c for c in row.text.lower() if c.isalnum() or c == " ").split()) for row in (*train, *test)
    ]
    assert len(set(texts)) == len(texts)


def test_no_column_of_the_users_own_name_is_needed(tmp_path, tiny_base):
    path = write_csv(tmp_path / "x.csv", [(f"login {c}", "a") for c in "abcd"] + [(f"late {c}", "b") for c in "abcd"])
    path.write_text(path.read_text().replace("text,label", "Nachricht,Absicht"))

    done = run_command(
        "train", path, "--text-column", "Nachricht", "--label-column", "Absicht", "--base", tiny_base, "--epochs", "1",
        "--out", tmp_path / "out",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert manifest_of(tmp_path / "out")["labels"] == ["a", "b"]
