"""A network with QuantizeLinear and DequantizeLinear where int8 chips round: no chip's own arithmetic.

Weights are symmetric int8 per output channel; each activation that a quantisable node reads is rounded once,
with one scale. onnxruntime.quantization places pairs on every tensor, that between a convolution and its
activation too, which chips keep in the accumulator; so the pairs are placed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, version_converter

from facekiln.config import known
from facekiln.errors import KilnError
from facekiln.graph.constants import drop_unused_constants
from facekiln.quant.names import METHODS, SCHEMES
from facekiln.quant.nodes import WEIGHTED, Weight, activations, node_name, quantisable, weights
from facekiln.quant.ranges import Ranges

_OPSET = 13  # the first whose DequantizeLinear has an axis
_INT8 = 127
MARK = "SIMULATED: rounds where an int8 chip would; no vendor tool made this and no chip runs it"


def scale_of(ranges: Ranges, tensor: str, method: str, scheme: str) -> tuple[np.float32, int]:
    """Return (scale, zero point): symmetric int8 has zero point 0, asymmetric uint8 spreads 255 steps over
    (low, high), zero included and exact.

    A tensor that is all zero has scale 1.

    Raises:
        KilnError: unknown tensor, method or scheme.
    """
    if known(scheme, SCHEMES, "activation scheme") == "symmetric":
        top = ranges.threshold(tensor, method)
        return np.float32(_usable(top / _INT8)), 0
    low, high = ranges.limits(tensor, method)
    scale = _usable((high - low) / 255)
    return np.float32(scale), int(np.clip(round(-low / scale), 0, 255))


def _usable(scale: float) -> float:
    return scale if scale > float(np.finfo(np.float32).tiny) else 1.0


def rounded_weight(
    weight: Weight, *, per_channel: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a weight's whole numbers, -127..127, and its scales, both float32; their product is the weight
    as symmetric int8 has it.

    The scales have the weight's rank: one per output channel, or one in all. A channel of zeros has scale 1.
    """
    absmax = weight.absmax() if per_channel else weight.absmax().max(keepdims=True)
    scales = absmax / np.float32(_INT8)
    scales = np.where(scales > np.finfo(np.float32).tiny, scales, np.float32(1)).astype(np.float32)
    rank = weight.values.ndim
    scales = scales.reshape([-1 if axis == weight.axis % rank else 1 for axis in range(rank)])
    return np.clip(np.rint(weight.values / scales), -_INT8, _INT8), scales


def quantised_weight(weight: Weight) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 values and float32 [C] scales of a weight (see `rounded_weight`)."""
    rounded, scales = rounded_weight(weight)
    return rounded.astype(np.int8), scales.ravel()


def at_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model at opset 13 or above.

    Raises:
        KilnError: onnx cannot convert it.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    if opset >= _OPSET:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy
    try:
        return version_converter.convert_version(model, _OPSET)
    except RuntimeError as error:
        raise KilnError(
            f"cannot be brought to opset {_OPSET}: {error}", hint="export it at that opset"
        ) from error


def build_qdq(
    model: onnx.ModelProto,
    ranges: Ranges,
    method: str,
    scheme: str = "symmetric",
    *,
    only: Iterable[str] | None = None,
    skip: Iterable[str] = (),
) -> onnx.ModelProto:
    """Return the network with QDQ pairs at the inputs of its quantisable nodes and int8 weights.

    Args:
        model: simplified ONNX, float32.
        ranges: of this model.
        method: "minmax", "percentile", "kl" or "mse".
        scheme: of activations: "symmetric" int8 or "asymmetric" uint8.
        only: names of the nodes to quantise; all quantisable ones where None.
        skip: names of nodes that stay in float.

    Raises:
        KilnError: an unknown node, method or scheme, or a tensor that the ranges do not have.
    """
    known(method, METHODS, "range method")
    graph = at_opset(model)
    nodes = {node_name(node): node for node in quantisable(graph)}
    chosen = {known(name, nodes, "quantisable node") for name in (nodes if only is None else only)}
    chosen -= {known(name, nodes, "quantisable node") for name in skip}
    by_node = {weight.node: weight for weight in weights(graph)}
    floats = {tensor.name for tensor in activations(graph)}
    stored: dict[str, onnx.TensorProto] = {}
    made: dict[str, list[onnx.NodeProto]] = {}

    def constant(name: str, value: NDArray[np.generic]) -> str:
        stored[name] = numpy_helper.from_array(value, name)
        return name

    def rounded(tensor: str) -> str:
        output = f"{tensor}_dequantised"
        if tensor not in made:
            scale, zero = scale_of(ranges, tensor, method, scheme)
            kind = np.int8 if scheme == "symmetric" else np.uint8
            settings = [constant(f"{tensor}_scale", np.asarray(scale, np.float32))]
            settings.append(constant(f"{tensor}_zero_point", np.asarray(zero, kind)))
            made[tensor] = _pair(tensor, settings, output)
        return output

    def dequantised(weight: Weight) -> str:
        output = f"{weight.name}_dequantised"
        if output not in made:
            values, scales = quantised_weight(weight)
            inputs = [
                constant(f"{weight.name}_int8", values),
                constant(f"{weight.name}_scale", scales),
                constant(f"{weight.name}_zero_point", np.zeros(len(scales), np.int8)),
            ]
            made[output] = [
                helper.make_node("DequantizeLinear", inputs, [output], name=output, axis=weight.axis)
            ]
        return output

    ordered: list[onnx.NodeProto] = []
    placed: set[str] = set()
    for node in graph.graph.node:
        name = node_name(node)
        if name in chosen:
            wanted: list[str] = []
            for place, tensor in enumerate(node.input):
                if tensor in floats and not (node.op_type in WEIGHTED and place > 1):
                    node.input[place] = rounded(tensor)
                    wanted.append(tensor)
            if name in by_node:
                node.input[1] = dequantised(by_node[name])
                wanted.append(node.input[1])
            for key in wanted:
                if key not in placed:
                    placed.add(key)
                    ordered += made[key]
        ordered.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(ordered)
    graph.graph.initializer.extend(stored.values())
    drop_unused_constants(graph)
    graph.doc_string = MARK
    onnx.checker.check_model(graph)
    return graph


def _pair(tensor: str, settings: list[str], output: str) -> list[onnx.NodeProto]:
    integer = f"{tensor}_quantised"
    return [
        helper.make_node("QuantizeLinear", [tensor, *settings], [integer], name=integer),
        helper.make_node("DequantizeLinear", [integer, *settings], [output], name=output),
    ]


def with_biases(model: onnx.ModelProto, biases: Mapping[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """Return the model with other biases.

    Args:
        model: a graph whose nodes are named.
        biases: node -> float32 [C].

    Raises:
        KilnError: an unknown node.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    nodes = {node_name(node): node for node in graph.graph.node}
    for name, bias in biases.items():
        node = nodes[known(name, nodes, "node")]
        stored = numpy_helper.from_array(np.ascontiguousarray(bias, np.float32), f"{name}_corrected_bias")
        graph.graph.initializer.append(stored)
        if len(node.input) > 2:
            node.input[2] = stored.name
        else:
            node.input.append(stored.name)
    drop_unused_constants(graph)
    return graph
