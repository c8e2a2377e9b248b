"""The end lines of sophon-demo's Python samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.chips.sophon.demo_log import parse
from facekiln.errors import KilnError

# sophon-demo, sample/Retinaface, as printed.
END = """\
INFO:root:------------------ Inference Time Info ----------------------
- inference_time(ms): 6.50
- total_time(ms): 68396.19, img_num: 3226
- average latency time(ms): 6.50, QPS: 153.963054
"""


def test_the_printed_end() -> None:
    result = parse(END)
    assert result.latency.mean == 6.50
    assert result.images_per_second == 153.963054
    assert result.runs == 3226
    assert result.parts["whole_run_per_image"].mean == pytest.approx(21.2015, abs=1e-3)
    assert result.mean_only


def test_a_run_that_did_not_end() -> None:
    with pytest.raises(KilnError, match="did not end"):
        parse("".join(END.splitlines(keepends=True)[:3]))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("QPS: 153.96", "QPS: 133.96", "reciprocal"),
        ("inference_time(ms): 6.50", "inference_time(ms): 7.50", "differ"),
        ("68396.19", "683.19", "shorter than"),
        ("6.50, QPS", "nan, QPS", "plain number"),
    ],
)
def test_lines_that_contradict_each_other(old: str, new: str, message: str) -> None:
    with pytest.raises(KilnError, match=message):
        parse(END.replace(old, new))


@given(st.integers(0, len(END) - 2), st.sampled_from("0123456789,.x -e"))
def test_a_changed_character_never_changes_the_latency(place: int, character: str) -> None:
    try:
        result = parse(END[:place] + character + END[place + 1 :])
    except KilnError:
        return
    assert result.latency.mean == pytest.approx(6.50, abs=0.011)
