"""What each Tengine operator computes, as ONNX nodes; shapes by the rules of Tengine's own inference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from facekiln.chips.tengine.format import CONST, Node, TmGraph
from facekiln.chips.tengine.ops import (
    BILINEAR,
    BILINEAR_CORNERS,
    CEIL,
    COUNT_PAD,
    ELTWISE,
    NEAREST,
    RELU,
    RELU6,
)
from facekiln.errors import KilnError

Shape = tuple[int, ...]
Result = list[tuple[str, Shape]]


class Canvas:
    """An ONNX graph in the making, beside the tmfile that it is of."""

    def __init__(self, graph: TmGraph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self._names: dict[int, str] = {}
        self._shapes: dict[int, Shape] = {}

    def call(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node of one output, whose name begins as no name of a file does."""
        output = f"::{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def constant(self, values: NDArray[Any] | np.generic) -> str:
        """Store a constant."""
        name = f"::constant{len(self.constants)}"
        self.constants[name] = np.asarray(values)
        return name

    def set(self, tensor: int, name: str, shape: Shape) -> None:
        """Say which ONNX tensor holds a tensor of the file."""
        self._names[tensor], self._shapes[tensor] = name, shape

    def has(self, tensor: int) -> bool:
        """Whether a tensor was made already."""
        return tensor in self._names

    def name(self, tensor: int) -> str:
        """Return the ONNX name of a tensor; constants are stored when first asked for."""
        if tensor not in self._names:
            self.set(tensor, self.constant(self.values(tensor)), self.shape(tensor))
        return self._names[tensor]

    def shape(self, tensor: int) -> Shape:
        """Return a tensor's shape."""
        if tensor in self._shapes:
            return self._shapes[tensor]
        return tuple(self.graph.tensors[tensor].dims or ())

    def values(self, tensor: int) -> NDArray[np.float32]:
        """Return a constant's real values."""
        found = self.graph.tensors[tensor]
        if found.kind != CONST or found.data is None:
            raise KilnError(
                "its constant is computed or has no bytes in the file",
                where=f"tensor '{found.name}'",
                hint="benchmark files hold no weights: they can be inspected, not run",
            )
        return found.values


def _activated(canvas: Canvas, name: str, activation: int) -> str:
    if activation == RELU:
        return canvas.call("Relu", [name])
    if activation == RELU6:
        return _clipped(canvas, name, 0.0, 6.0)
    if activation < 0:
        return name
    raise ValueError(f"activation {activation} means different things in different kernels")


def _clipped(canvas: Canvas, name: str, low: float, high: float) -> str:
    limits = [canvas.constant(np.float32(low)), canvas.constant(np.float32(high))]
    return canvas.call("Clip", [name, *limits])


def _convolution(canvas: Canvas, node: Node) -> Result:
    p = node.params
    batch, channels, *sides = canvas.shape(node.inputs[0])
    weights = canvas.shape(node.inputs[1])
    kernel, strides = [p["kernel_h"], p["kernel_w"]], [p["stride_h"], p["stride_w"]]
    dilations = [max(p["dilation_h"], 1), max(p["dilation_w"], 1)]
    pads = [p["pad_h0"], p["pad_w0"], p["pad_h1"], p["pad_w1"]]
    if min(pads) < 0:
        raise ValueError("SAME padding is not simulated")
    if channels != weights[1] * p["group"]:
        raise ValueError(f"{channels} channels, its weights are {list(weights)} in {p['group']} groups")
    out = [
        (size - step * (width - 1) - 1 + low + high) // stride + 1
        for size, width, step, stride, low, high in zip(
            sides, kernel, dilations, strides, pads[:2], pads[2:], strict=True
        )
    ]
    names = [canvas.name(tensor) for tensor in node.inputs]
    made = canvas.call(
        "Conv", names, kernel_shape=kernel, strides=strides, dilations=dilations, pads=pads, group=p["group"]
    )
    return [(_activated(canvas, made, p["activation"]), (batch, weights[0], *out))]


def _deconvolution(canvas: Canvas, node: Node) -> Result:
    p = node.params
    batch, _, *sides = canvas.shape(node.inputs[0])
    kernel, strides = [p["kernel_h"], p["kernel_w"]], [p["stride_h"], p["stride_w"]]
    dilations = [max(p["dilation_h"], 1), max(p["dilation_w"], 1)]
    pads = [p["pad_h0"], p["pad_w0"], p["pad_h1"], p["pad_w1"]]
    beyond = [p["output_pad_h"], p["output_pad_w"]]
    out = [
        stride * (size - 1) + more + (width - 1) * step + 1 - low - high
        for size, width, step, stride, low, high, more in zip(
            sides, kernel, dilations, strides, pads[:2], pads[2:], beyond, strict=True
        )
    ]
    names = [canvas.name(tensor) for tensor in node.inputs]
    made = canvas.call(
        "ConvTranspose",
        names,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        group=p["group"],
        output_padding=beyond,
    )
    return [(_activated(canvas, made, p["activation"]), (batch, p["num_output"], *out))]


