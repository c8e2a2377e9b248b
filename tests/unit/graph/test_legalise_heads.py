"""Tails cut back to maps."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facekiln.errors import KilnError
from facekiln.graph.legalise_heads import Tail, cut_heads
from facekiln.graph.onnx_graph import OnnxGraph

RNG = np.random.default_rng(8)


class Detector:
    """A two-level detector whose tail is put together piece by piece."""

    def __init__(self, values: int, anchors: int = 2, opset: int = 13) -> None:
        self.values, self.anchors, self.opset = values, anchors, opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {"shape": np.array([1, -1, values])}

    def add(self, op: str, inputs: list[str], output: str, **attrs: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"n_{output}", **attrs))
        return output

    def map(self, level: int, group: int = 1) -> str:
        """A convolution with stride 8 or 16."""
        stride = 8 << level
        channels = self.values * self.anchors
        self.constants[f"w{level}"] = RNG.normal(size=(channels, 3 // group, 1, 1)).astype(np.float32)
        self.constants[f"b{level}"] = RNG.normal(size=channels).astype(np.float32)
        inputs = ["x", f"w{level}", f"b{level}"]
        return self.add("Conv", inputs, f"map{level}", strides=[stride, stride], group=group)

    def rows(self, level: int, tensor: str, order: tuple[int, ...] = (0, 2, 3, 1)) -> str:
        turned = self.add("Transpose", [tensor], f"turned{level}", perm=list(order))
        return self.add("Reshape", [turned, "shape"], f"rows{level}")

    def graph(self, *outputs: str) -> OnnxGraph:
        stored = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 32, 48))
        wanted = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", [x], wanted, stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        return OnnxGraph.of(model)


def _two_levels(
    values: int, activation: str | None = None, *, inside: bool = False, opset: int = 13
) -> OnnxGraph:
    detector = Detector(values, opset=opset)
    attrs = {"axis": 2 if opset < 13 else -1} if activation == "Softmax" else {}
    branches = []
    for level in (0, 1):
        rows = detector.rows(level, detector.map(level))
        if activation and inside:
            rows = detector.add(activation, [rows], f"active{level}", **attrs)
        branches.append(rows)
    joined = detector.add("Concat", branches, "joined", axis=1)
    if activation and not inside:
        joined = detector.add(activation, [joined], "active", **attrs)
    return detector.graph(joined)


def _heads(tails: list[Tail]) -> list[tuple[str, int, tuple[int, int], int, str]]:
    return [(t.head.blob, t.head.stride, t.head.cells, t.head.anchors, t.head.order) for t in tails]


def test_boxes_end_in_the_convolutions() -> None:
    graph = _two_levels(4)
    tails, edits = cut_heads(graph)
    assert _heads(tails) == [
        ("joined_s8", 8, (4, 6), 2, "anchor_major"),
        ("joined_s16", 16, (2, 3), 2, "anchor_major"),
    ]
    assert [tail.tensor for tail in tails] == graph.outputs == ["map0", "map1"]
    assert [node.op for node in graph.nodes] == ["Conv", "Conv"]
    assert [edit.rule for edit in edits] == ["CAFFE-CUT-HEAD"]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("opset", [9, 13])
def test_scores_are_reordered_and_normalised_over_axis_one(inside: bool, opset: int) -> None:
    graph = _two_levels(2, "Softmax", inside=inside, opset=opset)
    before = {name: graph.constants[name] for name in ("w0", "b0")}
    tails, edits = cut_heads(graph)
    assert [tail.head.order for tail in tails] == ["value_major", "value_major"]
    assert [node.op for node in graph.nodes] == ["Conv", "Conv"] + ["Reshape", "Softmax", "Reshape"] * 2
    softmax = graph.nodes[3]
    assert softmax.attrs == {"axis": 1} and graph.shapes[softmax.inputs[0]] == (1, 2, 8, 6)
    # anchor, class -> class, anchor: channels 0 1 2 3 -> 0 2 1 3.
    weights, bias = (graph.constants[name] for name in graph.nodes[0].inputs[1:])
    assert np.array_equal(weights, before["w0"][[0, 2, 1, 3]])
    assert np.array_equal(bias, before["b0"][[0, 2, 1, 3]])
    # The old tensor's name stands for other values, and is not used for these.
    assert graph.nodes[0].outputs == ["map0::class_major"]
    assert [edit.rule for edit in edits] == ["CAFFE-CUT-HEAD", "CAFFE-CLASS-MAJOR"]


def test_one_anchor_needs_no_reordering() -> None:
    detector = Detector(2, anchors=1)
    joined = detector.add("Softmax", [detector.rows(0, detector.map(0))], "scores")
    graph = detector.graph(joined)
    tails, edits = cut_heads(graph)
    assert [node.op for node in graph.nodes] == ["Conv", "Softmax"]
    assert graph.nodes[0].outputs == ["map0"] and [edit.rule for edit in edits] == ["CAFFE-CUT-HEAD"]
    assert tails[0].head.shape == [1, 2, 4, 6]


def test_sigmoids_stay_on_the_maps() -> None:
    graph = _two_levels(1, "Sigmoid")
    tails, _ = cut_heads(graph)
    assert [node.op for node in graph.nodes] == ["Conv", "Conv", "Sigmoid", "Sigmoid"]
    assert tails[0].head.order == "anchor_major"


def test_a_chain_of_reshapes_is_one() -> None:
    detector = Detector(2)
    detector.constants["cells"] = np.array([1, 4, 6, 2, 2])
    turned = detector.add("Transpose", [detector.map(0)], "turned", perm=[0, 2, 3, 1])
    split = detector.add("Reshape", [turned, "cells"], "split")
    tails, _ = cut_heads(detector.graph(detector.add("Reshape", [split, "shape"], "scores")))
    assert tails[0].head.anchors == 2


def test_three_classes() -> None:
    # The masked-face detector has three.
    graph = _two_levels(3, "Softmax")
    tails, _ = cut_heads(graph)
    assert tails[0].head.values == 3 and graph.shapes[graph.nodes[3].inputs[0]] == (1, 3, 8, 6)


def test_vectors_and_maps_are_plain() -> None:
    detector = Detector(4)
    pooled = detector.add("GlobalAveragePool", [detector.map(0)], "pooled")
    vector = detector.add("Flatten", [pooled], "vector.0")
    heat = detector.add("Sigmoid", ["map0"], "heat")
    tails, edits = cut_heads(detector.graph(vector, heat))
    assert _heads(tails) == [("vector_0", 0, (1, 1), 1, "plain"), ("heat", 0, (4, 6), 1, "plain")]
    assert tails[0].head.output == "vector.0" and not edits


def test_two_levels_of_one_step_get_two_names() -> None:
    detector = Detector(4)
    first = detector.rows(0, detector.map(0))
    second = detector.rows(1, detector.add("Relu", ["map0"], "again"))
    tails, _ = cut_heads(detector.graph(detector.add("Concat", [first, second], "loc", axis=1)))
    assert [tail.head.blob for tail in tails] == ["loc_s8", "loc_s8_2"]


def test_declared_steps() -> None:
    assert _heads(cut_heads(_two_levels(4), (8, 16))[0]) == _heads(cut_heads(_two_levels(4))[0])
    for steps in ((8, 32), (8,), (16, 8)):
        with pytest.raises(KilnError, match=r"output 'joined'.*level \d has \dx\d cells.*\n.*priors.steps"):
            cut_heads(_two_levels(4), steps)


def test_uneven_sizes_have_the_nominal_step() -> None:
    # 240 / 64 = 3.75: four cells, whose step is 64 all the same.
    detector = Detector(4)
    detector.constants["w"] = np.ones((8, 3, 64, 64), np.float32)
    detector.add("Conv", ["x", "w"], "map", strides=[64, 64], pads=[0, 0, 63, 63])
    joined = detector.rows(0, "map")
    graph = detector.graph(joined)
    assert graph.shapes["map"] == (1, 8, 1, 1)
    (tail,), _ = cut_heads(graph, (64,))
    assert tail.head.stride == 64


def _refused(graph: OnnxGraph, message: str) -> None:
    with pytest.raises(KilnError, match=message):
        cut_heads(graph)


def test_another_transpose_is_refused() -> None:
    detector = Detector(4)
    _refused(detector.graph(detector.rows(0, detector.map(0), (0, 3, 2, 1))), r"output 'rows0'.*cut back")


def test_decoding_is_refused_with_a_next_step() -> None:
    detector = Detector(4)
    rows = detector.rows(0, detector.map(0))
    _refused(
        detector.graph(detector.add("Exp", [rows], "boxes")), r"output 'boxes'.*\(Exp\).*\n.*without decoding"
    )


def test_two_activations_are_refused() -> None:
    detector = Detector(2)
    first = detector.add("Softmax", [detector.rows(0, detector.map(0))], "a", axis=-1)
    second = detector.rows(1, detector.map(1))
    joined = detector.add("Concat", [first, second], "scores", axis=1)
    _refused(detector.graph(joined), "different activations")


def test_scores_that_something_else_reads_are_refused() -> None:
    detector = Detector(2)
    scores = detector.add("Softmax", [detector.rows(0, detector.map(0))], "scores", axis=-1)
    other = detector.add("Relu", ["map0"], "other")
    _refused(detector.graph(scores, other), r"output 'scores', level 0.*'n_map0' \(Conv\)")


def test_scores_of_a_grouped_convolution_or_none_are_refused() -> None:
    detector = Detector(3, anchors=2)
    scores = detector.add("Softmax", [detector.rows(0, detector.map(0, group=3))], "scores", axis=-1)
    _refused(detector.graph(scores), "plain convolution")
    detector = Detector(2)
    active = detector.add("Relu", [detector.map(0)], "active")
    scores = detector.add("Softmax", [detector.rows(0, active)], "scores", axis=-1)
    _refused(detector.graph(scores), r"\(Relu\)")


def test_outputs_of_another_rank_are_refused() -> None:
    detector = Detector(4)
    detector.constants["flat"] = np.array([-1])
    _refused(detector.graph(detector.add("Reshape", [detector.map(0), "flat"], "y")), r"output 'y'.*neither")
