"""The .wk layout, on the published files and on our own."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekiln.chips.nnie.wk import container as wk
from facekiln.chips.nnie.wk.read import instructions_of, parse_wk, read_wk
from facekiln.chips.nnie.wk.write import write_wk
from facekiln.errors import KilnError

# nniefacelib, data/nnie_model/face: (file, bytes of an element of the data blob, tmp buffer, size).
PUBLISHED = [
    ("mnet_640_inst.wk", 2, 7_372_800, 2_911_520),
    ("mnet_mergebn_640L_inst.wk", 1, 3_686_400, 2_117_104),
]


@pytest.mark.parametrize(("name", "width", "tmp", "size"), PUBLISHED)
def test_published_files_read_as_published(mirror, name: str, width: int, tmp: int, size: int) -> None:
    said = read_wk(mirror(name))
    assert (said.version, said.build, said.stamp) == ((1, 2, 1, 0), 20, "19010713251682")
    assert not said.emulated and said.problems() == []
    assert (said.tmp_bytes, said.file_bytes, said.trailing_bytes, said.alignment) == (tmp, size, 0, 16)
    (segment,) = said.segments
    assert [(n.name, n.height, n.width, n.channels) for n in segment.sources] == [("data", 640, 640, 3)]
    shapes = [(n.height, n.width, n.channels) for n in segment.outputs]
    sides = (20, 40, 80)
    assert shapes == [(s, s, c) for c in (8, 20, 4) for s in sides]
    assert len(said.report) == 1435
    first = said.report[0]
    assert (first.op, first.elem_bytes, first.height, first.width, first.channels) == (
        0x2C,
        width,
        640,
        640,
        3,
    )
    # GFPQ of 0..255: z = -384 at 16 bit and 0 at 8 bit (libgfpq 1.1.5), stored in 1/128 octave.
    assert first.z == {1: 0, 2: -384}[width]


def test_published_crc_covers_all_but_the_report(mirror) -> None:
    data = bytearray(mirror("mnet_640_inst.wk").read_bytes())
    data[-1] ^= 1
    assert parse_wk(bytes(data)).problems() == []
    data[0x1000] ^= 1
    assert "CRC" in parse_wk(bytes(data)).problems()[0]


def test_an_emulated_file_says_so_in_every_field(tmp_path: Path, small_wk) -> None:
    data = small_wk()
    said = write_wk(tmp_path / "x.wk", data)
    assert said.emulated and said.problems() == []
    assert data[0x10:0x18] == b"EMULATED" and data[0x18:0x20] == bytes(8)
    assert data[0x20:0x30] == b"EMULATED".ljust(16, b"\0")
    assert said.report[0].z == -384 and said.segments[0].outputs[0].name == "out"
    assert struct.unpack_from("<I", data)[0] == zlib.crc32(
        data[4 : said.base + said.report_offset], 0xFFFFFFFF
    )
    assert instructions_of(data, said) == b"KILNPAY1\2\0\0\0{}"


REAL = {0x10: wk.REAL_MAGIC, 0x18: b"\1\2\1\0", 0x20: b"19010713251682\0\0"}


def _forged(data: bytes, *offsets: int) -> bytes:
    changed = bytearray(data)
    for offset in offsets:
        changed[offset : offset + len(REAL[offset])] = REAL[offset]
    return bytes(changed)


@pytest.mark.parametrize("left", REAL)
def test_one_mark_that_is_left_is_enough(left: int, small_wk) -> None:
    assert parse_wk(_forged(small_wk(), *(offset for offset in REAL if offset != left))).emulated
    assert not parse_wk(_forged(small_wk(), *REAL)).emulated


def test_each_broken_invariant_is_told(small_wk) -> None:
    said = parse_wk(small_wk())
    assert replace(said, size_word=said.size_word + 1).problems() == [
        f"the word at 0x04 is {said.size_word + 1}, not report offset + 64 * nodes = {said.size_word}"
    ]
    (told,) = replace(said, report_offset=said.report_offset + 16, size_word=said.size_word + 16).problems()
    assert told.startswith("the report offset at 0x38")
    (told,) = replace(said, magic=b"PK\3\4\0\0\0\0").problems()
    assert told.startswith("the magic at 0x10 is 504b0304")
    at = wk.SECTIONS.index("weights")
    weights = replace(said.sections[at], offset=0, length=said.section("report").offset + 1)
    grown = replace(said, sections=(*said.sections[:at], weights, *said.sections[at + 1 :]))
    assert "section index starts at" in grown.problems()[0]


@pytest.mark.parametrize("length", [wk.LUT_BYTES - 1, wk.LUT_BYTES + 1])
def test_a_vendors_table_of_another_size_is_told(length: int, small_wk) -> None:
    said = parse_wk(_forged(small_wk(), *REAL))
    tables = [
        replace(one, length=wk.LUT_BYTES) if one.name.startswith("lut") else one for one in said.sections
    ]
    about_tables = re.compile(r"lut\d has \d+ bytes")
    assert not list(filter(about_tables.match, replace(said, sections=tuple(tables)).problems()))
    tables[wk.SECTIONS.index("lut1")] = replace(said.section("lut1"), length=length)
    (told,) = filter(about_tables.match, replace(said, sections=tuple(tables)).problems())
    assert told == f"lut1 has {length} bytes, not {wk.LUT_BYTES}"


def test_the_same_inputs_give_the_same_bytes(small_wk) -> None:
    assert small_wk() == small_wk()


def test_names_are_cut_at_31_characters(small_wk) -> None:
    long = "face_rpn_cls_prob_reshape_stride32"
    assert wk.short_name(long) == "face_rpn_cls_prob_reshape_strid"
    assert wk.short_name("blöb") == "bl?b"
    said = parse_wk(small_wk(output=long))
    assert said.segments[0].outputs[0].name == "face_rpn_cls_prob_reshape_strid"


def test_errors_name_offset_and_field(small_wk) -> None:
    data = small_wk()
    with pytest.raises(KilnError, match="offset 0x0, header: the file ends too early"):
        parse_wk(data[:0x20])
    with pytest.raises(KilnError, match="reaches past the end"):
        parse_wk(data[:-1])
    with pytest.raises(KilnError, match="offset 0x8, segment table offset: this is not a"):
        parse_wk(b"PK\3\4" + bytes(300))
    with pytest.raises(KilnError, match="No such file"):
        read_wk("nowhere.wk")


def test_a_damaged_file_is_refused(tmp_path: Path, small_wk) -> None:
    data = bytearray(small_wk())
    data[wk.HEADER_BYTES + 16 + 16] = ord("D")
    (tmp_path / "x.wk").write_bytes(data)
    with pytest.raises(KilnError, match="CRC at 0x00"):
        read_wk(tmp_path / "x.wk")


def _read_or_refuse(data: bytes) -> None:
    try:
        parse_wk(data).problems()
    except KilnError as error:
        assert "offset" in str(error)


@given(length=st.integers(0, 500))
def test_truncated_bytes_never_crash(length: int, small_wk) -> None:
    _read_or_refuse(small_wk()[:length])


@settings(max_examples=300)
@given(changes=st.lists(st.tuples(st.integers(0, 0x160), st.integers(0, 255)), min_size=1, max_size=8))
def test_mutated_bytes_never_crash(changes: list[tuple[int, int]], small_wk) -> None:
    data = bytearray(small_wk())
    for offset, value in changes:
        data[offset % len(data)] = value
    _read_or_refuse(bytes(data))


@given(st.binary(max_size=600))
def test_foreign_bytes_never_crash(data: bytes) -> None:
    _read_or_refuse(data)
    _read_or_refuse(data[:8] + b"\xc0\0\0\0" + data[12:])
