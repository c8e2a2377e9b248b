"""benchncnn's log, on lines as printed (Tencent/ncnn, benchmark/README)."""

from __future__ import annotations

import pytest

from facekiln.chips.ncnn.benchncnn import command, parse
from facekiln.errors import KilnError

LOG = """\
loop_count = 64
num_threads = 1
powersave = 0
gpu_device = -1
cooling_down = 0
          squeezenet  min =   11.66  max =   11.80  avg =   11.74
     squeezenet_int8  min =   12.24  max =   12.39  avg =   12.31
"""


def test_printed_lines() -> None:
    result = parse(LOG, model="squeezenet_int8")
    assert (result.latency.min, result.latency.max, result.latency.mean) == (12.24, 12.39, 12.31)
    assert result.runs == 64
    assert result.mean_only
    assert result.facts["gpu_device"] == "-1"


def test_the_wrong_stream_or_none() -> None:
    with pytest.raises(KilnError, match="no result"):
        parse("")
    with pytest.raises(KilnError, match="which model"):
        parse(LOG)
    with pytest.raises(KilnError, match="not whole"):
        parse(LOG[:-4])


def test_the_shape_is_width_height_channels() -> None:
    assert command("x.param", (1, 3, 240, 320), loops=8, threads=2)[1:] == [
        *("8", "2", "0", "-1", "1"),
        *("param=x.param", "shape=[320,240,3]"),
    ]
    with pytest.raises(KilnError):
        command("x.param", (4, 3, 240, 320))
