"""Reading tmfiles, ours and others'; damage ends in an error that names the offset and the field."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from facekiln.chips.bounded import BudgetedReader
from facekiln.chips.tengine.format import (
    BUFFER,
    CONST,
    DTYPES,
    HEADER,
    KINDS,
    MODEL,
    NODE,
    OPERATOR,
    QUANT,
    STRING,
    SUBGRAPH,
    TENSOR,
    VERSION,
    Node,
    Quant,
    Tensor,
    TmGraph,
)
from facekiln.chips.tengine.ops import OLD_RESHAPE, OP_IDS, OPS, STRUCT_CODES, Field, Op
from facekiln.errors import KilnError
from facekiln.unreadable import readable_size, unreadable

_MAX_FILE_BYTES = 1 << 31
_MAX_RANK = 8


class _Reader(BudgetedReader):
    what = "a Tengine tmfile"
    rereads = 4  # honest files read each vector once, a few share

    def take(self, layout: struct.Struct, offset: int, field: str) -> tuple[Any, ...]:
        values = super().take(layout, offset, field)
        self.spend(layout.size, offset, field)
        return values

    def vector(self, code: str, offset: int, field: str) -> tuple[Any, ...]:
        if not offset:
            return ()
        (count,) = self.take(_COUNT, offset, field)
        if offset + 4 + 4 * count > len(self.data):
            raise self.fail("a vector reaches past the end of the file", offset, field, value=count)
        self.spend(4 * count, offset, field)
        return struct.unpack_from(f"<{count}{code}", self.data, offset + 4)

    def span(self, offset: int, size: int, field: str) -> bytes:
        if offset + size > len(self.data):
            raise self.fail("reaches past the end of the file", offset, field, value=size)
        self.spend(size, offset, field)
        return self.data[offset : offset + size]

    def string(self, offset: int, field: str) -> str | None:
        if not offset:
            return None
        size, at = self.take(STRING, offset, field)
        raw = self.span(at, size, field).split(b"\0", 1)[0]
        return raw.decode("utf-8", "backslashreplace")


_COUNT = struct.Struct("<I")


def _value(reader: _Reader, field: Field, raw: Any, where: str) -> Any:
    name = f"{where}.{field.name}"
    if field.code == "V":
        return reader.vector("i", raw, name)
    if field.code == "F":
        return reader.vector("f", raw, name)
    if field.code == "S":
        return reader.string(raw, name)
    return raw


def _record(reader: _Reader, op: Op, offset: int, where: str) -> dict[str, Any]:
    record = reader.span(offset, op.size, where)
    values = {}
    for field in op.fields:
        (raw,) = struct.unpack_from(f"<{STRUCT_CODES.get(field.code, field.code)}", record, field.offset)
        values[field.name] = _value(reader, field, raw, where)
    return values


def _params(reader: _Reader, op: Op, offset: int, where: str) -> tuple[dict[str, Any], bool]:
    """Return an operator's fields, and whether they stand in the old record."""
    if not op.fields:
        return {}, False
    if not offset:
        raise reader.fail(f"a {op.name} has no parameters", offset, where)
    if op.id == OP_IDS["Reshape"] and not _is_new_reshape(reader, offset):
        return _record(reader, OLD_RESHAPE, offset, where), True
    return _record(reader, op, offset, where), False


def _is_new_reshape(reader: _Reader, offset: int) -> bool:
    """Tengine 1.9 and older have six dims where newer ones have flags and a vector; nothing says which."""
    head = reader.data[offset : offset + 12]
    if len(head) < 12:
        return True
    is_mxnet, reverse, shape = struct.unpack("<iiI", head)
    if is_mxnet not in (0, 1) or reverse not in (0, 1):
        return False
    count = reader.data[shape : shape + 4]
    return shape == 0 or (len(count) == 4 and 1 <= struct.unpack("<I", count)[0] <= _MAX_RANK)


def _node(reader: _Reader, place: int, offset: int) -> Node:
    where = f"node {place}"
    _, inputs, outputs, operator, name, _, dynamic = reader.take(NODE, offset, where)
    if not operator:
        raise reader.fail("has no operator", offset, where)
    version, number, params = reader.take(OPERATOR, operator, f"{where}, operator")
    op = OPS.get(number)
    values, legacy = _params(reader, op, params, f"{where}, {op.name}") if op else ({}, False)
    return Node(
        name=reader.string(name, f"{where}, name"),
        op=number,
        inputs=list(reader.vector("I", inputs, f"{where}, inputs")),
        outputs=list(reader.vector("I", outputs, f"{where}, outputs")),
        params=values,
        op_version=version,
        dynamic=bool(dynamic),
        legacy=legacy,
    )


