"""Stored tensors: which stay."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from facekiln.graph.constants import drop_unused_constants


def test_only_what_a_node_reads_stays_and_in_order() -> None:
    stored = [numpy_helper.from_array(np.float32([place]), name) for place, name in enumerate("cxab")]
    nodes = [helper.make_node("Add", ["input", "a"], ["sum"]), helper.make_node("Mul", ["c", "sum"], ["out"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("input", "out")]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    drop_unused_constants(model)
    onnx.checker.check_model(model)
    assert [tensor.name for tensor in model.graph.initializer] == ["c", "a"]
    assert [numpy_helper.to_array(tensor).tolist() for tensor in model.graph.initializer] == [[0], [2]]
    assert [node.op_type for node in model.graph.node] == ["Add", "Mul"]


def test_what_old_exporters_list_among_the_inputs_goes_with_its_constant() -> None:
    """Else it would be an input that has to be fed; the published RFB-320 files list all their weights."""
    stored = [numpy_helper.from_array(np.float32([1]), name) for name in ("a", "b")]
    nodes = [helper.make_node("Add", ["input", "a"], ["out"])]
    names = ("input", "a", "b")
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in names]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])]
    model = helper.make_model(helper.make_graph(nodes, "net", inputs, outputs, stored))
    drop_unused_constants(model)
    assert [value.name for value in model.graph.input] == ["input", "a"]
    assert [tensor.name for tensor in model.graph.initializer] == ["a"]


def test_a_constant_that_the_graph_returns_stays() -> None:
    stored = [numpy_helper.from_array(np.float32([1]), name) for name in ("priors", "b")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("input", "out")]
    values.append(helper.make_tensor_value_info("priors", TensorProto.FLOAT, [1]))
    nodes = [helper.make_node("Relu", ["input"], ["out"])]
    model = helper.make_model(helper.make_graph(nodes, "net", values[:1], values[1:], stored))
    drop_unused_constants(model)
    assert [tensor.name for tensor in model.graph.initializer] == ["priors"]
