"""Which ONNX node each ncnn layer was made from: told by the weights, which pnnx leaves as they are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import numpy_helper

from facekiln.chips.ncnn.model import NcnnModel, weighted
from facekiln.errors import KilnError
from facekiln.quant.nodes import constants
from facekiln.quant.ranges import Ranges

_OPS = ("Conv", "Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSwish")


def match_layers(
    model: NcnnModel, network: onnx.ModelProto, *, strict: bool = True
) -> dict[str, onnx.NodeProto]:
    """Return layer -> node for every layer that ncnn can compute in int8.

    Args:
        model: in float32.
        network: the simplified ONNX that it was made from.
        strict: refuse layers whose weights no node has, rather than leave them out.

    Two nodes with the same weights are told apart by their order, which pnnx keeps among them.

    Raises:
        KilnError: a layer whose weights no node has: the two files are of different networks.
    """
    stored = constants(network)
    nodes: dict[bytes, list[onnx.NodeProto]] = {}
    for node in network.graph.node:
        if node.op_type in _OPS and len(node.input) > 1 and node.input[1] in stored:
            for key in _keys(node, stored[node.input[1]]):
                nodes.setdefault(key, []).append(node)
    found: dict[str, onnx.NodeProto] = {}
    for layer in model.graph:
        if not weighted(layer):
            continue
        blob = model.blob(layer.name, "weight")
        assert blob is not None
        fitting = nodes.get(blob.values.astype(np.float32).tobytes(), [])
        if not fitting and not strict:
            continue
        if not fitting:
            raise KilnError(
                f"layer '{layer.name}' has weights that no node of the ONNX has",
                hint="make the .param from this very ONNX: facekiln ncnn convert",
            )
        found[layer.name] = fitting.pop(0)
    return found


def _keys(node: onnx.NodeProto, tensor: onnx.TensorProto) -> Iterable[bytes]:
    values = numpy_helper.to_array(tensor).astype(np.float32)
    transposed = node.op_type == "MatMul" or (
        node.op_type == "Gemm" and not next((a.i for a in node.attribute if a.name == "transB"), 0)
    )
    return [np.ascontiguousarray(values.T if transposed and values.ndim == 2 else values).tobytes()]


def thresholds_of(
    model: NcnnModel, network: onnx.ModelProto, ranges: Ranges, method: str
) -> dict[str, float]:
    """Return layer -> threshold of its input, from our ranges of the ONNX.

    Raises:
        KilnError: see `match_layers`; an unknown method; or a tensor that the ranges do not have.
    """
    return {
        layer: ranges.threshold(node.input[0], method) for layer, node in match_layers(model, network).items()
    }


def tensor_of_blob(model: NcnnModel, network: onnx.ModelProto) -> dict[str, str]:
    """Return blob -> ONNX tensor with the same values, for the outputs of the layers that `match_layers`
    finds.

    A layer with a fused activation has the value behind it.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in network.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, str] = {}
    layers = {layer.name: layer for layer in model.graph}
    for name, node in match_layers(model, network, strict=False).items():
        layer, tensor = layers[name], node.output[0]
        if layer.integer(9):
            behind = [one for one in readers.get(tensor, []) if one.op_type in _ACTIVATIONS]
            if len(behind) != 1:  # an activation that was moved before a Concat: no tensor has this value
                continue
            tensor = behind[0].output[0]
        found[layer.tops[0]] = tensor
    return found
