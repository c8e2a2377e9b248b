"""Concat, Split, Slice, Reshape, Transpose, Softmax: against ONNX Runtime, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from facekiln.caffe.convert import convert
from facekiln.errors import KilnError

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MAP = (1, 6, 4, 5)


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_concat(single_op: Callable[..., Any], agree: Callable[..., Any], axis: int) -> None:
    (layer,) = agree(single_op("Concat", MAP, MAP, axis=axis)).net.layers
    assert layer.params == {"axis": axis % 4}


def test_concat_of_one_is_nothing(single_op: Callable[..., Any], onnx_model: Callable[..., Any]) -> None:
    nodes = [helper.make_node("Concat", ["x"], ["c"], axis=1), helper.make_node("Relu", ["c"], ["y"])]
    done = convert(onnx_model(nodes, {"x": MAP}, ["y"]), name="t")
    assert [layer.type for layer in done.net.layers] == ["ReLU"]


def test_concat_of_a_constant_or_the_batch_is_refused(
    single_op: Callable[..., Any], onnx_model: Callable[..., Any]
) -> None:
    with pytest.raises(KilnError, match=r"\(Concat\).*constant"):
        convert(single_op("Concat", MAP, constants=[np.ones(MAP, np.float32)], axis=1), name="t")
    nodes = [
        helper.make_node("Concat", ["x", "x"], ["c"], name="both", axis=0),
        helper.make_node("ReduceMean", ["c"], ["y"], axes=[0]),
    ]
    with pytest.raises(KilnError, match=r"'both'.*batch axis"):
        convert(onnx_model(nodes, {"x": MAP}, ["y"]), name="t")


@QUICK
@given(shape=st.sampled_from([(1, 6), MAP]), axis=st.integers(1, 3), opset=st.sampled_from([11, 13]))
def test_softmax(
    single_op: Callable[..., Any], agree: Callable[..., Any], shape: tuple[int, ...], axis: int, opset: int
) -> None:
    axis = min(axis, len(shape) - 1)
    model = single_op("Softmax", shape, axis=axis, opset=opset)
    if opset < 13 and axis < len(shape) - 1:
        # Before opset 13 everything from the axis on was normalised together.
        with pytest.raises(KilnError, match=r"\(Softmax\).*everything from axis"):
            convert(model, name="t")
        return
    (layer,) = agree(model).net.layers
    assert layer.params == {"axis": axis}


def test_transpose_to_channels_last_is_a_permute(
    single_op: Callable[..., Any], agree: Callable[..., Any]
) -> None:
    (layer,) = agree(single_op("Transpose", MAP, perm=[0, 2, 3, 1])).net.layers
    assert layer.params == {"order": [0, 2, 3, 1]}


@pytest.mark.parametrize("order", [[0, 3, 1, 2], [0, 1, 3, 2], [1, 0, 2, 3], [0, 2, 1, 3]])
def test_other_orders_are_refused(single_op: Callable[..., Any], order: list[int]) -> None:
    # The mapper's own words: Permute can only support (0,1,2,3) -> (0,2,3,1).
    shape = (1, 1, 4, 5) if order[0] else MAP
    with pytest.raises(KilnError, match=r"\(Transpose\).*order.*\(0, 2, 3, 1\)"):
        convert(single_op("Transpose", shape, perm=order), name="t")


@pytest.mark.parametrize(
    ("target", "dims"),
    [((1, 3, 8, 5), [1, 3, -1, 0]), ((1, 12, 2, 5), [1, 12, -1, 0]), ((1, 5, 4, 6), [1, 5, 4, 6])],
)
def test_reshape_keeps_n_literal(
    single_op: Callable[..., Any], agree: Callable[..., Any], target: tuple[int, ...], dims: list[int]
) -> None:
    (layer,) = agree(single_op("Reshape", MAP, constants=[np.array(target)])).net.layers
    assert layer.params == {"shape": {"dim": dims}}


def test_reshape_to_a_row_is_a_flatten(single_op: Callable[..., Any], agree: Callable[..., Any]) -> None:
    (layer,) = agree(single_op("Reshape", MAP, constants=[np.array([1, -1])])).net.layers
    assert layer.type == "Flatten"


def test_squeeze_and_unsqueeze(onnx_model: Callable[..., Any], agree: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Squeeze", ["p", "axes"], ["y"]),
    ]
    agree(onnx_model(nodes, {"x": MAP}, ["y"], {"axes": np.array([2, 3])}))
    nodes = [helper.make_node("Unsqueeze", ["x", "axes"], ["u"]), helper.make_node("Relu", ["u"], ["y"])]
    agree(onnx_model(nodes, {"x": (1, 6)}, ["y"], {"axes": np.array([2, 3])}))


def test_reshape_of_the_batch_is_refused(onnx_model: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "two"], ["r"], name="fold"),
        helper.make_node("Reshape", ["r", "row"], ["y"]),
    ]
    constants = {"two": np.array([2, 3, 4, 5]), "row": np.array([1, -1])}
    with pytest.raises(KilnError, match=r"'fold'.*touches the batch"):
        convert(onnx_model(nodes, {"x": MAP}, ["y"], constants), name="t")


def test_split(onnx_model: Callable[..., Any], agree: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b", "c"], axis=1),
        helper.make_node("Concat", ["c", "a", "b"], ["y"], axis=1),
    ]
    done = agree(onnx_model(nodes, {"x": MAP}, ["y"], {"sizes": np.array([1, 3, 2])}))
    assert done.net.layers[0].params == {"axis": 1, "slice_point": [1, 4]}
    assert {"a", "b", "c"} <= set(done.tensor_of_blob.values())


def test_split_with_an_unused_part_is_refused(onnx_model: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], name="cut", axis=1),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    with pytest.raises(KilnError, match=r"'cut'.*nothing uses"):
        convert(onnx_model(nodes, {"x": MAP}, ["y"]), name="t")


def _slices(onnx_model: Callable[..., Any], ranges: list[tuple[int, int]], axis: int = 1) -> Any:
    constants = {"axes": np.array([axis])}
    nodes = []
    for place, (start, end) in enumerate(ranges):
        constants |= {f"s{place}": np.array([start]), f"e{place}": np.array([end])}
        inputs = ["x", f"s{place}", f"e{place}", "axes"]
        nodes.append(helper.make_node("Slice", inputs, [f"p{place}"], name=f"slice{place}"))
    parts = [f"p{place}" for place in range(len(ranges))]
    nodes.append(helper.make_node("Concat", parts[::-1], ["y"], axis=axis))
    return onnx_model(nodes, {"x": MAP}, ["y"], constants)


def test_slices_that_cut_a_tensor_become_one_layer(
    onnx_model: Callable[..., Any], agree: Callable[..., Any]
) -> None:
    done = agree(_slices(onnx_model, [(4, 2**31 - 1), (0, 1), (-5, 4)]))
    assert [layer.type for layer in done.net.layers] == ["Slice", "Concat"]
    assert done.net.layers[0].params == {"axis": 1, "slice_point": [1, 4]}


@pytest.mark.parametrize("ranges", [[(0, 2), (3, 6)], [(0, 4), (2, 6)], [(0, 2), (2, 5)]])
def test_slices_that_leave_gaps_are_refused(
    onnx_model: Callable[..., Any], ranges: list[tuple[int, int]]
) -> None:
    with pytest.raises(KilnError, match=r"slice\d.*neighbouring parts.*axis 1 \[0, \d\)"):
        convert(_slices(onnx_model, ranges), name="t")


def test_strided_slices_are_refused(single_op: Callable[..., Any]) -> None:
    # Focus layers and space-to-depth.
    one = [np.array([0]), np.array([4]), np.array([2]), np.array([2])]
    with pytest.raises(KilnError, match=r"\(Slice\).*in steps"):
        convert(single_op("Slice", MAP, constants=one), name="t")


def test_slicing_the_batch_is_refused(onnx_model: Callable[..., Any]) -> None:
    with pytest.raises(KilnError, match="batch"):
        convert(_slices(onnx_model, [(0, 1)], axis=0), name="t")


def test_softmax_over_the_batch_is_refused(single_op: Callable[..., Any]) -> None:
    with pytest.raises(KilnError, match=r"\(Softmax\).*batch"):
        convert(single_op("Softmax", MAP, axis=0), name="t")


def test_a_slice_of_everything_is_nothing(onnx_model: Callable[..., Any]) -> None:
    constants = {"start": np.array([0]), "end": np.array([9]), "axis": np.array([1])}
    nodes = [helper.make_node("Slice", ["x", *constants], ["s"]), helper.make_node("Relu", ["s"], ["y"])]
    done = convert(onnx_model(nodes, {"x": MAP}, ["y"], constants), name="t")
    assert [layer.type for layer in done.net.layers] == ["ReLU"]
