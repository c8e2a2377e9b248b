"""Bias correction: take the mean error of each convolution back out through its bias.

Rounding weights shifts the mean of a convolution's output; its bias can shift it back. No library on the
package index offers this alone: onnxruntime.quantization has none, NNCF has it only inside its own
quantisation with its own ranges, AIMET and PPQ bring torch or are no longer kept. The method is the empirical
one of Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019),
appendix D: nodes in the graph's order, each seeing inputs that are quantised and corrected already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from facekiln.errors import KilnError
from facekiln.progress import progress_bar
from facekiln.quant.nodes import constants, node_name
from facekiln.quant.qdq import at_opset, with_biases
from facekiln.quant.run import Session

# A mean over every place of a map needs few pictures.
PICTURES = 8
_BIASED = {"Conv": (0, 2, 3), "ConvTranspose": (0, 2, 3), "Gemm": (0,)}


def _means(
    model: onnx.ModelProto, tensors: dict[str, tuple[str, tuple[int, ...]]], feeds: Sequence[str] = ()
) -> Session:
    """Return a session whose outputs are the channel means of nodes' outputs, by the nodes' names."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    del graph.graph.output[:]
    for node, (tensor, axes) in tensors.items():
        graph.graph.node.append(
            helper.make_node("ReduceMean", [tensor], [f"{node}_mean"], axes=list(axes), keepdims=0)
        )
        graph.graph.output.append(onnx.ValueInfoProto(name=f"{node}_mean"))
    for name in feeds:
        stored = next(item for item in graph.graph.initializer if item.name == name)
        graph.graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, stored.dims))
        graph.graph.initializer.remove(stored)
    return Session(graph)


def correct_biases(
    model: onnx.ModelProto, quantised: onnx.ModelProto, pictures: Sequence[NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Return corrected biases of a quantised network.

    Args:
        model: the float network.
        quantised: its QDQ form, with the same node names (see `facekiln.quant.qdq.build_qdq`).
        pictures: input tensors of the calibration set (the command takes `PICTURES`).

    Returns:
        Node -> float32 [C], to be put in place by `facekiln.quant.qdq.with_biases`.

    Raises:
        KilnError: no pictures, or a graph of another opset than 13 to 17.
    """
    if not len(pictures):
        raise KilnError("there are no pictures to correct biases on")
    model = at_opset(model)
    if next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")) > 17:
        raise KilnError("bias correction reads opsets up to 17", hint="export at opset 13")
    stored = constants(model)
    tensors, biases = {}, {}
    for node in model.graph.node:
        if node.op_type not in _BIASED or node.input[1] not in stored:
            continue
        shape = numpy_helper.to_array(stored[node.input[1]]).shape
        if len(node.input) > 2 and node.input[2] in stored:
            bias = numpy_helper.to_array(stored[node.input[2]]).astype(np.float32)
        else:
            bias = np.zeros(_channels(node, shape), np.float32)
        name = node_name(node)
        tensors[name] = (node.output[0], _BIASED[node.op_type][: max(1, len(shape) - 1)])
        biases[name] = bias.reshape(-1)
    names = {name: f"{name}_corrected_bias" for name in biases}
    fed = _means(with_biases(quantised, biases), tensors, list(names.values()))
    wanted = _mean_over(_means(model, tensors), pictures, [f"{name}_mean" for name in tensors])
    with progress_bar(len(tensors), "bias correction", "node") as bar:
        for name in tensors:
            given = {names[other]: bias for other, bias in biases.items()}
            found = _mean_over(fed, pictures, [f"{name}_mean"], given)
            biases[name] = biases[name] + (wanted[f"{name}_mean"] - found[f"{name}_mean"]).astype(np.float32)
            bar.update(1)
    return biases


def _channels(node: onnx.NodeProto, shape: tuple[int, ...]) -> int:
    if node.op_type == "Conv":
        return shape[0]
    if node.op_type == "Gemm":
        return shape[0] if next((a.i for a in node.attribute if a.name == "transB"), 0) else shape[1]
    return shape[1] * next((a.i for a in node.attribute if a.name == "group"), 1)


def _mean_over(
    session: Session,
    pictures: Sequence[NDArray[np.float32]],
    outputs: Sequence[str],
    given: dict[str, NDArray[np.float32]] | None = None,
) -> dict[str, NDArray[np.float64]]:
    total: dict[str, NDArray[np.float64]] = {}
    for picture in pictures:
        values = session.run({session.inputs[0]: picture, **(given or {})}, outputs)
        for name, value in values.items():
            total[name] = total.get(name, 0.0) + value.astype(np.float64)
    return {name: value / len(pictures) for name, value in total.items()}


def mean_errors(
    model: onnx.ModelProto, quantised: onnx.ModelProto, pictures: Sequence[NDArray[np.float32]]
) -> dict[str, float]:
    """Return how far the channel means of each output are off: mean over channels (last axis) of
    |mean(quantised) - mean(float)| over pictures and places.

    Args:
        model: the float network.
        quantised: its QDQ form.
        pictures: input tensors.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    parent, child = Session(model), Session(quantised)
    for picture in pictures:
        one, other = parent.run({parent.inputs[0]: picture}), child.run({child.inputs[0]: picture})
        for name, value in one.items():
            error = (other[name].astype(np.float64) - value).reshape(-1, value.shape[-1]).mean(axis=0)
            sums[name] = sums.get(name, 0.0) + error
    return {name: float(np.abs(total / len(pictures)).mean()) for name, total in sums.items()}
