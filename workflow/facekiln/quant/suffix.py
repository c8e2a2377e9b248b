"""The part of a graph that one node can change: the node and all that depend on it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import helper

from facekiln.config import known
from facekiln.quant.nodes import activations, constants, node_name


@dataclass(frozen=True)
class Suffix:
    """A graph cut before a node.

    Attributes:
        model: the node and all that depend on it; its outputs are those of the whole graph that change.
        inputs: tensors of the whole graph that it is fed.
        bytes: of those tensors, for one picture.
    """

    model: onnx.ModelProto
    inputs: tuple[str, ...]
    bytes: int


def suffix_of(model: onnx.ModelProto, name: str) -> Suffix:
    """Cut a simplified graph before a node.

    Raises:
        KilnError: no node of that name, or a shape is not fixed.
    """
    known(name, [node_name(node) for node in model.graph.node], "node")
    stored, shapes = constants(model), {tensor.name: tensor.shape for tensor in activations(model)}
    kept: list[onnx.NodeProto] = []
    made: set[str] = set()
    for node in model.graph.node:
        if node_name(node) == name or made.intersection(node.input):
            kept.append(node)
            made.update(node.output)
    read = dict.fromkeys(tensor for node in kept for tensor in node.input if tensor and tensor not in made)
    fed = [tensor for tensor in read if tensor in shapes]
    graph = helper.make_graph(
        kept,
        "suffix",
        [helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, shapes[tensor]) for tensor in fed],
        [output for output in model.graph.output if output.name in made],
    )
    for tensor in read:
        if tensor in stored:
            copy = graph.initializer.add()
            copy.CopyFrom(stored[tensor])
            copy.name = tensor
    # Integer tensors that the graph computes from shapes do not occur in a simplified graph.
    cut = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return Suffix(cut, tuple(fed), sum(4 * _size(shapes[tensor]) for tensor in fed))


def _size(shape: tuple[int, ...]) -> int:
    product = 1
    for side in shape:
        product *= side
    return product
