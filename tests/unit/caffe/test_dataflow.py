"""Who writes what a layer reads, with layers that work in place."""

from __future__ import annotations

import pytest

from facekiln.caffe.dataflow import INPUT, producers, readers, single_assignment
from facekiln.caffe.net import Layer, Net
from facekiln.errors import KilnError


@pytest.fixture
def net() -> Net:
    """conv -> a, in-place ReLU on a, two readers of a, and an in-place ReLU on the input."""
    return Net(
        "n",
        {"x": [1, 2, 4, 4]},
        [
            Layer("first", "ReLU", ["x"], ["x"]),
            Layer("conv", "Convolution", ["x"], ["a"]),
            Layer("relu", "ReLU", ["a"], ["a"]),
            Layer("left", "Sigmoid", ["a"], ["l"]),
            Layer("sum", "Eltwise", ["a", "l"], ["s"]),
        ],
    )


def test_producers_and_readers(net: Net) -> None:
    assert producers(net) == [[INPUT], [0], [1], [2], [2, 3]]
    assert readers(net) == [[1], [2], [3, 4], [4], []]


def test_outputs_of_a_net_with_in_place_layers(net: Net) -> None:
    assert net.outputs == ["s"]
    net.layers.append(Layer("last", "ReLU", ["s"], ["s"]))
    assert net.outputs == ["s"]


def test_single_assignment(net: Net) -> None:
    unrolled, final = single_assignment(net)
    assert [(layer.bottoms, layer.tops) for layer in unrolled.layers] == [
        (["x"], ["x@2"]),
        (["x@2"], ["a"]),
        (["a"], ["a@2"]),
        (["a@2"], ["l"]),
        (["a@2", "l"], ["s"]),
    ]
    assert final == {"x": "x@2", "a": "a@2", "l": "l", "s": "s"}
    assert net.layers[2].in_place


def test_reading_ahead_is_refused(net: Net) -> None:
    net.layers.reverse()
    with pytest.raises(KilnError, match=r"layer 'sum'.*'a'.*\n.*order the layers"):
        producers(net)


def test_two_writers_are_refused(net: Net) -> None:
    net.layers.append(Layer("again", "ReLU", ["s"], ["l"]))
    with pytest.raises(KilnError, match=r"layer 'again'.*'l'"):
        producers(net)


def test_a_copy_can_be_edited(net: Net) -> None:
    net.layers[1].params["shape"] = {"dim": [1, 2]}
    other = net.copy()
    other.layers[1].params["shape"]["dim"][0] = 0
    other.layers[1].tops[0] = "other"
    other.inputs["x"][0] = 9
    assert net.layers[1].params == {"shape": {"dim": [1, 2]}}
    assert net.layers[1].tops == ["a"] and net.inputs == {"x": [1, 2, 4, 4]}
