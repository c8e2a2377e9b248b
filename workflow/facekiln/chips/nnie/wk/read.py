"""Reading `.wk` containers, the vendor's and emulated ones alike; damage ends in an error with its offset."""

from __future__ import annotations

import zlib
from pathlib import Path

from facekiln.chips.bounded import BoundedReader
from facekiln.chips.nnie.wk.container import (
    HEADER,
    HEADER_BYTES,
    NODE,
    NODE_BYTES,
    RECORD,
    RECORD_BYTES,
    SECTION,
    SECTIONS,
    SEGMENT,
    Container,
    Node,
    ReportRecord,
    Section,
    Segment,
)
from facekiln.errors import KilnError
from facekiln.unreadable import readable_size, unreadable

# Far above any model that fits a board's DDR; keeps a wrong path from filling the memory.
_MAX_FILE_BYTES = 1 << 30


class _Reader(BoundedReader):
    what = "an NNIE .wk"


def _node(reader: _Reader, offset: int) -> Node:
    height, width, channels, flags, raw, kind, *_ = reader.take(NODE, offset, "node")
    assert isinstance(raw, bytes) and isinstance(flags, bytes)
    name = raw.split(b"\0", 1)[0]
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError as error:
        raise reader.fail("the node's name is not ASCII", offset + 16, "node name", value=name) from error
    return Node(text, int(height), int(width), int(channels), int(kind), flags)


def _segments(reader: _Reader, count: int, base: int, report_offset: int) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    offset = HEADER_BYTES
    for index in range(count):
        field = f"segment {index}"
        net_type, sources, outputs, _, _, start, length = map(int, reader.take(SEGMENT, offset, field))
        if start + length > report_offset:
            raise reader.fail(
                "the instructions reach past the report table", offset + 8, field, value=start + length
            )
        places = [offset + SEGMENT.size + NODE_BYTES * i for i in range(sources + outputs)]
        nodes = [_node(reader, place) for place in places]
        segments.append(Segment(net_type, tuple(nodes[:sources]), tuple(nodes[sources:]), start, length))
        offset += SEGMENT.size + NODE_BYTES * (sources + outputs)
    if offset != base:
        raise reader.fail("the segment table does not end where the data starts", 0x34, "base", value=base)
    return tuple(segments)


def _report(reader: _Reader, base: int, section: Section) -> tuple[ReportRecord, ...]:
    start = base + section.offset
    if section.length % RECORD_BYTES:
        raise reader.fail(
            "the report table is not a whole number of records", 0xB4, "report length", value=section.length
        )
    records = []
    for i in range(section.length // RECORD_BYTES):
        op, elem, width, _, height, channels, tmp, flags, stride, _, layer, position, z, size = map(
            int, reader.take(RECORD, start + i * RECORD_BYTES, f"report record {i}")
        )
        records.append(
            ReportRecord(op, elem, width, height, channels, tmp, stride, layer, position, z, size, flags)
        )
    return tuple(records)


def parse_wk(data: bytes, file: Path | str = "<bytes>") -> Container:
    """Parse the bytes of a `.wk`; broken invariants that do not hinder reading are left to `problems()`.

    Raises:
        KilnError: the bytes are truncated or foreign; the message has the offset and the field.
    """
    reader = _Reader(data, file)
    header = reader.take(HEADER, 0, "header")
    crc, size_word, table, tmp = (int(value) for value in header[:4])
    magic, stamp = header[4], header[10]
    assert isinstance(magic, bytes) and isinstance(stamp, bytes)
    version, build = header[5:9], int(header[9])
    run_mode, count, alignment, _, base, report_offset, _ = (int(value) for value in header[11:18])
    if table != HEADER_BYTES:
        raise reader.fail(
            "this is not a .wk", 0x08, "segment table offset", value=hex(table), limit=hex(HEADER_BYTES)
        )
    if not count:
        raise reader.fail("no segment", 0x31, "segment count", value=count)
    sections = []
    for index, name in enumerate(SECTIONS):
        place = 0x40 + SECTION.size * index
        offset, length, _, _ = map(int, reader.take(SECTION, place, f"section {name}"))
        if base + offset + length > len(data):
            raise reader.fail(
                "the section reaches past the end of the file",
                place,
                f"section {name}",
                value=base + offset + length,
                limit=len(data),
            )
        sections.append(Section(name, offset, length))
    if base + report_offset > len(data):
        raise reader.fail("points past the end of the file", 0x38, "report offset", value=report_offset)
    segments = _segments(reader, count, base, report_offset)
    return Container(
        crc=crc,
        computed_crc=zlib.crc32(data[4 : base + report_offset], 0xFFFFFFFF),
        size_word=size_word,
        tmp_bytes=tmp,
        magic=magic,
        version=tuple(map(int, version)),  # type: ignore[arg-type]
        build=build,
        stamp=stamp.split(b"\0", 1)[0].decode("ascii", "replace"),
        run_mode=run_mode,
        alignment=alignment,
        base=base,
        report_offset=report_offset,
        segments=segments,
        sections=tuple(sections),
        report=_report(reader, base, sections[-1]),
        file_bytes=len(data),
        trailing_bytes=len(data) - base - sections[-1].offset - sections[-1].length,
    )


def read_bytes(path: Path | str) -> bytes:
    """Read a whole `.wk`.

    Raises:
        KilnError: it cannot be read, or is larger than any model.
    """
    try:
        size = readable_size(path)
        if size > _MAX_FILE_BYTES:
            raise KilnError("is too large for a .wk", file=path, value=size, limit=_MAX_FILE_BYTES)
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def read_wk(path: Path | str) -> Container:
    """Read a `.wk` and refuse one whose invariants do not hold (CRC, offsets, names).

    Raises:
        KilnError: unreadable, truncated, foreign or damaged.
    """
    container = parse_wk(read_bytes(path), path)
    if problems := container.problems():
        raise KilnError(
            "; ".join(problems),
            file=path,
            hint="copy or build the file again; `facekiln nnie inspect` shows more",
        )
    return container


def instructions_of(data: bytes, container: Container, segment: int = 0) -> bytes:
    """Return the instruction section of one segment."""
    part = container.segments[segment]
    start = container.base + part.instruction_offset
    return data[start : start + part.instruction_length]
