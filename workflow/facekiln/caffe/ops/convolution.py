"""Conv, ConvTranspose, Gemm, MatMul, BatchNormalization and Resize: the ops with weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.emit import Emitter, refuse
from facekiln.graph.onnx_graph import Node, ints, pads_of


def window(field: str, stem: str, values: tuple[int, int], repeated: bool) -> dict[str, Any]:
    """Return kernel, stride or pad parameters: one field where both sides agree, `_h` and `_w` where not."""
    if values[0] == values[1]:
        return {field: [values[0]] if repeated else values[0]}
    return {f"{stem}_h": values[0], f"{stem}_w": values[1]}


def pair(node: Node, attribute: str, default: int = 1) -> tuple[int, int]:
    """Return a (height, width) attribute.

    Raises:
        KilnError: it is of another number of axes.
    """
    values = ints(node.attrs.get(attribute, [default, default]))
    if len(values) != 2:
        raise refuse(node, "only images are converted, not 1-D or 3-D data", value=f"{attribute} {values}")
    return values[0], values[1]


def symmetric_pads(node: Node, pads: list[int]) -> tuple[int, int]:
    """Return (pad_h, pad_w).

    Raises:
        KilnError: the two sides of an axis differ.
    """
    top, left, bottom, right = pads
    if (top, left) != (bottom, right):
        raise refuse(
            node,
            "pads the two sides of an axis differently",
            value=f"top {top}, left {left}, bottom {bottom}, right {right}",
            limit="Caffe has one pad per axis",
            hint="pad symmetrically in the network (padding=k//2) and export again",
        )
    return top, left


def _images_only(emitter: Emitter, node: Node) -> list[int]:
    shape = emitter.shape(node.inputs[0])
    if len(shape) != 4:
        raise refuse(
            node, "only images are converted, not 1-D or 3-D data", value=shape, limit="[1, C, H, W]"
        )
    return shape


def conv_params(
    outputs: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    pad: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    group: int = 1,
    bias: bool = True,
) -> dict[str, Any]:
    """Return `convolution_param`; what equals Caffe's default is left out, `bias_term` apart."""
    params: dict[str, Any] = {"num_output": outputs, "bias_term": bias}
    if pad != (0, 0):
        params.update(window("pad", "pad", pad, repeated=True))
    params.update(window("kernel_size", "kernel", kernel, repeated=True))
    if group > 1:
        params["group"] = group
    params.update(window("stride", "stride", stride, repeated=True))
    if dilation != (1, 1):
        params["dilation"] = [dilation[0]] if dilation[0] == dilation[1] else list(dilation)
    return params


def _bias(emitter: Emitter, node: Node) -> list[NDArray[np.float32]]:
    return [emitter.weights(node, 2, "bias")] if len(node.inputs) > 2 and node.inputs[2] else []


def _window_weights(emitter: Emitter, node: Node) -> NDArray[np.float32]:
    weights = emitter.weights(node, 1, "weights")
    if weights.ndim != 4:
        raise refuse(node, "its weights are not those of a 2-D convolution", value=list(weights.shape))
    return weights


def conv(emitter: Emitter, node: Node) -> None:
    """Conv -> Convolution; weights (O, I / group, kh, kw) are the same in both."""
    _, _, *sides = _images_only(emitter, node)
    weights = _window_weights(emitter, node)
    kernel = (weights.shape[2], weights.shape[3])
    stride, dilation = pair(node, "strides"), pair(node, "dilations")
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads = pads_of(node, sides, reach, stride)
    pad = symmetric_pads(node, pads)
    bias = _bias(emitter, node)
    group = int(node.attrs.get("group", 1))
    params = conv_params(weights.shape[0], kernel, stride, pad, dilation, group, bool(bias))
    emitter.emit(node, "Convolution", params, [weights, *bias])


def conv_transpose(emitter: Emitter, node: Node) -> None:
    """ConvTranspose -> Deconvolution; weights (I, O / group, kh, kw) are the same in both."""
    _images_only(emitter, node)
    weights = _window_weights(emitter, node)
    kernel = (weights.shape[2], weights.shape[3])
    stride, dilation = pair(node, "strides"), pair(node, "dilations")
    limit = "Caffe's Deconvolution has neither"
    if any(ints(node.attrs.get("output_padding", [0]))) or "output_shape" in node.attrs:
        raise refuse(
            node,
            "has an output_padding or output_shape",
            limit=limit,
            hint="use kernel 2 s, stride s, pad s/2",
        )
    if dilation != (1, 1):
        raise refuse(
            node, "is dilated", value=dilation, limit="no chip's tool documents a dilated Deconvolution"
        )
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise refuse(node, "has an auto_pad", value=node.attrs["auto_pad"], hint="export with explicit pads")
    pad = symmetric_pads(node, ints(node.attrs.get("pads", [0, 0, 0, 0])))
    bias = _bias(emitter, node)
    group = int(node.attrs.get("group", 1))
    params = conv_params(weights.shape[1] * group, kernel, stride, pad, (1, 1), group, bool(bias))
    emitter.emit(node, "Deconvolution", params, [weights, *bias])


def inner_product(
    emitter: Emitter, node: Node, weights: NDArray[np.float32], bias: NDArray[np.float32] | None
) -> None:
    """Emit an InnerProduct; weights are (outputs, inputs)."""
    params = {"num_output": weights.shape[0], "bias_term": bias is not None}
    emitter.emit(node, "InnerProduct", params, [weights] if bias is None else [weights, bias])


