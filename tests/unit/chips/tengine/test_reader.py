"""Damage and foreign bytes end in a KilnError, whatever they are."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facekiln.chips.tengine.inspect import describe_graph, dump, render
from facekiln.chips.tengine.reader import parse_tmfile, read_tmfile
from facekiln.errors import KilnError


def _survives(data: bytes) -> None:
    try:
        graph = parse_tmfile(data)
    except KilnError as error:
        assert str(error)
        return
    render({"file": "x", **describe_graph(graph)})
    dump(graph)


def test_every_truncation_of_the_smallest_file(leaky: bytes) -> None:
    for length in range(len(leaky)):
        with pytest.raises(KilnError):
            parse_tmfile(leaky[:length])


@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_are_read_or_refused(leaky: bytes, data: st.DataObject) -> None:
    damaged = bytearray(leaky)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) // 4 - 1)) * 4
        value = data.draw(st.one_of(st.integers(0, len(damaged)), st.integers(0, 2**32 - 1)))
        struct.pack_into("<I", damaged, at, value)
    _survives(bytes(damaged))


@settings(max_examples=200)
@given(st.binary(max_size=600))
def test_random_bytes(data: bytes) -> None:
    _survives(data)


def test_tables_that_point_to_one_another_end(leaky: bytes) -> None:
    # A node vector of a million entries, all of one node: the sum of what is read is bounded.
    count = 1_000_000
    data = bytearray(leaky) + struct.pack(f"<I{count}I", count, *[0x74] * count)
    struct.pack_into("<I", data, 0x150, len(leaky))
    with pytest.raises(KilnError, match="over and over"):
        parse_tmfile(bytes(data))


def test_another_version_is_refused_by_name(leaky: bytes) -> None:
    with pytest.raises(KilnError, match="no tmfile of version 2"):
        parse_tmfile(b"\x01\0" + leaky[2:])


def test_errors_name_offset_and_field(leaky: bytes) -> None:
    damaged = bytearray(leaky)
    struct.pack_into("<I", damaged, 0x118, 9)  # tensor y: an unknown data type
    with pytest.raises(KilnError, match=r"offset 0xfc, tensor 1.*unknown type"):
        parse_tmfile(bytes(damaged), "x.tmfile")


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="cannot be read"):
        read_tmfile(tmp_path / "none.tmfile")
    (tmp_path / "page.tmfile").write_text("<html>" * 20)
    with pytest.raises(KilnError, match="tmfile"):
        read_tmfile(tmp_path / "page.tmfile")


@pytest.mark.published
def test_a_real_file_cut_anywhere(mirror: Callable[[str], Path]) -> None:
    data = mirror("tengine_retinaface_benchmark.tmfile").read_bytes()
    for length in range(0, len(data), 997):
        with pytest.raises(KilnError):
            parse_tmfile(data[:length])
