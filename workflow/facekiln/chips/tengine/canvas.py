"""An ONNX graph in the making, beside the tmfile that it is of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from facekiln.chips.tengine.format import CONST, TmGraph
from facekiln.errors import KilnError

Shape = tuple[int, ...]
Result = list[tuple[str, Shape]]


class Canvas:
    """An ONNX graph in the making, beside the tmfile that it is of."""

    def __init__(self, graph: TmGraph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self._names: dict[int, str] = {}
        self._shapes: dict[int, Shape] = {}

    def call(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node of one output, whose name begins as no name of a file does."""
        output = f"::{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def constant(self, values: NDArray[Any] | np.generic) -> str:
        """Store a constant."""
        name = f"::constant{len(self.constants)}"
        self.constants[name] = np.asarray(values)
        return name

    def set(self, tensor: int, name: str, shape: Shape) -> None:
        """Say which ONNX tensor holds a tensor of the file."""
        self._names[tensor], self._shapes[tensor] = name, shape

    def has(self, tensor: int) -> bool:
        """Whether a tensor was made already."""
        return tensor in self._names

    def name(self, tensor: int) -> str:
        """Return the ONNX name of a tensor; constants are stored when first asked for."""
        if tensor not in self._names:
            self.set(tensor, self.constant(self.values(tensor)), self.shape(tensor))
        return self._names[tensor]

    def shape(self, tensor: int) -> Shape:
        """Return a tensor's shape."""
        if tensor in self._shapes:
            return self._shapes[tensor]
        return tuple(self.graph.tensors[tensor].dims or ())

    def values(self, tensor: int) -> NDArray[np.float32]:
        """Return a constant's real values."""
        found = self.graph.tensors[tensor]
        if found.kind != CONST or found.data is None:
            raise KilnError(
                "its constant is computed or has no bytes in the file",
                where=f"tensor '{found.name}'",
                hint="benchmark files hold no weights: they can be inspected, not run",
            )
        return found.values

    def clipped(self, name: str, low: float, high: float) -> str:
        """Append a Clip."""
        limits = [self.constant(np.float32(low)), self.constant(np.float32(high))]
        return self.call("Clip", [name, *limits])

    def reshaped(self, name: str, shape: Sequence[int]) -> str:
        """Append a Reshape."""
        return self.call("Reshape", [name, self.constant(np.array(shape, np.int64))])
