"""One converter per ONNX operator: an ONNX node to calls of Tengine operators."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from facekiln.chips.tengine.call import Call, one, refuse, store
from facekiln.chips.tengine.convert_windows import (
    convolution,
    deconvolution,
    fully_connected,
    global_pooling,
    interp,
    pooling,
    reduce_mean,
)
from facekiln.chips.tengine.legalise import clip_limits
from facekiln.chips.tengine.ops import ELTWISE
from facekiln.graph.onnx_graph import Node, OnnxGraph, ints, positive_axis

_TWO = {"Add": "sum", "Sub": "sub", "Mul": "prod", "Div": "div", "Max": "max"}
_ONE = {"Exp": "exp", "Sqrt": "sqrt", "Floor": "floor", "Log": "log"}
_FAR = 3.0e38


def _plain(op: str) -> Callable[[OnnxGraph, Node], list[Call]]:
    return lambda _graph, node: one(node, op)


def _relu(_graph: OnnxGraph, node: Node) -> list[Call]:
    slope = float(node.attrs.get("alpha", 0.01)) if node.op == "LeakyRelu" else 0.0
    return one(node, "ReLU", negative_slope=slope)


def _prelu(graph: OnnxGraph, node: Node) -> list[Call]:
    shape, slopes = graph.shapes[node.inputs[0]], graph.constants.get(node.inputs[1])
    if slopes is None or len(shape) != 4 or slopes.size not in (1, shape[1]):
        what = "its slopes are not one constant per channel of a map"
        raise refuse(node, what, list(shape), "[N, C, H, W]")
    if slopes.size == shape[1] and slopes.shape[-2:] not in ((1, 1), (1,)) and slopes.ndim > 1:
        raise refuse(node, "its slopes do not lie along the channels", list(slopes.shape))
    name = store(graph, f"{node.inputs[1]}::slopes", slopes.reshape(-1))
    return one(node, "PReLU", [node.inputs[0], name])


def _clip(graph: OnnxGraph, node: Node) -> list[Call]:
    low, high = clip_limits(graph, node)
    return one(node, "Clip", max=min(high, _FAR), min=max(low, -_FAR))


def _hard(_graph: OnnxGraph, node: Node) -> list[Call]:
    if node.op == "HardSigmoid":
        alpha, beta = float(node.attrs.get("alpha", 0.2)), float(node.attrs.get("beta", 0.5))
        return one(node, "HardSigmoid", alpha=alpha, beta=beta)
    return one(node, "HardSwish", alpha=1 / 6, beta=0.5)


def _eltwise(graph: OnnxGraph, node: Node) -> list[Call]:
    common: dict[str, float] = {"caffe_flavor": 0, "shift": 0.0, "power": 1.0, "scale": 1.0}
    if node.op in _ONE:
        return one(node, "Eltwise", type=ELTWISE[_ONE[node.op]], **common)
    if len(node.inputs) != 2:
        raise refuse(node, "has not two operands", len(node.inputs))
    first, second = (graph.shapes[name] for name in node.inputs)
    names = list(node.inputs)
    if len(first) < 3:
        raise refuse(
            node, "its larger operand has less than three axes", list(first), "Tengine's Eltwise: 3 or 4"
        )
    if int(np.prod(second)) == 1:
        names[1] = _as_vector(graph, names[1], node)
    elif first != second:
        aligned = (1,) * (len(first) - len(second)) + second
        per_channel = len(first) == 4 and aligned == (1, first[1], 1, 1)
        if not per_channel:
            raise refuse(
                node,
                "its operands are of shapes that Tengine's Eltwise cannot join",
                [list(first), list(second)],
                "equal shapes, one value, or one value per channel",
            )
        names[1] = _as_vector(graph, names[1], node)
    return one(node, "Eltwise", names, type=ELTWISE[_TWO[node.op]], **common)


def _as_vector(graph: OnnxGraph, name: str, node: Node) -> str:
    """Constants of one value, or one per channel, as [n]: kernels fail on no dims, and count values."""
    if name in graph.constants:
        return store(graph, f"{name}::vector", graph.constants[name].reshape(-1))
    if len(graph.shapes[name]) < 1:
        raise refuse(node, "a computed operand is a scalar", name)
    return name


def _concat(graph: OnnxGraph, node: Node) -> list[Call]:
    axis = positive_axis(node, int(node.attrs["axis"]), len(graph.shapes[node.outputs[0]]))
    return one(node, "Concat", list(node.inputs), axis=axis)


def _softmax(_graph: OnnxGraph, node: Node) -> list[Call]:
    return one(node, "Softmax", axis=int(node.attrs["axis"]))


def _transpose(graph: OnnxGraph, node: Node) -> list[Call]:
    rank = len(graph.shapes[node.inputs[0]])
    order = ints(node.attrs.get("perm", range(rank)[::-1]))
    return one(node, "Transpose", permutation=tuple(order))


def _reshape(graph: OnnxGraph, node: Node) -> list[Call]:
    """Reshape, Flatten, Squeeze, Unsqueeze; -1 stays where the graph has it, so that other sizes run, too."""
    result = graph.shapes[node.outputs[0]]
    dims = list(result)
    asked = node.attrs.get("dims") if node.op == "Reshape" else None
    if asked is None and node.op == "Reshape":
        asked = graph.operand(node, "shape", 1)
    if asked is not None:
        dims = [own if want == 0 else want for want, own in zip(ints(asked), result, strict=True)]
    elif node.op == "Flatten":
        dims = [result[0], -1]
    if not 1 <= len(dims) <= 8 or any(dim < -1 or dim == 0 for dim in dims):
        raise refuse(node, "reshapes to dims that tmfile gives another meaning", dims)
    return one(node, "Reshape", is_mxnet=0, reverse=0, shape=tuple(dims), is_onnx=1)


def _slice(graph: OnnxGraph, node: Node) -> list[Call]:
    """Slice, one call per axis."""
    rank = len(graph.shapes[node.inputs[0]])
    values = [
        graph.operand(node, name, place) for place, name in enumerate(("starts", "ends", "axes", "steps"), 1)
    ]
    starts, ends = ints(values[0]), ints(values[1])
    axes = [axis % rank for axis in ints(values[2])] if values[2] is not None else list(range(len(starts)))
    if values[3] is not None and any(step != 1 for step in ints(values[3])):
        raise refuse(node, "takes every n-th value", ints(values[3]), "step 1")
    calls: list[Call] = []
    source, shape = node.inputs[0], list(graph.shapes[node.inputs[0]])
    for number, (axis, start, end) in enumerate(zip(axes, starts, ends, strict=True)):
        size = shape[axis]
        begin, stop = (min(max(at + size if at < 0 else at, 0), size) for at in (start, end))
        shape[axis] = stop - begin
        last = number == len(axes) - 1
        result = node.outputs[0] if last else graph.unused(f"{node.outputs[0]}::axis{axis}")
        graph.shapes[result] = tuple(shape)
        params = {"axis": axis, "slice_points": 0, "begins": 0, "sizes": 0, "iscaffe": 0, "ismxnet": 0}
        params |= {"isonnx": 1, "begin": begin, "end": stop, "step": 1}
        calls.append(
            Call("Slice", f"{node.name}::{axis}" if not last else node.name, [source], [result], params)
        )
        source = result
    return calls


def _batch_norm(graph: OnnxGraph, node: Node) -> list[Call]:
    """A BatchNormalization that no convolution could take up."""
    if any(name not in graph.constants for name in node.inputs[1:]) or len(node.outputs) != 1:
        raise refuse(node, "its statistics are computed by the graph")
    eps = float(node.attrs.get("epsilon", 1e-5))
    return one(node, "BatchNormalization", list(node.inputs), rescale_factor=1.0, eps=eps, caffe_flavor=0)


CONVERTERS: dict[str, Callable[[OnnxGraph, Node], list[Call]]] = {
    "Conv": convolution,
    "ConvTranspose": deconvolution,
    "Gemm": fully_connected,
    "MaxPool": pooling,
    "AveragePool": pooling,
    "GlobalAveragePool": global_pooling,
    "GlobalMaxPool": global_pooling,
    "ReduceMean": reduce_mean,
    "Resize": interp,
    "Upsample": interp,
    "Relu": _relu,
    "LeakyRelu": _relu,
    "PRelu": _prelu,
    "Clip": _clip,
    "Sigmoid": _plain("Sigmoid"),
    "Tanh": _plain("Tanh"),
    "HardSigmoid": _hard,
    "HardSwish": _hard,
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Softmax": _softmax,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Slice": _slice,
    **dict.fromkeys((*_TWO, *_ONE), _eltwise),
}
