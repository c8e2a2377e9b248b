"""Windows and axes of Caffe layers, as their parameters give them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from facekiln.caffe.net import Layer
from facekiln.errors import KilnError

CONVOLUTIONS = ("Convolution", "DepthwiseConv", "ConvolutionDepthwise")


@dataclass(frozen=True)
class Geometry:
    """Windows of a convolution, deconvolution or pooling layer, as (height, width) pairs."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int]


def refuse(layer: Layer, what: str, **details: Any) -> KilnError:
    """Return the error that names a layer."""
    return KilnError(what, where=f"layer '{layer.name}' ({layer.type})", **details)


def _pair(layer: Layer, field: str, stem: str, default: int) -> tuple[int, int]:
    params = layer.params
    if f"{stem}_h" in params or f"{stem}_w" in params:
        # Where one of the two is given, the other is zero, not the default: BVLC base_conv_layer.cpp.
        return int(params.get(f"{stem}_h", 0)), int(params.get(f"{stem}_w", 0))
    value = params.get(field, default)
    values = list(value) if isinstance(value, list) else [value]
    if not values:
        values = [default]
    if len(values) not in (1, 2):
        raise refuse(layer, f"'{field}' must have one or two values", value=values)
    return int(values[0]), int(values[-1])


def geometry(layer: Layer, bottom: Sequence[int] | None = None) -> Geometry:
    """Return the windows of a Convolution, Deconvolution, DepthwiseConv or Pooling layer.

    Args:
        layer: the layer.
        bottom: its input shape; only global pooling needs it.

    Raises:
        KilnError: no kernel size, or a zero kernel or stride.
    """
    if layer.type == "Pooling" and layer.params.get("global_pooling"):
        if bottom is None:
            raise refuse(layer, "global pooling has no window without an input shape")
        return Geometry((bottom[2], bottom[3]), (1, 1), (0, 0), (1, 1))
    result = Geometry(
        kernel=_pair(layer, "kernel_size", "kernel", 0),
        stride=_pair(layer, "stride", "stride", 1),
        pad=_pair(layer, "pad", "pad", 0),
        dilation=_pair(layer, "dilation", "dilation", 1),
    )
    for name, values in (
        ("kernel size", result.kernel),
        ("stride", result.stride),
        ("dilation", result.dilation),
    ):
        if min(values) < 1:
            raise refuse(layer, f"has no {name}, or a zero one", value=values)
    return result


def pool_cells(size: int, kernel: int, stride: int, pad: int, *, floor: bool = False) -> int:
    """Return the output length of Caffe's pooling along one axis.

    ceil((size + 2 pad - kernel) / stride) + 1, less one where the last window would start beyond the padded
    input (only tested where pad > 0): BVLC pooling_layer.cpp.
    """
    steps = (size + 2 * pad - kernel) / stride
    cells = (math.floor(steps) if floor else math.ceil(steps)) + 1
    if pad and (cells - 1) * stride >= size + pad:
        cells -= 1
    return cells


def rounds_down(layer: Layer) -> bool:
    """Whether a Pooling layer asks for floor, by `round_mode: FLOOR` or a fork's `ceil_mode: false`."""
    return layer.params.get("round_mode") == "FLOOR" or layer.params.get("ceil_mode") is False


def axis_of(layer: Layer, rank: int, default: int = 1, field: str = "axis") -> int:
    """Return an axis parameter as a non-negative number.

    Raises:
        KilnError: outside the blob's rank.
    """
    axis = int(layer.params.get(field, default))
    if not -rank <= axis < rank:
        raise refuse(layer, f"'{field}' is outside the blob's {rank} axes", value=axis)
    return axis % rank
