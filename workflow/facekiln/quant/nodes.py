"""Which tensors and nodes of a simplified ONNX graph quantisation is about."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference

from facekiln.errors import KilnError

# The axis of a weight's output channels; a ConvTranspose stores [in, out / group, ...].
WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": -1}
# Int8 chips compute these on quantised inputs; their inputs are where a scale matters. Activations follow the
# accumulator of the node before, and pure movers (Reshape, MaxPool, nearest Resize) keep their input's scale.
UNWEIGHTED = ("Add", "Sum", "Mul", "Concat", "AveragePool", "GlobalAveragePool")
# Their output holds the values of their input, in another order.
MOVERS = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")


@dataclass(frozen=True)
class Tensor:
    """One activation: its name, the node that makes it ("" for an input) and its op, its shape.

    `same_as` is the tensor that it only reorders, if it does.
    """

    name: str
    node: str
    op: str
    shape: tuple[int, ...]
    same_as: str | None


@dataclass(frozen=True)
class Weight:
    """One weight: its initializer, the node that uses it, that node's op, the axis of output channels."""

    name: str
    node: str
    op: str
    axis: int
    values: NDArray[np.float32]

    def absmax(self) -> NDArray[np.float32]:
        """Return the largest magnitude per output channel, float32 [C]."""
        moved = np.moveaxis(self.values, self.axis, 0)
        return np.abs(moved.reshape(len(moved), -1)).max(axis=1, initial=0)


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return the stored tensors by name, `Constant` nodes' among them."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def node_name(node: onnx.NodeProto) -> str:
    """Return a node's name; made from its first output where the file has none."""
    return node.name or f"{node.op_type}:{node.output[0]}"


def activations(model: onnx.ModelProto) -> list[Tensor]:
    """Return every float32 tensor that depends on the input, inputs first, in the graph's order.

    Raises:
        KilnError: a shape is not known or not fixed.
    """
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    known = {value.name: value for value in [*inferred.input, *inferred.value_info, *inferred.output]}
    stored = constants(model)
    found: dict[str, Tensor] = {}

    def add(name: str, node: str, op: str, same_as: str | None) -> None:
        if name not in known:
            raise KilnError(
                f"the shape of tensor '{name}' is unknown",
                where=node or "input",
                hint="run `facekiln onnx simplify` first",
            )
        kind = known[name].type.tensor_type
        if kind.elem_type != onnx.TensorProto.FLOAT:
            return
        shape = tuple(dim.dim_value for dim in kind.shape.dim)
        if any(dim < 1 for dim in shape):
            raise KilnError(
                f"the shape of tensor '{name}' is not fixed",
                where=node or "input",
                value=list(shape),
                hint="export with a fixed size and run `facekiln onnx simplify`",
            )
        found[name] = Tensor(name, node, op, shape, same_as)

    for value in model.graph.input:
        if value.name not in stored:
            add(value.name, "", "Input", None)
    for node in model.graph.node:
        if not any(name in found for name in node.input):
            continue
        source = found.get(node.input[0]) if node.op_type in MOVERS else None
        for name in node.output:
            if name:
                add(name, node_name(node), node.op_type, (source.same_as or source.name) if source else None)
    return list(found.values())


def weights(model: onnx.ModelProto) -> Iterator[Weight]:
    """Yield the stored weights of convolutions and matrix products, in the graph's order."""
    stored = constants(model)
    for node in model.graph.node:
        axis = WEIGHTED.get(node.op_type)
        if axis is None or len(node.input) < 2 or node.input[1] not in stored:
            continue
        values = numpy_helper.to_array(stored[node.input[1]])
        if node.op_type == "Gemm" and not next((a.i for a in node.attribute if a.name == "transB"), 0):
            axis = 1
        yield Weight(node.input[1], node_name(node), node.op_type, axis % values.ndim, values)


def last_weighted(
    nodes: Sequence[tuple[str, Collection[str], Collection[str]]], weighted: Collection[str]
) -> list[str]:
    """Return the nodes with weights behind which no other stands, in order: of a detector, its heads.

    Args:
        nodes: name, inputs and outputs of each, in topological order; of any format's graph.
        weighted: names of those with weights.
    """
    found: list[str] = []
    reach: set[str] = set()
    for name, inputs, outputs in reversed(nodes):
        behind = not reach.isdisjoint(outputs)
        if name in weighted and not behind:
            found.append(name)
        if behind or name in weighted:
            reach.update(inputs)
    return found[::-1]


def quantisable(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes whose inputs int8 quantises, in the graph's order.

    A node with a weight that the graph computes is none, nor is arithmetic on constants alone.
    """
    floats = {tensor.name for tensor in activations(model)}
    stored = constants(model)
    found = []
    for node in model.graph.node:
        data = [name for name in node.input if name in floats]
        weighted = node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in stored
        # A product or sum with a constant is a scale or shift that chips fold into the node before.
        plain = node.op_type in UNWEIGHTED and len(data) == len(node.input)
        if data and (weighted or plain):
            found.append(node)
    return found
