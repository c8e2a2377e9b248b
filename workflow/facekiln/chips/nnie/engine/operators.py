"""Caffe operations as ONNX nodes, with Caffe's own semantics.

Each function takes the graph, the step, its input values, the shapes of its blobs and a gain, and returns
the values of its tops times the gain. A power of two as gain scales weights and results exactly; the engine
uses 4096 to get results in units of signed 20.12 at no cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.fold import affine_of
from facekiln.caffe.geometry import CONVOLUTIONS, axis_of, geometry, refuse
from facekiln.chips.nnie.engine.fuse import WEIGHTED, Activation, Step
from facekiln.chips.nnie.engine.onnx import OnnxGraph

Shape = Sequence[int]


@dataclass(frozen=True)
class Call:
    """What an operator function needs to know."""

    graph: OnnxGraph
    step: Step
    inputs: Sequence[str]
    shapes: Mapping[str, Shape]
    gain: float = 1.0

    @property
    def bottom(self) -> Shape:
        """Shape of the first input."""
        return self.shapes[self.step.bottoms[0]]

    @property
    def top(self) -> Shape:
        """Shape of the first output."""
        return self.shapes[self.step.tops[0]]

    def scaled_blobs(self) -> list[str]:
        """The weights times the gain, as constants."""
        return [self.graph.constant(blob * np.float32(self.gain)) for blob in self.step.blobs]


def _windowed(call: Call, operator: str) -> list[str]:
    g = geometry(call.step.layer)
    value = call.graph.node(
        operator,
        *call.inputs,
        *call.scaled_blobs(),
        group=int(call.step.params.get("group", 1)),
        kernel_shape=g.kernel,
        strides=g.stride,
        pads=[*g.pad, *g.pad],
        dilations=g.dilation,
    )
    return [value]


def _convolution(call: Call) -> list[str]:
    return _windowed(call, "Conv")


def _deconvolution(call: Call) -> list[str]:
    return _windowed(call, "ConvTranspose")


def _inner_product(call: Call) -> list[str]:
    axis = axis_of(call.step.layer, len(call.bottom))
    rows = int(np.prod(call.bottom[:axis]))
    flat = call.graph.node("Reshape", call.inputs[0], call.graph.ints([rows, -1]))
    transposed = int(bool(call.step.params.get("transpose")))
    value = call.graph.node("Gemm", flat, *call.scaled_blobs(), transB=1 - transposed)
    return [value if len(call.top) == 2 else call.graph.node("Reshape", value, call.graph.ints(call.top))]


def _window_sizes(size: int, kernel: int, stride: int, pad: int, cells: int) -> NDArray[np.int64]:
    """Return how many cells of each average window Caffe counts: padding yes, beyond it no."""
    start = np.arange(cells) * stride
    return np.minimum(start + kernel, size + 2 * pad) - start


def _pooling(call: Call) -> list[str]:
    graph, step = call.graph, call.step
    g = geometry(step.layer, list(call.bottom))
    sizes, cells = call.bottom[2:], call.top[2:]
    ends = [
        max(0, (n - 1) * s + k - size - p)
        for n, s, k, size, p in zip(cells, g.stride, g.kernel, sizes, g.pad, strict=True)
    ]
    if any(end >= k for end, k in zip(ends, g.kernel, strict=True)):
        raise refuse(step.layer, "its last window lies wholly outside the input", value=g.kernel)
    window = {"kernel_shape": g.kernel, "strides": g.stride, "pads": [*g.pad, *ends]}
    method = step.params.get("pool", "MAX")
    if method == "MAX":
        return [_times(graph, graph.node("MaxPool", call.inputs[0], **window), call.gain)]
    if method != "AVE":
        raise refuse(step.layer, "pooling method is not known to the NNIE engine", value=method)
    value = graph.node("AveragePool", call.inputs[0], **window, count_include_pad=1)
    counted = np.multiply.outer(
        *[_window_sizes(*axis) for axis in zip(sizes, g.kernel, g.stride, g.pad, cells, strict=True)]
    )
    area = g.kernel[0] * g.kernel[1]
    if (counted == area).all():
        return [_times(graph, value, call.gain)]
    return [graph.node("Mul", value, graph.constant((area * call.gain / counted)[None, None]))]


def _times(graph: OnnxGraph, value: str, factor: float) -> str:
    return value if factor == 1 else graph.node("Mul", value, graph.scalar(factor))


def _eltwise(call: Call) -> list[str]:
    graph, operation = call.graph, call.step.params.get("operation", "SUM")
    if operation == "SUM":
        weights = [float(c) for c in call.step.params.get("coeff", [])] or [1.0] * len(call.inputs)
        # Additions in Caffe's order, so that the result does not depend on a reassociation.
        terms = [_times(graph, value, weight) for value, weight in zip(call.inputs, weights, strict=True)]
        op = "Add"
    else:
        terms, op = list(call.inputs), {"PROD": "Mul", "MAX": "Max"}[operation]
    value = terms[0]
    for term in terms[1:]:
        value = graph.node(op, value, term)
    return [_times(graph, value, call.gain)]


def _affine(call: Call) -> list[str]:
    """BatchNorm and Scale that could not be folded, per channel."""
    graph, step = call.graph, call.step
    rank = len(call.bottom)
    if len(call.inputs) == 2:
        axis = axis_of(step.layer, rank)
        factor = call.shapes[step.bottoms[1]]
        shape = [*[1] * axis, *factor, *[1] * (rank - axis - len(factor))]
        value = graph.node("Mul", call.inputs[0], graph.node("Reshape", call.inputs[1], graph.ints(shape)))
        value = _times(graph, value, call.gain)
        if not step.blobs:
            return [value]
        return [
            graph.node("Add", value, graph.constant((step.blobs[0] * np.float32(call.gain)).reshape(shape)))
        ]
    axis = axis_of(step.layer, rank) if step.type == "Scale" else 1
    own = step.blobs[0].shape if step.type == "Scale" else (call.bottom[1],)
    shape = [*[1] * axis, *own, *[1] * (rank - axis - len(own))]
    scale, shift = (np.reshape(part * call.gain, shape) for part in affine_of(step.layer))
    return [
        graph.node("Add", graph.node("Mul", call.inputs[0], graph.constant(scale)), graph.constant(shift))
    ]


def _power(call: Call) -> list[str]:
    graph, params = call.graph, call.step.params
    value = _times(graph, call.inputs[0], float(params.get("scale", 1)))
    if shift := float(params.get("shift", 0)):
        value = graph.node("Add", value, graph.scalar(shift))
    if (power := float(params.get("power", 1))) != 1:
        value = graph.node("Pow", value, graph.scalar(power))
    return [_times(graph, value, call.gain)]


def _softmax(call: Call) -> list[str]:
    axis = axis_of(call.step.layer, len(call.bottom))
    return [_times(call.graph, call.graph.node("Softmax", call.inputs[0], axis=axis), call.gain)]


def _concat(call: Call) -> list[str]:
    axis = axis_of(call.step.layer, len(call.bottom), int(call.step.params.get("concat_dim", 1)))
    return [_times(call.graph, call.graph.node("Concat", *call.inputs, axis=axis), call.gain)]


def _slice(call: Call) -> list[str]:
    graph, step = call.graph, call.step
    axis = axis_of(step.layer, len(call.bottom), int(step.params.get("slice_dim", 1)))
    sizes = [call.shapes[top][axis] for top in step.tops]
    parts = graph.nodes("Split", [call.inputs[0], graph.ints(sizes)], len(sizes), axis=axis)
    return [_times(graph, part, call.gain) for part in parts]


def _reshape(call: Call) -> list[str]:
    value = call.graph.node("Reshape", call.inputs[0], call.graph.ints(call.top))
    return [_times(call.graph, value, call.gain)]


def _permute(call: Call) -> list[str]:
    order = [int(axis) for axis in call.step.params.get("order", [])]
    order += [axis for axis in range(len(call.bottom)) if axis not in order]
    return [_times(call.graph, call.graph.node("Transpose", call.inputs[0], perm=order), call.gain)]


def _upsample(call: Call) -> list[str]:
    graph = call.graph
    factors = [top / bottom for top, bottom in zip(call.top, call.bottom, strict=True)]
    value = graph.node(
        "Resize",
        call.inputs[0],
        "",
        graph.constant(factors),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return [_times(graph, value, call.gain)]


def activate(graph: OnnxGraph, what: Activation | Step, value: str, shape: Shape) -> str:
    """Apply an activation to a value of that shape."""
    if what.type == "ReLU":
        slope = float(what.params.get("negative_slope", 0))
        return graph.node("LeakyRelu", value, alpha=slope) if slope else graph.node("Relu", value)
    if what.type == "PReLU":
        slopes = what.blobs[0].reshape(-1, *[1] * (len(shape) - 2)) if what.blobs[0].ndim else what.blobs[0]
        return graph.node("PRelu", value, graph.constant(slopes))
    if what.type == "ELU":
        return graph.node("Elu", value, alpha=float(what.params.get("alpha", 1)))
    return graph.node({"Sigmoid": "Sigmoid", "TanH": "Tanh"}[what.type], value)


def _stand_alone(call: Call) -> list[str]:
    value = activate(call.graph, call.step, call.inputs[0], call.bottom)
    return [_times(call.graph, value, call.gain)]


_OPERATORS: dict[str, Callable[[Call], list[str]]] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(("ReLU", "PReLU", "Sigmoid", "TanH", "ELU"), _stand_alone),
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
    **dict.fromkeys(("BatchNorm", "Scale"), _affine),
    "Deconvolution": _deconvolution,
    "InnerProduct": _inner_product,
    "Pooling": _pooling,
    "Eltwise": _eltwise,
    "Power": _power,
    "Softmax": _softmax,
    "Concat": _concat,
    "Slice": _slice,
    "Permute": _permute,
    "Upsample": _upsample,
}


def check_supported(steps: Sequence[Step]) -> None:
    """Refuse steps that the engine cannot run.

    Raises:
        KilnError: names the layer, its type, and the types that are known.
    """
    for step in steps:
        if step.type not in _OPERATORS:
            raise refuse(
                step.layer,
                "is of a type that the NNIE engine does not run",
                limit=", ".join(sorted(_OPERATORS)),
                hint="cut the network before this layer, or express it with these",
            )
        if step.type in WEIGHTED and (len(step.bottoms) > 1 or len(step.tops) > 1):
            raise refuse(
                step.layer, "shares its weights among several inputs", limit="one input and one output"
            )


def emit(
    graph: OnnxGraph, step: Step, inputs: Sequence[str], shapes: Mapping[str, Shape], gain: float = 1.0
) -> list[str]:
    """Add a step and its activation to the graph.

    Args:
        graph: the graph.
        step: what to compute; its blobs are used as they are.
        inputs: values of the bottoms.
        shapes: of every blob.
        gain: a power of two that every result is multiplied by.

    Returns:
        The values of the tops.
    """
    activation = step.activation
    operator = _OPERATORS[step.type]
    if activation is None:
        return operator(Call(graph, step, inputs, shapes, gain))
    # ReLU and PReLU commute with a positive factor, the others do not.
    inner = gain if activation.type in ("ReLU", "PReLU") else 1.0
    (value,) = operator(Call(graph, step, inputs, shapes, inner))
    value = activate(graph, activation, value, shapes[step.tops[0]])
    return [value if inner == gain else _times(graph, value, gain)]
