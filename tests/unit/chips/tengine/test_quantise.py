"""Quantisation: the tools' arithmetic by hand, and what they leave to chance."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekiln.chips.tengine import runtime
from facekiln.chips.tengine.codes import decode, encode
from facekiln.chips.tengine.convert import convert
from facekiln.chips.tengine.format import FP16, INT8, INT32, UINT8, Quant, Tensor, TmGraph
from facekiln.chips.tengine.kl import divergences, threshold_bin
from facekiln.chips.tengine.quantise import _round, hand_back, quantise
from facekiln.chips.tengine.ranges import BINS, Range, activations, measure_ranges
from facekiln.chips.tengine.reader import parse_tmfile
from facekiln.chips.tengine.scales import ALGORITHMS, HISTOGRAMS, scales_of, scales_of_ranges
from facekiln.chips.tengine.simulate import Simulation
from facekiln.chips.tengine.validate import validate
from facekiln.chips.tengine.writer import tmfile_bytes
from facekiln.errors import KilnError
from support.tengine_networks import Node, network, numbers, run_onnx, small_detector

SHAPE = (1, 4, 6, 6)
DTYPES = {"uint8": UINT8, "int8": INT8}


def _by_name(graph: TmGraph, name: str) -> Tensor:
    return next(tensor for tensor in graph.tensors if tensor.name == name)


def _scales(graph: TmGraph, scale: float = 0.1) -> dict[str, Quant]:
    return {name: Quant(scale * (number + 1), number) for number, name in enumerate(activations(graph))}


def _measured(model: onnx.ModelProto, dtype: int, style: str = "exact", algorithm: str = "minmax") -> TmGraph:
    graph = convert(model).graph
    shape = graph.input_tensors()[0].dims or ()
    feeds = [numbers(*shape, seed=seed) for seed in range(4)]
    ranges = measure_ranges(graph, lambda: feeds, 4, histograms=HISTOGRAMS.get(algorithm))
    scales = scales_of(graph, ranges, dtype, algorithm=algorithm, style=style)
    return parse_tmfile(tmfile_bytes(quantise(graph, scales, dtype, style=style)))


def test_rounds_half_away_from_zero() -> None:
    values = np.array([0.5, 1.5, -0.5, -2.5, 0.49999997, -0.49999997, 8388609.0], np.float32)
    assert _round(values).tolist() == [1, 2, -1, -3, 0, 0, 8388609]


def _one_range(low: float, high: float, dtype: int, style: str = "tool", algorithm: str = "minmax") -> Quant:
    graph = convert(network([("Relu", ["x"], ["y"], {})], SHAPE)).graph
    ranges = dict.fromkeys(("x", "y"), Range(np.float32(low), np.float32(high), 144))
    return scales_of(graph, ranges, dtype, algorithm=algorithm, style=style)["x"]


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero"),
    [
        # s = (max - min) / 255, z cut off: 1 / (4 / 255) = 63.75.
        (-1.0, 3.0, 4 / 255, 63),
        (1.0, 3.0, 3 / 255, 0),
        (-3.0, -1.0, 3 / 255, 255),
        (0.0, 0.0, 0.0, 0),
    ],
)
def test_uint8_scales_of_the_tool(low: float, high: float, scale: float, zero: int) -> None:
    found = _one_range(low, high, UINT8)
    # Its text table has six decimals.
    assert found == Quant(float(np.float32(round(scale, 6))), zero)


def test_uint8_zero_point_is_rounded_up_so_that_nothing_lies_below_the_smallest_code() -> None:
    found = _one_range(-1.0, 3.0, UINT8, style="exact")
    assert found.zero_point == 64 and found.scale == float(np.float32(4 / 255))
    assert -found.zero_point * found.scale <= -1.0


def test_int8_scales() -> None:
    assert _one_range(-1.0, 3.0, INT8, style="exact") == Quant(float(np.float32(3 / 127)), 0)
    assert _one_range(-4.0, 3.0, INT8, style="exact") == Quant(float(np.float32(4 / 127)), 0)


def test_aciq_is_a_gaussians_clipping_point() -> None:
    # 3.92403714 * (|max| * 2 * 0.5 * 0.35 * (1 + sqrt(pi ln 4))) / sqrt(2 ln N), by hand for |max| 3, N 144.
    spread = 0.175 * (1 + (np.pi * np.log(4)) ** 0.5)
    threshold = 3.92403714 * 3 * 2 * spread / (2 * np.log(144)) ** 0.5
    assert _one_range(-1, 3, INT8, "exact", "aciq").scale == pytest.approx(threshold / 127, rel=1e-6)
    asymmetric = _one_range(-1, 3, UINT8, "exact", "aciq")
    assert asymmetric.scale == pytest.approx(2 * threshold / 255, rel=1e-6)
    assert asymmetric.zero_point == 127


def test_softmax_has_a_fixed_scale() -> None:
    graph = convert(network([("Softmax", ["x"], ["y"], {"axis": 1})], SHAPE)).graph
    ranges = dict.fromkeys(("x", "y"), Range(np.float32(-9), np.float32(9), 144))
    assert scales_of(graph, ranges, UINT8)["y"] == Quant(float(np.float32(1 / 255)), 0)
    assert scales_of(graph, ranges, INT8)["y"] == Quant(float(np.float32(1 / 127)), 0)


def test_the_tools_slip_with_kl_and_sums_is_repeated_on_demand_only() -> None:
    # quant_tool_int8 -a 1 gives the operands of a sum its result's scale before that has one: 0. With its one
    # sum, RFB finds nothing any more.
    graph = convert(network([("Relu", ["x"], ["a"], {}), ("Add", ["x", "a"], ["y"], {})], SHAPE)).graph
    ranges = {name: Range(np.float32(-1), np.float32(1), 144) for name in ("x", "a", "y")}
    for found in ranges.values():
        found.absolute[:] = 1
    assert scales_of(graph, ranges, INT8, algorithm="kl", style="tool")["x"].scale == 0
    assert scales_of(graph, ranges, INT8, algorithm="kl", style="exact")["x"].scale > 0
    assert scales_of(graph, ranges, INT8, algorithm="minmax", style="tool")["x"].scale > 0


@settings(max_examples=30)
@given(st.lists(st.integers(0, 50), min_size=9, max_size=24), st.integers(2, 6))
def test_kl_divergence_beside_bins_cut_into_pieces(counts: list[int], levels: int) -> None:
    # Each bin as `levels` equal pieces: then a code covers `threshold` whole pieces.
    histogram = np.array(counts, np.int64)
    histogram[-1] += 1
    shares = histogram / histogram.sum()
    thresholds = np.arange(levels, len(shares))
    found = divergences(shares, thresholds, levels)
    for threshold, value in zip(thresholds, found, strict=True):
        pieces = np.repeat(shares[:threshold] / levels, levels).reshape(levels, threshold)
        filled = pieces > 0
        each = np.divide(pieces.sum(1), filled.sum(1), out=np.zeros(levels), where=filled.sum(1) > 0)
        told = np.where(filled, each[:, None], 0).reshape(threshold, levels).sum(1)
        reference = shares[:threshold].copy()
        reference[-1] += shares[threshold:].sum()
        expected = 0.0
        for one, other in zip(reference, told, strict=True):
            if one > 1e-12:
                expected += 1.0 if other <= 1e-12 else one * np.log(one / other)
        assert value == pytest.approx(expected, abs=1e-9)


def test_kl_clips_a_long_tail_and_keeps_a_flat_range() -> None:
    flat = np.full(BINS, 100)
    assert threshold_bin(flat, 128) > BINS - 200
    tailed = np.zeros(BINS, np.int64)
    tailed[:200] = 10_000
    tailed[-1] = 1
    assert threshold_bin(tailed, 128) < 400
    assert threshold_bin(np.zeros(BINS, np.int64), 128) == 128


@pytest.mark.parametrize("dtype", [UINT8, INT8])
def test_weights_and_bias_by_hand(dtype: int) -> None:
    weights = np.array([[[[1.0]], [[-0.5]]], [[[0.25]], [[2.0]]]], np.float32)
    bias = np.array([0.3, -0.71], np.float32)
    model = network([("Conv", ["x", "w", "b"], ["y"], {})], (1, 2, 3, 3), {"w": weights, "b": bias})
    graph = convert(model).graph
    result = quantise(graph, {"x": Quant(0.1, 0), "y": Quant(0.2, 0)}, dtype)
    found, sums = _by_name(result, "w"), _by_name(result, "b")
    step = np.float32(0.1)
    if dtype == UINT8:
        # One scale, (2 - -0.5) / 255; zero point cut off: 0.5 / 0.00980392 = 51.
        assert found.quant == (Quant(float(np.float32(2.5 / 255)), 51),)
        assert found.array.ravel().tolist() == [153, 0, 77, 255]
        scales = np.array([found.quant[0].scale] * 2, np.float32)
        assert len(sums.quant) == 1
    else:
        assert [item.scale for item in found.quant] == [
            float(np.float32(1 / 127)),
            float(np.float32(2 / 127)),
        ]
        assert found.array.ravel().tolist() == [127, -64, 16, 127]
        scales = np.array([item.scale for item in found.quant], np.float32)
        assert len(sums.quant) == 2
    assert sums.dtype == INT32
    assert sums.array.tolist() == np.rint(bias / (scales * step)).astype(int).tolist()
    np.testing.assert_allclose(found.values, weights, atol=2.5 / 255)


def test_int8_weights_of_one_channel_have_two_records() -> None:
    # One record: the loader keeps no list, the kernel reads it and crashes.
    model = network(
        [("Conv", ["x", "w", "b"], ["y"], {})], SHAPE, {"w": numbers(1, 4, 1, 1), "b": numbers(1)}
    )
    graph = _measured(model, INT8)
    assert len(_by_name(graph, "w").quant) == 2 and len(_by_name(graph, "b").quant) == 2


def test_weights_that_are_all_alike() -> None:
    # The tool divides by 0.
    for value in (0.0, 0.5, -0.5):
        weights = np.full((2, 4, 1, 1), value, np.float32)
        model = network([("Conv", ["x", "w"], ["y"], {})], SHAPE, {"w": weights})
        for dtype in (UINT8, INT8):
            found = _by_name(_measured(model, dtype), "w").values
            np.testing.assert_allclose(found, weights, atol=abs(value) / 255 + 1e-6)


def test_scales_are_handed_back_through_what_only_moves_values() -> None:
    nodes: list[Node] = [
        ("Sigmoid", ["x"], ["a"], {}),
        ("MaxPool", ["a"], ["b"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Relu", ["b"], ["c"], {}),
        ("Reshape", ["c", "s"], ["d"], {}),
        ("Softmax", ["d"], ["y"], {"axis": 1}),
    ]
    graph = convert(network(nodes, SHAPE, {"s": np.array([1, -1])})).graph
    scales = _scales(graph)
    final = hand_back(graph, scales)
    assert final["a"] == final["b"] == final["c"] == final["d"] == scales["d"]
    assert final["x"] == scales["x"] and final["y"] == scales["y"]


def test_scales_stop_at_averages_leaky_slopes_and_second_readers() -> None:
    nodes: list[Node] = [
        ("Sigmoid", ["x"], ["a"], {}),
        ("Relu", ["a"], ["b"], {}),
        ("LeakyRelu", ["b"], ["c"], {"alpha": 0.1}),
        ("AveragePool", ["c"], ["d"], {"kernel_shape": [2, 2]}),
        ("Relu", ["d"], ["e"], {}),
        ("Mul", ["a", "a"], ["f"], {}),
    ]
    graph = convert(network(nodes, SHAPE, outputs=("e", "f"))).graph
    scales = _scales(graph)
    final = hand_back(graph, scales)
    # a has two more readers, so the Relu's scale stays where it is; d takes e's; c and b keep theirs.
    assert final["a"] == scales["a"] and final["d"] == scales["e"]
    assert final["b"] == scales["b"] and final["c"] == scales["c"]


def test_a_slice_takes_its_inputs_scale_and_int8_refuses_it() -> None:
    nodes: list[Node] = [("Sigmoid", ["x"], ["a"], {}), ("Slice", ["a", "b", "e", "c"], ["y"], {})]
    model = network(nodes, SHAPE, {"b": np.array([0]), "e": np.array([2]), "c": np.array([1])})
    graph = convert(model).graph
    result = quantise(graph, _scales(graph), UINT8)
    assert _by_name(result, "y").quant == _by_name(result, "a").quant
    with pytest.raises(KilnError, match=r"cannot be int8: TM-INT8-KERNEL.*Slice"):
        quantise(graph, {name: Quant(0.1, 0) for name in activations(graph)}, INT8)


@pytest.mark.parametrize("dtype", [UINT8, INT8])
def test_a_reshape_of_a_tensor_with_two_readers_keeps_its_codes(dtype: int) -> None:
    nodes: list[Node] = [
        ("Sigmoid", ["x"], ["a"], {}),
        ("Reshape", ["a", "s"], ["y"], {}),
        ("LeakyRelu", ["a"], ["z"], {"alpha": 0.5}),
    ]
    graph = convert(network(nodes, SHAPE, {"s": np.array([1, -1, 6])}, ("y", "z"))).graph
    scales = {name: Quant(0.01 * number + 0.01, 0) for number, name in enumerate(activations(graph))}
    exact, tool = quantise(graph, scales, dtype), quantise(graph, scales, dtype, style="tool")
    assert _by_name(exact, "y").quant == _by_name(exact, "a").quant
    assert _by_name(tool, "y").quant != _by_name(tool, "a").quant
    assert "TM-COPY" in {finding.rule for finding in validate(tool)}
    # And the simulation copies codes, too: the tool's file is wrong by the ratio of the scales.
    feed = numbers(*SHAPE)
    ratio = _by_name(tool, "y").quant[0].scale / _by_name(tool, "a").quant[0].scale
    got, right = (Simulation(one, threads=1).run(feed)["y"] for one in (tool, exact))
    np.testing.assert_allclose(got, right * ratio, rtol=1e-5)


def test_an_int8_concat_covers_its_operands() -> None:
    # The kernel turns what lies below -127 codes into +127.
    nodes: list[Node] = [
        ("LeakyRelu", ["x"], ["a"], {"alpha": 0.5}),
        ("Sigmoid", ["x"], ["b"], {}),
        ("Concat", ["a", "b"], ["j"], {"axis": 1}),
        ("Reshape", ["j", "s"], ["y"], {}),
    ]
    graph = convert(network(nodes, SHAPE, {"s": np.array([1, -1])})).graph
    scales = {
        "x": Quant(0.1, 0),
        "a": Quant(0.03, 0),
        "b": Quant(0.01, 0),
        "j": Quant(0.02, 0),
        "y": Quant(0.02, 0),
    }
    exact, tool = quantise(graph, scales, INT8), quantise(graph, scales, INT8, style="tool")
    assert _by_name(exact, "j").quant == _by_name(exact, "y").quant == _by_name(exact, "a").quant
    assert "TM-INT8-CONCAT" in {finding.rule for finding in validate(tool)}
    assert "TM-INT8-CONCAT" not in {finding.rule for finding in validate(exact)}


def test_prelu_slopes_are_fp16() -> None:
    model = network([("PRelu", ["x", "s"], ["y"], {})], SHAPE, {"s": np.abs(numbers(4, 1, 1))})
    for dtype in (UINT8, INT8):
        graph = _measured(model, dtype)
        assert [tensor.dtype for tensor in graph.tensors if tensor.kind == 2] == [FP16]


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([("Div", ["x", "s"], ["y"], {})], {"s": np.float32(3)}, "division"),
        ([("ConvTranspose", ["x", "w"], ["y"], {})], {"w": numbers(4, 6, 2, 2)}, "input channels"),
    ],
)
def test_what_kernels_get_wrong_is_refused(
    nodes: list[Node], constants: dict[str, np.ndarray], message: str
) -> None:
    graph = convert(network(nodes, SHAPE, constants)).graph
    for dtype in (UINT8, INT8):
        with pytest.raises(KilnError, match=message):
            quantise(graph, {name: Quant(0.1, 0) for name in activations(graph)}, dtype)


def test_a_quantised_file_is_not_quantised_again() -> None:
    graph = _measured(small_detector(), INT8)
    with pytest.raises(KilnError, match="quantised already"):
        quantise(graph, {}, INT8)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", DTYPES)
def test_a_small_detector_survives(kind: str, algorithm: str) -> None:
    model = small_detector()
    graph = _measured(model, DTYPES[kind], algorithm=algorithm)
    assert [finding for finding in validate(graph) if finding.level == "error"] == []
    feed = numbers(1, 3, 8, 8, seed=50)
    expected, got = run_onnx(model, feed), Simulation(graph, threads=1).run(feed)
    for name, values in expected.items():
        cosine = float((values * got[name]).sum() / np.linalg.norm(values) / np.linalg.norm(got[name]))
        assert cosine > 0.97, name


def test_simulated_activations_are_codes_of_the_file() -> None:
    graph = _measured(small_detector(), UINT8)
    outputs = Simulation(graph, intermediates=True, threads=1).run(numbers(1, 3, 8, 8))
    assert set(outputs) == {t.name for t in graph.tensors if t.kind == 1}
    for name, values in outputs.items():
        tensor = _by_name(graph, name)
        np.testing.assert_allclose(decode(tensor, encode(tensor, values)), values, atol=1e-4)


def test_a_range_that_is_not_finite_is_refused() -> None:
    graph = convert(network([("Exp", ["x"], ["y"], {})], SHAPE)).graph
    with pytest.raises(KilnError, match="not finite"):
        measure_ranges(graph, lambda: [np.full(SHAPE, 1000, np.float32)], 1)
    with pytest.raises(KilnError, match="no calibration picture"):
        measure_ranges(graph, list, 0)


@pytest.mark.parametrize("style", ["exact", "tool"])
@pytest.mark.parametrize("kind", DTYPES)
def test_the_real_runtime_agrees_with_the_simulation(kind: str, style: str, tmp_path: Path) -> None:
    if not os.environ.get(runtime.VARIABLE):
        pytest.skip(f"no Tengine here: set {runtime.VARIABLE} to libtengine-lite.so")
    graph = _measured(small_detector(), DTYPES[kind], style=style)
    path = tmp_path / "small.tmfile"
    path.write_bytes(tmfile_bytes(graph))
    feed = numbers(1, 3, 8, 8, seed=50)
    (real,), version = runtime.run(path, [feed])
    assert version
    for name, values in Simulation(graph, threads=1).run(feed).items():
        steps = np.abs(real[name] - values) / _by_name(graph, name).quant[0].scale
        assert steps.max() <= 12 and steps.mean() < 1.0, name


def _steps_from_the_library(graph: TmGraph, feed: np.ndarray, path: Path) -> float:
    """Return how many steps of the output the simulation is at most from the library."""
    path.write_bytes(tmfile_bytes(graph))
    (real,), _ = runtime.run(path, [feed])
    simulated = Simulation(graph, threads=1).run(feed)
    return max(
        float(np.abs(real[name] - values).max() / _by_name(graph, name).quant[0].scale)
        for name, values in simulated.items()
    )


def test_a_uint8_average_below_the_smallest_code_wraps_around(tmp_path: Path) -> None:
    """uint8 Pooling does not clip at 0; with `exact` no picture can bring it there."""
    model = network([("GlobalAveragePool", ["x"], ["y"], {})], (1, 2, 4, 4))
    graph = convert(model).graph
    feed = np.stack([np.full((4, 4), -1.0), np.full((4, 4), 3.0)]).astype(np.float32)[None]
    lower = np.stack([np.full((4, 4), -1.2), np.full((4, 4), 3.0)]).astype(np.float32)[None]
    scales = {"x": Quant(4.4 / 255, 72), "y": Quant(4 / 255, 64)}
    tool, exact = (quantise(graph, scales, UINT8, style=style) for style in ("tool", "exact"))
    assert "TM-UINT8-POOL" in {finding.rule for finding in validate(tool)}
    assert "TM-UINT8-POOL" not in {finding.rule for finding in validate(exact)}
    values = [Simulation(one, threads=1).run(lower)["y"].ravel() for one in (tool, exact)]
    assert values[0][0] > 2 and values[1][0] == pytest.approx(-1.2, abs=0.02)
    for number, one in enumerate((tool, exact)):
        for which in (feed, lower) if os.environ.get(runtime.VARIABLE) else ():
            assert _steps_from_the_library(one, which, tmp_path / f"{number}.tmfile") <= 1.01


def test_an_int8_concat_flips_signs(tmp_path: Path) -> None:
    """What lies below -127 codes of the result comes out as +127."""
    nodes: list[Node] = [
        ("Relu", ["x"], ["b"], {}),
        ("LeakyRelu", ["x"], ["a"], {"alpha": 0.9}),
        ("Concat", ["a", "b"], ["y"], {"axis": 1}),
    ]
    graph = convert(network(nodes, SHAPE)).graph
    scales = {"x": Quant(0.03, 0), "a": Quant(0.03, 0), "b": Quant(0.01, 0), "y": Quant(0.01, 0)}
    tool, exact = (quantise(graph, scales, INT8, style=style) for style in ("tool", "exact"))
    feed = np.full(SHAPE, -3.0, np.float32)
    assert Simulation(tool, threads=1).run(feed)["y"].ravel()[0] == pytest.approx(1.27)
    assert Simulation(exact, threads=1).run(feed)["y"].ravel()[0] == pytest.approx(-2.7, abs=0.03)
    for number, one in enumerate((tool, exact)):
        if os.environ.get(runtime.VARIABLE):
            assert _steps_from_the_library(one, feed, tmp_path / f"{number}.tmfile") <= 1.01
            # A step of the operand, which is three of the result.
            assert _steps_from_the_library(one, numbers(*SHAPE), tmp_path / "n.tmfile") <= 3.01


@pytest.mark.parametrize("kind", DTYPES)
def test_our_own_ranges_of_the_onnx_file(kind: str) -> None:
    """Activations of a tmfile have their ONNX names; limits are those of `quant ranges`."""
    from facekiln.quant.ranges import measure_ranges as measure_own

    model = small_detector()
    feeds = [numbers(1, 3, 8, 8, seed=seed) for seed in range(4)]
    own, graph = measure_own(model, feeds, percentile=99.0), convert(model).graph
    scales = scales_of_ranges(graph, own, DTYPES[kind], "percentile")
    assert set(scales) == set(activations(graph))
    low, high = own.limits("r1", "percentile")
    if kind == "int8":
        assert scales["r1"].scale == pytest.approx(own.threshold("r1", "percentile") / 127)
        assert scales["scores"] == Quant(float(np.float32(1) / np.float32(127)), 0)
    else:
        assert scales["r1"].scale == pytest.approx((high - low) / 255)
    result = quantise(graph, scales, DTYPES[kind])
    assert [finding for finding in validate(result) if finding.level == "error"] == []
    with pytest.raises(KilnError, match="unknown range method"):
        scales_of_ranges(graph, own, DTYPES[kind], "mean")
    del own.tensors["r1"]
    with pytest.raises(KilnError, match="'r1'"):
        scales_of_ranges(graph, own, DTYPES[kind], "mse")


@pytest.mark.parametrize("kind", list(DTYPES))
def test_weights_and_biases_that_onnx_stores_once(kind: str) -> None:
    """An untrained ResNet has one bias of zeros for many convolutions; each has its own scale in the file."""
    constants = {"w": numbers(4, 4, 3, 3, seed=1), "b": numbers(4, seed=2)}
    pads = {"pads": [1, 1, 1, 1]}
    nodes: list[Node] = [("Conv", ["x", "w", "b"], ["m"], pads), ("Conv", ["m", "w", "b"], ["y"], pads)]
    model = network(nodes, SHAPE, constants)
    result = _measured(model, DTYPES[kind])
    convolutions = [node for node in result.nodes if node.params.get("kernel_h")]
    assert not set(convolutions[0].inputs) & set(convolutions[1].inputs)
    assert all(result.tensors[node.inputs[2]].dtype == INT32 for node in convolutions)
    feed = numbers(*SHAPE, seed=0)
    expected, found = run_onnx(model, feed)["y"], Simulation(result).run(feed)["y"]
    assert np.abs(expected - found).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("kind", list(DTYPES))
def test_a_foreign_file_with_shared_weights_has_every_bias_quantised(kind: str) -> None:
    constants = {"w": numbers(4, 4, 3, 3, seed=1), "a": numbers(4, seed=2), "b": numbers(4, seed=3)}
    pads = {"pads": [1, 1, 1, 1]}
    nodes: list[Node] = [("Conv", ["x", "w", "a"], ["m"], pads), ("Conv", ["m", "w", "b"], ["y"], pads)]
    graph = convert(network(nodes, SHAPE, constants)).graph
    first, second = (node for node in graph.nodes if node.params.get("kernel_h"))
    second.inputs[1] = first.inputs[1]
    result = quantise(graph, dict.fromkeys(activations(graph), Quant(0.1, 0)), DTYPES[kind])
    assert all(_by_name(result, name).dtype == INT32 for name in ("a", "b"))
