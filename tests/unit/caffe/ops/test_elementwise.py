"""Activations and arithmetic: against ONNX Runtime, and what is refused."""

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
RNG = np.random.default_rng(6)
MAP = (1, 3, 4, 5)


@pytest.mark.parametrize(
    ("op", "attrs", "layer_type", "params"),
    [
        ("Relu", {}, "ReLU", {}),
        ("LeakyRelu", {"alpha": 0.125}, "ReLU", {"negative_slope": 0.125}),
        ("LeakyRelu", {}, "ReLU", {"negative_slope": 0.01}),
        ("Elu", {"alpha": 0.5}, "ELU", {"alpha": 0.5}),
        ("Sigmoid", {}, "Sigmoid", {}),
        ("Tanh", {}, "TanH", {}),
        ("Abs", {}, "AbsVal", {}),
        ("Softplus", {}, "BNLL", {}),
        ("Neg", {}, "Power", {"power": 1.0, "scale": -1.0, "shift": 0.0}),
    ],
)
def test_activations(
    single_op: Callable[..., Any],
    agree: Callable[..., Any],
    op: str,
    attrs: dict[str, float],
    layer_type: str,
    params: dict[str, float],
) -> None:
    (layer,) = agree(single_op(op, MAP, **attrs)).net.layers
    assert (layer.type, layer.params) == (layer_type, params)


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1), (1,), (1, 1, 1)])
def test_prelu(single_op: Callable[..., Any], agree: Callable[..., Any], shape: tuple[int, ...]) -> None:
    slope = RNG.random(shape).astype(np.float32)
    (layer,) = agree(single_op("PRelu", MAP, constants=[slope])).net.layers
    assert layer.params.get("channel_shared", False) == (slope.size == 1)


def test_prelu_with_a_slope_per_pixel_is_refused(single_op: Callable[..., Any]) -> None:
    with pytest.raises(KilnError, match="one per channel"):
        convert(single_op("PRelu", MAP, constants=[np.ones((3, 4, 5), np.float32)]), name="t")


def test_clip_from_zero_is_relu(single_op: Callable[..., Any], agree: Callable[..., Any]) -> None:
    agree(single_op("Clip", MAP, constants=[np.float32(0)]))
    agree(single_op("Clip", MAP, opset=9, min=0.0))


@pytest.mark.parametrize(("low", "high", "name"), [(0, 6, "ReLU6"), (0, 1, "limits"), (-1, 1, "limits")])
def test_relu6_and_other_limits_are_refused(
    single_op: Callable[..., Any], low: float, high: float, name: str
) -> None:
    model = single_op("Clip", MAP, constants=[np.float32(low), np.float32(high)])
    with pytest.raises(KilnError, match=rf"\(Clip\).*{name}.*NNIE") as caught:
        convert(model, name="t")
    assert "train the network with ReLU" in str(caught.value)


@pytest.mark.parametrize(
    ("op", "operation", "coefficients"),
    [("Add", "SUM", None), ("Sub", "SUM", [1.0, -1.0]), ("Mul", "PROD", None), ("Max", "MAX", None)],
)
def test_two_computed_tensors(
    single_op: Callable[..., Any],
    agree: Callable[..., Any],
    op: str,
    operation: str,
    coefficients: list[float] | None,
) -> None:
    (layer,) = agree(single_op(op, MAP, MAP)).net.layers
    assert layer.params["operation"] == operation and layer.params.get("coeff") == coefficients


def test_three_tensors(single_op: Callable[..., Any], agree: Callable[..., Any]) -> None:
    agree(single_op("Sum", MAP, MAP, MAP))
    agree(single_op("Max", MAP, MAP, MAP))


@pytest.mark.parametrize("op", ["Add", "Mul", "Max", "Sub"])
def test_broadcast_of_computed_tensors_is_refused(single_op: Callable[..., Any], op: str) -> None:
    with pytest.raises(KilnError, match=rf"\({op}\).*different shapes.*\[1, 3, 1, 1\]"):
        convert(single_op(op, MAP, (1, 3, 1, 1)), name="t")


