"""The editable ONNX graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facekiln.errors import KilnError
from facekiln.graph.onnx_graph import OnnxGraph, last_axis_softmax, pads_of


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    shape: tuple[int, ...] = (1, 2, 4, 4),
    opset: int = 13,
    *,
    listed: bool = False,
) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    if listed:
        # Old exporters list stored tensors among the inputs too.
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in stored]
    outputs = [onnx.ValueInfoProto(name=nodes[-1].output[0])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def test_reading() -> None:
    value = numpy_helper.from_array(np.float32([1, 2]).reshape(1, 2, 1, 1))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=value),
        helper.make_node("Mul", ["x", "c"], ["m"]),
        helper.make_node("Conv", ["m", "w"], ["y"], name="conv", auto_pad="VALID"),
    ]
    graph = OnnxGraph.of(_model(nodes, {"w": np.ones((3, 2, 1, 1), np.float32)}, listed=True))
    assert graph.inputs == ["x"] and graph.outputs == ["y"]
    assert [(node.op, node.name) for node in graph.nodes] == [("Mul", "Mul:m"), ("Conv", "conv")]
    assert graph.nodes[1].attrs["auto_pad"] == "VALID"
    assert graph.constants["c"].ravel().tolist() == [1, 2]
    assert graph.shapes["y"] == (1, 3, 4, 4) and graph.shapes["w"] == (3, 2, 1, 1)
    assert graph.producer("y") is graph.nodes[1] and graph.producer("x") is None
    assert graph.only_reader("m") is graph.nodes[1] and graph.only_reader("y") is None


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("value_float", 2.5, 2.5),
        ("value_int", 3, 3),
        ("value_floats", [1.0], [1.0]),
        ("value_ints", [2], [2]),
    ],
)
def test_constants_of_every_kind(kind: str, value: object, expected: object) -> None:
    nodes = [helper.make_node("Constant", [], ["c"], **{kind: value}), helper.make_node("Relu", ["x"], ["y"])]
    assert OnnxGraph.of(_model(nodes)).constants["c"].tolist() == expected


def test_a_constant_of_words_is_refused() -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], name="words", value_string=b"hello"),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    with pytest.raises(KilnError, match=r"'words'.*kind that is not read"):
        OnnxGraph.of(_model(nodes))


@pytest.mark.parametrize(
    ("opset", "shape", "axis", "expected"),
    [
        (13, (1, 5, 2), -1, {"axis": 2}),
        (13, (1, 5, 2), None, {"axis": 2}),
        (9, (1, 5, 2), 2, {"axis": 2}),
        (9, (1, 5, 2), None, {"axis": 1, "flattens": True}),
        # One axis that is longer than 1 is one axis.
        (9, (1, 5, 1, 1), 1, {"axis": 1}),
    ],
)
def test_softmax_axes_before_and_after_opset_13(
    opset: int, shape: tuple[int, ...], axis: int | None, expected: dict[str, object]
) -> None:
    attrs = {} if axis is None else {"axis": axis}
    graph = OnnxGraph.of(
        _model([helper.make_node("Softmax", ["x"], ["y"], **attrs)], shape=shape, opset=opset)
    )
    assert graph.nodes[0].attrs == expected
    assert last_axis_softmax(graph, graph.nodes[0]) == (expected["axis"] == len(shape) - 1)


def test_settings_that_are_computed_are_refused() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], name="shape"),
        helper.make_node("Reshape", ["x", "s"], ["r"], name="reshape"),
    ]
    model = _model(nodes)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("r", TensorProto.FLOAT, (1, 2, 4, 4)))
    graph = OnnxGraph.of(model)
    with pytest.raises(KilnError, match=r"'reshape'.*'shape' is computed"):
        graph.operand(graph.nodes[1], "shape", 1)


def test_contradicting_shapes_are_refused() -> None:
    nodes = [helper.make_node("Add", ["x", "w"], ["y"], name="add")]
    with pytest.raises(KilnError, match="shapes contradict each other"):
        OnnxGraph.of(_model(nodes, {"w": np.ones((3, 3), np.float32)}))


def test_replacing_and_pruning() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("Tanh", ["b"], ["y"]),
    ]
    graph = OnnxGraph.of(_model(nodes))
    graph.replace("b", "a")
    assert graph.nodes[2].inputs == ["a"]
    graph.prune()
    assert [node.op for node in graph.nodes] == ["Relu", "Tanh"]
    graph.replace("y", "a")
    assert graph.outputs == ["a"]


def test_new_names_are_free() -> None:
    graph = OnnxGraph.of(_model([helper.make_node("Relu", ["x"], ["y"])]))
    assert graph.add_constant("y", np.zeros(1)) == "y_2"
    assert graph.add_constant("y", np.zeros(1)) == "y_3"


@pytest.mark.parametrize(
    ("mode", "sizes", "expected"),
    [
        ("VALID", (8, 9), [0, 0, 0, 0]),
        ("SAME_UPPER", (8, 9), [0, 1, 1, 1]),
        ("SAME_LOWER", (8, 9), [1, 1, 0, 1]),
    ],
)
def test_auto_pads(mode: str, sizes: tuple[int, int], expected: list[int]) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=mode, strides=[2, 2])]
    graph = OnnxGraph.of(_model(nodes, {"w": np.ones((1, 2, 3, 3), np.float32)}))
    assert pads_of(graph.nodes[0], sizes, (3, 3), (2, 2)) == expected
