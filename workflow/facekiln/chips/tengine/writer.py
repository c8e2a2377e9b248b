"""Writing tmfiles: the same graph gives the same bytes, every unused field is 0, buffers are aligned."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from facekiln.chips.tengine.format import (
    BUFFER,
    CONST,
    HEADER,
    MODEL,
    NO_BUFFER,
    NODE,
    OPERATOR,
    QUANT,
    STRING,
    SUBGRAPH,
    TENSOR,
    Node,
    Tensor,
    TmGraph,
)
from facekiln.chips.tengine.ops import OPS, STRUCT_CODES
from facekiln.errors import KilnError

# The runtime computes on the bytes where they are, so that their alignment is that of the vector loads.
ALIGNMENT = 16
_LIMIT = 1 << 32


class _Blob:
    """Bytes that grow, each object at an aligned offset."""

    def __init__(self) -> None:
        self.data = bytearray(HEADER.size)

    def put(self, data: bytes, alignment: int = 4) -> int:
        self.data += bytes(-len(self.data) % alignment)
        offset = len(self.data)
        self.data += data
        if len(self.data) >= _LIMIT:
            raise KilnError("is too large: a tmfile's offsets have 32 bits", limit="4 GiB")
        return offset

    def vector(self, code: str, values: Sequence[Any]) -> int:
        return self.put(struct.pack(f"<I{len(values)}{code}", len(values), *values))

    def string(self, text: str) -> int:
        raw = text.encode() + b"\0"
        at = self.put(raw)
        return self.put(STRING.pack(len(raw), at))


def _params(blob: _Blob, node: Node) -> int:
    """Append an operator's record; 0 where it has none."""
    op = OPS[node.op]
    if not op.fields:
        return 0
    record = bytearray(op.size)
    for field in op.fields:
        value = node.params.get(field.name, 0)
        if field.code in "VF" and not isinstance(value, int):
            value = blob.vector("i" if field.code == "V" else "f", value)
        elif field.code == "S" and isinstance(value, str):
            value = blob.string(value)
        struct.pack_into(f"<{STRUCT_CODES.get(field.code, field.code)}", record, field.offset, value)
    return blob.put(bytes(record))


def _node(blob: _Blob, place: int, node: Node) -> int:
    if node.op not in OPS or node.name is None:
        raise KilnError(
            "cannot be written: unknown operator or no name", where=f"node {place}", value=node.op
        )
    name = blob.string(node.name)
    inputs = blob.vector("I", node.inputs) if node.inputs else 0
    outputs = blob.vector("I", node.outputs)
    operator = blob.put(OPERATOR.pack(node.op_version, node.op, _params(blob, node)))
    return blob.put(NODE.pack(place, inputs, outputs, operator, name, 0, int(node.dynamic)))


def _quant(blob: _Blob, tensor: Tensor) -> int:
    if not tensor.quant:
        return 0
    offsets = [blob.put(QUANT.pack(item.zero_point, item.scale, 0)) for item in tensor.quant]
    return blob.vector("I", offsets)


def _tensor(blob: _Blob, place: int, tensor: Tensor, buffer: int) -> int:
    if tensor.name is None:
        raise KilnError("cannot be written: it has no name", where=f"tensor {place}")
    name = blob.string(tensor.name)
    dims = blob.vector("i", tensor.dims) if tensor.dims is not None else 0
    quant = _quant(blob, tensor)
    fields = (place, buffer, dims, name, quant, tensor.layout, tensor.kind, tensor.dtype)
    return blob.put(TENSOR.pack(*fields))


def tmfile_bytes(graph: TmGraph) -> bytes:
    """Return a graph as a tmfile.

    The order of objects is that of Tengine's own saver, so that the two can be compared by eye.

    Args:
        graph: with names everywhere; constants without data become buffers that the runtime fills with zeros.

    Raises:
        KilnError: an operator is unknown, a name is missing, or the file would pass 4 GiB.
    """
    blob = _Blob()
    nodes = blob.vector("I", [_node(blob, place, node) for place, node in enumerate(graph.nodes)])
    held = [tensor for tensor in graph.tensors if tensor.kind == CONST]
    numbers = {id(tensor): number for number, tensor in enumerate(held)}
    tensors = blob.vector(
        "I",
        [
            _tensor(blob, place, tensor, numbers.get(id(tensor), NO_BUFFER))
            for place, tensor in enumerate(graph.tensors)
        ],
    )
    buffers = []
    for tensor in held:
        at = blob.put(tensor.data, ALIGNMENT) if tensor.data else 0
        buffers.append(blob.put(BUFFER.pack(len(tensor.data) if tensor.data else tensor.stored, at)))
    listed = blob.vector("I", buffers)
    inputs, outputs = blob.vector("I", graph.inputs), blob.vector("I", graph.outputs)
    subgraph = blob.put(SUBGRAPH.pack(0, *graph.layouts, inputs, outputs, nodes, tensors, listed, 0, 0))
    subgraphs = blob.vector("I", [subgraph])
    name = blob.string(graph.name) if graph.name is not None else 0
    model = blob.put(MODEL.pack(graph.origin, 0, subgraphs, name))
    HEADER.pack_into(blob.data, 0, *graph.version, model)
    return bytes(blob.data)
