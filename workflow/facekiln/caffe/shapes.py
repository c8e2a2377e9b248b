"""Blob shapes, with Caffe's own rules (pooling rounds up, a Reshape's 0 copies, ...).

Each rule follows the layer's `Reshape` in BVLC caffe (BSD-2-Clause); OpenCV's reader agrees with them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from facekiln.caffe.dataflow import producers
from facekiln.caffe.geometry import CONVOLUTIONS, axis_of, geometry, pool_cells, refuse, rounds_down
from facekiln.caffe.net import Layer, Net

Shape = list[int]


def map_shape(layer: Layer, bottom: Shape) -> Shape:
    if len(bottom) != 4:
        raise refuse(layer, "needs a [N, C, H, W] input", value=bottom)
    return bottom


def _positive(layer: Layer, shape: Shape) -> Shape:
    if min(shape, default=1) < 1:
        raise refuse(layer, "its output would be empty", value=shape)
    return shape


def grouped(layer: Layer, channels: int) -> tuple[int, int]:
    outputs = int(layer.params.get("num_output", 0))
    group = int(layer.params.get("group", 1))
    if outputs < 1:
        raise refuse(layer, "has no num_output")
    if group < 1 or channels % group or outputs % group:
        raise refuse(layer, f"group does not divide {channels} inputs and {outputs} outputs", value=group)
    return outputs, group


def _convolution(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    tops = []
    for bottom in bottoms:
        n, channels, height, width = map_shape(layer, bottom)
        outputs, _ = grouped(layer, channels)
        g = geometry(layer)
        sides = [
            (size + 2 * p - (d * (k - 1) + 1)) // s + 1
            for size, k, s, p, d in zip((height, width), g.kernel, g.stride, g.pad, g.dilation, strict=True)
        ]
        tops.append([n, outputs, *sides])
    return tops


def _deconvolution(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    n, channels, height, width = map_shape(layer, bottoms[0])
    outputs, _ = grouped(layer, channels)
    g = geometry(layer)
    sides = [
        s * (size - 1) + d * (k - 1) + 1 - 2 * p
        for size, k, s, p, d in zip((height, width), g.kernel, g.stride, g.pad, g.dilation, strict=True)
    ]
    return [[n, outputs, *sides]]


def _pooling(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    n, channels, height, width = map_shape(layer, bottoms[0])
    g = geometry(layer, bottoms[0])
    if any(p >= k for p, k in zip(g.pad, g.kernel, strict=True)):
        raise refuse(layer, "pad must be smaller than the kernel", value=g.pad, limit=g.kernel)
    sides = [
        pool_cells(size, k, s, p, floor=rounds_down(layer))
        for size, k, s, p in zip((height, width), g.kernel, g.stride, g.pad, strict=True)
    ]
    return [[n, channels, *sides]]


def _inner_product(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    outputs = int(layer.params.get("num_output", 0))
    if outputs < 1:
        raise refuse(layer, "has no num_output")
    return [[*bottoms[0][: axis_of(layer, len(bottoms[0]))], outputs]]


def _eltwise(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    if any(bottom != bottoms[0] for bottom in bottoms):
        raise refuse(
            layer,
            "its inputs must have equal shapes",
            value=" and ".join(map(str, bottoms)),
            limit="Caffe: no broadcast",
        )
    coefficients = layer.params.get("coeff", [])
    if coefficients and len(coefficients) != len(bottoms):
        raise refuse(layer, "needs as many 'coeff' as inputs", value=len(coefficients), limit=len(bottoms))
    return [bottoms[0]]


def _concat(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    axis = axis_of(layer, len(bottoms[0]), int(layer.params.get("concat_dim", 1)))
    rest = {(*bottom[:axis], *bottom[axis + 1 :]) for bottom in bottoms}
    if len(rest) != 1:
        raise refuse(
            layer, f"its inputs differ on another axis than {axis}", value=" and ".join(map(str, bottoms))
        )
    return [[*bottoms[0][:axis], sum(bottom[axis] for bottom in bottoms), *bottoms[0][axis + 1 :]]]


def _slice(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    (bottom,) = bottoms
    axis = axis_of(layer, len(bottom), int(layer.params.get("slice_dim", 1)))
    points = [int(point) for point in layer.params.get("slice_point", [])]
    if not points:
        if bottom[axis] % len(layer.tops):
            raise refuse(layer, f"cannot cut {bottom[axis]} into {len(layer.tops)} equal parts")
        step = bottom[axis] // len(layer.tops)
        points = [step * (i + 1) for i in range(len(layer.tops) - 1)]
    edges = [0, *points, bottom[axis]]
    sizes = [end - start for start, end in itertools.pairwise(edges)]
    if len(sizes) != len(layer.tops) or min(sizes) < 1:
        raise refuse(
            layer, f"slice points do not cut {bottom[axis]} into {len(layer.tops)} parts", value=points
        )
    return [[*bottom[:axis], size, *bottom[axis + 1 :]] for size in sizes]


def _reshape(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    (bottom,) = bottoms
    wanted = [int(dim) for dim in layer.params.get("shape", {}).get("dim", [])]
    # Unlike other layers', this axis may be one past the end: it is a place between axes.
    axis = int(layer.params.get("axis", 0))
    start = axis if axis >= 0 else len(bottom) + axis + 1
    count = int(layer.params.get("num_axes", -1))
    end = len(bottom) if count == -1 else start + count
    if not 0 <= start <= end <= len(bottom):
        raise refuse(layer, "'axis' and 'num_axes' are outside the blob", value=(axis, count), limit=bottom)
    middle = []
    for place, dim in enumerate(wanted):
        if dim == 0 and start + place >= len(bottom):
            raise refuse(
                layer, f"dim {place} is 0 (copy) but the input has no such axis", value=wanted, limit=bottom
            )
        middle.append(bottom[start + place] if dim == 0 else dim)
    total = math.prod(bottom)
    outside = math.prod(bottom[:start]) * math.prod(bottom[end:])
    if middle.count(-1) > 1 or min(middle, default=1) < -1:
        raise refuse(layer, "at most one dim may be -1, and none less", value=wanted)
    if -1 in middle:
        known = math.prod(dim for dim in middle if dim != -1) * outside
        if known == 0 or total % known:
            raise refuse(layer, f"{bottom} does not fit into {wanted}")
        middle[middle.index(-1)] = total // known
    if math.prod(middle) * outside != total:
        raise refuse(layer, f"{bottom} ({total} values) does not fit into {wanted}")
    return [[*bottom[:start], *middle, *bottom[end:]]]


def _flatten(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    (bottom,) = bottoms
    start = axis_of(layer, len(bottom))
    end = axis_of(layer, len(bottom), -1, "end_axis")
    return [[*bottom[:start], math.prod(bottom[start : end + 1]), *bottom[end + 1 :]]]


def _permute(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    (bottom,) = bottoms
    order = [int(axis) for axis in layer.params.get("order", [])]
    order += [axis for axis in range(len(bottom)) if axis not in order]
    if sorted(order) != list(range(len(bottom))):
        raise refuse(layer, f"order is no permutation of the blob's {len(bottom)} axes", value=order)
    return [[bottom[axis] for axis in order]]


def _crop(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    data, like = bottoms
    axis = axis_of(layer, len(data), 2)
    return [[*data[:axis], *like[axis:]]]


def _upsample(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    n, channels, height, width = map_shape(layer, bottoms[0])
    scale = int(layer.params.get("scale", 2))
    return [[n, channels, height * scale, width * scale]]


def _reduction(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    return [bottoms[0][: axis_of(layer, len(bottoms[0]), 0)]]


def _parameter(layer: Layer, _: list[Shape]) -> list[Shape]:
    return [[int(dim) for dim in layer.params.get("shape", {}).get("dim", [])]]


def _same(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    return [list(bottoms[0]) for _ in layer.tops]


def _softmax(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    axis_of(layer, len(bottoms[0]))
    return _same(layer, bottoms)


_SAME_SHAPE = (
    *("AbsVal", "BatchNorm", "Bias", "BNLL", "Dropout", "ELU", "Exp", "Log", "LRN", "MVN", "Normalize"),
    *("Power", "PReLU", "ReLU", "RReLU", "Scale", "Sigmoid", "Split", "TanH", "Threshold"),
)

_RULES: dict[str, Callable[[Layer, list[Shape]], list[Shape]]] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(_SAME_SHAPE, _same),
    "Concat": _concat,
    "Crop": _crop,
    "Deconvolution": _deconvolution,
    "Eltwise": _eltwise,
    "Flatten": _flatten,
    "InnerProduct": _inner_product,
    "Parameter": _parameter,
    "Permute": _permute,
    "Pooling": _pooling,
    "Reduction": _reduction,
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _softmax,
    "Upsample": _upsample,
}

# (fewest, most) bottoms; one where a type is not listed.
_BOTTOMS = {
    "Eltwise": (2, 99),
    "Concat": (1, 99),
    "Crop": (2, 2),
    "Scale": (1, 2),
    "Bias": (1, 2),
    "Parameter": (0, 0),
}


def infer_shapes(net: Net) -> dict[str, Shape]:
    """Return the shape of every blob, the net's inputs among them.

    In-place layers keep a blob's shape, so one shape per name is enough.

    Raises:
        KilnError: names the layer that cannot have the shapes it gets, or whose type has no rule here.
    """
    shapes = {name: list(shape) for name, shape in net.inputs.items()}
    producers(net)
    for layer in net.layers:
        rule = _RULES.get(layer.type)
        if rule is None:
            raise refuse(
                layer, "is of a type whose output shape is not known", limit=", ".join(sorted(_RULES))
            )
        fewest, most = _BOTTOMS.get(layer.type, (1, 1))
        if layer.type in CONVOLUTIONS:
            most = 99
        if not fewest <= len(layer.bottoms) <= most:
            raise refuse(layer, f"has {len(layer.bottoms)} inputs", limit=f"{fewest} to {most}")
        tops = rule(layer, [shapes[bottom] for bottom in layer.bottoms])
        if len(tops) != len(layer.tops):
            raise refuse(layer, f"has {len(layer.tops)} outputs", limit=len(tops))
        for name, shape in zip(layer.tops, tops, strict=True):
            shapes[name] = _positive(layer, shape)
    return shapes
