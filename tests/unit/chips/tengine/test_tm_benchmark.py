"""tm_benchmark's two streams, on printed lines (Tengine docs and runs of the program)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.chips.tengine.tm_benchmark import command, parse
from facekiln.errors import KilnError

HEAD = """\
Tengine benchmark:
  loops:    5
  threads:  1
  cluster:  1
  affinity: 0xFFFFFFFF
  device:   CPU
Tengine-lite library version: 1.5-dev
"""
OLDER = """\
start to run register cpu allocator
loop_counts = 5
num_threads = 1
power       = 1
affinity    = 1
tengine-lite library version: 1.0-dev
"""
RESULT = "          retinaface  min =   28.57 ms   max =   29.06 ms   avg =   28.86 ms\n"
OTHER = "      mobilefacenets  min =   44.32 ms   max =   44.82 ms   avg =   44.60 ms\n"


@pytest.mark.parametrize(
    ("head", "end", "version"), [(HEAD, "ALL TEST DONE.\n", "1.5-dev"), (OLDER, "ALL TEST DONE\n", "1.0-dev")]
)
def test_both_headers(head: str, end: str, version: str) -> None:
    result = parse(head, RESULT + end, batch=1, status=0)
    assert (result.latency.mean, result.latency.min, result.latency.max) == (28.86, 28.57, 29.06)
    assert result.tool_version == version
    assert result.runs == 5
    assert result.mean_only
    assert result.label == "retinaface"


def test_a_name_longer_than_its_column() -> None:
    long = "/data/a very long name of a file.tmfile  min =    1.00 ms   max =    3.00 ms   avg =    2.00 ms"
    assert parse(HEAD, long + "\nALL TEST DONE.\n", batch=1).label.endswith("file.tmfile")


def test_a_list_needs_a_name() -> None:
    text = RESULT + OTHER + "ALL TEST DONE.\n"
    with pytest.raises(KilnError, match="which model"):
        parse(HEAD, text, batch=1)
    assert parse(HEAD, text, batch=1, model="mobilefacenets").latency.mean == 44.60


@pytest.mark.parametrize("line", ["Tengine Benchmark: Create graph failed", "cannot open file a.tmfile"])
def test_a_failure_with_exit_status_nought(line: str) -> None:
    with pytest.raises(KilnError, match="the tool failed"):
        parse(HEAD, line + "\nALL TEST DONE.\n", batch=1, status=0)


def test_no_result_and_no_message() -> None:
    with pytest.raises(KilnError, match="not there"):
        parse(HEAD, "ALL TEST DONE.\n", batch=1, status=0)


def test_a_time_before_an_abort_is_not_taken() -> None:
    # an int8 file prints its time and then aborts
    with pytest.raises(KilnError, match="munmap_chunk"):
        parse(HEAD, RESULT + "munmap_chunk(): invalid pointer\n", batch=1)
    with pytest.raises(KilnError, match="exit status 134"):
        parse(HEAD, RESULT + "ALL TEST DONE.\n", batch=1, status=134)
    with pytest.raises(KilnError, match="did not end"):
        parse(HEAD, RESULT, batch=1)


@given(st.integers(0, len(RESULT) - 1))
def test_a_cut_result_is_refused(end: int) -> None:
    if end < len(RESULT) - 1:
        with pytest.raises(KilnError):
            parse(HEAD, RESULT[:end] + "\nALL TEST DONE.\n", batch=1)


@pytest.mark.parametrize("wrong", ["28,86", "nan", "2.886e1", "99.86"])
def test_a_damaged_figure_is_refused(wrong: str) -> None:
    with pytest.raises(KilnError):
        parse(HEAD, RESULT.replace("28.86", wrong) + "ALL TEST DONE.\n", batch=1)


def test_height_and_width_change_places() -> None:
    arguments = command("a.tmfile", (1, 3, 240, 320), dtype="uint8", affinity=3)
    assert arguments[arguments.index("-i") + 1] == "1,3,320,240"
    assert arguments[arguments.index("-f") + 1] == "3"
    assert arguments[arguments.index("-a") + 1] == "0x3"


def test_int8_is_refused() -> None:
    with pytest.raises(KilnError, match="float mode"):
        command("a.tmfile", (1, 3, 240, 320), dtype="int8")
