"""The layout of the `.wk` container: header, segments, nodes and report table around NNIE instructions.

The layout is what 16 published files of six mapper builds (1.2.0.1 to 1.2.2.9) have in common; the field
names are ours. Instructions and compressed weights stay closed: they are the vendor's. Little-endian
throughout::

    0x00 u32  CRC-32 with initial register 0 over [4, base + report offset); the report table is not covered
    0x04 u32  report offset + 64 * number of nodes
    0x08 u32  0xC0, where the segment table starts
    0x0C u32  bytes of temporary buffer (SVP_NNIE_MODEL_S.u32TmpBufSize)
    0x10 u8[8]   01 01 01 02 00 00 00 00 in the vendor's files, "EMULATED" in ours
    0x18 u8[4]   mapper version a.b.c.d; 0x1C u32 Bnnn; 0x20 char[16] build stamp
    0x30 u8   run mode; 0x31 u8 segments; 0x32 u8 row alignment; 0x34 u32 base; 0x38 u32 report offset
    0x40      eight entries {u32 offset, u32 length, 0, 0}, offsets from base
    0xC0      per segment 16 bytes and its nodes of 64 bytes

An emulated container keeps this layout but carries the mark in three fields that a board and a person read
first: magic, version 0.0.0.0 and build stamp. Its instruction section is a facekiln payload (see
`payload`). It holds no clock, so the same inputs give the same bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

REAL_MAGIC = bytes([1, 1, 1, 2, 0, 0, 0, 0])
EMULATED_MAGIC = b"EMULATED"
EMULATED_STAMP = b"EMULATED"
HEADER_BYTES = 0xC0
NODE_BYTES = 64
RECORD_BYTES = 48
NAME_BYTES = 31
LUT_BYTES = 0x400
SECTIONS = ("task", "weights", "index", "lut0", "lut1", "lut2", "lut3", "report")
# The order in which the sections lie in the file; the instructions stand between the tables and the task
# table.
_FILE_ORDER = ("weights", "index", "lut0", "lut1", "lut2", "lut3", "task", "report")

HEADER = struct.Struct("<4I8s4BI16s4B2II")
SECTION = struct.Struct("<4I")
SEGMENT = struct.Struct("<4B3I")
NODE = struct.Struct("<3I4s32s4I")
RECORD = struct.Struct("<2B4H2x2IIHHIiI8x")

KIND_GRAY, KIND_RGB, KIND_MAP, KIND_BGR, KIND_VECTOR = 0, 1, 2, 3, 0
FLAGS_IMAGE, FLAGS_MAP, FLAGS_VECTOR = b"\0\0\1\0", b"\1\0\0\0", b"\0\0\0\0"


@dataclass(frozen=True)
class Node:
    """One input or output blob of a segment.

    Attributes:
        name: the blob's name, cut to 31 characters by the mapper.
        height, width, channels: as stored (H, W, C).
        kind: inputs 0 gray, 1 RGB, 3 BGR; outputs 2 map, 0 vector.
        flags: 00000100 image, 01000000 map, 00000000 vector.
    """

    name: str
    height: int
    width: int
    channels: int
    kind: int
    flags: bytes


@dataclass(frozen=True)
class Segment:
    """One run of layers on the NNIE between two places where the CPU takes over."""

    net_type: int
    sources: tuple[Node, ...]
    outputs: tuple[Node, ...]
    instruction_offset: int
    instruction_length: int


@dataclass(frozen=True)
class Section:
    """One entry of the section table; `offset` counts from `Container.base`."""

    name: str
    offset: int
    length: int


@dataclass(frozen=True)
class ReportRecord:
    """One 48-byte record of the report table: an operation of the chip and the blob that it writes.

    Attributes:
        op: operation code, see `inspect.OPS`.
        elem_bytes: 1 = 8 bit, 2 = 16 bit, 4 = signed 20.12.
        width, height, channels: of the blob.
        tmp_offset: where the blob lies in the temporary buffer, bytes.
        row_stride: bytes of a row, a multiple of the alignment.
        layer_id: restarts in each segment.
        position: grows along the table.
        z: the blob's GFPQ zero offset in 1/128 octave at either width (an 8-bit z times 8); 0 for 20.12.
        blob_bytes: row_stride * height * channels.
    """

    op: int
    elem_bytes: int
    width: int
    height: int
    channels: int
    tmp_offset: int
    row_stride: int
    layer_id: int
    position: int
    z: int
    blob_bytes: int
    flags: int = 0


@dataclass(frozen=True)
class Container:
    """A `.wk` file as read. `problems()` tells which of the layout's invariants do not hold."""

    crc: int
    computed_crc: int
    size_word: int
    tmp_bytes: int
    magic: bytes
    version: tuple[int, int, int, int]
    build: int
    stamp: str
    run_mode: int
    alignment: int
    base: int
    report_offset: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    report: tuple[ReportRecord, ...]
    file_bytes: int
    trailing_bytes: int

    @property
    def emulated(self) -> bool:
        """Whether any of the three marks says so; one is enough, so that no edited field makes it real."""
        return (
            self.magic == EMULATED_MAGIC
            or self.version == (0, 0, 0, 0)
            or self.stamp == EMULATED_STAMP.decode()
        )

    @property
    def nodes(self) -> int:
        """Number of nodes of all segments."""
        return sum(len(segment.sources) + len(segment.outputs) for segment in self.segments)

    def section(self, name: str) -> Section:
        """Return a section by its name of `SECTIONS`."""
        return self.sections[SECTIONS.index(name)]

    def problems(self) -> list[str]:
        """Return every broken invariant as a sentence; empty for a sound file."""
        found: list[str] = []
        if self.crc != self.computed_crc:
            found.append(f"the CRC at 0x00 is 0x{self.crc:08x} but the bytes give 0x{self.computed_crc:08x}")
        if self.magic not in (REAL_MAGIC, EMULATED_MAGIC):
            found.append(f"the magic at 0x10 is {self.magic.hex()}, known is {REAL_MAGIC.hex()}")
        if self.size_word != self.report_offset + NODE_BYTES * self.nodes:
            found.append(
                f"the word at 0x04 is {self.size_word}, not report offset + 64 * nodes = "
                f"{self.report_offset + NODE_BYTES * self.nodes}"
            )
        if self.section("report").offset != self.report_offset:
            found.append(
                f"the report offset at 0x38 is {self.report_offset}, its section entry says otherwise"
            )
        if not self.emulated:
            found += [
                f"{section.name} has {section.length} bytes, not {LUT_BYTES}"
                for section in self.sections
                if section.name.startswith("lut") and section.length != LUT_BYTES
            ]
        ends = 0
        for name in _FILE_ORDER:
            section = self.section(name)
            if section.offset < ends:
                found.append(f"section {name} starts at {section.offset}, inside the one before it")
            ends = section.offset + section.length
        for segment in self.segments:
            found += [
                f"node name {node.name!r} is empty or not printable"
                for node in (*segment.sources, *segment.outputs)
                if not node.name or not node.name.isprintable()
            ]
        return found


def short_name(name: str) -> str:
    """Return a blob name as the container can hold it: 31 characters and a NUL."""
    return name.encode("ascii", "replace")[:NAME_BYTES].decode()
