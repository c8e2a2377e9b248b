"""Conv, ConvTranspose, Gemm, MatMul, BatchNormalization, Resize against ONNX Runtime; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from facekiln.caffe.convert import convert
from facekiln.caffe.fold import RULE as FOLD
from facekiln.errors import KilnError

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
RNG = np.random.default_rng(5)


def _weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@QUICK
@given(
    group=st.integers(1, 3),
    per_group=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    bias=st.booleans(),
)
def test_conv(
    single_op: Callable[..., Any],
    agree: Callable[..., Any],
    group: int,
    per_group: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilation: tuple[int, int],
    bias: bool,
) -> None:
    inputs, outputs = group * per_group[0], group * per_group[1]
    constants = [_weights(outputs, per_group[0], *kernel), *([_weights(outputs)] if bias else [])]
    model = single_op(
        "Conv",
        (1, inputs, 9, 11),
        constants=constants,
        group=group,
        kernel_shape=kernel,
        strides=stride,
        pads=[*pad, *pad],
        dilations=dilation,
    )
    agree(model)


def test_conv_reads_all_pads_and_dilations(single_op: Callable[..., Any], agree: Callable[..., Any]) -> None:
    # onnx2caffe reads pads[0..1] and dilations[0] only.
    model = single_op(
        "Conv", (1, 2, 12, 12), constants=[_weights(3, 2, 3, 3)], pads=[1, 2, 1, 2], dilations=[2, 3]
    )
    layer = agree(model).net.layers[0]
    assert layer.params["pad_h"] == 1 and layer.params["pad_w"] == 2
    assert layer.params["dilation"] == [2, 3]


@pytest.mark.parametrize("pads", [[0, 0, 1, 1], [1, 1, 0, 1]])
def test_asymmetric_pads_are_refused_by_name(single_op: Callable[..., Any], pads: list[int]) -> None:
    model = single_op("Conv", (1, 2, 8, 8), constants=[_weights(3, 2, 3, 3)], pads=pads)
    with pytest.raises(KilnError, match=r"the_node.*\(Conv\).*differently.*top \d, left \d"):
        convert(model, name="t")


@pytest.mark.parametrize(("mode", "size"), [("SAME_UPPER", 9), ("SAME_LOWER", 9), ("VALID", 8)])
def test_auto_pad_that_is_symmetric(
    single_op: Callable[..., Any], agree: Callable[..., Any], mode: str, size: int
) -> None:
    agree(
        single_op("Conv", (1, 2, size, size), constants=[_weights(3, 2, 3, 3)], auto_pad=mode, strides=[2, 2])
    )


def test_auto_pad_that_is_not_symmetric_is_refused(single_op: Callable[..., Any]) -> None:
    model = single_op(
        "Conv", (1, 2, 8, 8), constants=[_weights(3, 2, 3, 3)], auto_pad="SAME_UPPER", strides=[2, 2]
    )
    with pytest.raises(KilnError, match="top 0, left 0, bottom 1, right 1"):
        convert(model, name="t")


def test_one_dimensional_convolution_is_refused(onnx_model: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="wave"),
        helper.make_node("Flatten", ["c"], ["y"]),
    ]
    model = onnx_model(nodes, {"x": (1, 2, 8)}, ["y"], {"w": _weights(3, 2, 3)})
    with pytest.raises(KilnError, match=r"'wave'.*only images"):
        convert(model, name="t")


def test_weights_of_another_rank_are_refused(single_op: Callable[..., Any]) -> None:
    model = single_op("Conv", (1, 2, 8, 8), constants=[_weights(3, 2)], kernel_shape=[3, 3])
    with pytest.raises(KilnError, match=r"the_node.*2-D convolution.*\[3, 2\]"):
        convert(model, name="t")


def test_computed_weights_are_refused(single_op: Callable[..., Any]) -> None:
    with pytest.raises(KilnError, match="weights must be stored"):
        convert(single_op("Conv", (1, 2, 8, 8), (1, 2, 3, 3)), name="t")


@QUICK
@given(
    group=st.integers(1, 3),
    per_group=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    bias=st.booleans(),
)
def test_conv_transpose(
    single_op: Callable[..., Any],
    agree: Callable[..., Any],
    group: int,
    per_group: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    bias: bool,
) -> None:
    # OpenCV fails on a padded 1x1 one, see test_opencv.
    assume(not (kernel == stride == (1, 1) and any(pad)))
    inputs, outputs = group * per_group[0], group * per_group[1]
    constants = [_weights(inputs, per_group[1], *kernel), *([_weights(outputs)] if bias else [])]
    model = single_op(
        "ConvTranspose",
        (1, inputs, 5, 6),
        constants=constants,
        group=group,
        strides=stride,
        pads=[*pad, *pad],
    )
    done = agree(model)
    # onnx2caffe takes weights.shape[1], which is wrong for groups.
    assert done.net.layers[0].params["num_output"] == outputs


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"output_padding": [1, 1], "strides": [2, 2]}, "output_padding"),
        ({"output_shape": [9, 9], "strides": [2, 2]}, "output_shape"),
        ({"dilations": [2, 2]}, "dilated"),
        ({"pads": [0, 0, 1, 1]}, "differently"),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, "auto_pad"),
    ],
)
def test_conv_transpose_refusals(single_op: Callable[..., Any], attrs: dict[str, Any], message: str) -> None:
    model = single_op("ConvTranspose", (1, 2, 4, 4), constants=[_weights(2, 3, 3, 3)], **attrs)
    with pytest.raises(KilnError, match=rf"\(ConvTranspose\).*{message}"):
        convert(model, name="t")


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [None, (5,), (1, 5), (1,)])
def test_flatten_and_gemm(
    onnx_model: Callable[..., Any], agree: Callable[..., Any], transposed: int, bias: tuple[int, ...] | None
) -> None:
    weights = _weights(5, 24) if transposed else _weights(24, 5)
    constants = {"w": weights, **({"b": _weights(*bias)} if bias else {})}
    nodes = [
        helper.make_node("Flatten", ["x"], ["rows"]),
        helper.make_node(
            "Gemm", ["rows", *constants], ["y"], name="fc", alpha=0.5, beta=2.0, transB=transposed
        ),
    ]
    done = agree(onnx_model(nodes, {"x": (1, 2, 3, 4)}, ["y"], constants))
    # An InnerProduct flattens by itself.
    assert [layer.type for layer in done.net.layers] == ["InnerProduct"]


def test_matmul_and_its_bias_become_one_inner_product(
    onnx_model: Callable[..., Any], agree: Callable[..., Any]
) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    done = agree(onnx_model(nodes, {"x": (1, 6)}, ["y"], {"w": _weights(6, 4), "b": _weights(4)}))
    assert [layer.type for layer in done.net.layers] == ["InnerProduct"]
    assert [edit.rule for edit in done.edits] == [FOLD]


def test_matmul_of_two_computed_tensors_is_refused(single_op: Callable[..., Any]) -> None:
    with pytest.raises(KilnError, match=r"\(MatMul\).*stored matrix"):
        convert(single_op("MatMul", (1, 1), (1, 3)), name="t")


def test_gemm_of_many_rows_is_refused(single_op: Callable[..., Any], onnx_model: Callable[..., Any]) -> None:
    with pytest.raises(KilnError, match="the batch is not 1"):
        convert(single_op("Gemm", (3, 6), constants=[_weights(6, 4)]), name="t")
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["g"], name="turned", transA=1),
        helper.make_node("Reshape", ["g", "shape"], ["y"]),
    ]
    constants = {"w": _weights(1, 4), "shape": np.array([1, 24])}
    with pytest.raises(KilnError, match=r"'turned'.*something else than one row"):
        convert(onnx_model(nodes, {"x": (1, 6)}, ["y"], constants), name="t")


def _batch_norm(channels: int) -> dict[str, np.ndarray]:
    values = {name: _weights(channels) for name in ("gamma", "beta", "mean")}
    return {**values, "variance": np.abs(_weights(channels)) + 0.1}


def test_batch_norm_is_folded(onnx_model: Callable[..., Any], agree: Callable[..., Any]) -> None:
    constants = {"w": _weights(4, 3, 3, 3), **_batch_norm(4)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="/body/0/Conv"),
        helper.make_node(
            "BatchNormalization",
            ["c", *list(constants)[1:]],
            ["y"],
            name="/body/1/BatchNormalization",
            epsilon=1e-3,
        ),
    ]
    done = agree(onnx_model(nodes, {"x": (1, 3, 6, 6)}, ["y"], constants))
    assert [layer.type for layer in done.net.layers] == ["Convolution"]
    assert done.tensor_of_blob == {"x": "x", "y": "y"}


def test_batch_norm_alone_is_a_scale(onnx_model: Callable[..., Any], agree: Callable[..., Any]) -> None:
    constants = _batch_norm(3)
    node = helper.make_node("BatchNormalization", ["x", *constants], ["y"])
    done = agree(onnx_model([node], {"x": (1, 3, 6, 6)}, ["y"], constants))
    assert [layer.type for layer in done.net.layers] == ["Scale"]


@pytest.mark.parametrize("factor", [(2, 2), (3, 3), (2, 1), (1, 4)])
@pytest.mark.parametrize(
    "attrs",
    [
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"},
    ],
)
def test_nearest_resize_is_an_exact_deconvolution(
    single_op: Callable[..., Any],
    agree: Callable[..., Any],
    factor: tuple[int, int],
    attrs: dict[str, str],
) -> None:
    scales = np.array([1, 1, *factor], np.float32)
    model = single_op("Resize", (1, 3, 4, 5), constants=[None, scales], mode="nearest", **attrs)
    done = agree(model, limit=0)
    (layer,) = done.net.layers
    assert layer.type == "Deconvolution" and layer.params["group"] == 3
    assert (layer.blobs[0] == 1).all() and layer.blobs[0].shape == (3, 1, *factor)


def test_resize_by_sizes_and_upsample(single_op: Callable[..., Any], agree: Callable[..., Any]) -> None:
    sizes = np.array([1, 2, 6, 8], np.int64)
    floor = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    agree(single_op("Resize", (1, 2, 3, 4), constants=[None, None, sizes], mode="nearest", **floor), limit=0)
    scales = np.array([1, 1, 2, 2], np.float32)
    agree(single_op("Upsample", (1, 2, 3, 4), constants=[scales], opset=9, mode="nearest"), limit=0)


@pytest.mark.parametrize(
    ("scale", "attrs", "message"),
    [
        (2.0, {"mode": "linear"}, "not nearest"),
        (2.0, {"mode": "cubic"}, "not nearest"),
        (1.5, {"mode": "nearest"}, "whole factors"),
        (0.5, {"mode": "nearest"}, "whole factors"),
        (
            2.0,
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "ceil"},
            "repeat each cell",
        ),
        (
            3.0,
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"},
            "repeat each cell",
        ),
        (
            2.0,
            {"mode": "nearest", "coordinate_transformation_mode": "align_corners", "nearest_mode": "floor"},
            "repeat each cell",
        ),
    ],
)
def test_other_resizes_are_refused(
    single_op: Callable[..., Any], scale: float, attrs: dict[str, str], message: str
) -> None:
    scales = np.array([1, 1, scale, scale], np.float32)
    with pytest.raises(KilnError, match=rf"the_node.*\(Resize\).*{message}"):
        convert(single_op("Resize", (1, 2, 4, 4), constants=[None, scales], **attrs), name="t")


@QUICK
@given(
    size=st.integers(1, 7),
    factor=st.integers(1, 4),
    mode=st.sampled_from(["asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners"]),
    rounding=st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
)
def test_resize_is_exact_or_refused_in_every_mode(
    single_op: Callable[..., Any], agree: Callable[..., Any], size: int, factor: int, mode: str, rounding: str
) -> None:
    scales = np.array([1, 1, factor, factor], np.float32)
    model = single_op(
        "Resize",
        (1, 1, size, size + 1),
        constants=[None, scales],
        mode="nearest",
        coordinate_transformation_mode=mode,
        nearest_mode=rounding,
    )
    try:
        convert(model, name="t")
    except KilnError as error:
        assert "repeat each cell" in str(error)
        return
    agree(model, limit=0)


def test_batch_norm_in_training_mode_is_refused(onnx_model: Callable[..., Any]) -> None:
    constants = _batch_norm(3)
    outputs = ["y", "running_mean", "running_var"]
    node = helper.make_node("BatchNormalization", ["x", *constants], outputs, name="norm", training_mode=1)
    with pytest.raises(KilnError, match=r"(?s)'norm'.*training mode.*eval\(\)"):
        convert(onnx_model([node], {"x": (1, 3, 6, 6)}, ["y"], constants, opset=15), name="t")


def test_cropping_resizes_are_refused(single_op: Callable[..., Any]) -> None:
    box = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32)
    scales = np.array([1, 1, 2, 2], np.float32)
    model = single_op(
        "Resize",
        (1, 2, 4, 4),
        constants=[box, scales],
        mode="nearest",
        coordinate_transformation_mode="tf_crop_and_resize",
    )
    with pytest.raises(KilnError, match=r"mode that is not converted.*tf_crop_and_resize"):
        convert(model, name="t")
