"""Convolutions, poolings, matrix products and resizes."""

from __future__ import annotations

import numpy as np

from facekiln.chips.tengine.call import Call, one, refuse, store
from facekiln.chips.tengine.legalise import FUSED
from facekiln.chips.tengine.ops import (
    BILINEAR,
    BILINEAR_CORNERS,
    CEIL,
    COUNT_PAD,
    FLOOR,
    NEAREST,
    NO_ACTIVATION,
)
from facekiln.graph.onnx_graph import Node, OnnxGraph, ints, pads_of


def _weights(graph: OnnxGraph, node: Node) -> list[str]:
    """Return the node's inputs without absent ones, weights and bias being constants of a map's kernel."""
    names = [name for name in node.inputs if name]
    if any(name not in graph.constants for name in names[1:]):
        raise refuse(node, "its weights are computed by the graph")
    if len(graph.shapes[names[0]]) != 4 or len(graph.shapes[names[1]]) != 4:
        raise refuse(node, "is no convolution of maps", list(graph.shapes[names[0]]), "[N, C, H, W]")
    return names


def convolution(graph: OnnxGraph, node: Node) -> list[Call]:
    """Conv."""
    names = _weights(graph, node)
    out_channels, per_group, *kernel = graph.shapes[names[1]]
    strides, dilations = ints(node.attrs.get("strides", [1, 1])), ints(node.attrs.get("dilations", [1, 1]))
    spread = [(width - 1) * step + 1 for width, step in zip(kernel, dilations, strict=True)]
    top, left, bottom, right = pads_of(node, graph.shapes[names[0]][2:], spread, strides)
    group = int(node.attrs.get("group", 1))
    if min(top, left, bottom, right) < 0:
        raise refuse(node, "has negative pads, which Tengine reads as SAME", [top, left, bottom, right])
    return one(
        node,
        "Convolution",
        names,
        kernel_h=kernel[0],
        kernel_w=kernel[1],
        stride_h=strides[0],
        stride_w=strides[1],
        dilation_h=dilations[0],
        dilation_w=dilations[1],
        input_channel=per_group * group,
        output_channel=out_channels,
        group=group,
        activation=node.attrs.get(FUSED, NO_ACTIVATION),
        pad_h0=top,
        pad_w0=left,
        pad_h1=bottom,
        pad_w1=right,
    )


def deconvolution(graph: OnnxGraph, node: Node) -> list[Call]:
    """ConvTranspose."""
    names = _weights(graph, node)
    _, per_group, *kernel = graph.shapes[names[1]]
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "") or "output_shape" in node.attrs:
        raise refuse(node, "its pads are not given as numbers", node.attrs.get("auto_pad"))
    strides, dilations = ints(node.attrs.get("strides", [1, 1])), ints(node.attrs.get("dilations", [1, 1]))
    top, left, bottom, right = ints(node.attrs.get("pads", [0, 0, 0, 0]))
    beyond = ints(node.attrs.get("output_padding", [0, 0]))
    group = int(node.attrs.get("group", 1))
    return one(
        node,
        "Deconvolution",
        names,
        num_output=per_group * group,
        kernel_h=kernel[0],
        kernel_w=kernel[1],
        stride_h=strides[0],
        stride_w=strides[1],
        pad_w0=left,
        pad_h0=top,
        pad_w1=right,
        pad_h1=bottom,
        dilation_h=dilations[0],
        dilation_w=dilations[1],
        group=group,
        activation=node.attrs.get(FUSED, NO_ACTIVATION),
        output_pad_h=beyond[0],
        output_pad_w=beyond[1],
    )


def _pool(node: Node, method: int, **params: int) -> list[Call]:
    blank = dict.fromkeys(("pad_h0", "pad_w0", "pad_h1", "pad_w1", "global", "caffe_flavor"), 0)
    return one(node, "Pooling", method=method, **{**blank, **params})


def pooling(graph: OnnxGraph, node: Node) -> list[Call]:
    """MaxPool and AveragePool."""
    shape, result = graph.shapes[node.inputs[0]], graph.shapes[node.outputs[0]]
    kernel = ints(node.attrs["kernel_shape"])
    if len(kernel) != 2 or len(node.outputs) != 1:
        raise refuse(node, "is no plain pooling of maps", kernel)
    if any(step != 1 for step in ints(node.attrs.get("dilations", [1, 1]))):
        raise refuse(node, "is dilated, which Tengine's Pooling is not", node.attrs["dilations"])
    strides = ints(node.attrs.get("strides", [1, 1]))
    top, left, bottom, right = pads = pads_of(node, shape[2:], kernel, strides)
    if (top, left) != (bottom, right):
        raise refuse(node, "pads one side more than the other", pads, "Tengine's Pooling pads both alike")
    average = node.op == "AveragePool"
    counts = average and bool(node.attrs.get("count_include_pad", 0)) and any(pads)
    floor = [
        (size + 2 * pad - width) // step + 1
        for size, pad, width, step in zip(shape[2:], (top, left), kernel, strides, strict=True)
    ]
    ceil = list(result[2:]) != floor
    if ceil and average:
        raise refuse(
            node, "is an average with a partial window at the end, which runtimes divide differently"
        )
    return _pool(
        node,
        int(average),
        kernel_h=kernel[0],
        kernel_w=kernel[1],
        stride_h=strides[0],
        stride_w=strides[1],
        caffe_flavor=CEIL if ceil else COUNT_PAD if counts else FLOOR,
        pad_h0=top,
        pad_w0=left,
        pad_h1=bottom,
        pad_w1=right,
    )


