"""Writing `.wk` containers: emulated ones only, marked in each field that a board or a person reads first."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from facekiln.artifact import write_bytes
from facekiln.chips.nnie.wk.container import (
    EMULATED_MAGIC,
    EMULATED_STAMP,
    HEADER,
    HEADER_BYTES,
    NODE,
    NODE_BYTES,
    RECORD,
    SECTION,
    SECTIONS,
    SEGMENT,
    Container,
    Node,
    ReportRecord,
    short_name,
)
from facekiln.chips.nnie.wk.read import parse_wk
from facekiln.errors import KilnError


def _padded(data: bytes, alignment: int = 16) -> bytes:
    return data + bytes(-len(data) % alignment)


def build_emulated_wk(
    sources: Sequence[Node],
    outputs: Sequence[Node],
    payload: bytes,
    report: Sequence[ReportRecord],
    *,
    tmp_bytes: int,
    alignment: int,
    net_type: int = 0,
) -> bytes:
    """Return the bytes of an emulated `.wk` with one segment.

    Args:
        sources: input nodes, in prototxt order.
        outputs: output nodes, in prototxt order: the order is the ABI that board code indexes by.
        payload: the instruction section, see `payload.encode`.
        report: the report table.
        tmp_bytes: bytes of temporary buffer.
        alignment: 16 or 32, the cfg's internal_stride.
        net_type: the cfg's net_type.
    """
    nodes = [*sources, *outputs]
    table = SEGMENT.pack(net_type, len(sources), len(outputs), 0, 0, 0, len(payload)) + b"".join(
        NODE.pack(
            node.height,
            node.width,
            node.channels,
            node.flags,
            short_name(node.name).encode(),
            node.kind,
            0,
            0,
            0,
        )
        for node in nodes
    )
    body = _padded(payload)
    rows = b"".join(
        RECORD.pack(
            r.op,
            r.elem_bytes,
            r.width,
            0,
            r.height,
            r.channels,
            r.tmp_offset,
            r.flags,
            r.row_stride,
            0,
            r.layer_id,
            r.position,
            r.z,
            r.blob_bytes,
        )
        for r in report
    )
    base, report_offset = HEADER_BYTES + len(table), len(body)
    # The vendor's weights, index and look-up tables have no counterpart here: empty sections in the right
    # order.
    places = {"task": (report_offset, 0), "report": (report_offset, len(rows))}
    entries = b"".join(SECTION.pack(*places.get(name, (0, 0)), 0, 0) for name in SECTIONS)
    header = HEADER.pack(
        0, report_offset + NODE_BYTES * len(nodes), HEADER_BYTES, tmp_bytes, EMULATED_MAGIC, 0, 0, 0, 0, 0,
        EMULATED_STAMP, 0, 1, alignment, 0, base, report_offset, 0,
    )  # fmt: skip
    covered = (header + entries + table + body)[4:]
    return struct.pack("<I", zlib.crc32(covered, 0xFFFFFFFF)) + covered + rows


def write_wk(path: Path | str, data: bytes) -> Container:
    """Write a container atomically after reading it back from memory, and return it as read.

    Raises:
        KilnError: the bytes break an invariant, or cannot be written.
    """
    container = parse_wk(data, path)
    if problems := container.problems():
        raise KilnError(f"would be written with {'; '.join(problems)}", file=path)
    write_bytes(path, data)
    return container
