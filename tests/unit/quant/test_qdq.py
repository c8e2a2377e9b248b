"""QDQ graphs: pairs where chips round, the right integers, and an estimate that is close to float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.parity.measure import measure
from facekiln.quant.bias import correct_biases, mean_errors
from facekiln.quant.estimate import closeness, compare_methods, methods_text, run_all
from facekiln.quant.nodes import Weight
from facekiln.quant.qdq import MARK, build_qdq, quantised_weight, rounded_weight, scale_of, with_biases
from facekiln.quant.ranges import Ranges, measure_ranges
from facekiln.quant.run import Session


@pytest.fixture
def ranges(network: onnx.ModelProto, pictures: list[Any]) -> Ranges:
    return measure_ranges(network, pictures, percentile=99.9)


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_pairs_stand_where_a_chip_rounds(network: onnx.ModelProto, ranges: Ranges) -> None:
    """Not between a convolution and its activation, nor on what only moves; once per tensor."""
    graph = build_qdq(network, ranges, "minmax")
    rounded = [node.input[0] for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(rounded) == ["input", "joined", "leaky", "pointwise", "relu", "sum"]
    assert ops(graph).count("DequantizeLinear") == 6 + 4
    assert graph.doc_string == MARK and "SIMULATED" in MARK
    assert [output.name for output in graph.graph.output] == ["points"]


def test_stored_weights_are_int8_per_channel(network: onnx.ModelProto, ranges: Ranges) -> None:
    graph = build_qdq(network, ranges, "kl")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    assert stored["first.weight_int8"].dtype == np.int8
    assert np.abs(stored["first.weight_int8"]).reshape(8, -1).max(axis=1).tolist() == [127] * 8
    assert stored["first.weight_scale"] == pytest.approx(
        np.array(ranges.weights["first.weight"].absmax) / 127
    )
    assert "first.weight" not in stored


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("opset", [11, 13])
def test_the_graph_computes_what_numpy_rounds(
    make_network: Callable[..., onnx.ModelProto], pictures: list[Any], scheme: str, opset: int
) -> None:
    """One quantised node against the same arithmetic in numpy, fed through the float node."""
    network = make_network(opset=opset)
    ranges = measure_ranges(network, pictures, percentile=99.9)
    alone = build_qdq(network, ranges, "minmax", scheme, only=["first"])
    assert ops(alone).count("QuantizeLinear") == 1
    scale, zero = scale_of(ranges, "input", "minmax", scheme)
    low, high = (-128, 127) if scheme == "symmetric" else (0, 255)
    picture = pictures[0]
    rounded = (np.clip(np.rint(picture / scale) + zero, low, high) - zero).astype(np.float32) * scale
    by_hand = onnx.ModelProto()
    by_hand.CopyFrom(network)
    first = by_hand.graph.initializer[[t.name for t in by_hand.graph.initializer].index("first.weight")]
    integers, scales = quantised_weight(Weight("w", "n", "Conv", 0, numpy_helper.to_array(first)))
    values = integers.astype(np.float32) * scales.reshape(-1, 1, 1, 1)
    first.CopyFrom(numpy_helper.from_array(values, "first.weight"))
    expected = Session(by_hand).run({"input": rounded})["points"]
    found = Session(alone).run({"input": picture})["points"]
    assert found == pytest.approx(expected, abs=2e-5 * float(np.abs(expected).max()))
    assert not np.array_equal(found, Session(network).run({"input": picture})["points"])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_weight_has_a_scale_per_channel_or_one(axis: int) -> None:
    """Channels of 12.7, of 1.27, of nothing, and too small for a scale; a negative number rounds to -0."""
    channels = np.float32([[12.7, -6.35, 0.04], [1.27, -0.01, -0.004], [0, 0, 0], [1e-37, -1e-37, 0]])
    weight = Weight("w", "n", "MatMul", axis, channels if axis == 0 else channels.T)
    values, scales = rounded_weight(weight)
    assert scales.shape == ((4, 1) if axis == 0 else (1, 4))
    assert scales.ravel() == pytest.approx([0.1, 0.01, 1, 1])
    by_channel = values if axis == 0 else values.T
    assert by_channel.tolist() == [[127, -64, 0], [127, -1, 0], [0, 0, 0], [0, 0, 0]]
    assert np.signbit(by_channel[1, 2]), "as a float graph has it"
    integers, flat = quantised_weight(weight)
    assert integers.dtype == np.int8 and np.array_equal(integers, values)
    assert flat.shape == (4,) and np.array_equal(flat, scales.ravel())
    values, scales = rounded_weight(weight, per_channel=False)
    assert scales.shape == (1, 1) and scales.item() == pytest.approx(0.1)
    by_channel = values if axis == 0 else values.T
    assert by_channel.tolist() == [[127, -64, 0], [13, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert values.dtype == scales.dtype == np.float32


@given(st.floats(-50, 50), st.floats(0.001, 50))
def test_zero_is_exact_in_both_schemes(low: float, width: float) -> None:
    from facekiln.quant.ranges import TensorRange

    high = low + width
    top = max(abs(low), abs(high))
    one = TensorRange("t", "", "Input", (1,), low, high, {"minmax": top})
    ranges = Ranges("", "", 1, {}, {"t": one})
    for scheme in ("symmetric", "asymmetric"):
        scale, zero = scale_of(ranges, "t", "minmax", scheme)
        assert scale > 0 and 0 <= zero <= 255
        reach = (
            (127 * scale, 127 * scale)
            if scheme == "symmetric"
            else ((0 - zero) * scale, (255 - zero) * scale)
        )
        # Both ends are reached to within half a step.
        assert abs(reach[0]) >= max(0.0, -low) - scale * 0.501
        assert reach[1] >= max(0.0, high) - scale * 0.501


def test_dead_channels_and_dead_tensors_are_harmless(network: onnx.ModelProto, pictures: list[Any]) -> None:
    for tensor in network.graph.initializer:
        if tensor.name.startswith("depthwise"):
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
    ranges = measure_ranges(network, pictures, percentile=99.9)
    assert ranges.threshold("relu", "kl") == 0
    for scheme in ("symmetric", "asymmetric"):
        found = run_all(build_qdq(network, ranges, "kl", scheme), pictures[:1])
        assert np.isfinite(found[0]["points"]).all()


def test_skipped_nodes_stay_in_float(network: onnx.ModelProto, ranges: Ranges, pictures: list[Any]) -> None:
    names = ["first", "depthwise", "pointwise", "sum", "joined", "head"]
    graph = build_qdq(network, ranges, "kl", skip=names)
    assert "QuantizeLinear" not in ops(graph)
    one, other = run_all(graph, pictures[:1])[0]["points"], run_all(network, pictures[:1])[0]["points"]
    assert np.array_equal(one, other)


def test_wrong_names_get_a_suggestion(network: onnx.ModelProto, ranges: Ranges) -> None:
    with pytest.raises(KilnError, match="did you mean 'depthwise'"):
        build_qdq(network, ranges, "kl", skip=["depthwize"])
    with pytest.raises(KilnError, match="unknown range method"):
        build_qdq(network, ranges, "entropy")
    with pytest.raises(KilnError, match="unknown activation scheme"):
        build_qdq(network, ranges, "kl", "unsigned")


def test_same_bytes_twice(network: onnx.ModelProto, ranges: Ranges) -> None:
    first, again = (build_qdq(network, ranges, "mse").SerializeToString(deterministic=True) for _ in range(2))
    assert first == again


def test_every_method_is_compared(
    network: onnx.ModelProto, ranges: Ranges, pictures: list[Any], model: Model
) -> None:
    rows = compare_methods(network, ranges, pictures[:2], model, "16")
    assert {(row["method"], row["scheme"]) for row in rows} == {
        (method, scheme)
        for method in ("minmax", "percentile", "kl", "mse")
        for scheme in ("symmetric", "asymmetric")
    }
    # Eight bits on a shallow net: 20 to 45 dB; float against itself would be 200.
    assert all(15 < row["sqnr_db"]["points"] < 60 for row in rows)
    assert "asymmetric" in methods_text(rows)


def test_asymmetric_scales_suit_a_tensor_that_is_mostly_positive(
    network: onnx.ModelProto, ranges: Ranges, pictures: list[Any], model: Model
) -> None:
    rows = {
        row["scheme"]: row
        for row in compare_methods(network, ranges, pictures, model, "16", methods=["minmax"])
    }
    assert rows["asymmetric"]["sqnr_db"]["points"] > rows["symmetric"]["sqnr_db"]["points"]


def test_closeness_is_the_mean_of_parity_figures(
    network: onnx.ModelProto, ranges: Ranges, pictures: list[Any], model: Model
) -> None:
    parents, children = run_all(network, pictures), run_all(build_qdq(network, ranges, "kl"), pictures)
    figures = closeness(parents, children, model, "16")
    rows = [measure(a["points"], b["points"]) for a, b in zip(parents, children, strict=True)]
    assert figures.sqnr_db["points"] == pytest.approx(np.mean([row.sqnr_db for row in rows]))
    assert figures.least_sqnr() == figures.sqnr_db["points"]
    assert figures.faces == {}
    # The output is x and y of points, shares of 16 pixels.
    apart = np.stack([b["points"] - a["points"] for a, b in zip(parents, children, strict=True)])
    moved = 16 * np.linalg.norm(apart.reshape(-1, 2), axis=1)
    assert figures.points == pytest.approx({"mean_px": moved.mean(), "worst_px": moved.max()}, rel=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_bias_correction_takes_out_the_mean_error(
    make_network: Callable[..., onnx.ModelProto], pictures: list[Any], bias: bool
) -> None:
    """Coarse weights shift the mean; corrected, it is back, on pictures not corrected on as well."""
    network = make_network(seed=4, bias=bias)
    ranges = measure_ranges(network, pictures, percentile=97)
    quantised = build_qdq(network, ranges, "percentile")
    corrected = with_biases(quantised, correct_biases(network, quantised, pictures[:3]))
    before, after = (mean_errors(network, one, pictures[3:])["points"] for one in (quantised, corrected))
    assert after < 0.5 * before
    on_own = mean_errors(network, corrected, pictures[:3])["points"]
    assert on_own < 0.05 * before


def test_operators_without_a_bias_get_one_of_their_output_channels() -> None:
    """A ConvTranspose stores [in, out / groups, ...], a Gemm [in, out], or [out, in] by transB."""
    make, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    random = np.random.default_rng(2)
    shapes = {"w": (4, 3, 2, 2), "g": (6, 5), "t": (7, 5)}
    stored = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        make("ConvTranspose", ["x", "w"], ["a"], "up", strides=[2, 2], group=2),
        make("GlobalAveragePool", ["a"], ["b"]),
        make("Flatten", ["b"], ["c"]),
        make("Gemm", ["c", "g"], ["d"], "plain"),
        make("Gemm", ["d", "t"], ["e"], "turned", transB=1),
    ]
    graph = onnx.helper.make_graph(
        nodes, "g", [tensor("x", 1, [1, 4, 3, 3])], [tensor("e", 1, [1, 7])], stored
    )
    network = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    picture = random.normal(size=(1, 4, 3, 3)).astype(np.float32)
    found = correct_biases(network, network, [picture])
    assert {name: value.shape for name, value in found.items()} == {
        "up": (6,),
        "plain": (5,),
        "turned": (7,),
    }
    assert all(np.abs(value).max() < 1e-5 for value in found.values())


def test_correcting_a_float_network_changes_nothing(network: onnx.ModelProto, pictures: list[Any]) -> None:
    biases = correct_biases(network, network, pictures[:2])
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
    for name, value in biases.items():
        assert value == pytest.approx(stored[f"{name}.bias"], abs=1e-6)
    with pytest.raises(KilnError, match="no pictures"):
        correct_biases(network, network, [])