def _fully_connected(canvas: Canvas, node: Node) -> Result:
    shape, weights = canvas.shape(node.inputs[0]), canvas.shape(node.inputs[1])
    flat = canvas.call("Flatten", [canvas.name(node.inputs[0])], axis=1)
    if int(np.prod(shape[1:])) != weights[1]:
        raise ValueError(f"{list(shape)} into weights {list(weights)}")
    made = canvas.call("Gemm", [flat, *(canvas.name(tensor) for tensor in node.inputs[1:])], transB=1)
    result = (shape[0], weights[0], *[1] * (len(shape) - 2))
    return [(_reshaped(canvas, made, result), result)]


def _reshaped(canvas: Canvas, name: str, shape: Sequence[int]) -> str:
    return canvas.call("Reshape", [name, canvas.constant(np.array(shape, np.int64))])


def _pooling(canvas: Canvas, node: Node) -> Result:
    p = node.params
    name, shape = canvas.name(node.inputs[0]), canvas.shape(node.inputs[0])
    sides, kernel = list(shape[2:]), [p["kernel_h"], p["kernel_w"]]
    pads = [p["pad_h0"], p["pad_w0"]]
    average = p["method"] == 1
    # Tengine takes a kernel that is the whole map as a global one.
    if p["global"] or (kernel == sides and not any(pads)):
        kind = "GlobalAveragePool" if average else "GlobalMaxPool"
        return [(canvas.call(kind, [name]), (*shape[:2], 1, 1))]
    if p["caffe_flavor"] not in (0, CEIL, COUNT_PAD) or pads != [p["pad_h1"], p["pad_w1"]]:
        raise ValueError(f"caffe_flavor {p['caffe_flavor']} or its pads are not simulated")
    strides, ceil = [p["stride_h"], p["stride_w"]], p["caffe_flavor"] == CEIL
    out, exact = [], True
    for size, width, step, pad in zip(sides, kernel, strides, pads, strict=True):
        span = size + 2 * pad - width
        exact = exact and span % step == 0
        count = (-(-span // step) if ceil else span // step) + 1
        # A last window that would start beyond the map is dropped.
        out.append(count - 1 if ceil and pad and (count - 1) * step >= size + pad else count)
    if average and ceil and not exact:
        raise ValueError("an average with a partial last window is not simulated")
    more = {"count_include_pad": int(p["caffe_flavor"] != 0)} if average else {}
    made = canvas.call(
        "AveragePool" if average else "MaxPool",
        [name],
        kernel_shape=kernel,
        strides=strides,
        pads=[*pads, *pads],
        ceil_mode=int(ceil),
        **more,
    )
    return [(made, (*shape[:2], *out))]


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
    return [(_clipped(canvas, canvas.name(node.inputs[0]), 0.0, 6.0), canvas.shape(node.inputs[0]))]


def _clip(canvas: Canvas, node: Node) -> Result:
    p, source = node.params, node.inputs[0]
    return [(_clipped(canvas, canvas.name(source), p["min"], p["max"]), canvas.shape(source))]


def _prelu(canvas: Canvas, node: Node) -> Result:
    shape = canvas.shape(node.inputs[0])
    slopes = canvas.values(node.inputs[1]).reshape(-1, *[1] * (len(shape) - 2))
    made = canvas.call("PRelu", [canvas.name(node.inputs[0]), canvas.constant(slopes)])
    return [(made, shape)]


def _hard(canvas: Canvas, node: Node) -> Result:
    name, shape = canvas.name(node.inputs[0]), canvas.shape(node.inputs[0])
    alpha, beta = node.params["alpha"], node.params["beta"]
    gate = canvas.call("HardSigmoid", [name], alpha=alpha, beta=beta)
    return [(canvas.call("Mul", [name, gate]) if node.op == _HARD_SWISH else gate, shape)]


_HARD_SWISH = 70


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
        other = _reshaped(canvas, other, (1, first[1], 1, 1))
    elif second != first:
        other = _reshaped(canvas, other, first if sizes[1] == sizes[0] else (1,))
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
    return [(_reshaped(canvas, canvas.name(node.inputs[0]), result), result)]


def _flatten(canvas: Canvas, node: Node) -> Result:
    shape = canvas.shape(node.inputs[0])
    result = (int(np.prod(shape[: node.params["axis"]])), int(np.prod(shape[node.params["axis"] :])))
    return [(_reshaped(canvas, canvas.name(node.inputs[0]), result), result)]


def _interp(canvas: Canvas, node: Node) -> Result:
    p, shape = node.params, canvas.shape(node.inputs[0])
    if p["height_scale"] and p["width_scale"]:
        out = (int(shape[2] * p["height_scale"]), int(shape[3] * p["width_scale"]))
    else:
        out = (p["output_height"], p["output_width"])
    modes = {
        NEAREST: {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        BILINEAR: {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
        BILINEAR_CORNERS: {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    }
    sizes = canvas.constant(np.array([*shape[:2], *out], np.int64))
    return [
        (
            canvas.call("Resize", [canvas.name(node.inputs[0]), "", "", sizes], **modes[p["type"]]),
            (*shape[:2], *out),
        )
    ]


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
    "Convolution": _convolution,
    "Deconvolution": _deconvolution,
    "FullyConnected": _fully_connected,
    "Pooling": _pooling,
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
    "Interp": _interp,
    "Slice": _slice,
    "BatchNormalization": _batch_norm,
    "Dropout": _same("Identity"),
    "Noop": _same("Identity"),
}
