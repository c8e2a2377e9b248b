"""Identities removed, pads moved into the layers that read them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facekiln.graph.legalise_caffe import drop_identities, fold_pads
from facekiln.graph.onnx_graph import OnnxGraph

W = np.ones((3, 2, 3, 3), np.float32)


def _graph(
    nodes: list[onnx.NodeProto], outputs: list[str], constants: dict[str, np.ndarray] | None = None
) -> OnnxGraph:
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, 6, 6))
    wanted = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "g", [x], wanted, stored)
    return OnnxGraph.of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]))


def _ops(graph: OnnxGraph) -> list[str]:
    return [node.op for node in graph.nodes]


@pytest.mark.parametrize(
    ("op", "inputs", "constant"),
    [
        ("Identity", ["a"], None),
        ("Dropout", ["a"], None),
        ("Mul", ["a", "c"], 1.0),
        ("Mul", ["c", "a"], [[[1.0]], [[1.0]]]),
        ("Div", ["a", "c"], 1.0),
        ("Add", ["c", "a"], 0.0),
        ("Sub", ["a", "c"], 0.0),
        ("Reshape", ["a", "shape"], None),
    ],
)
def test_what_changes_nothing_is_removed(op: str, inputs: list[str], constant: object) -> None:
    constants = {"shape": np.array([1, 2, 6, 6])}
    if constant is not None:
        constants["c"] = np.asarray(constant, np.float32)
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node(op, inputs, ["b"], name="nothing"),
        helper.make_node("Sigmoid", ["b"], ["y"]),
    ]
    graph = _graph(nodes, ["y"], constants)
    (edit,) = drop_identities(graph)
    assert edit.target == "nothing" and edit.rule == "CAFFE-DROP-IDENTITY"
    assert _ops(graph) == ["Relu", "Sigmoid"] and graph.nodes[1].inputs == ["a"]


@pytest.mark.parametrize(
    ("op", "inputs", "constant"),
    [
        ("Mul", ["a", "c"], 2.0),
        ("Add", ["a", "c"], 1.0),
        ("Sub", ["c", "a"], 0.0),
        ("Div", ["c", "a"], 1.0),
        # A factor of one that stretches its input does change something.
        ("Mul", ["p", "c"], [[[[1.0] * 6] * 6] * 2]),
    ],
)
def test_what_changes_something_stays(op: str, inputs: list[str], constant: object) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node(op, inputs, ["y"]),
    ]
    graph = _graph(nodes, ["y", "a", "p"], {"c": np.asarray(constant, np.float32)})
    assert drop_identities(graph) == [] and len(graph.nodes) == 3


def test_an_output_keeps_its_name() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Identity", ["a"], ["y"])]
    graph = _graph(nodes, ["y"])
    drop_identities(graph)
    assert graph.outputs == ["y"] and graph.nodes[0].outputs == ["y"]


def test_an_identity_that_gives_an_input_out_stays() -> None:
    graph = _graph([helper.make_node("Identity", ["x"], ["y"])], ["y"])
    assert drop_identities(graph) == [] and _ops(graph) == ["Identity"]


def _pad(pads: list[int], consumer: onnx.NodeProto, value: float = 0.0, mode: str = "constant") -> OnnxGraph:
    constants = {"pads": np.array(pads), "value": np.float32(value), "w": W}
    nodes = [helper.make_node("Pad", ["x", "pads", "value"], ["p"], name="pad", mode=mode), consumer]
    return _graph(nodes, ["y"], constants)


CONV = helper.make_node("Conv", ["p", "w"], ["y"], name="conv", pads=[1, 0, 1, 0])


def test_a_pad_goes_into_the_convolution() -> None:
    graph = _pad([0, 0, 0, 2, 0, 0, 0, 2], CONV)
    (edit,) = fold_pads(graph)
    assert edit.rule == "CAFFE-FOLD-PAD" and "conv" in edit.change
    assert _ops(graph) == ["Conv"] and graph.nodes[0].attrs["pads"] == [1, 2, 1, 2]
    assert graph.nodes[0].inputs[0] == "x"


def test_a_pad_goes_into_an_average_that_counts_it() -> None:
    pool = helper.make_node("AveragePool", ["p"], ["y"], kernel_shape=[3, 3])
    graph = _pad([0, 0, 1, 1, 0, 0, 1, 1], pool)
    assert len(fold_pads(graph)) == 1
    assert graph.nodes[0].attrs["count_include_pad"] == 1


@pytest.mark.parametrize(
    "graph",
    [
        _pad([0, 0, 1, 1, 0, 0, 1, 1], CONV, value=1.0),
        _pad([0, 0, 1, 1, 0, 0, 1, 1], CONV, mode="reflect"),
        _pad([0, 0, 1, 1, 0, 0, 1, 1], CONV, mode="edge"),
        _pad([0, 0, -1, 1, 0, 0, 1, 1], CONV),
        _pad([0, 0, 1, 1, 0, 0, 1, 1], helper.make_node("Relu", ["p"], ["y"])),
        # Zeros win over negative values in a maximum.
        _pad([0, 0, 1, 1, 0, 0, 1, 1], helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[3, 3])),
        _pad(
            [0, 0, 1, 1, 0, 0, 1, 1],
            helper.make_node("AveragePool", ["p"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        ),
        _pad([0, 0, 1, 1, 0, 0, 1, 1], helper.make_node("Conv", ["p", "w"], ["y"], auto_pad="SAME_UPPER")),
    ],
    ids=["not zero", "reflect", "edge", "cropping", "no window", "maximum", "padded average", "auto_pad"],
)
def test_other_pads_stay(graph: OnnxGraph) -> None:
    assert fold_pads(graph) == [] and graph.nodes[0].op == "Pad"


def test_padded_channels_stay() -> None:
    constants = {"pads": np.array([0, 0, 0, 0, 0, 1, 0, 0]), "w": np.ones((3, 3, 1, 1), np.float32)}
    nodes = [helper.make_node("Pad", ["x", "pads"], ["p"]), helper.make_node("Conv", ["p", "w"], ["y"])]
    assert fold_pads(_graph(nodes, ["y"], constants)) == []


def test_minus_infinity_goes_into_a_maximum() -> None:
    pool = helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[3, 3])
    graph = _pad([0, 0, 1, 1, 0, 0, 1, 1], pool, value=-np.inf)
    assert len(fold_pads(graph)) == 1 and graph.nodes[0].attrs["pads"] == [1, 1, 1, 1]


def test_a_pad_with_two_readers_goes_into_both_or_stays() -> None:
    constants = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": W}
    first = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["a"]),
    ]
    both = _graph([*first, helper.make_node("Conv", ["p", "w"], ["b"])], ["a", "b"], constants)
    assert len(fold_pads(both)) == 1 and _ops(both) == ["Conv", "Conv"]
    one = _graph([*first, helper.make_node("Relu", ["p"], ["b"])], ["a", "b"], constants)
    assert fold_pads(one) == [] and "pads" not in one.nodes[1].attrs
