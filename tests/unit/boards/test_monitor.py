"""The board's probe, run here and on texts of boards."""

from __future__ import annotations

import subprocess

from hypothesis import given
from hypothesis import strategies as st

from facekiln.boards.monitor import COMMAND, Reading, faults, parse, remarks

BOARD = """\
uptime=81234.50 300000.00
load=0.08 0.03 0.01 1/120 4242
boot=3f1c
memory.MemTotal=2084452
memory.MemAvailable=1242704
governor.cpu0=ondemand
khz.cpu0=1200000
millidegrees.soc-thermal=45384
millidegrees.broken=-273000
hz.fb000000.npu=900000000
npu=usage:0 avusage:0
facekiln=end
"""


def test_a_boards_answer() -> None:
    reading = parse(BOARD)
    assert reading.whole
    assert reading.uptime_s == 81234.5
    assert reading.load_1min == 0.08
    assert reading.governors == {"cpu0": "ondemand"}
    assert reading.mhz == {"cpu0": 1200.0, "fb000000.npu": 900.0}
    assert reading.celsius == {"soc-thermal": 45.384}
    assert reading.npu == "usage:0 avusage:0"
    assert round(reading.memory_total_mib or 0) == 2036


def test_the_probe_runs_in_this_machines_shell() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=30, check=True)
    reading = parse(done.stdout)
    assert reading.whole
    assert reading.uptime_s
    assert reading.uptime_s > 0
    assert reading.memory_total_mib
    assert done.stderr == ""


@given(st.text(max_size=200))
def test_missing_and_odd_values_are_allowed(text: str) -> None:
    parse(text)
    parse("load=" + text)


def test_missing_values_are_left_out_of_the_record() -> None:
    assert parse("").to_json() == {}
    assert parse("load=0.5 1 2\n").to_json() == {"load_1min": 0.5}


def test_what_spoils_a_run() -> None:
    before = parse(BOARD)
    assert faults(before, before) == []
    assert faults(before, parse(BOARD.replace("ondemand", "powersave"))) == [
        "the governor changed: cpu0 ondemand -> powersave"
    ]
    assert faults(before, parse(BOARD.replace("3f1c", "77aa"))) == ["the board restarted during the run"]


def test_what_a_reader_should_know() -> None:
    before = parse(BOARD.replace("load=0.08", "load=3.5"))
    after = parse(BOARD.replace("45384", "61000"))
    assert remarks(before, after) == [
        "clocks are not fixed (governor ondemand)",
        "other work ran: load 3.50 before the run",
        "soc-thermal warmed from 45 to 61 degrees Celsius",
    ]
    assert remarks(Reading(), Reading()) == ["the board tells neither clocks nor temperature"]


def test_reading_holds_nothing_that_a_terminal_obeys() -> None:
    reading = parse("governor.cpu0=on\x1b[2Jdemand\nnpu=\x1b]0;x\x07\nfacekiln=end\n")
    assert "\x1b" not in str(dict(reading.governors)) + str(reading.npu)
    assert reading.governors["cpu0"] == r"on\x1b[2Jdemand"
