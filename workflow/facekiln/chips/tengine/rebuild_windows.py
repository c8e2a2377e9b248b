"""Convolutions, poolings, matrix products and resizes of a tmfile, as ONNX nodes."""

from __future__ import annotations

import numpy as np

from facekiln.chips.tengine.canvas import Canvas, Result
from facekiln.chips.tengine.format import Node
from facekiln.chips.tengine.ops import BILINEAR, BILINEAR_CORNERS, CEIL, COUNT_PAD, NEAREST, RELU, RELU6


def _activated(canvas: Canvas, name: str, activation: int) -> str:
    if activation == RELU:
        return canvas.call("Relu", [name])
    if activation == RELU6:
        return canvas.clipped(name, 0.0, 6.0)
    if activation < 0:
        return name
    raise ValueError(f"activation {activation} means different things in different kernels")


def convolution(canvas: Canvas, node: Node) -> Result:
    """Convolution."""
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


def deconvolution(canvas: Canvas, node: Node) -> Result:
    """Deconvolution."""
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


def fully_connected(canvas: Canvas, node: Node) -> Result:
    """FullyConnected; the output keeps the rank of the input."""
    shape, weights = canvas.shape(node.inputs[0]), canvas.shape(node.inputs[1])
    flat = canvas.call("Flatten", [canvas.name(node.inputs[0])], axis=1)
    if int(np.prod(shape[1:])) != weights[1]:
        raise ValueError(f"{list(shape)} into weights {list(weights)}")
    made = canvas.call("Gemm", [flat, *(canvas.name(tensor) for tensor in node.inputs[1:])], transB=1)
    result = (shape[0], weights[0], *[1] * (len(shape) - 2))
    return [(canvas.reshaped(made, result), result)]


def pooling(canvas: Canvas, node: Node) -> Result:
    """Pooling; the first pad of each axis counts twice."""
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


def interp(canvas: Canvas, node: Node) -> Result:
    """Interp."""
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
