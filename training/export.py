"""A checkpoint to ONNX graphs: Optimum's exporter, then ONNX Runtime's BERT fusions, and the int8 rewrite."""

from __future__ import annotations

import logging
import random
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.engine import HIDDEN, LOGITS
from training.base import family
from training.errors import GateError
from training.quantize import quantize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.checkpoint import Checkpoint

SAMPLES, SAMPLE_TOKENS = 64, 24  # made-up texts that show how large each channel of the activations is


def export_graphs(checkpoint: Checkpoint, *, fp32: Path, int8: Path) -> dict[str, int]:
    """
    Write the graphs of a checkpoint: logits and the last hidden state, any batch, any length.

    Args:
        checkpoint: A fine-tuned sequence classifier.
        fp32: Where to write the fused fp32 graph.
        int8: Where to write the int8 graph; whether it is any good is for the gates to say.

    Returns:
        How often each fused operator occurs in the fp32 graph.

    Raises:
        GateError: a fusion that this family must have did not happen; the graph would be right and slow.
    """
    config = checkpoint.model.config
    with tempfile.TemporaryDirectory(prefix="bertrand-export-") as folder:
        raw = _export(checkpoint, Path(folder))
        plain = Path(folder) / "plain.onnx"
        _optimize(raw, config, attention=False).save_model_to_file(str(plain))
        quantize(plain, int8, _samples(checkpoint))
        fused = _optimize(raw, config, attention=True)
    counts = _count_fused(fused, config)
    fused.save_model_to_file(str(fp32))
    return counts


def _samples(checkpoint: Checkpoint) -> NDArray[np.int64]:
    """Return token ids of texts that are made up of random pieces of the vocabulary, the same in every export."""
    tokenizer = checkpoint.tokenizer
    pieces = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    choose = random.Random(0)
    length = min(SAMPLE_TOKENS, checkpoint.max_tokens - tokenizer.num_special_tokens_to_add())
    texts = [choose.choices(pieces, k=length) for _ in range(SAMPLES)]
    return np.array([tokenizer.build_inputs_with_special_tokens(text) for text in texts], dtype=np.int64)


def _export(checkpoint: Checkpoint, folder: Path) -> Path:
    from optimum.exporters.onnx import export
    from optimum.exporters.tasks import TasksManager

    model = checkpoint.model
    path = folder / "raw.onnx"
    task = "text-classification"
    constructor = TasksManager.get_exporter_config_constructor(
        "onnx", model_type=family(model.config), task=task, library_name="transformers"
    )
    base = type(constructor(model.config))

    class WithHiddenStates(base):  # type: ignore[misc, valid-type]
        """The family's export configuration with the token vectors as a second output."""

        @property
        def outputs(self) -> dict[str, dict[int, str]]:
            return {LOGITS: {0: "batch_size"}, HIDDEN: {0: "batch_size", 1: "sequence_length"}}

    # Optimum drops what its configuration does not name, and names no hidden state for classifiers:
    # the model itself has to give it, under that name.
    original = model.forward

    def forward(
        input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, **_: Any
    ) -> dict[str, Any]:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        output = original(**inputs, output_hidden_states=True, return_dict=True)
        return {LOGITS: output.logits, HIDDEN: output.hidden_states[-1]}

    model.forward = forward
    try:
        with warnings.catch_warnings(), _quiet("optimum", "transformers", "torch.onnx"):
            warnings.simplefilter("ignore")  # the tracer warns of constants that hold for every BERT
            configuration = WithHiddenStates(model.config, task=task)
            export(model, configuration, path, opset=configuration.DEFAULT_ONNX_OPSET)
    finally:
        model.forward = original
    return path


def _optimize(raw: Path, config: Any, *, attention: bool) -> Any:
    """Return a graph with its GELUs fused, and with `attention` all else that ONNX Runtime fuses in a BERT."""
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    options = FusionOptions("bert")
    if not attention:
        options.enable_attention = options.enable_embed_layer_norm = False
        options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = False
    with _quiet("onnxruntime", "fusion_base", "onnx_model"):
        return optimize_model(
            str(raw),
            "bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            optimization_options=options,
            opt_level=0,
        )


def _count_fused(fused: Any, config: Any) -> dict[str, int]:
    """Count what was fused, and raise GateError where something is missing."""
    layers = config.num_hidden_layers
    counts = Counter(node.op_type for node in fused.model.graph.node)
    found = {
        "Attention": counts["Attention"],
        "SkipLayerNormalization": counts["SkipLayerNormalization"],
        "Gelu": counts["BiasGelu"] + counts["Gelu"] + counts["FastGelu"],
    }
    expected = {"Attention": layers, "SkipLayerNormalization": 2 * layers}
    if getattr(config, "hidden_act", getattr(config, "activation", "gelu")) == "gelu":
        expected["Gelu"] = layers
    missing = {name: f"{found[name]} of {count}" for name, count in expected.items() if found[name] < count}
    if missing:
        raise GateError(
            f"fusion: {', '.join(f'{name} {count}' for name, count in missing.items())} in {layers} layers; "
            "the graph differs from what ONNX Runtime recognises as a BERT"
        )
    return found


class _quiet:  # noqa: N801  reads as a verb at its call sites
    """Hold back the chatter of libraries below errors for the length of a block."""

    def __init__(self, *names: str) -> None:
        self._loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)