def _tensor(reader: _Reader, place: int, offset: int, buffers: list[tuple[int, int]]) -> Tensor:
    where = f"tensor {place}"
    _, buffer, dims, name, quant, layout, kind, dtype = reader.take(TENSOR, offset, where)
    if dtype not in DTYPES or not 0 <= kind < len(KINDS):
        raise reader.fail("has an unknown type", offset, where, value=f"kind {kind}, data type {dtype}")
    records = []
    for at in reader.vector("I", quant, f"{where}, quantisation"):
        zero, scale, _ = reader.take(QUANT, at, f"{where}, quantisation")
        records.append(Quant(scale, zero))
    tensor = Tensor(
        name=reader.string(name, f"{where}, name"),
        kind=kind,
        dtype=dtype,
        dims=tuple(reader.vector("i", dims, f"{where}, dims")) if dims else None,
        quant=tuple(records),
        layout=layout,
    )
    if kind == CONST:
        if buffer >= len(buffers):
            raise reader.fail("names a buffer that is not there", offset, where, value=buffer)
        tensor.stored, tensor.offset = buffers[buffer]
        if tensor.offset:
            tensor.data = reader.span(tensor.offset, tensor.stored, f"{where}, buffer {buffer}")
    return tensor


def _check_places(reader: _Reader, graph: TmGraph, offset: int) -> None:
    for place, node in enumerate(graph.nodes):
        for tensor in (*node.inputs, *node.outputs):
            if tensor >= len(graph.tensors):
                raise reader.fail("names a tensor that is not there", offset, f"node {place}", value=tensor)
    for place in (*graph.inputs, *graph.outputs):
        if place >= len(graph.nodes) or not graph.nodes[place].outputs:
            raise reader.fail("an input or output is no node with a result", offset, "subgraph", value=place)


def parse_tmfile(data: bytes, file: Path | str = "<bytes>") -> TmGraph:
    """Parse the bytes of a tmfile; what breaks the runtime's rules is left to `validate`.

    Args:
        data: the whole file.
        file: how errors name it.

    Raises:
        KilnError: truncated, foreign or damaged bytes, another format version, or more than one subgraph;
            the message has the offset and the field.
    """
    reader = _Reader(data, file)
    *version, root = reader.take(HEADER, 0, "header")
    if version[0] != VERSION:
        raise reader.fail("is no tmfile of version 2", 0, "header", value=version[0], limit=VERSION)
    origin, _, subgraphs, name = reader.take(MODEL, root, "model")
    listed = reader.vector("I", subgraphs, "model, subgraphs")
    if len(listed) != 1:
        raise reader.fail("has not exactly one subgraph", root, "model", value=len(listed), limit=1)
    _, *layouts, inputs, outputs, nodes, tensors, buffers, _, _ = reader.take(SUBGRAPH, listed[0], "subgraph")
    stored = [
        reader.take(BUFFER, at, f"buffer {place}")
        for place, at in enumerate(reader.vector("I", buffers, "subgraph, buffers"))
    ]
    graph = TmGraph(
        nodes=[_node(reader, i, at) for i, at in enumerate(reader.vector("I", nodes, "subgraph, nodes"))],
        tensors=[
            _tensor(reader, place, at, stored)
            for place, at in enumerate(reader.vector("I", tensors, "subgraph, tensors"))
        ],
        inputs=list(reader.vector("I", inputs, "subgraph, inputs")),
        outputs=list(reader.vector("I", outputs, "subgraph, outputs")),
        name=reader.string(name, "model, name"),
        origin=origin,
        version=(version[0], version[1], version[2]),
        layouts=(layouts[0], layouts[1]),
        bytes=len(data),
    )
    if not graph.inputs:
        raise reader.fail("has no input", listed[0], "subgraph")
    _check_places(reader, graph, listed[0])
    return graph


def read_tmfile(path: Path | str) -> TmGraph:
    """Read a tmfile (see `parse_tmfile`).

    Raises:
        KilnError: it cannot be read, is larger than any model, or is damaged.
    """
    try:
        size = readable_size(path)
        if size > _MAX_FILE_BYTES:
            raise KilnError("is too large for a tmfile", file=path, value=size, limit=_MAX_FILE_BYTES)
        data = Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    return parse_tmfile(data, path)
