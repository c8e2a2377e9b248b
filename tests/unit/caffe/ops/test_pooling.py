"""Pooling: Caffe rounds up, ONNX down; equal, rewritten exactly, or refused with the numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from facekiln.caffe.convert import convert
from facekiln.caffe.writer import prototxt_text
from facekiln.errors import KilnError

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_equal_rounding_is_one_layer(single_op: Callable[..., Any], agree: Callable[..., Any]) -> None:
    done = agree(single_op("MaxPool", (1, 2, 8, 10), kernel_shape=[2, 2], strides=[2, 2]))
    (layer,) = done.net.layers
    assert layer.params == {"pool": "MAX", "kernel_size": 2, "stride": 2}
    assert not done.edits


def test_the_resnet_pool_becomes_two(single_op: Callable[..., Any], agree: Callable[..., Any]) -> None:
    # RetinaFace-Cpp issue 11: k3 s2 p1 gives 81 cells instead of 80 in Caffe, and every later map is off.
    done = agree(
        single_op("MaxPool", (1, 3, 160, 160), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    )
    first, second = done.net.layers
    assert first.params == {"pool": "MAX", "kernel_size": 2, "stride": 1}
    assert second.params == {"pool": "MAX", "kernel_size": 2, "stride": 2, "pad": 1}
    (edit,) = done.edits
    assert edit.rule == "CAFFE-POOL-CEIL" and "(81, 81)" in edit.reason and "(80, 80)" in edit.reason
    # The blob between the two stands for no ONNX tensor.
    assert set(done.tensor_of_blob) == {"x", "y"}


@QUICK
@given(
    size=st.tuples(st.integers(3, 14), st.integers(3, 14)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    ceil=st.integers(0, 1),
)
def test_max_pool_is_exact_or_refused(
    single_op: Callable[..., Any],
    agree: Callable[..., Any],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int],
    ceil: int,
) -> None:
    assume(all(pads[i] < kernel[i % 2] for i in range(4)))
    assume(all(size[i] + pads[i] + pads[i + 2] >= kernel[i] for i in range(2)))
    model = single_op(
        "MaxPool", (1, 2, *size), kernel_shape=kernel, strides=stride, pads=pads, ceil_mode=ceil
    )
    try:
        convert(model, name="t")
    except KilnError as error:
        outside = any(
            (out - 1) * stride[i] - pads[i] >= size[i]
            for i, out in enumerate(
                dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim[2:]
            )
        )
        assert ("wholly outside" if outside else "but Caffe would give") in str(error)
        return
    done = agree(model)
    assert "round_mode" not in prototxt_text(done.net) and "ceil_mode" not in prototxt_text(done.net)


@QUICK
@given(
    size=st.tuples(st.integers(3, 14), st.integers(3, 14)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    counted=st.integers(0, 1),
)
def test_average_pool_is_exact_or_refused(
    single_op: Callable[..., Any],
    agree: Callable[..., Any],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    counted: int,
) -> None:
    assume(all(p < k <= s + 2 * p for p, k, s in zip(pad, kernel, size, strict=True)))
    model = single_op(
        "AveragePool",
        (1, 2, *size),
        kernel_shape=kernel,
        strides=stride,
        pads=[*pad, *pad],
        count_include_pad=counted,
    )
    try:
        convert(model, name="t")
    except KilnError as error:
        message = str(error)
        assert "but Caffe would give" in message or ("count_include_pad" in message and not counted)
        return
    agree(model)


def test_counted_padding_is_kept(single_op: Callable[..., Any], agree: Callable[..., Any]) -> None:
    # Caffe divides by the window clipped to the padded image: count_include_pad=1.
    attrs = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    agree(single_op("AveragePool", (1, 2, 7, 7), count_include_pad=1, **attrs))
    with pytest.raises(KilnError, match="divides border windows by the cells inside"):
        convert(single_op("AveragePool", (1, 2, 7, 7), count_include_pad=0, **attrs), name="t")


def test_rounding_is_refused_with_the_numbers(single_op: Callable[..., Any]) -> None:
    model = single_op("AveragePool", (1, 2, 7, 7), kernel_shape=[2, 2], strides=[2, 2])
    with pytest.raises(KilnError, match=r"the_node.*\(7, 7\) to \(3, 3\) cells.*\(4, 4\)") as caught:
        convert(model, name="t")
    assert "next step" in str(caught.value)


def test_average_windows_beyond_the_padding_are_refused(single_op: Callable[..., Any]) -> None:
    model = single_op(
        "AveragePool",
        (1, 2, 6, 6),
        kernel_shape=[3, 3],
        strides=[2, 2],
        ceil_mode=1,
        count_include_pad=1,
    )
    with pytest.raises(KilnError, match="beyond the padded image"):
        convert(model, name="t")


def test_dilated_pooling_is_refused(single_op: Callable[..., Any]) -> None:
    model = single_op("MaxPool", (1, 2, 8, 8), kernel_shape=[2, 2], dilations=[2, 2])
    with pytest.raises(KilnError, match=r"\(MaxPool\).*dilated"):
        convert(model, name="t")


def test_places_of_maxima_are_refused(onnx_model: Callable[..., Any]) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y", "places"], name="pool", kernel_shape=[2, 2])
    with pytest.raises(KilnError, match="places of the maxima"):
        convert(onnx_model([node], {"x": (1, 2, 4, 4)}, ["y"]), name="t")


def test_one_dimensional_pooling_is_refused(onnx_model: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p"], name="pool", kernel_shape=[2]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    with pytest.raises(KilnError, match=r"'pool'.*only images"):
        convert(onnx_model(nodes, {"x": (1, 2, 8)}, ["y"]), name="t")


def test_global_average_pool(single_op: Callable[..., Any], agree: Callable[..., Any]) -> None:
    done = agree(single_op("GlobalAveragePool", (1, 3, 5, 7)))
    assert done.net.layers[0].params == {"pool": "AVE", "global_pooling": True}


@pytest.mark.parametrize("keep", [0, 1])
def test_mean_over_height_and_width(
    single_op: Callable[..., Any], agree: Callable[..., Any], keep: int
) -> None:
    done = agree(single_op("ReduceMean", (1, 3, 5, 7), axes=[-1, 2], keepdims=keep))
    assert [layer.type for layer in done.net.layers] == ["Pooling"] + ["Flatten"] * (1 - keep)


def test_other_means_are_refused(single_op: Callable[..., Any]) -> None:
    with pytest.raises(KilnError, match=r"\(ReduceMean\).*other axes"):
        convert(single_op("ReduceMean", (1, 3, 5, 7), axes=[1], keepdims=1), name="t")


def test_pads_before_a_pool_are_moved_into_it(
    onnx_model: Callable[..., Any], agree: Callable[..., Any]
) -> None:
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Pad", ["r", "pads"], ["p"], name="pad"),
        helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[3, 3], strides=[2, 2]),
    ]
    done = agree(onnx_model(nodes, {"x": (1, 2, 7, 7)}, ["y"], {"pads": pads}))
    assert [layer.type for layer in done.net.layers] == ["ReLU", "Pooling"]
    assert done.edits[0].rule == "CAFFE-FOLD-PAD"