@QUICK
@given(
    op=st.sampled_from(["Add", "Sub", "Mul", "Div"]),
    shape=st.sampled_from([(), (1,), (3, 1, 1), (1, 3, 1, 1), (1, 1, 1, 1)]),
    constant_first=st.booleans(),
)
def test_constants(
    onnx_model: Callable[..., Any],
    agree: Callable[..., Any],
    op: str,
    shape: tuple[int, ...],
    constant_first: bool,
) -> None:
    constants = {"c": (RNG.random(shape) + 0.5).astype(np.float32)}
    inputs = ["c", "x"] if constant_first else ["x", "c"]
    model = onnx_model([helper.make_node(op, inputs, ["y"], name="n")], {"x": MAP}, ["y"], constants)
    if op == "Div" and constant_first:
        with pytest.raises(KilnError, match="divides a constant"):
            convert(model, name="t")
        return
    (layer,) = agree(model).net.layers
    assert layer.type == ("Power" if constants["c"].size == 1 else "Scale")


def test_a_factor_after_a_convolution_goes_into_its_weights(
    onnx_model: Callable[..., Any], agree: Callable[..., Any]
) -> None:
    constants = {"w": RNG.normal(size=(3, 3, 1, 1)).astype(np.float32), "c": np.float32(0.25)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["k"]), helper.make_node("Mul", ["k", "c"], ["y"])]
    done = agree(onnx_model(nodes, {"x": MAP}, ["y"], constants))
    assert [layer.type for layer in done.net.layers] == ["Convolution"]


@pytest.mark.parametrize("shape", [(5,), (4, 1), (3, 4, 5)])
def test_other_constants_are_refused(single_op: Callable[..., Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(KilnError, match=r"\(Mul\).*neither one number nor one per channel"):
        convert(single_op("Mul", MAP, constants=[np.full(shape, 2, np.float32)]), name="t")


def test_a_constant_that_stretches_its_input_is_refused(single_op: Callable[..., Any]) -> None:
    with pytest.raises(KilnError, match="stretches its input"):
        convert(single_op("Mul", (1, 1, 4, 5), constants=[np.full((3, 1, 1), 2, np.float32)]), name="t")


def test_division_by_zero_and_of_tensors_is_refused(single_op: Callable[..., Any]) -> None:
    with pytest.raises(KilnError, match="divides by zero"):
        convert(single_op("Div", MAP, constants=[np.float32(0)]), name="t")
    with pytest.raises(KilnError, match="divides two computed"):
        convert(single_op("Div", MAP, MAP), name="t")


def test_a_constant_maximum_is_refused(single_op: Callable[..., Any]) -> None:
    with pytest.raises(KilnError, match=r"\(Max\).*constant"):
        convert(single_op("Max", MAP, constants=[np.float32(1)]), name="t")


@pytest.mark.parametrize("op", ["HardSwish", "HardSigmoid", "Mish", "Erf"])
def test_activations_that_no_chip_has_are_refused(single_op: Callable[..., Any], op: str) -> None:
    with pytest.raises(KilnError, match=rf"the_node.*{op} cannot be converted.*NNIE") as caught:
        convert(single_op(op, MAP, opset=18), name="t")
    assert "train the network with ReLU" in str(caught.value)


@pytest.mark.parametrize(("op", "reason"), [("Exp", "decoding"), ("Floor", "no Caffe layer")])
def test_every_other_op_is_refused_with_a_next_step(
    single_op: Callable[..., Any], op: str, reason: str
) -> None:
    with pytest.raises(KilnError, match=rf"the_node.*{op}.*{reason}") as caught:
        convert(single_op(op, MAP), name="t")
    assert "next step" in str(caught.value)


def test_two_constants_are_refused(onnx_model: Callable[..., Any]) -> None:
    constants = {"a": np.ones(MAP, np.float32), "b": np.ones(MAP, np.float32)}
    nodes = [
        helper.make_node("Add", ["a", "b"], ["c"], name="sum"),
        helper.make_node("Mul", ["x", "c"], ["y"]),
    ]
    with pytest.raises(KilnError, match=r"(?s)'sum'.*constant inputs only.*simplify"):
        convert(onnx_model(nodes, {"x": MAP}, ["y"], constants), name="t")


def test_a_sum_of_one_is_nothing(onnx_model: Callable[..., Any]) -> None:
    nodes = [helper.make_node("Sum", ["x"], ["s"]), helper.make_node("Relu", ["s"], ["y"])]
    assert len(convert(onnx_model(nodes, {"x": MAP}, ["y"]), name="t").net.layers) == 1
