"""The clock in a .bmodel: one, known, in the description of the nets; anything else is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.chips.sophon.bmodel import read_bmodel
from facekiln.chips.sophon.clock import EPOCH, normalise
from facekiln.errors import KilnError
from support.bmodels import TIME, S, bmodel_bytes

OTHER = "Tue Feb  3 04:05:06 2026\n"


def file(times: list[bytes], behind: bytes = b"") -> bytes:
    """A header, a description that holds those times, and binaries."""
    flat = b"\0one" + b"\0two".join(times) + b"\0end"
    return b"\xee\xaa\x55\xff" + bytes(4) + len(flat).to_bytes(4, "little") + bytes(52) + flat + behind


def test_two_times_of_compilation_give_one_file(tmp_path: Path) -> None:
    first, second = bmodel_bytes(time=TIME), bmodel_bytes(time=OTHER)
    assert first != second
    assert normalise(first) == normalise(second)
    assert len(normalise(first)) == len(first)
    (tmp_path / "a.bmodel").write_bytes(normalise(first))
    assert read_bmodel(tmp_path / "a.bmodel").time == EPOCH.decode().strip()


def test_normal_files_stay_as_they_are() -> None:
    data = normalise(bmodel_bytes())
    assert normalise(data) == data


def test_only_the_clock_changes() -> None:
    data = file([TIME.encode()])
    assert normalise(data) == data.replace(TIME.encode(), EPOCH)


def test_what_looks_like_a_clock_among_weights_is_left_alone() -> None:
    data = bmodel_bytes(nets=(("net", (S(weights=OTHER.encode() * 10),)),))
    assert OTHER.encode() * 10 in normalise(data)


@pytest.mark.parametrize("times", [[], [TIME.encode(), OTHER.encode()], [b"2026-11-21 10:18:28\n"]])
def test_none_or_two_clocks_are_refused(times: list[bytes]) -> None:
    with pytest.raises(KilnError, match="time of compilation is not where"):
        normalise(file(times))


@given(st.binary(max_size=200))
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(KilnError):
        normalise(data)


def test_a_truncated_file_is_refused() -> None:
    data = file([TIME.encode()])
    with pytest.raises(KilnError, match=r"is no whole \.bmodel"):
        normalise(data[:-1])