def global_pooling(graph: OnnxGraph, node: Node) -> list[Call]:
    """GlobalAveragePool and GlobalMaxPool."""
    shape = graph.shapes[node.inputs[0]]
    if len(shape) != 4:
        raise refuse(node, "is no pooling of maps", list(shape))
    sides = {"kernel_h": shape[2], "kernel_w": shape[3], "stride_h": 1, "stride_w": 1, "global": 1}
    return _pool(node, int(node.op == "GlobalAveragePool"), **sides)


def reduce_mean(graph: OnnxGraph, node: Node) -> list[Call]:
    """ReduceMean over both sides of a map."""
    rank = len(graph.shapes[node.inputs[0]])
    axes = graph.operand(node, "axes", 1)
    wanted = sorted(axis % rank for axis in ints(axes)) if axes is not None else None
    if rank != 4 or wanted != [2, 3] or not node.attrs.get("keepdims", 1):
        raise refuse(
            node, "is no mean over a map's sides that keeps them", wanted, "axes 2 and 3, keepdims 1"
        )
    return global_pooling(graph, Node("GlobalAveragePool", node.name, node.inputs[:1], node.outputs))


def fully_connected(graph: OnnxGraph, node: Node) -> list[Call]:
    """Gemm with constant weights: alpha and beta multiplied in, weights as [outputs, inputs]."""
    names = [name for name in node.inputs if name]
    if any(name not in graph.constants for name in names[1:]):
        raise refuse(node, "its weights are computed by the graph")
    if node.attrs.get("transA", 0) or len(graph.shapes[names[0]]) != 2:
        raise refuse(node, "its input is not [N, values] as it stands", list(graph.shapes[names[0]]))
    weights = graph.constants[names[1]].astype(np.float32) * np.float32(node.attrs.get("alpha", 1.0))
    weights = weights if node.attrs.get("transB", 0) else weights.T
    inputs = [names[0], store(graph, f"{names[1]}::fc", weights)]
    if len(names) > 2:
        bias = graph.constants[names[2]].astype(np.float32) * np.float32(node.attrs.get("beta", 1.0))
        if bias.size not in (1, weights.shape[0]):
            raise refuse(node, "its bias is not one value per output", list(bias.shape), weights.shape[0])
        filled = np.broadcast_to(bias.reshape(-1), (weights.shape[0],))
        inputs.append(store(graph, f"{names[2]}::fc", filled))
    return one(node, "FullyConnected", inputs, num_output=weights.shape[0])


def _source_rows(graph: OnnxGraph, node: Node, size: int, result: int) -> list[int]:
    """Return which row a nearest-neighbour Resize takes for each row of its result."""
    old = node.op == "Upsample" or graph.opset < 11
    mode = node.attrs.get("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    rounding = node.attrs.get("nearest_mode", "floor" if old else "round_prefer_floor")
    at = np.arange(result)
    places = {
        "asymmetric": at * size / result,
        "half_pixel": (at + 0.5) * size / result - 0.5,
        "pytorch_half_pixel": (at + 0.5) * size / result - 0.5,
        "align_corners": at * (size - 1) / max(result - 1, 1),
    }.get(str(mode))
    if places is None:
        raise refuse(node, "places pixels in a way that is not known", mode)
    rounded = {
        "floor": np.floor(places),
        "ceil": np.ceil(places),
        "round_prefer_floor": np.ceil(places - 0.5),
        "round_prefer_ceil": np.floor(places + 0.5),
    }[str(rounding)]
    return [int(value) for value in np.clip(rounded, 0, size - 1)]


def interp(graph: OnnxGraph, node: Node) -> list[Call]:
    """Resize and Upsample of maps, by an explicit size, which odd ratios keep."""
    shape, result = graph.shapes[node.inputs[0]], graph.shapes[node.outputs[0]]
    if len(shape) != 4 or shape[:2] != result[:2]:
        raise refuse(node, "resizes something else than maps", [list(shape), list(result)])
    how = str(node.attrs.get("mode", "nearest"))
    corners = node.attrs.get("coordinate_transformation_mode") == "align_corners"
    if how == "nearest":
        for size, wanted in zip(shape[2:], result[2:], strict=True):
            ours = [min(int(at * size / wanted), size - 1) for at in range(wanted)]
            if _source_rows(graph, node, size, wanted) != ours:
                raise refuse(node, "takes other neighbours than Tengine's Interp, which rounds down", how)
        kind = NEAREST
    elif how == "linear":
        default = "half_pixel" if node.op == "Resize" and graph.opset >= 11 else "asymmetric"
        mode = node.attrs.get("coordinate_transformation_mode", default)
        if not corners and (mode not in ("half_pixel", "pytorch_half_pixel") or min(result[2:]) < 2):
            raise refuse(
                node, "interpolates at other places than Tengine's Interp", mode, "half_pixel, align_corners"
            )
        kind = BILINEAR_CORNERS if corners else BILINEAR
    else:
        raise refuse(node, "interpolates in a way that Tengine does not", how, "nearest, linear")
    return one(
        node,
        "Interp",
        type=kind,
        width_scale=0.0,
        height_scale=0.0,
        output_width=result[3],
        output_height=result[2],
    )
