"""Blob shapes: Caffe's own rules, checked against OpenCV's reader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from facekiln.caffe.geometry import pool_cells
from facekiln.caffe.net import Layer, Net
from facekiln.caffe.opencv import OpenCvNet
from facekiln.caffe.shapes import infer_shapes
from facekiln.caffe.weights import blob_shapes
from facekiln.errors import KilnError

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
IMAGE = [1, 4, 6, 8]


def _net(layer_type: str, params: dict[str, Any], *shapes: list[int], tops: int = 1) -> Net:
    inputs = {f"x{place}": shape for place, shape in enumerate(shapes)}
    outputs = [f"y{place}" for place in range(tops)]
    return Net("n", inputs, [Layer("the_layer", layer_type, list(inputs), outputs, params)])


def _shape(layer_type: str, params: dict[str, Any], *shapes: list[int]) -> list[int]:
    return infer_shapes(_net(layer_type, params, *shapes))["y0"]


def _opencv_shapes(net: Net) -> dict[str, list[int]]:
    shapes = infer_shapes(net)
    rng = np.random.default_rng(0)
    for layer in net.layers:
        wanted = blob_shapes(layer, [shapes[bottom] for bottom in layer.bottoms])
        layer.blobs = [np.asarray(rng.random(shape), np.float32) for shape in wanted]
    inputs = {name: rng.random(shape).astype(np.float32) for name, shape in net.inputs.items()}
    return {name: list(value.shape) for name, value in OpenCvNet(net).run(inputs).items()}


def test_pooling_rounds_up() -> None:
    # k3 s2 p1 on 112: PyTorch gives 56.
    assert pool_cells(112, 3, 2, 1) == 57
    assert pool_cells(112, 2, 2, 0) == 56
    assert pool_cells(7, 2, 2, 0) == 4
    # With padding, a last window that would start in the padding is dropped.
    assert pool_cells(6, 2, 2, 1) == 4 and pool_cells(5, 2, 2, 1) == 3
    assert pool_cells(7, 2, 2, 0, floor=True) == 3


@QUICK
@given(
    size=st.tuples(st.integers(4, 12), st.integers(4, 12)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    method=st.sampled_from(["MAX", "AVE"]),
)
def test_pooling_agrees_with_opencv(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    method: str,
) -> None:
    assume(all(p < k for p, k in zip(pad, kernel, strict=True)))
    # OpenCV divides by zero where a window lies outside, which strides above the kernel make possible.
    assume(all(s <= k for s, k in zip(stride, kernel, strict=True)))
    names = {"kernel": kernel, "stride": stride, "pad": pad}
    params = {f"{name}_{side}": pair[i] for name, pair in names.items() for i, side in enumerate("hw")}
    net = _net("Pooling", {"pool": method, **params}, [1, 2, *size])
    assert _opencv_shapes(net) == {"y0": infer_shapes(net)["y0"]}


def test_padded_averages_count_the_padding() -> None:
    net = _net("Pooling", {"pool": "AVE", "kernel_size": 3, "stride": 2, "pad": 1}, [1, 1, 5, 5])
    value = OpenCvNet(net).run({"x0": np.ones((1, 1, 5, 5), np.float32)})["y0"]
    # A corner window holds 4 ones and 5 padding zeros.
    assert value[0, 0, 0, 0] == pytest.approx(4 / 9)


CROSS = {"num_output": 2, "kernel_h": 3, "kernel_w": 1, "pad_h": 1, "pad_w": 0, "stride_h": 1, "stride_w": 2}


@pytest.mark.parametrize(
    ("layer_type", "params", "shapes"),
    [
        ("Convolution", {"num_output": 6, "kernel_size": [3], "pad": [1], "stride": [2]}, [IMAGE]),
        ("Convolution", {"num_output": 4, "kernel_size": [3], "dilation": [2], "group": 2}, [IMAGE]),
        ("Convolution", CROSS, [IMAGE]),
        ("DepthwiseConv", {"num_output": 4, "kernel_size": [3], "group": 4}, [IMAGE]),
        ("Deconvolution", {"num_output": 4, "kernel_size": [2], "stride": [2], "group": 4}, [IMAGE]),
        ("Deconvolution", {"num_output": 3, "kernel_size": [4], "stride": [2], "pad": [1]}, [IMAGE]),
        ("Pooling", {"pool": "AVE", "global_pooling": True}, [IMAGE]),
        ("InnerProduct", {"num_output": 5}, [IMAGE]),
        ("Flatten", {}, [IMAGE]),
        ("Reshape", {"shape": {"dim": [0, 2, -1, 0]}}, [IMAGE]),
        ("Reshape", {"shape": {"dim": [1, -1, 8]}}, [IMAGE]),
        ("Permute", {"order": [0, 2, 3, 1]}, [IMAGE]),
        ("Softmax", {"axis": 2}, [IMAGE]),
        ("Concat", {}, [IMAGE, [1, 2, 6, 8]]),
        ("Concat", {"axis": 2}, [IMAGE, [1, 4, 3, 8]]),
        ("Eltwise", {"operation": "SUM", "coeff": [1, -1]}, [IMAGE, IMAGE]),
        ("Slice", {"axis": 1, "slice_point": [1]}, [IMAGE]),
        ("Slice", {}, [IMAGE]),
        ("PReLU", {}, [IMAGE]),
        ("PReLU", {"channel_shared": True}, [IMAGE]),
        ("BatchNorm", {}, [IMAGE]),
        ("Scale", {"bias_term": True}, [IMAGE]),
        ("Power", {"scale": 2.0}, [IMAGE]),
        ("ELU", {}, [IMAGE]),
        ("Crop", {}, [[1, 4, 7, 9], IMAGE]),
    ],
)
def test_agrees_with_opencv(layer_type: str, params: dict[str, Any], shapes: list[list[int]]) -> None:
    net = _net(layer_type, params, *shapes, tops=2 if layer_type == "Slice" else 1)
    inferred = infer_shapes(net)
    assert _opencv_shapes(net) == {name: inferred[name] for name in net.layers[0].tops}


def test_reshape_of_part_of_the_axes() -> None:
    # BVLC's own examples of reshape_param, for a blob of 2 x 8.
    for params, wanted in (
        ({"shape": {"dim": [2, 2, 4]}}, [2, 2, 4]),
        ({"shape": {"dim": [0, 2, 4]}}, [2, 2, 4]),
        ({"shape": {"dim": [2, 4]}, "axis": 1}, [2, 2, 4]),
        ({"shape": {"dim": [2, 4]}, "axis": -1}, None),
        ({"shape": {"dim": [1]}, "axis": 1, "num_axes": 0}, [2, 1, 8]),
        ({"shape": {"dim": [1]}, "axis": -1, "num_axes": 0}, [2, 8, 1]),
    ):
        if wanted is None:
            with pytest.raises(KilnError, match="does not fit"):
                _shape("Reshape", params, [2, 8])
        else:
            assert _shape("Reshape", params, [2, 8]) == wanted


@pytest.mark.parametrize(
    ("layer_type", "params", "shapes", "message"),
    [
        ("Convolution", {"num_output": 4}, [IMAGE], "no kernel size"),
        ("Convolution", {"kernel_size": [3]}, [IMAGE], "no num_output"),
        ("Convolution", {"num_output": 4, "kernel_size": [3], "group": 3}, [IMAGE], "group does not divide"),
        ("Convolution", {"num_output": 4, "kernel_h": 3}, [IMAGE], "no kernel size"),
        ("Convolution", {"num_output": 4, "kernel_size": [3], "stride_w": 2}, [IMAGE], "no stride"),
        ("Convolution", {"num_output": 4, "kernel_size": [9]}, [IMAGE], "would be empty"),
        ("Convolution", {"num_output": 4, "kernel_size": [1, 1, 1]}, [IMAGE], "one or two values"),
        ("Convolution", {"num_output": 4, "kernel_size": [3]}, [[1, 4]], r"\[N, C, H, W\]"),
        ("Pooling", {"kernel_size": 2, "pad": 2}, [IMAGE], "smaller than the kernel"),
        ("InnerProduct", {}, [IMAGE], "no num_output"),
        ("Eltwise", {}, [IMAGE, [1, 4, 1, 1]], "equal shapes"),
        ("Eltwise", {"coeff": [1.0]}, [IMAGE, IMAGE], "as many 'coeff'"),
        ("Eltwise", {}, [IMAGE], "has 1 inputs"),
        ("Concat", {}, [IMAGE, [1, 4, 5, 8]], "another axis than 1"),
        ("Concat", {"axis": 4}, [IMAGE], "outside the blob"),
        ("Slice", {"slice_point": [1, 2]}, [IMAGE], "do not cut 4"),
        ("Reshape", {"shape": {"dim": [0, -1, -1, 0]}}, [IMAGE], "at most one"),
        ("Reshape", {"shape": {"dim": [1, 5, -1, 0]}}, [IMAGE], "does not fit"),
        ("Reshape", {"shape": {"dim": [1, 4, 6, 8, 0]}}, [IMAGE], "no such axis"),
        ("Permute", {"order": [0, 2, 2, 1]}, [IMAGE], "no permutation"),
        ("Softmax", {"axis": 4}, [IMAGE], "outside the blob"),
        ("Interp", {}, [IMAGE], "not known"),
    ],
)
def test_what_does_not_go_together_names_the_layer(
    layer_type: str, params: dict[str, Any], shapes: list[list[int]], message: str
) -> None:
    with pytest.raises(KilnError, match=f"layer 'the_layer'.*{message}"):
        infer_shapes(_net(layer_type, params, *shapes))


def test_the_number_of_tops_must_fit() -> None:
    with pytest.raises(KilnError, match="has 2 outputs"):
        infer_shapes(_net("Flatten", {}, IMAGE, tops=2))
    with pytest.raises(KilnError, match="cannot cut 4 into 3"):
        infer_shapes(_net("Slice", {}, IMAGE, tops=3))


def test_floor_is_honoured_where_a_file_asks_for_it() -> None:
    for params in ({"round_mode": "FLOOR"}, {"ceil_mode": False}):
        assert _shape("Pooling", {"kernel_size": 2, "stride": 2, **params}, [1, 1, 7, 7]) == [1, 1, 3, 3]


def test_shapes_of_rarer_layers() -> None:
    assert _shape("Reduction", {"operation": "MEAN", "axis": 1}, [2, 3, 4]) == [2]
    assert _shape("Upsample", {"scale": 2}, IMAGE) == [1, 4, 12, 16]
    assert infer_shapes(_net("Parameter", {"shape": {"dim": [3, 4]}}))["y0"] == [3, 4]


@pytest.mark.parametrize(
    ("layer_type", "params", "bottoms", "wanted"),
    [
        ("Scale", {}, [IMAGE], [[4]]),
        ("Scale", {"axis": 2, "num_axes": 2, "bias_term": True}, [IMAGE], [[6, 8], [6, 8]]),
        ("Scale", {"axis": 1, "num_axes": -1}, [IMAGE], [[4, 6, 8]]),
        ("Scale", {"bias_term": True}, [IMAGE, [4]], [[4]]),
        ("Scale", {}, [IMAGE, [4]], []),
        ("Bias", {}, [IMAGE], [[4]]),
        ("InnerProduct", {"num_output": 5, "transpose": True, "bias_term": False}, [IMAGE], [[192, 5]]),
        ("InnerProduct", {"num_output": 5, "axis": 2}, [IMAGE], [[5, 48], [5]]),
        ("Normalize", {}, [IMAGE], [[1]]),
        ("Normalize", {"channel_shared": False}, [IMAGE], [[4]]),
        ("Parameter", {"shape": {"dim": [3, 4]}}, [], [[3, 4]]),
        ("Softmax", {}, [IMAGE], []),
    ],
)
def test_shapes_of_weights(
    layer_type: str, params: dict[str, Any], bottoms: list[list[int]], wanted: list[list[int]]
) -> None:
    layer = Layer("l", layer_type, [f"x{place}" for place in range(len(bottoms))], ["y"], params)
    assert blob_shapes(layer, bottoms) == wanted
