"""The quantised engine: every layer does what the recipe says, and nothing else decides the result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekiln.caffe.net import Layer, Net
from facekiln.caffe.opencv import OpenCvNet
from facekiln.chips.nnie.engine import gfpq, lookup
from facekiln.chips.nnie.engine.engine import Engine
from facekiln.chips.nnie.engine.ranges import measure_ranges
from facekiln.chips.nnie.wk import payload
from facekiln.errors import KilnError

Arrays = dict[str, np.ndarray]


def head_net() -> Net:
    """A small network with each kind of blob: narrow, wide, passed on as codes, concatenated, reported."""
    rng = np.random.default_rng(8)

    def conv(
        name: str, bottom: str, outputs: int, inputs: int, top: str | None = None, **params: Any
    ) -> Layer:
        kernel = params.setdefault("kernel_size", [3])
        shape = (outputs, inputs // params.get("group", 1), kernel[0], kernel[0])
        blobs = [rng.normal(0, 0.5, shape).astype(np.float32), rng.normal(0, 0.3, outputs).astype(np.float32)]
        params = {"pad": [kernel[0] // 2], **params}
        return Layer(name, "Convolution", [bottom], [top or name], {"num_output": outputs, **params}, blobs)

    def act(blob: str, kind: str = "ReLU", **params: Any) -> Layer:
        slopes = [rng.uniform(0, 0.5, 8).astype(np.float32)] if kind == "PReLU" else []
        return Layer(f"{blob}_{kind}", kind, [blob], [blob], params, slopes)

    ones = np.ones((8, 1, 2, 2), np.float32)
    up = {"num_output": 8, "group": 8, "kernel_size": [2], "stride": [2], "bias_term": False}
    return Net(
        "heads",
        {"data": [1, 3, 16, 24]},
        [
            conv("stem", "data", 8, 3, stride=[2]), act("stem"),
            conv("depth", "stem", 8, 8, group=8), act("depth", negative_slope=0.1),
            conv("point", "depth", 8, 8, kernel_size=[1]), act("point", "PReLU"),
            Layer("pool", "Pooling", ["point"], ["pool"], {"pool": "MAX", "kernel_size": 2, "stride": 2}),
            Layer("up", "Deconvolution", ["pool"], ["up"], up, [ones]),
            Layer("sum", "Eltwise", ["point", "up"], ["sum"], {}),
            conv("a", "sum", 4, 8), conv("b", "sum", 4, 8),
            Layer("cat", "Concat", ["a", "b"], ["cat"], {}), act("cat"),
            conv("gate", "cat", 8, 8, kernel_size=[1]), act("gate", "Sigmoid"),
            Layer("cut", "Slice", ["gate"], ["left", "right"], {"axis": 1, "slice_point": [3]}),
            Layer("swapped", "Concat", ["right", "left"], ["swapped"], {"axis": 1}),
            conv("box", "swapped", 8, 8, kernel_size=[1]),
            conv("score", "cat", 4, 8, kernel_size=[1]),
            Layer("split", "Reshape", ["score"], ["split"], {"shape": {"dim": [0, 2, -1, 0]}}),
            Layer("prob", "Softmax", ["split"], ["prob"], {}),
            Layer("back", "Reshape", ["prob"], ["back"], {"shape": {"dim": [0, 4, -1, 0]}}),
            Layer("vector", "InnerProduct", ["pool"], ["vector"], {"num_output": 5},
                  [rng.normal(0, 0.1, (5, 192)).astype(np.float32), np.ones(5, np.float32)]),
        ],
    )  # fmt: skip


def pictures(net: Net, count: int = 2, scale: float = 2.0) -> list[Arrays]:
    rng = np.random.default_rng(2)
    return [
        {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in net.inputs.items()}
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def net() -> Net:
    return head_net()


@pytest.fixture(scope="module")
def ranges(net: Net) -> dict[str, float]:
    return measure_ranges(net, pictures(net))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def one_layer(step: Any, inputs: list[np.ndarray]) -> Arrays:
    """Run a traced step alone in OpenCV: its (quantised) weights on its (quantised) inputs."""
    layer = step.layer
    layers = [layer]
    if step.activation:
        a = step.activation
        layers.append(Layer(a.name, a.type, [layer.tops[0]], [layer.tops[0]], dict(a.params), list(a.blobs)))
    shapes = {name: list(value.shape) for name, value in zip(step.bottoms, inputs, strict=True)}
    values = dict(zip(step.bottoms, inputs, strict=True))
    return OpenCvNet(Net("one", shapes, layers)).run(values, list(step.tops))


@pytest.mark.parametrize("bits", [8, 16])
def test_each_layer_is_its_operation_on_decoded_codes_rounded_to_20_12(
    net: Net, ranges: dict[str, float], bits: int
) -> None:
    engine = Engine(net, ranges, bits)
    trace = engine.trace(pictures(net)[0])
    checked = 0
    for operation in engine.plan.operations:
        seen = trace.layer(operation.step.name)
        expected = one_layer(operation.step, [operand.values for operand in seen.inputs])
        for top, fixed in zip(operation.step.tops, seen.outputs, strict=True):
            assert fixed.dtype == np.int32
            wanted = expected[top].reshape(fixed.shape) * 4096.0
            # Half a unit of rounding, and float32 sums in another order.
            assert np.abs(fixed - wanted).max() <= 0.5 + 1e-5 * np.abs(wanted).max(), top
            width, stored = engine.plan.blobs[top].width, trace.blob(top)
            if width == 4:
                np.testing.assert_array_equal(stored, fixed.astype(np.float32) / np.float32(4096))
            elif not operation.step.keeps_codes:
                z = engine.plan.blobs[top].z[8 * width]
                again = gfpq.quantise(fixed.astype(np.float32) / np.float32(4096), z, 8 * width)
                np.testing.assert_array_equal(stored, again, top)
            checked += 1
    assert checked == 20


@pytest.mark.parametrize("bits", [8, 16])
def test_traced_operands_are_codes(net: Net, ranges: dict[str, float], bits: int) -> None:
    engine = Engine(net, ranges, bits)
    data = pictures(net)[0]
    seen = engine.trace(data).layer("stem")
    (operand,), z = seen.inputs, gfpq.zero_point(ranges["data"], bits)
    assert (operand.bits, operand.z) == (bits, z)
    np.testing.assert_array_equal(operand.codes, gfpq.encode(data["data"], z, bits))
    np.testing.assert_array_equal(operand.values, gfpq.decode(operand.codes, z, bits))
    weights = net.layer("stem").blobs[0]
    assert seen.weights is not None
    assert seen.weights.codes.dtype == {8: np.uint8, 16: np.uint16}[bits]
    np.testing.assert_array_equal(seen.weights.codes, gfpq.encode(weights, seen.weights.z, bits))
    np.testing.assert_array_equal(seen.bias, net.layer("stem").blobs[1])
    soft = engine.trace(data).layer("prob")
    assert (soft.inputs[0].bits, soft.inputs[0].codes.dtype, soft.weights) == (32, np.int32, None)


def test_pooling_and_nearest_enlargement_hand_codes_on(net: Net, ranges: dict[str, float]) -> None:
    engine = Engine(net, ranges, 8)
    trace = engine.trace(pictures(net)[0])
    pooled, enlarged = trace.blob("pool"), trace.blob("up")
    np.testing.assert_array_equal(enlarged, pooled.repeat(2, 2).repeat(2, 3))
    assert set(np.unique(pooled)) <= set(np.unique(trace.blob("point")))


@pytest.mark.parametrize("bits", [8, 16])
def test_reported_values_are_multiples_of_1_4096(net: Net, ranges: dict[str, float], bits: int) -> None:
    for value in Engine(net, ranges, bits).run(pictures(net)[0]).values():
        np.testing.assert_array_equal(value * 4096, np.rint(value * 4096))


def test_sixteen_bit_is_nearer_to_float_than_eight(net: Net, ranges: dict[str, float]) -> None:
    data = pictures(net)[0]
    expected = Engine(net, bits=32).run(data)
    low, high = (Engine(net, ranges, bits).run(data) for bits in (8, 16))
    assert list(low) == list(high) == list(expected) == ["box", "back", "vector"]
    for name, value in expected.items():
        assert cosine(low[name], value) > 0.98
        assert cosine(high[name], value) > 0.9998
        assert cosine(high[name], value) > cosine(low[name], value)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_float_mode_trace_threads_and_repetition_agree(net: Net, ranges: dict[str, float], bits: int) -> None:
    data = pictures(net)[1]
    engine = Engine(net, ranges, bits)
    first = engine.run(data)
    traced = engine.run(data, trace=True)
    assert set(traced) == set(engine.plan.blobs)
    for other in (engine.run(data), traced, Engine(net, ranges, bits, threads=1).run(data)):
        for name, value in first.items():
            np.testing.assert_array_equal(value, other[engine.plan.outputs[name]])


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_a_stored_engine_gives_the_same_bits(net: Net, ranges: dict[str, float], bits: int) -> None:
    engine = Engine(net, ranges, bits)
    back = Engine.from_state(payload.decode(payload.encode(engine.state())))
    data = pictures(net)[0]
    assert back.outputs == engine.outputs
    assert back.inputs == {"data": [1, 3, 16, 24]}
    for name, value in engine.run(data).items():
        np.testing.assert_array_equal(back.run(data)[name], value)


def test_a_state_whose_parts_do_not_fit_together_is_refused(net: Net, ranges: dict[str, float]) -> None:
    state = Engine(net, ranges, 8).state()
    without = {**state, "blobs": {name: blob for name, blob in state["blobs"].items() if name != "stem"}}
    flat = {**state, "blobs": {**state["blobs"], "point": {**state["blobs"]["point"], "shape": [7]}}}
    for broken in (without, flat):
        with pytest.raises(KilnError, match="damaged"):
            Engine.from_state(broken).run(pictures(net)[0])


def test_mixed_precision_lies_between(net: Net, ranges: dict[str, float]) -> None:
    data = pictures(net)[0]
    expected = Engine(net, bits=32).run(data)["box"]
    mixed = {"box": 16, "a": 16, "b": 16}
    errors = [np.abs(Engine(net, ranges, bits).run(data)["box"] - expected).mean() for bits in (8, mixed, 16)]
    assert errors[0] > errors[1] > errors[2]


def test_codes_are_handed_on_only_to_readers_of_their_width(net: Net, ranges: dict[str, float]) -> None:
    # `pool` is read in 8 bit by `up` and in 16 bit by `vector`; both read its 20.12 value.
    trace = Engine(net, ranges, {"vector": 16}).trace(pictures(net)[0])
    fixed = trace.fixed("pool").astype(np.float32) / np.float32(4096)
    for reader, bits in (("up", 8), ("vector", 16)):
        operand = trace.layer(reader).inputs[0]
        assert operand.bits == bits
        np.testing.assert_array_equal(operand.values, gfpq.quantise(fixed, operand.z, bits))


def test_a_layer_left_in_float_reads_20_12(net: Net, ranges: dict[str, float]) -> None:
    engine = Engine(net, ranges, {op.step.name: 32 for op in Engine(net, bits=32).plan.operations})
    data = pictures(net)[0]
    expected = Engine(net, bits=32).run(data)
    for name, value in engine.run(data).items():
        assert 0 < np.abs(value - expected[name]).max() < 0.01


def test_int32_saturation() -> None:
    net = Net("big", {"data": [1, 1, 1, 2]}, [Layer("p", "Power", ["data"], ["p"], {"scale": 1e6})])
    engine = Engine(net, {"data": 1.0, "p": 1e6}, 16)
    data = {"data": np.array([1.0, -1.0], np.float32).reshape(1, 1, 1, 2)}
    fixed = engine.trace(data).fixed("p").ravel()
    # The largest float32 below 2^31, and int32's lowest.
    assert fixed.tolist() == [2**31 - 128, -(2**31)]
    np.testing.assert_array_equal(engine.run(data)["p"].ravel(), fixed.astype(np.float32) / 4096)


def quantiser_net(relu: bool) -> Net:
    """A blob `x` of 20.12 numbers, or its ReLU `r`, whose codes a convolution reads."""
    source = "r" if relu else "x"
    blobs = [np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)]
    read = Layer("y", "Convolution", [source], ["y"], {"num_output": 1, "kernel_size": [1]}, blobs)
    relus = [Layer("r", "ReLU", ["x"], ["r"], {})] if relu else []
    return Net("q", {"data": [1, 1, 1, 4001]}, [Layer("x", "Power", ["data"], ["x"], {}), *relus, read])


# By a 16-bit index, by a 32-bit index, and by logarithm: the graph's three ways.
@pytest.mark.parametrize("limits", [(2.0**-10, 7.0), (17.0, 900.0), (1100.0, 2.0**18)])
@settings(deadline=None, max_examples=25)
@given(where=st.floats(0, 1), bits=st.sampled_from([8, 16]), relu=st.booleans(), seed=st.integers(0, 1000))
def test_quantisation_inside_the_graph_is_gfpq(
    limits: tuple[float, float], where: float, bits: int, relu: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    c = float(np.float32(limits[0] * (limits[1] / limits[0]) ** where))
    z = gfpq.zero_point(c, bits)
    edges = np.concatenate([gfpq.thresholds(z, bits), -gfpq.thresholds(z, bits, negative=True)])
    units = np.rint(rng.choice(edges, 1000).astype(np.float64) * 4096)[:, None] + [-1, 0, 1]
    spread = c * 4096 * np.exp(rng.uniform(-9, 1, 1001)) * rng.choice([-1, 1], 1001)
    data = (np.concatenate([units.ravel(), spread]) / 4096).astype(np.float32).reshape(1, 1, 1, -1)
    blob = "r" if relu else "x"
    engine = Engine(
        quantiser_net(relu), {"data": 1e6, "x": c, "r": c, "y": c}, {"x": 32, blob: 32, "y": bits}
    )
    trace = engine.trace({"data": data})
    fixed = trace.fixed(blob)
    assert len(np.unique(fixed)) > 2
    np.testing.assert_array_equal(
        trace.layer("y").inputs[0].values,
        gfpq.quantise(fixed.astype(np.float32) / np.float32(4096), z, bits),
    )
    plain = engine.run({"data": data})["y"]
    np.testing.assert_array_equal(plain, trace.blob("y"))


@pytest.mark.parametrize("bits", [8, 16])
def test_how_a_value_is_looked_up_does_not_change_it(
    net: Net, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    data = pictures(net, scale=200.0)
    wide = measure_ranges(net, data)
    assert max(wide.values()) > 64
    usual = Engine(net, wide, bits).run(data[0])
    monkeypatch.setattr(lookup, "_TABLE_BYTES", 0)
    for name, value in Engine(net, wide, bits).run(data[0]).items():
        np.testing.assert_array_equal(value, usual[name])


def test_wrong_inputs_are_named(net: Net, ranges: dict[str, float]) -> None:
    engine = Engine(net, ranges, 8)
    with pytest.raises(KilnError, match="input 'data' is missing"):
        engine.run({"image": np.zeros((1, 3, 16, 24), np.float32)})
    with pytest.raises(KilnError, match=r"another shape.*\[1, 3, 24, 16\]"):
        engine.run({"data": np.zeros((1, 3, 24, 16), np.float32)})
    bad = np.zeros((1, 3, 16, 24), np.float32)
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(KilnError, match="NaN or infinity"):
        engine.run({"data": bad})


def test_asking_a_trace_for_what_it_has_not(net: Net, ranges: dict[str, float]) -> None:
    trace = Engine(net, ranges, 8).trace(pictures(net)[0])
    with pytest.raises(KilnError, match="no blob 'nothing'"):
        trace.blob("nothing")
    with pytest.raises(KilnError, match="no operation of layer 'stem_ReLU'"):
        trace.layer("stem_ReLU")
    with pytest.raises(KilnError, match=r"no 20\.12 form"):
        Engine(net, bits=32).trace(pictures(net)[0]).fixed("stem")
