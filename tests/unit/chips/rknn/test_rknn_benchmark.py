"""rknn_benchmark's log (format strings of the SDK's example; a user's lines)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.chips.rknn.rknn_benchmark import command, parse
from facekiln.errors import KilnError

LOG = """\
I RKNN: [14:34:00.922] RKNN Runtime Information: librknnrt version: 1.4.0 (a10f100eb@2022-09-09T09:07:14)
I RKNN: [14:34:00.922] RKNN Driver Information: version: 0.9.8
Begin perf ...
   0: Elapse Time = 100.09ms, FPS = 9.99
   1: Elapse Time = 98.11ms, FPS = 10.19
   2: Elapse Time = 99.00ms, FPS = 10.10

Avg Time 99.07ms, Avg FPS = 10.094
"""


def test_every_loop_is_a_sample() -> None:
    result = parse(LOG, loops=3)
    assert result.latency.samples == (100.09, 98.11, 99.00)
    assert result.tool_version == "1.4.0"
    assert result.facts["driver"] == "0.9.8"


def test_the_runtime_refuses_a_model() -> None:
    with pytest.raises(KilnError, match="Invalid RKNN model version 6"):
        parse("E RKNN: [14:34:00.922] Invalid RKNN model version 6\n" + LOG)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("   1: Elapse Time = 98.11ms, FPS = 10.19\n", "", "missing"),
        ("98.11", "48.11", "reciprocal"),
        ("Avg Time 99.07ms, Avg FPS = 10.094", "Avg Time 89.07ms, Avg FPS = 11.227", "not that of the runs"),
        ("Avg Time 99.07ms, Avg FPS = 10.094", "", "did not end"),
    ],
)
def test_a_damaged_log(old: str, new: str, message: str) -> None:
    with pytest.raises(KilnError, match=message):
        parse(LOG.replace(old, new))


@given(st.integers(0, len(LOG) - 1), st.sampled_from("0123456789,.x -e"))
def test_a_changed_character_never_changes_the_mean(place: int, character: str) -> None:
    try:
        result = parse(LOG[:place] + character + LOG[place + 1 :], loops=3)
    except KilnError:
        return
    assert result.latency.mean == pytest.approx(99.07, abs=0.02)


def test_the_command() -> None:
    assert command("a.rknn", "a.jpg", loops=10, core_mask=7) == [
        "rknn_benchmark",
        "a.rknn",
        "a.jpg",
        "10",
        "7",
    ]
    with pytest.raises(KilnError):
        command("a.rknn", "a.jpg", core_mask=5)
