"""One operator of a tmfile before its tensors have places; what every converter returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.errors import KilnError
from facekiln.graph.onnx_graph import Node, OnnxGraph


@dataclass(frozen=True)
class Call:
    """An operator by name, with tensors by name, and its parameters."""

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    params: dict[str, Any] = field(default_factory=dict)


def one(node: Node, op: str, inputs: list[str] | None = None, /, **params: Any) -> list[Call]:
    """Return the single call that a node becomes; it reads the node's first input where none are given."""
    return [Call(op, node.name, inputs or [node.inputs[0]], list(node.outputs), params)]


def refuse(node: Node, what: str, value: object = None, limit: object = None) -> KilnError:
    """Return the error for a form of an operator that Tengine cannot compute."""
    return KilnError(
        what, where=node.where, value=value, limit=limit, hint="export the network without it, or change it"
    )


def store(graph: OnnxGraph, name: str, values: NDArray[Any]) -> str:
    """Store a constant, float32, under a name that is free, and return that name."""
    taken = graph.add_constant(name, np.ascontiguousarray(values, np.float32))
    graph.shapes[taken] = values.shape
    return taken
