"""An ONNX graph as rules edit it: plain nodes, constants as arrays, and the fixed shape of every tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from facekiln.errors import KilnError

Shape = tuple[int, ...]


@dataclass
class Node:
    """One operation.

    Attributes:
        op: the op type, e.g. "Conv".
        name: the node's name; made from its first output where the file has none.
        inputs: tensor names; "" where an optional one is absent.
        outputs: tensor names.
        attrs: attributes as Python values; strings as str.
    """

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """How errors name it."""
        return f"node '{self.name}' ({self.op})"


@dataclass
class OnnxGraph:
    """A graph with fixed shapes.

    Attributes:
        nodes: in topological order.
        constants: stored tensors by name, `Constant` nodes among them.
        shapes: the shape of every input, constant and node output.
        inputs: names of the tensors that are fed.
        outputs: names of the tensors that are asked for.
        opset: version of the default operator set; some ops changed their meaning with it.
    """

    nodes: list[Node]
    constants: dict[str, NDArray[Any]]
    shapes: dict[str, Shape]
    inputs: list[str]
    outputs: list[str]
    opset: int

    @classmethod
    def of(cls, model: onnx.ModelProto) -> OnnxGraph:
        """Read a model.

        Raises:
            KilnError: a tensor's shape is unknown or not fixed, or an operator is of no public domain.
        """
        _check_domains(model)
        try:
            inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        except shape_inference.InferenceError as error:
            raise KilnError(
                f"shapes contradict each other: {error}", hint="export the network again"
            ) from error
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in inferred.initializer}
        nodes = []
        for proto in inferred.node:
            node = _node(proto)
            if node.op == "Constant":
                constants[node.outputs[0]] = _constant(node)
            else:
                nodes.append(node)
        inputs = [value.name for value in inferred.input if value.name not in constants]
        shapes = {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in [*inferred.input, *inferred.value_info, *inferred.output]
            if value.type.tensor_type.HasField("shape")
        }
        shapes.update({name: value.shape for name, value in constants.items()})
        graph = cls(
            nodes, constants, shapes, inputs, [value.name for value in inferred.output], _opset(model)
        )
        graph._check_shapes()
        graph._state_softmax_axes()
        return graph

    def _check_shapes(self) -> None:
        named = [(name, f"input '{name}'") for name in self.inputs]
        named += [(name, node.where) for node in self.nodes for name in node.outputs if name]
        for name, where in named:
            shape = self.shapes.get(name)
            if shape is None or any(dim < 1 for dim in shape):
                raise KilnError(
                    f"the shape of tensor '{name}' is not fixed",
                    where=where,
                    value="unknown" if shape is None else list(shape),
                    hint="export with a fixed input size and run `facekiln onnx simplify`",
                )

    def _state_softmax_axes(self) -> None:
        """Give every Softmax its axis counted from the front, in the meaning of opset 13.

        Before, it normalised over everything from `axis` (default 1) on; where that is more than one axis,
        the node is marked `flattens`.
        """
        for node in self.nodes:
            if node.op != "Softmax":
                continue
            shape = self.shapes[node.inputs[0]]
            axis = positive_axis(node, int(node.attrs.get("axis", 1 if self.opset < 13 else -1)), len(shape))
            many = self.opset < 13 and any(dim > 1 for dim in shape[axis + 1 :])
            node.attrs = {"axis": axis, **({"flattens": True} if many else {})}

    def producer(self, tensor: str) -> Node | None:
        """Return the node that makes a tensor; None for inputs and constants."""
        return next((node for node in self.nodes if tensor in node.outputs), None)

    def consumers(self, tensor: str) -> list[Node]:
        """Return the nodes that read a tensor, in order."""
        return [node for node in self.nodes if tensor in node.inputs]

    def only_reader(self, tensor: str) -> Node | None:
        """Return the node that alone reads a tensor which is no graph output; else None."""
        readers = self.consumers(tensor)
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def operand(self, node: Node, attribute: str, index: int) -> NDArray[Any] | None:
        """Return a setting that is an attribute in old opsets and a constant input in new ones.

        Returns:
            A numpy array, or None where the node has neither.

        Raises:
            KilnError: the input is computed, not constant.
        """
        if attribute in node.attrs:
            return np.asarray(node.attrs[attribute])
        name = node.inputs[index] if index < len(node.inputs) else ""
        if not name:
            return None
        if name not in self.constants:
            raise KilnError(
                f"its '{attribute}' is computed by the graph",
                where=node.where,
                hint="run `facekiln onnx simplify` first",
            )
        return self.constants[name]

    def replace(self, old: str, new: str) -> None:
        """Let every reader of tensor `old`, and the graph's outputs, take `new`."""
        for node in self.nodes:
            node.inputs = [new if name == old else name for name in node.inputs]
        self.outputs = [new if name == old else name for name in self.outputs]

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Store a tensor under a name that is not taken yet, and return that name."""
        unused = self.unused(name)
        self.constants[unused] = value
        return unused

    def unused(self, name: str) -> str:
        """Return `name`, with a number where it is taken."""
        taken, number = name, 1
        while taken in self.constants or taken in self.shapes:
            number += 1
            taken = f"{name}_{number}"
        return taken

    def prune(self) -> None:
        """Drop nodes that no output depends on."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        self.nodes = kept[::-1]


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def _check_domains(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise KilnError(
                "is an operator of a private domain",
                where=f"node '{node.name}' ({node.op_type})",
                value=node.domain,
                hint="export with standard operators only",
            )


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _node(proto: onnx.NodeProto) -> Node:
    attrs = {attr.name: _plain(helper.get_attribute_value(attr)) for attr in proto.attribute}
    return Node(
        proto.op_type,
        proto.name or f"{proto.op_type}:{proto.output[0]}",
        list(proto.input),
        list(proto.output),
        attrs,
    )


def _constant(node: Node) -> NDArray[Any]:
    if "value" in node.attrs:
        return numpy_helper.to_array(node.attrs["value"])
    for kind, dtype in (("value_float", np.float32), ("value_floats", np.float32)):
        if kind in node.attrs:
            return np.asarray(node.attrs[kind], dtype)
    for kind in ("value_int", "value_ints"):
        if kind in node.attrs:
            return np.asarray(node.attrs[kind], np.int64)
    raise KilnError("holds a value of a kind that is not read", where=node.where, value=sorted(node.attrs))


def positive_axis(node: Node, axis: int, rank: int) -> int:
    """Return an axis counted from the front.

    Raises:
        KilnError: outside the rank.
    """
    if not -rank <= axis < rank:
        raise KilnError("axis is outside the tensor", where=node.where, value=axis, limit=f"rank {rank}")
    return axis % rank


def last_axis_softmax(graph: OnnxGraph, node: Node) -> bool:
    """Whether a node is a Softmax that normalises along the last axis alone."""
    rank = len(graph.shapes[node.inputs[0]]) if node.op == "Softmax" else 0
    return node.op == "Softmax" and node.attrs["axis"] == rank - 1


def ints(values: Any) -> list[int]:
    """Return an attribute or operand as a list of ints."""
    return [int(value) for value in np.asarray(values).ravel()]


def pads_of(node: Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Return ONNX spatial pads, all begins and then all ends, with `auto_pad` resolved (dilation 1)."""
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return ints(node.attrs.get("pads", [0] * 2 * len(kernel)))
    if mode == "VALID":
        return [0] * 2 * len(kernel)
    totals = [
        max((-(-size // stride) - 1) * stride + width - size, 0)
        for size, width, stride in zip(sizes, kernel, strides, strict=True)
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return [*small, *large] if mode == "SAME_UPPER" else [*large, *small]
