"""What each Tengine operator computes, as ONNX nodes; shapes by the rules of Tengine's own inference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facekiln.chips.tengine.canvas import Canvas, Result, Shape
from facekiln.chips.tengine.format import Node
from facekiln.chips.tengine.ops import ELTWISE, OP_IDS
from facekiln.chips.tengine.rebuild_windows import (
    convolution,
    deconvolution,
    fully_connected,
    interp,
    pooling,
)


def _same(op: str, **attributes: Any) -> Callable[[Canvas, Node], Result]:
    def rebuild(canvas: Canvas, node: Node) -> Result:
        source = node.inputs[0]
        return [(canvas.call(op, [canvas.name(source)], **attributes), canvas.shape(source))]

    return rebuild


def _relu(canvas: Canvas, node: Node) -> Result:
    slope, source = node.params["negative_slope"], node.inputs[0]
    name = canvas.name(source)
    made = canvas.call("LeakyRelu", [name], alpha=slope) if slope else canvas.call("Relu", [name])
    return [(made, canvas.shape(source))]


def _relu6(canvas: Canvas, node: Node) -> Result:
    return [(canvas.clipped(canvas.name(node.inputs[0]), 0.0, 6.0), canvas.shape(node.inputs[0]))]


def _clip(canvas: Canvas, node: Node) -> Result:
    p, source = node.params, node.inputs[0]
    return [(canvas.clipped(canvas.name(source), p["min"], p["max"]), canvas.shape(source))]


def _prelu(canvas: Canvas, node: Node) -> Result:
    shape = canvas.shape(node.inputs[0])
    slopes = canvas.values(node.inputs[1]).reshape(-1, *[1] * (len(shape) - 2))
    made = canvas.call("PRelu", [canvas.name(node.inputs[0]), canvas.constant(slopes)])
    return [(made, shape)]


def _hard(canvas: Canvas, node: Node) -> Result:
    name, shape = canvas.name(node.inputs[0]), canvas.shape(node.inputs[0])
    alpha, beta = node.params["alpha"], node.params["beta"]
    gate = canvas.call("HardSigmoid", [name], alpha=alpha, beta=beta)
    return [(canvas.call("Mul", [name, gate]) if node.op == OP_IDS["HardSwish"] else gate, shape)]


def _concat(canvas: Canvas, node: Node) -> Result:
    shapes = [canvas.shape(tensor) for tensor in node.inputs]
    axis = node.params["axis"] % len(shapes[0])
    result = list(shapes[0])
    result[axis] = sum(shape[axis] for shape in shapes)
    made = canvas.call("Concat", [canvas.name(tensor) for tensor in node.inputs], axis=axis)
    return [(made, tuple(result))]


_TWO = {"prod": "Mul", "sum": "Add", "sub": "Sub", "max": "Max", "div": "Div"}
_ONE = {"exp": "Exp", "sqrt": "Sqrt", "floor": "Floor", "log": "Log"}


def _eltwise(canvas: Canvas, node: Node) -> Result:
    kind = next((name for name, number in ELTWISE.items() if number == node.params["type"]), "?")
    first = canvas.shape(node.inputs[0])
    if kind in _ONE:
        return [(canvas.call(_ONE[kind], [canvas.name(node.inputs[0])]), first)]
    if kind not in _TWO or len(node.inputs) != 2:
        raise ValueError(f"an Eltwise of kind {kind} with {len(node.inputs)} operands is not simulated")
    second = canvas.shape(node.inputs[1])
    sizes = [int(np.prod(shape)) for shape in (first, second)]
    if sizes[1] > sizes[0] or len(first) < 3:
        raise ValueError(f"operands {list(first)} and {list(second)}: Tengine loses their order, or refuses")
    other = canvas.name(node.inputs[1])
    if sizes[1] not in (1, sizes[0]):
        if len(first) != 4 or sizes[1] != first[1]:
            raise ValueError(f"operands {list(first)} and {list(second)} do not go together")
        other = canvas.reshaped(other, (1, first[1], 1, 1))
    elif second != first:
        other = canvas.reshaped(other, first if sizes[1] == sizes[0] else (1,))
    return [(canvas.call(_TWO[kind], [canvas.name(node.inputs[0]), other]), first)]


def _softmax(canvas: Canvas, node: Node) -> Result:
    shape = canvas.shape(node.inputs[0])
    axis = node.params["axis"] % len(shape)
    return [(canvas.call("Softmax", [canvas.name(node.inputs[0])], axis=axis), shape)]


def _transpose(canvas: Canvas, node: Node) -> Result:
    order, shape = list(node.params["permutation"]), canvas.shape(node.inputs[0])
    made = canvas.call("Transpose", [canvas.name(node.inputs[0])], perm=order)
    return [(made, tuple(shape[axis] for axis in order))]


def _permute(canvas: Canvas, node: Node) -> Result:
    order = [node.params[f"order{axis}"] for axis in range(4)]
    shape = canvas.shape(node.inputs[0])
    if order != [0, 2, 3, 1] or len(shape) != 4:
        raise ValueError(f"order {order}")
    made = canvas.call("Transpose", [canvas.name(node.inputs[0])], perm=order)
    return [(made, tuple(shape[axis] for axis in order))]


def _inferred(shape: Shape, wanted: Sequence[int]) -> Shape:
    """Return a shape with its -1 resolved."""
    known = int(np.prod([dim for dim in wanted if dim != -1]))
    total = int(np.prod(shape))
    if known <= 0 or total % known or list(wanted).count(-1) > 1:
        raise ValueError(f"{list(shape)} to {list(wanted)}")
    result = tuple(total // known if dim == -1 else dim for dim in wanted)
    if int(np.prod(result)) != total:
        raise ValueError(f"{list(shape)} to {list(wanted)}")
    return result


def _reshape(canvas: Canvas, node: Node) -> Result:
    p, shape = node.params, canvas.shape(node.inputs[0])
    wanted = list(p["shape"])
    if (
        node.legacy
        or p["reverse"]
        or min(wanted) < -1
        or (0 in wanted and not (p["is_onnx"] or p["is_mxnet"]))
    ):
        raise ValueError(f"dims {wanted} in a form that is not simulated")
    result = _inferred(shape, [shape[i] if dim == 0 else dim for i, dim in enumerate(wanted)])
    return [(canvas.reshaped(canvas.name(node.inputs[0]), result), result)]


def _flatten(canvas: Canvas, node: Node) -> Result:
    shape = canvas.shape(node.inputs[0])
    result = (int(np.prod(shape[: node.params["axis"]])), int(np.prod(shape[node.params["axis"] :])))
    return [(canvas.reshaped(canvas.name(node.inputs[0]), result), result)]


def _slice(canvas: Canvas, node: Node) -> Result:
    p, shape = node.params, list(canvas.shape(node.inputs[0]))
    if (
        not p["isonnx"]
        or len(node.outputs) != 1
        or p["step"] != 1
        or not 0 <= p["begin"] < p["end"] <= shape[p["axis"]]
    ):
        raise ValueError("a Slice of this form is not simulated")
    limits = [canvas.constant(np.array([p[name]], np.int64)) for name in ("begin", "end", "axis")]
    shape[p["axis"]] = p["end"] - p["begin"]
    return [(canvas.call("Slice", [canvas.name(node.inputs[0]), *limits]), tuple(shape))]


def _batch_norm(canvas: Canvas, node: Node) -> Result:
    p = node.params
    if p["caffe_flavor"] or len(node.inputs) != 5 or p["rescale_factor"] not in (0.0, 1.0):
        raise ValueError("a BatchNormalization of Caffe's form is not simulated")
    names = [canvas.name(tensor) for tensor in node.inputs]
    return [(canvas.call("BatchNormalization", names, epsilon=p["eps"]), canvas.shape(node.inputs[0]))]


REBUILDERS: dict[str, Callable[[Canvas, Node], Result]] = {
    "Convolution": convolution,
    "Deconvolution": deconvolution,
    "FullyConnected": fully_connected,
    "Pooling": pooling,
    "ReLU": _relu,
    "ReLU6": _relu6,
    "PReLU": _prelu,
    "Clip": _clip,
    "Sigmoid": _same("Sigmoid"),
    "Logistic": _same("Sigmoid"),
    "Tanh": _same("Tanh"),
    "HardSigmoid": _hard,
    "HardSwish": _hard,
    "Concat": _concat,
    "Eltwise": _eltwise,
    "Softmax": _softmax,
    "Transpose": _transpose,
    "Permute": _permute,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Interp": interp,
    "Slice": _slice,
    "BatchNormalization": _batch_norm,
    "Dropout": _same("Identity"),
    "Noop": _same("Identity"),
}
