"""What int8 layers must give, computed from the file's own scales in numpy, beside what ncnn gives.

Every int8 layer gets the very blob that ncnn gave it, so that a difference belongs to that layer alone. By
induction over the layers, with the float ones proved by the parity of the fp32 file, the outputs are as
stated. Facts of the arithmetic: src/layer/convolution.cpp, convolutiondepthwise.cpp, innerproduct.cpp of
Tencent/ncnn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.ncnn.model import NcnnModel
from facekiln.chips.ncnn.param import Layer
from facekiln.chips.ncnn.quantise import to_int8
from facekiln.chips.ncnn.runtime import NcnnNet, Values
from facekiln.chips.ncnn.weights import int8_term
from facekiln.errors import KilnError

_REQUANTISED, _STEPS = 100, 127
# 2^24: up to there float32 holds every integer.
_EXACT = 1 << 24
_RELU, _LEAKY, _CLIP, _SIGMOID = 1, 2, 3, 4


@dataclass(frozen=True)
class LayerProof:
    """One int8 layer of ncnn's beside ours.

    Attributes:
        layer: its name.
        requantised: its output is int8.
        worst: where the output is int8, how much further than half a step ncnn's value is from the unrounded
            one, in steps; else the largest difference over the output's scale.
    """

    layer: str
    requantised: bool
    worst: float


def unrounded(model: NcnnModel, layer: Layer, value: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what an int8 layer gives: real numbers, or steps before they are rounded where it hands on int8.

    Args:
        model: the int8 model.
        layer: one with a parameter 8.
        value: its input, float32 [C, H, W] or [values]; the integers themselves where the layer before hands
            on int8.

    Raises:
        KilnError: the layer is not int8, or has an activation that is not known here.
    """
    weight, bottom = model.blob(layer.name, "weight"), model.blob(layer.name, "bottom_scale")
    scales, bias = model.blob(layer.name, "weight_scales"), model.blob(layer.name, "bias")
    if weight is None or bottom is None or scales is None:
        raise KilnError("is no int8 layer", where=layer.name)
    before = any(
        int8_term(one) > _REQUANTISED and set(one.tops) & _sources(model, layer) for one in model.graph
    )
    rounded = value.astype(np.int8) if before else to_int8(value * bottom.values.astype(np.float32)[0])
    sums = _sums(layer, rounded, weight.values.astype(np.int8))
    per_output = np.repeat(
        scales.values.astype(np.float32),
        layer.integer(0) // scales.values.size if scales.values.size > 1 else layer.integer(0),
    )
    factor = (1 / (bottom.values.astype(np.float32)[0] * per_output)).astype(np.float32)
    shape = (-1,) + (1,) * (sums.ndim - 1)
    result = sums * factor.reshape(shape)
    if bias is not None:
        result = result + bias.values.astype(np.float32).reshape(shape)
    result = _activated(layer, result.astype(np.float32))
    top = model.blob(layer.name, "top_scale")
    return result if top is None else result * top.values.astype(np.float32)[0]


def _sources(model: NcnnModel, layer: Layer) -> set[str]:
    """Return the blobs that a layer's input is the same as, Splits followed back."""
    makers = {blob: one for one in model.graph for blob in one.tops}
    blob = layer.bottoms[0]
    found = {blob}
    while makers[blob].type == "Split":
        blob = makers[blob].bottoms[0]
        found.add(blob)
    return found


def _sums(layer: Layer, value: NDArray[np.int8], weight: NDArray[np.int8]) -> NDArray[np.float32]:
    outputs = layer.integer(0)
    if layer.type == "InnerProduct":
        return _product(weight.reshape(outputs, -1), value.reshape(-1, 1))[:, 0]
    width, dilation, stride = layer.integer(1), layer.integer(2, 1), layer.integer(3, 1)
    height, down = layer.integer(11, width), layer.integer(12, dilation)
    step = layer.integer(13, stride)
    left = layer.integer(4)
    right, above = layer.integer(15, left), layer.integer(14, left)
    below = layer.integer(16, above)
    padded = np.pad(value, ((0, 0), (above, below), (left, right)))
    extent = ((height - 1) * down + 1, (width - 1) * dilation + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=(1, 2))
    windows = windows[:, ::step, ::stride, ::down, ::dilation]  # [C, H, W, kh, kw]
    groups = layer.integer(7, 1) if layer.type == "ConvolutionDepthWise" else 1
    channels, rows, columns = windows.shape[:3]
    per_group = channels // groups
    if per_group == 1 and outputs == groups:
        kernel = weight.reshape(outputs, 1, 1, height, width).astype(np.int32)
        return (windows.astype(np.int32) * kernel).sum(axis=(3, 4)).astype(np.float32)
    results = []
    for group in range(groups):
        part = windows[group * per_group : (group + 1) * per_group]
        taps = part.transpose(0, 3, 4, 1, 2).reshape(per_group * height * width, rows * columns)
        kernels = weight.reshape(groups, outputs // groups, -1)[group]
        results.append(_product(kernels, taps).reshape(-1, rows, columns))
    return np.concatenate(results)


def _product(kernels: NDArray[np.int8], taps: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the exact integer product, as float32 like ncnn turns its sums."""
    kind = np.float32 if kernels.shape[1] * 127 * 127 < _EXACT else np.float64
    return (kernels.astype(kind) @ taps.astype(kind)).astype(np.float32)


def _activated(layer: Layer, value: NDArray[np.float32]) -> NDArray[np.float32]:
    kind, params = layer.integer(9), layer.floats(10)
    if kind == 0:
        return value
    if kind == _RELU:
        return np.maximum(value, 0)
    if kind == _LEAKY:
        return np.where(value > 0, value, value * np.float32(params[0]))
    if kind == _CLIP:
        return np.clip(value, params[0], params[1])
    if kind == _SIGMOID:
        return np.asarray(1 / (1 + np.exp(-value)), np.float32)
    raise KilnError("has an activation that is not simulated here", where=layer.name, value=kind)


def prove_int8(net: NcnnNet, feeds: Values) -> list[LayerProof]:
    """Run an int8 model in ncnn and compare every int8 layer with `unrounded`.

    Args:
        net: opened with `keep_all`.
        feeds: input blob -> float32 [1, C, H, W].

    Raises:
        KilnError: the file has no int8 layer, or ncnn does not run it.
    """
    layers = [layer for layer in net.model.graph if int8_term(layer)]
    if not layers:
        raise KilnError("has no int8 layer to prove")
    values = {**{name: value[0] for name, value in feeds.items()}, **net.trace(feeds)}
    proofs = []
    for layer in layers:
        expected = unrounded(net.model, layer, values[layer.bottoms[0]]).astype(np.float64)
        found = values[layer.tops[0]].reshape(expected.shape)
        requantised = int8_term(layer) > _REQUANTISED
        if requantised:
            # On which side of a tie a value falls depends on the order of factors.
            worst = np.abs(found - np.clip(expected, -_STEPS, _STEPS)).max() - 0.5
        else:
            worst = np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30)
        proofs.append(LayerProof(layer.name, requantised, max(float(worst), 0.0)))
    return proofs
