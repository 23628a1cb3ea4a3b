"""What tests need in more than one place: small real models, servers and commands, and how colours are told apart."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
WORDS = (
    "the a my is was not and please when where why parcel refund money back password login invoice charged twice "
    "app crashes thank you great love late box order account cancel stop it i we they to of on in for card page"
).split()


def make_base(folder: Path, family: str) -> Path:
    """Write an untrained base model of a family, with a word-piece or a byte-level tokenizer as the family has it."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if family == "roberta":
        symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *symbols])}
        tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
        fast = transformers.RobertaTokenizerFast(tokenizer_object=tokenizer, add_prefix_space=False)
        config = transformers.RobertaConfig(
            vocab_size=len(vocabulary), max_position_embeddings=66, type_vocab_size=1, initializer_range=0.2, **size
        )
        model = transformers.RobertaModel(config)
    else:
        pieces = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            *WORDS,
            *"abcdefghijklmnopqrstuvwxyz",
            "##s",
            "##ed",
            ".",
            "?",
            ",",
        ]
        vocabulary = {token: i for i, token in enumerate(dict.fromkeys(pieces))}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        fast = transformers.BertTokenizerFast(tokenizer_object=tokenizer)
        if family == "distilbert":
            fast = transformers.DistilBertTokenizerFast(tokenizer_object=tokenizer)
            config = transformers.DistilBertConfig(
                vocab_size=len(vocabulary), dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64,
                initializer_range=0.2,
            )  # fmt: skip
            model = transformers.DistilBertModel(config)
        else:
            config = transformers.BertConfig(
                vocab_size=len(vocabulary), max_position_embeddings=64, initializer_range=0.2, **size
            )
            model = transformers.BertModel(config)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    """Write labelled sentences, quoted as RFC 4180 wants them."""
    lines = ["text,label", *('"{}",{}'.format(text.replace('"', '""'), label) for text, label in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def free_port() -> int:
    """Return a loopback port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(model: Path, *options: str, log: Path | None = None, **environment: str) -> Iterator[str]:
    """Run `bertrand serve` on a free loopback port until the block ends; give its address. `log` takes its stderr."""
    port = free_port()
    command = [sys.executable, "-m", "bertrand", "serve", str(model), "--port", str(port), *options]
    # No balancer turns away from a test's server: it may end at once.
    variables = os.environ | {"BERTRAND_DRAIN_SECONDS": "0"} | environment
    with log.open("wb") if log else nullcontext() as stderr:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stderr=stderr)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers; fail when it ends instead."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail("the server did not become ready within a minute")


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# Commands that load torch and transformers, which is most of their time: they run in copies of a process that has.
HEAVY = {"train", "export", "verify", "evaluate", "compare", "check-data"}
LOADED = multiprocessing.get_context("forkserver")
LOADED.set_forkserver_preload(
    [
        "onnx",
        "optimum.exporters.onnx",
        "optimum.onnxruntime",
        "sklearn.linear_model",
        "transformers.models.auto.modeling_auto",
        "transformers.models.bert.modeling_bert",
        "transformers.trainer",
        __name__,
    ]
)
STARTING = threading.Lock()  # multiprocessing asks after all of its processes where it starts one


def run_command(
    *arguments: str | Path, stdin: str | bytes | None = None, cwd: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the `bertrand` command as a user does, in a process of its own, and return what it printed."""
    command = [sys.executable, "-m", "bertrand", *map(str, arguments)]
    data = stdin.encode() if isinstance(stdin, str) else stdin
    if arguments and arguments[0] in HEAVY and data is None and not variables:
        return _run_loaded(command, cwd)
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(command, cwd=cwd, env=environment, input=data, capture_output=True, check=False, timeout=1200)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def _run_loaded(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a copy of a process that has loaded other people's code, and none of ours."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        process = LOADED.Process(target=_be_command, args=(command[3:], cwd, outputs))

        def ended() -> bool:
            with STARTING:
                return not process.is_alive()

        with STARTING:
            process.start()
        try:
            until(ended, 1200)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, process.exitcode, *(path.read_text() for path in outputs))


def _be_command(arguments: list[str], folder: Path, outputs: list[Path]) -> None:
    """Be `python -m bertrand ARGUMENTS` in a folder, with standard output and error in files."""
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    sys.argv = ["bertrand", *arguments]
    runpy.run_module("bertrand", run_name="__main__", alter_sys=True)


def run_commands(*commands: tuple[str | Path, ...]) -> list[subprocess.CompletedProcess[str]]:
    """Run commands that need nothing of each other side by side; most of the time of each is its start, on one core."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda command: run_command(*command), commands))


def run_or_trace(command: list[str], log: Path, seconds: float = 400, **environment: str) -> int:
    """Run a command of several processes to its end; one that hangs fails with what each thread was doing."""
    environ = os.environ | {"PYTHONFAULTHANDLER": "1"} | environment
    with log.open("w") as output, subprocess.Popen(command, cwd=ROOT, env=environ, stderr=output) as process:
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            first = psutil.Process(process.pid)
            for one in [*first.children(recursive=True), first]:
                one.send_signal(signal.SIGABRT)
            process.wait()
            pytest.fail(f"no end after {seconds} s\n{log.read_text()}")


def manifest_of(folder: Path) -> dict[str, Any]:
    """Read model.json as any program would."""
    manifest: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return manifest


def without_int8(model: Path, target: Path) -> Path:
    """Copy a model folder without its int8 graph, as one whose graph failed a gate."""
    return signed_again(model, target, lambda folder: (folder / "model.int8.onnx").unlink(), precisions=("fp32",))


def signed_again(model: Path, target: Path, change: Callable[[Path], object], **values: Any) -> Path:
    """Copy a model folder, change files in it, and write a manifest that fits them, as a faulty exporter would."""
    from inference.artifact import write_manifest

    shutil.copytree(model, target)
    change(target)
    kept = {key: value for key, value in manifest_of(target).items() if key not in ("version", "sha256")}
    lists = {key: tuple(kept[key]) for key in ("labels", "precisions")}
    write_manifest(target, **kept | lists | values)
    return target


def with_another_temperature(model: Path, target: Path) -> Path:
    """Copy a model folder as another version: the same labels, other scores."""
    return signed_again(model, target, lambda _: None, temperature=2.0)


def scale_a_matrix(graph: Path, factor: float = 0.5) -> None:
    """Damage an int8 graph as a wrong scale would: multiply the steps of one of its matrices."""
    import onnx

    model = onnx.load(graph)
    steps = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("/steps"))
    values = onnx.numpy_helper.to_array(steps) * factor
    steps.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), steps.name))
    onnx.save(model, graph)


def contrast(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the contrast ratio of WCAG 2.2 of two colours, shape (3,) each, from 0 to 1."""
    linear = [np.where(one <= 0.04045, one / 12.92, ((one + 0.055) / 1.055) ** 2.4) for one in (first, second)]
    darker, lighter = sorted(float(one @ [0.2126, 0.7152, 0.0722]) for one in linear)
    return (lighter + 0.05) / (darker + 0.05)
