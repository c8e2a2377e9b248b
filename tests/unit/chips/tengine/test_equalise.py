"""Channels of consecutive convolutions are evened out without a change of what is computed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from facekiln.chips.tengine.convert import convert
from facekiln.chips.tengine.equalise import equalise, pairs_of
from facekiln.chips.tengine.simulate import Simulation
from facekiln.chips.tengine.writer import tmfile_bytes
from support.tengine_networks import Node, network, numbers, small_detector

SHAPE = (1, 4, 6, 6)


def _uneven(*shape: int, seed: int) -> np.ndarray:
    """Weights whose output channels differ by powers of ten."""
    powers = np.random.default_rng(seed).integers(-2, 3, shape[0])
    return (numbers(*shape, seed=seed) * 10.0 ** powers.reshape(-1, *[1] * (len(shape) - 1))).astype(
        np.float32
    )


def _chain(middle: list[Node], second: str, group: int = 1) -> onnx.ModelProto:
    weights = {"w0": _uneven(8, 4, 1, 1, seed=1), "b0": _uneven(8, seed=2)}
    weights["w1"] = _uneven(8, 8 // group, 3, 3, seed=3)
    nodes: list[Node] = [("Conv", ["x", "w0", "b0"], ["c"], {})]
    nodes += [*middle, ("Conv", [second, "w1"], ["y"], {"pads": [1, 1, 1, 1], "group": group})]
    return network(nodes, SHAPE, weights)


RELU: list[Node] = [("Relu", ["c"], ["r"], {})]
LEAKY: list[Node] = [("LeakyRelu", ["c"], ["r"], {"alpha": 0.1})]


@pytest.mark.parametrize("group", [1, 2, 8])
@pytest.mark.parametrize(("middle", "second"), [([], "c"), (RELU, "r"), (LEAKY, "r")])
def test_the_same_is_computed_with_even_weights(middle: list[Node], second: str, group: int) -> None:
    graph = convert(_chain(middle, second, group)).graph
    evened, pairs = equalise(graph)
    assert pairs == 1
    feed = numbers(*SHAPE)
    before, after = Simulation(graph).run(feed)["y"], Simulation(evened).run(feed)["y"]
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())
    (pair,) = pairs_of(evened)
    first = evened.tensors[pair.first.inputs[1]].values
    rows = np.abs(first.reshape(8, -1)).max(axis=1)
    second_weights = evened.tensors[pair.second.inputs[1]].values.reshape(group, 8 // group, 8 // group, -1)
    columns = np.abs(second_weights).max(axis=(1, 3)).ravel()
    np.testing.assert_allclose(rows, columns, rtol=0.02)
    assert tmfile_bytes(equalise(graph)[0]) == tmfile_bytes(evened)


@pytest.mark.parametrize(
    ("middle", "second"),
    [
        # Bounded, so a channel cannot be scaled through them.
        ([("Clip", ["c", "zero", "six"], ["r"], {})], "r"),
        ([("Sigmoid", ["c"], ["r"], {})], "r"),
        # Somebody else reads it.
        ([("Relu", ["c"], ["r"], {}), ("Add", ["r", "r"], ["s"], {})], "s"),
    ],
)
def test_what_would_change_is_left_alone(middle: list[Node], second: str) -> None:
    nodes: list[Node] = [("Conv", ["x", "w0"], ["c"], {}), *middle, ("Conv", [second, "w1"], ["y"], {})]
    weights = {"w0": _uneven(8, 4, 1, 1, seed=1), "w1": _uneven(8, 8, 1, 1, seed=2)}
    weights |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    assert pairs_of(convert(network(nodes, SHAPE, weights)).graph) == []


def test_an_output_keeps_its_values() -> None:
    nodes: list[Node] = [("Conv", ["x", "w0"], ["c"], {}), ("Conv", ["c", "w1"], ["y"], {})]
    weights = {"w0": _uneven(8, 4, 1, 1, seed=1), "w1": _uneven(8, 8, 1, 1, seed=2)}
    assert pairs_of(convert(network(nodes, SHAPE, weights, ("c", "y"))).graph) == []


def test_channels_of_nothing_are_left_alone() -> None:
    model = _chain(RELU, "r", 8)
    graph = convert(model).graph
    (pair,) = pairs_of(graph)
    weights = graph.tensors[pair.first.inputs[1]]
    values = weights.values.copy()
    values[3] = 0
    weights.data = values.tobytes()
    evened, _ = equalise(graph)
    assert all(np.isfinite(tensor.values).all() for tensor in evened.tensors if tensor.data)
    feed = numbers(*SHAPE)
    before, after = Simulation(graph).run(feed)["y"], Simulation(evened).run(feed)["y"]
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())


def test_heads_that_share_a_map_are_left_alone() -> None:
    assert pairs_of(convert(small_detector()).graph) == []