def gemm(emitter: Emitter, node: Node) -> None:
    """Gemm of a row vector -> InnerProduct; alpha, beta and transB go into the weights."""
    if node.attrs.get("transA", 0) or emitter.shape(node.inputs[0])[0] != 1:
        raise refuse(node, "multiplies something else than one row", value=emitter.shape(node.inputs[0]))
    weights = emitter.weights(node, 1, "weights") * np.float32(node.attrs.get("alpha", 1.0))
    if not node.attrs.get("transB", 0):
        weights = weights.T
    bias = None
    if len(node.inputs) > 2 and node.inputs[2]:
        stored = emitter.weights(node, 2, "bias") * np.float32(node.attrs.get("beta", 1.0))
        bias = np.broadcast_to(stored.ravel(), (weights.shape[0],))
    inner_product(emitter, node, weights, bias)


def matmul(emitter: Emitter, node: Node) -> None:
    """MatMul of a row vector with a stored matrix -> InnerProduct."""
    weights = emitter.constant(node.inputs[1])
    shape = emitter.shape(node.inputs[0])
    if weights is None or weights.ndim != 2 or len(shape) != 2 or shape[0] != 1:
        raise refuse(
            node,
            "is no row vector times a stored matrix",
            value=f"{shape} x {emitter.shape(node.inputs[1])}",
            hint="attention and other products of two computed tensors have no Caffe layer",
        )
    inner_product(emitter, node, weights.T, None)


def batch_norm(emitter: Emitter, node: Node) -> None:
    """BatchNormalization -> Scale, which is folded into the convolution before it where there is one."""
    gamma, beta, mean, variance = (
        emitter.weights(node, place, what).astype(np.float64)
        for place, what in ((1, "scale"), (2, "bias"), (3, "mean"), (4, "variance"))
    )
    if node.attrs.get("training_mode", 0) or any(node.outputs[1:]):
        raise refuse(node, "is in training mode", hint="export the network after .eval()")
    scale = gamma / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
    shift = beta - mean * scale
    emitter.emit(node, "Scale", {"bias_term": True}, [scale.astype(np.float32), shift.astype(np.float32)])


def _source_rows(node: Node, length: int, cells: int) -> list[int]:
    """Return, per output row (or column), the input one that a nearest Resize takes: the ONNX formulas."""
    scale = cells / length
    mode = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    if node.op == "Upsample":
        mode = "asymmetric"
    rounding = "floor" if node.op == "Upsample" else node.attrs.get("nearest_mode", "round_prefer_floor")
    out = np.arange(cells, dtype=np.float64)
    places: dict[str, Callable[[], NDArray[np.float64]]] = {
        "asymmetric": lambda: out / scale,
        "half_pixel": lambda: (out + 0.5) / scale - 0.5,
        "half_pixel_symmetric": lambda: (out + 0.5) / scale - 0.5,
        "pytorch_half_pixel": lambda: (out + 0.5) / scale - 0.5 if cells > 1 else out * 0,
        "align_corners": lambda: out * (length - 1) / max(cells - 1, 1),
        "tf_half_pixel_for_nn": lambda: (out + 0.5) / scale,
    }
    rounded: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    }
    if mode not in places or rounding not in rounded:
        raise refuse(node, "has a mode that is not converted", value=f"{mode}, {rounding}")
    return [int(row) for row in np.clip(rounded[rounding](places[mode]()), 0, length - 1)]


def resize(emitter: Emitter, node: Node) -> None:
    """Nearest Resize by whole factors -> Deconvolution whose weights are ones, which repeats cells."""
    before, after = _images_only(emitter, node), emitter.shape(node.outputs[0])
    hint = "use F.interpolate(scale_factor=2, mode='nearest') or a ConvTranspose2d in the network"
    if node.attrs.get("mode", "nearest") != "nearest":
        raise refuse(
            node,
            "is not nearest",
            value=node.attrs["mode"],
            limit="NNIE: 2x nearest, or Deconvolution",
            hint=hint,
        )
    if before[:2] != after[:2] or any(big % small for small, big in zip(before[2:], after[2:], strict=True)):
        raise refuse(
            node, f"resizes {before} to {after}", limit="whole factors of height and width", hint=hint
        )
    height, width = (big // small for small, big in zip(before[2:], after[2:], strict=True))
    for length, cells, factor in ((before[2], after[2], height), (before[3], after[3], width)):
        if _source_rows(node, length, cells) != [cell // factor for cell in range(cells)]:
            mode = node.attrs.get("coordinate_transformation_mode", "half_pixel")
            raise refuse(
                node,
                f"does not repeat each cell {factor} times",
                value=f"{mode}, {node.attrs.get('nearest_mode', 'round_prefer_floor')}",
                limit="what a Deconvolution of ones can do",
                hint=hint,
            )
    channels = before[1]
    factors = (height, width)
    params = conv_params(channels, factors, factors, group=channels, bias=False)
    emitter.emit(node, "Deconvolution", params, [np.ones((channels, 1, height, width), np.float32)])
    emitter.edit(
        "CAFFE-NEAREST-DECONV",
        node,
        f"{node.op} by {height}x{width} -> Deconvolution, group {channels}, weights 1",
        "Caffe has no Resize; this repeats each cell, exactly",
        "NNIE: Upsample is 2x nearest only and an extension; a Deconvolution is not",
    )
