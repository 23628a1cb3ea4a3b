"""An exported fp32 graph to one that multiplies in 8-bit integers, with a scale for every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

DOMAIN = "com.microsoft"  # of ONNX Runtime's own operators
TOP = 127  # the largest integer either side of a product is rounded to, in both directions
ZERO = 128  # what stands for 0 in activations: the CPU multiplies unsigned by signed bytes
GELUS = ("Gelu", "BiasGelu", "FastGelu")
GELU_LEAST = 0.1701  # a GELU never falls further below 0, in its exact form or by tanh
GELU_ZERO = 24  # what stands for 0 in its outputs: 231 integers are left for those above
EVENNESS = 8.0  # the most that a channel is shrunk or stretched by
LEAST = np.float32(1e-12)  # in place of a zero that would be divided by


def quantize(plain: Path, path: Path, samples: NDArray[np.int64]) -> None:
    """
    Write the int8 graph of an exported fp32 graph: every product with a constant matrix is done in integers.

    For activations X, shape (..., inputs), and a matrix W, shape (inputs, outputs):

        scales[t] = max |X[t]| / 127          of each token t, when the graph runs
        Q[t] = round(X[t] / scales[t]) + 128  uint8
        steps[o] = max |W[:, o]| / 127        of each output o, here
        V[:, o] = round(W[:, o] / steps[o])   int8
        X @ W ~ scales * steps * ((Q - 128) @ V)

    The usual dynamic quantisation takes one scale from all tokens of a batch, so that a text's answer depends on the
    texts beside it, and one outlier coarsens them all. With a scale for each token, which reads nothing but that
    token, an answer is the same in any company, to the last bit: sums of integers have no order.

    Two things make it finer, and cost one pass over a tensor or none:

    - Layer normalisation gives a few channels several times the size of the others, the same ones in every text. They
      are shrunk before the rounding, and the rows of W that read them stretched, by
      sqrt(largest activation / largest weight) of the channel (SmoothQuant, arXiv:2211.10438). The largest
      activations are those of `samples`, so that nothing but the checkpoint decides the graph.
    - A GELU gives nothing below -0.17: with 0 at 24, in place of 128, its steps are half as wide.

    Biases, attention, normalisation and the classifier stay in fp32: they are a small part of the work and lose most.

    Args:
        plain: The exported graph with its GELUs fused and nothing else: fused attention hides its matrices, and fused
            layer normalisation is slower than its parts.
        path: Where to write; the same graph and samples give the same bytes.
        samples: Token ids to run it on, shape (texts, tokens), special tokens included.
    """
    import onnx

    model = onnx.load(plain)
    graph = model.graph
    matrices = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if len(tensor.dims) == 2
    }
    maker = {output: node.op_type for node in graph.node for output in node.output}
    readers: dict[str, list[NDArray[np.float32]]] = {}  # activations: the matrices they are multiplied by
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in matrices:
            readers.setdefault(node.input[0], []).append(matrices[node.input[1]])
    peaks = _peaks(model, [name for name in readers if maker.get(name) == "LayerNormalization"], samples)

    rewritten = _Rewritten()
    rounded: dict[str, _Rounded] = {}
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in matrices:
            rewritten.nodes.append(node)
            continue
        name, matrix = node.input
        if name not in rounded:
            stretch = _stretch(peaks[name], readers[name]) if name in peaks else None
            rounded[name] = rewritten.round(name, stretch, gelu=maker.get(name) in GELUS)
        rewritten.multiply(rounded[name], matrix, matrices[matrix], node.output[0])

    del graph.node[:]
    graph.node.extend(rewritten.nodes)
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *rewritten.constants.values()])
    if DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    onnx.save(model, path)


def _peaks(model: Any, names: Sequence[str], samples: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """Run a graph and return the largest size of each channel of some of its activations, shape (channels,) each."""
    import onnx
    import onnxruntime as ort

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in {output.name for output in model.graph.output}
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # the same sums on every machine of a kind, however many cores it has
    options.log_severity_level = 3
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"input_ids": samples, "attention_mask": np.ones_like(samples), "token_type_ids": np.zeros_like(samples)}
    values = session.run(list(names), {node.name: feed[node.name] for node in session.get_inputs()})
    return {name: np.abs(value).max(axis=(0, 1)) for name, value in zip(names, values, strict=True)}


def _stretch(peaks: NDArray[np.float32], readers: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """
    Return what each channel is divided by before it is rounded, and its weights multiplied by.

    Args:
        peaks: Largest activation of each channel, shape (inputs,).
        readers: The matrices that read the channels, shape (inputs, outputs) each.
    """
    weights = np.max([np.abs(matrix).max(axis=1) for matrix in readers], axis=0)
    stretch = np.sqrt(np.maximum(peaks, LEAST) / np.maximum(weights, LEAST))
    return np.asarray(np.clip(stretch / np.median(stretch), 1 / EVENNESS, EVENNESS), dtype=np.float32)


@dataclass(frozen=True)
class _Rounded:
    """Activations as integers: the names of what the int8 graph has of them."""

    integers: str
    scales: str
    zero: str
    stretch: NDArray[np.float32] | None  # what each channel was divided by, shape (inputs,)


class _Rewritten:
    """The nodes of the int8 graph so far, in order, and the constants they brought."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}  # by name

    def round(self, activations: str, stretch: NDArray[np.float32] | None, *, gelu: bool) -> _Rounded:
        """
        Write activations as integers, and the scale of every token; matrices that read the same share them.

        Args:
            activations: Shape (..., inputs).
            stretch: What each channel is divided by first, shape (inputs,).
            gelu: They are outputs of a GELU.
        """
        name = f"{activations}/int8"
        zero = GELU_ZERO if gelu else ZERO
        top = 255 - zero
        zero_point = self._constant(f"int8/zero{zero}", np.uint8(zero))
        if stretch is not None:
            shrink = self._constant(f"{name}/shrink", 1 / stretch)
            activations = self._add("Mul", f"{name}/even", activations, shrink)
        sizes = activations if gelu else self._add("Abs", f"{name}/sizes", activations)
        axis = self._constant("int8/axis", np.array([-1], dtype=np.int64))
        peaks = self._add("ReduceMax", f"{name}/peaks", sizes, axis, keepdims=1)
        # The steps of a GELU must reach its least value too; elsewhere, a token of zeros must not divide by zero.
        least = self._constant(f"int8/least{zero}", np.float32(GELU_LEAST * top / zero) if gelu else LEAST)
        ranges = self._add("Max", f"{name}/ranges", peaks, least)
        scales = self._add("Mul", f"{name}/scales", ranges, self._constant(f"int8/step{zero}", np.float32(1 / top)))
        inverses = self._add("Div", f"{name}/inverses", self._constant(f"int8/top{zero}", np.float32(top)), ranges)
        scaled = self._add("Mul", f"{name}/scaled", activations, inverses)
        # With a scale of 1 it rounds, shifts and casts in one pass.
        integers = self._add("QuantizeLinear", f"{name}/integers", scaled, self._one(), zero_point)
        return _Rounded(integers, scales, zero_point, stretch)

    def multiply(self, activations: _Rounded, matrix: str, weights: NDArray[np.float32], output: str) -> None:
        """Write `output` as the product of activations and weights, shape (inputs, outputs)."""
        if activations.stretch is not None:
            weights = weights * activations.stretch[:, None]
        steps = np.maximum(np.abs(weights).max(axis=0), LEAST) / np.float32(TOP)
        product = self._add(
            "MatMulIntegerToFloat",
            f"{output}/product",
            activations.integers,
            self._constant(f"{matrix}/int8", np.rint(weights / steps).astype(np.int8)),
            self._one(),  # the operator takes one scale of activations: those of the tokens follow
            self._constant(f"{matrix}/steps", steps),
            activations.zero,
            domain=DOMAIN,
        )
        self._add("Mul", output, product, activations.scales)

    def _one(self) -> str:
        return self._constant("int8/one", np.float32(1))

    def _add(self, operator: str, output: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name
