"""Base models and checkpoints: what cannot be used is told of in one line that names its folder."""

import json
import shutil

import numpy as np
import pytest
import torch

from training.base import load_config, token_counter
from training.checkpoint import Checkpoint
from training.errors import BaseModelError
from training.settings import TrainConfig
from training.train import start_model

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943\nsize 90868376\n"


def start(base):
    config = TrainConfig(base=str(base)).for_rows(100)
    return start_model(config, load_config(config.base), ["a", "b"])


@pytest.mark.parametrize("known", [True, False])
def test_code_of_a_checkpoint_is_neither_run_nor_asked_about(tmp_path, tiny_base, known, monkeypatch):
    """A base is often somebody else's folder; an answer of y at a prompt would run whatever lies in it."""
    base = shutil.copytree(tiny_base, tmp_path / "base")
    ran = tmp_path / "ran"
    (base / "own.py").write_text(
        f"open({str(ran)!r}, 'w').close()\nfrom transformers import BertConfig, BertModel\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own'\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
    )
    config = json.loads((base / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    config["model_type"] = "bert" if known else "own"
    (base / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))

    if known:
        assert start(base).config.model_type == "mean_pooled_bert"
    else:
        with pytest.raises(BaseModelError, match=r"base: needs Python code that it brings along"):
            load_config(str(base))

    assert not ran.exists()


@pytest.mark.parametrize("found", [POINTER, "half", b""])
def test_damaged_weights_are_told_of_with_their_folder(tmp_path, tiny_base, model_folder, found):
    for load, source in [
        (start, tiny_base),
        (lambda folder: Checkpoint.load(str(folder)), model_folder / "checkpoint"),
    ]:
        folder = shutil.copytree(source, tmp_path / source.name)
        weights = folder / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[: len(whole) // 2] if found == "half" else found)

        with pytest.raises(BaseModelError, match=rf"{folder}: its model\.safetensors is damaged .* fetch it again"):
            load(folder)


def test_a_model_folder_named_in_place_of_its_checkpoint_is_told_of(model_folder):
    with pytest.raises(
        BaseModelError, match=f"is a model folder; name the checkpoint in it, {model_folder}/checkpoint$"
    ):
        load_config(str(model_folder))


def test_a_damaged_tokenizer_is_told_of_with_its_file(tmp_path, tiny_base):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    (base / "tokenizer.json").write_bytes(POINTER)

    with pytest.raises(BaseModelError, match=r"base/tokenizer\.json is damaged"):
        token_counter(str(base))


def test_logits_are_those_of_a_run_without_its_hidden_states(model_folder):
    """All layers of all texts at once would take gigabytes where a file is measured."""
    checkpoint = Checkpoint.load(str(model_folder / "checkpoint"))
    texts = ["refund please", "i love the app, thank you", "login"]
    kept = []
    checkpoint.model.register_forward_hook(lambda _model, _inputs, output: kept.append(output.hidden_states))

    logits = checkpoint.logits(texts)

    assert kept == [None] * 3
    np.testing.assert_array_equal(logits, [one for _, one, _ in checkpoint.run(texts)])
    assert checkpoint.logits([]).shape == (0, 3)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_checkpoint_runs_in_half_precision_too(model_folder, kind):
    checkpoint = Checkpoint.load(str(model_folder / "checkpoint"))
    batch = checkpoint.tokenizer(["i want my money back", "thank you great app"], padding=True, return_tensors="pt")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        whole = checkpoint.model(**inputs).logits.softmax(dim=1)
        half = checkpoint.model.to(kind)(**inputs).logits
    assert half.dtype == kind
    torch.testing.assert_close(half.float().softmax(dim=1), whole, atol=0.05, rtol=0)
