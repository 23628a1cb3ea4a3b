"""An exported fp32 graph to one that multiplies in 8-bit integers, with a scale for every token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DOMAIN = "com.microsoft"  # of ONNX Runtime's own operators
TOP = 127  # the largest integer either side of a product is rounded to, in both directions
ZERO = 128  # what stands for 0 in activations: the CPU multiplies unsigned by signed bytes


def quantize(raw: Path, path: Path) -> int:
    """
    Write the int8 graph of an exported, unfused fp32 graph: every product with a constant matrix is done in integers.

    For activations X, shape (..., inputs), and a matrix W, shape (inputs, outputs):

        scales[t] = max |X[t]| / 127          of each token t, when the graph runs
        Q[t] = round(X[t] / scales[t]) + 128  uint8
        steps[o] = max |W[:, o]| / 127        of each output o, here
        V[:, o] = round(W[:, o] / steps[o])   int8
        X @ W ~ scales * steps * ((Q - 128) @ V)

    The usual dynamic quantisation takes one scale from all tokens of a batch, so that a text's answer depends on the
    texts beside it, and one outlier coarsens them all. With a scale for each token, which reads nothing but that
    token, an answer is the same in any company, to the last bit: sums of integers have no order.

    Biases, attention, normalisation and the classifier stay in fp32: they are a small part of the work and lose most.
    The graph to start from is the unfused one: fused attention would hide its matrices, and ONNX Runtime's fused
    layer normalisation is several times slower than its parts. What is worth fusing it fuses itself on loading.

    Args:
        raw: The graph as the exporter writes it.
        path: Where to write; the same graph gives the same bytes.

    Returns:
        How many matrices are multiplied in integers.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(raw)
    graph = model.graph
    matrices = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    rewritten = _Rewritten()
    count = 0
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in matrices:
            rewritten.nodes.append(node)
            continue
        weights = numpy_helper.to_array(matrices[node.input[1]])
        rewritten.multiply(node.input[0], node.input[1], weights, node.output[0])
        count += 1

    del graph.node[:]
    graph.node.extend(rewritten.nodes)
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *rewritten.constants.values()])
    model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    onnx.save(model, path)
    return count


class _Rewritten:
    """The nodes of the int8 graph so far, in order, and the constants they brought."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}  # by name
        self._rounded: dict[str, tuple[str, str]] = {}  # activations: their integers and their scales

    def multiply(self, activations: str, matrix: str, weights: NDArray[np.float32], output: str) -> None:
        """Write `output` as the product of activations and weights, shape (inputs, outputs)."""
        integers, scales = self._round(activations)
        steps = np.maximum(np.abs(weights).max(axis=0), np.float32(1e-12)) / np.float32(TOP)
        values = np.rint(weights / steps).astype(np.int8)
        product = self._add(
            "MatMulIntegerToFloat",
            f"{output}/product",
            integers,
            self._constant(f"{matrix}/int8", values),
            self._constant("int8/one", np.float32(1)),  # the operator knows one scale for all activations: ours follow
            self._constant(f"{matrix}/steps", steps.astype(np.float32)),
            self._constant("int8/zero", np.uint8(ZERO)),
            domain=DOMAIN,
        )
        self._add("Mul", output, product, scales)

    def _round(self, activations: str) -> tuple[str, str]:
        """Return the names of the activations as integers and of their scales; matrices that read the same share."""
        if activations not in self._rounded:
            name = f"{activations}/int8"
            axis = self._constant("int8/axis", np.array([-1], dtype=np.int64))
            sizes = self._add("Abs", f"{name}/abs", activations)
            peaks = self._add("ReduceMax", f"{name}/peak", sizes, axis, keepdims=1)
            # A token of zeros alone must not divide by zero.
            peaks = self._add("Max", f"{name}/range", peaks, self._constant("int8/least", np.float32(1e-12)))
            scales = self._add("Mul", f"{name}/scale", peaks, self._constant("int8/step", np.float32(1 / TOP)))
            inverses = self._add("Div", f"{name}/inverse", self._constant("int8/top", np.float32(TOP)), peaks)
            # Cast cuts off the fraction: with half a step more it rounds, and one pass over the tensor is saved.
            scaled = self._add("Mul", f"{name}/scaled", activations, inverses)
            shift = self._constant("int8/shift", np.float32(ZERO + 0.5))
            shifted = self._add("Add", f"{name}/shifted", scaled, shift)
            integers = self._add("Cast", f"{name}/integers", shifted, to=2)  # TensorProto.UINT8
            self._rounded[activations] = integers, scales
        return self._rounded[activations]

    def _add(self, operator: str, output: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name
