"""Widths, zero points, and a plan that survives being stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facekiln.caffe.net import Layer, Net
from facekiln.chips.nnie.engine import gfpq
from facekiln.chips.nnie.engine.fuse import fuse
from facekiln.chips.nnie.engine.plan import Plan, blob_widths, make_plan
from facekiln.chips.nnie.engine.state import plan_from, state_of
from facekiln.chips.nnie.wk import payload
from facekiln.errors import KilnError


def conv(name: str, bottom: str, outputs: int = 4, inputs: int = 4) -> Layer:
    rng = np.random.default_rng(len(name))
    blobs = [rng.normal(size=(outputs, inputs, 1, 1)).astype(np.float32), np.ones(outputs, np.float32)]
    return Layer(name, "Convolution", [bottom], [name], {"num_output": outputs, "kernel_size": [1]}, blobs)


def layer(name: str, kind: str, bottoms: list[str], top: str | None = None, **params: Any) -> Layer:
    return Layer(name, kind, bottoms, [top or name], params)


def net_of(*layers: Layer) -> Net:
    return Net("test", {"data": [1, 4, 8, 8]}, list(layers))


def widths(*layers: Layer, bits: int = 8) -> dict[str, int]:
    fused = fuse(net_of(*layers))
    return blob_widths(fused, {step.name: bits for step in fused.steps})


POOL = {"pool": "MAX", "kernel_size": 2, "stride": 2}


@pytest.mark.parametrize(("bits", "narrow"), [(8, 1), (16, 2)])
def test_ordinary_blobs_are_narrow_and_reported_ones_wide(bits: int, narrow: int) -> None:
    layers = [conv("a", "data"), layer("pool", "Pooling", ["a"], **POOL), conv("b", "pool")]
    assert widths(*layers, bits=bits) == {"data": narrow, "a": narrow, "pool": narrow, "b": 4}


def test_what_feeds_a_reported_softmax_is_wide() -> None:
    found = widths(
        conv("trunk", "data"),
        conv("score", "trunk"),
        layer("reshape", "Reshape", ["score"], shape={"dim": [0, 2, -1, 0]}),
        layer("softmax", "Softmax", ["reshape"]),
        layer("back", "Reshape", ["softmax"], shape={"dim": [0, 4, -1, 0]}),
    )
    assert found == {"data": 1, "trunk": 1, "score": 4, "reshape": 4, "softmax": 4, "back": 4}


def test_inputs_of_a_concat_in_front_of_a_relu_are_wide_and_the_relu_is_not() -> None:
    # RetinaFace's heads in the published .wk: three 4-byte convolutions, a 1- or 2-byte ReLU (op 0x07).
    found = widths(
        conv("a", "data"),
        conv("b", "data"),
        layer("cat", "Concat", ["a", "b"]),
        layer("relu", "ReLU", ["cat"], "cat"),
        conv("head", "cat", inputs=8),
    )
    assert found == {"data": 1, "a": 4, "b": 4, "cat@cat": 4, "cat": 1, "head": 4}


def test_an_eltwise_that_a_convolution_reads_takes_narrow_inputs() -> None:
    found = widths(
        conv("a", "data"), conv("b", "a"), layer("sum", "Eltwise", ["a", "b"]), conv("last", "sum")
    )
    assert found == {"data": 1, "a": 1, "b": 1, "sum": 1, "last": 4}


def test_an_eltwise_that_is_reported_takes_wide_inputs() -> None:
    found = widths(conv("a", "data"), conv("b", "a"), layer("sum", "Eltwise", ["a", "b"]))
    assert found == {"data": 1, "a": 4, "b": 4, "sum": 4}


def test_a_stand_alone_activation_reads_32_bit() -> None:
    # ENet's published .wk: a ReLU that is not in place has a 4-byte intermediate.
    assert widths(conv("a", "data"), layer("relu", "ReLU", ["a"]), conv("b", "relu"))["a"] == 4


def ranges_of(net: Net, value: float = 3.0) -> dict[str, float]:
    fused = fuse(net)
    return {blob: value + place for place, blob in enumerate(fused.shapes)}


def test_zero_points_come_from_ranges_and_pooling_shows_its_inputs() -> None:
    net = net_of(conv("a", "data"), layer("pool", "Pooling", ["a"], **POOL), conv("b", "pool"))
    plan = make_plan(net, {"data": 255.0, "a": 5.12, "pool": 2.0, "b": 9.0}, 16)
    assert {blob: dict(plan.blobs[blob].z) for blob in plan.blobs} == {
        "data": {16: -384},
        "a": {16: -1106},
        "pool": {16: -1106},
        "b": {},
    }


def test_weights_have_the_zero_point_of_their_own_largest_magnitude() -> None:
    net = net_of(conv("a", "data"))
    operation = make_plan(net, ranges_of(net), 8).operation("a")
    weights = net.layers[0].blobs[0]
    assert operation.z == gfpq.zero_point(float(np.abs(weights).max()), 8)
    assert operation.codes is not None
    assert operation.codes.dtype == np.uint8
    np.testing.assert_array_equal(operation.step.blobs[0], gfpq.quantise(weights, operation.z, 8))


def test_mixed_precision_stores_what_the_most_demanding_reader_needs() -> None:
    net = net_of(conv("a", "data"), conv("low", "a"), conv("high", "a"), conv("tail", "low"))
    plan = make_plan(net, ranges_of(net), {"high": 16})
    assert [plan.operation(name).bits for name in ("a", "low", "high", "tail")] == [8, 8, 16, 8]
    assert (plan.blobs["data"].width, plan.blobs["a"].width, plan.blobs["low"].width) == (1, 2, 1)
    assert sorted(plan.blobs["a"].z) == [8, 16]
    assert plan.reading(plan.operation("low"), "a") == 8
    assert plan.reading(plan.operation("high"), "a") == 16


def test_errors_name_the_layer_or_the_blob() -> None:
    net = net_of(conv("a", "data"), conv("b", "a"))
    with pytest.raises(KilnError, match="no range of blob 'a'"):
        make_plan(net, {"data": 1.0, "b": 1.0}, 8)
    with pytest.raises(KilnError, match="'c', which is no operation"):
        make_plan(net, ranges_of(net), {"c": 16})
    with pytest.raises(KilnError, match="8, 16 or 32"):
        make_plan(net, ranges_of(net), 12)
    with pytest.raises(KilnError, match="no operation of layer 'relu'"):
        make_plan(net, ranges_of(net), 8).operation("relu")
    with pytest.raises(KilnError, match=r"layer 'lrn' \(LRN\).*does not run"):
        make_plan(net_of(layer("lrn", "LRN", ["data"])), {}, 32)


def stored(plan: Plan) -> Plan:
    return plan_from(payload.decode(payload.encode(state_of(plan))))


def test_a_plan_survives_a_payload() -> None:
    prelu = Layer("prelu", "PReLU", ["a"], ["a"], {}, [np.array([0.1, 0.2, 0.3, 0.4], np.float32)])
    # Output order is z, b: sorted keys of a store must not change it.
    net = net_of(conv("a", "data"), prelu, conv("z", "a"), conv("b", "a"))
    plan = make_plan(net, ranges_of(net), {"z": 16})
    back = stored(plan)
    assert list(back.outputs) == list(plan.outputs) == ["z", "b"]
    assert (back.inputs, dict(back.blobs), back.rounded) == (plan.inputs, dict(plan.blobs), True)
    for one, two in zip(plan.operations, back.operations, strict=True):
        assert (one.bits, one.z, one.step.params, one.step.tops) == (
            two.bits, two.z, two.step.params, two.step.tops,
        )  # fmt: skip
        for left, right in zip(one.step.blobs, two.step.blobs, strict=True):
            np.testing.assert_array_equal(left, right)
    assert payload.encode(state_of(back)) == payload.encode(state_of(plan))


def test_the_state_holds_no_float_weights() -> None:
    net = net_of(conv("a", "data"))
    (operation,) = state_of(make_plan(net, ranges_of(net), 8))["operations"]
    assert [blob.shape for blob in operation["floats"]] == [(4,)]  # the bias alone
    assert operation["codes"].dtype == np.uint8


def test_foreign_and_damaged_states_are_refused() -> None:
    net = net_of(conv("a", "data"))
    state = state_of(make_plan(net, ranges_of(net), 8))
    with pytest.raises(KilnError, match="another engine"):
        plan_from({**state, "version": 99})
    with pytest.raises(KilnError, match="damaged"):
        plan_from({**state, "operations": [{}]})
    with pytest.raises(KilnError, match="no GFPQ code"):
        bad = {**state["operations"][0], "bits": 16, "codes": np.full((4, 4, 1, 1), 0x7FFF, np.uint16)}
        plan_from({**state, "operations": [bad]})
