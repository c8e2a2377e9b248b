"""/proc/umap tables: the form is that of a board's print of /proc/umap/ive, the names those of the NNIE's."""

from __future__ import annotations

import pytest

from facekiln.boards.virtual import forms
from facekiln.chips.nnie.board_log import END, Snapshot, command, parse_snapshot, parse_snapshots, timing
from facekiln.errors import KilnError

# A HiSilicon board's print of the neighbouring module, which has the same tables (public log, 2019).
IVE = """\
[IVE] Version: [Hi3516EV200_MPP_V1.0.1.2 B030 Release], Build Time[Jun 17 2019, 11:19:20]

-------------------------------MODULE PARAM--------------------------------------
      save_power     max_node_num
               0              512

-------------------------------IVE QUEUE INFO------------------------------------
    Wait      Busy   WaitCurId WaitEndId BusyCurId BusyEndId
      0        -1         0         0         0         0

-----------------------------------IVE RUN-TIME INFO-----------------------------
  LastInst  CntPerSec MaxCntPerSec  TotalIntCntLastSec    TotalIntCnt     QTCnt STCnt
         1         75          113              689552         689598         0     0

    CostTm   MCostTm  CostTmPerSec MCostTmPerSec  TotalIntCostTm       RunTm
         5        47           690           872         6031300        9189
"""


def test_a_boards_print() -> None:
    values = parse_snapshot(IVE + END).values
    assert values["CostTm"] == 5
    assert values["MCostTm"] == 47
    assert values["RunTm"] == 9189
    assert values["STCnt"] == 0


def _after(cost: float, **more: float) -> Snapshot:
    return Snapshot({"CostTm": cost, "STCnt": 0, **more})


def test_each_snapshot_is_a_sample() -> None:
    result = timing(_after(9), [_after(15200), _after(15100), _after(15300, HwUtilization=31)])
    assert result.latency.samples == (15.2, 15.1, 15.3)
    assert result.facts == {"hardware_use_percent": "31"}


def test_errors_counted_meanwhile_are_refused() -> None:
    with pytest.raises(KilnError, match="1 more in CfgErrCnt"):
        timing(_after(9), [_after(15200, CfgErrCnt=1)])
    with pytest.raises(KilnError, match="no snapshot"):
        timing(_after(9), [])


@pytest.mark.parametrize("text", ["", "cat: can't open '/proc/umap/nnie': No such file or directory\n"])
def test_no_driver(text: str) -> None:
    with pytest.raises(KilnError, match="no CostTm"):
        parse_snapshot(text)


def test_a_row_that_was_cut() -> None:
    with pytest.raises(KilnError, match="4 figures under 6 names"):
        parse_snapshot(IVE[: IVE.rindex("      6031300")])


def test_several_prints_of_a_boards_own_program() -> None:
    prints = [forms.nnie_snapshot(taken, 2000, number) for number, taken in enumerate((0, 1500, 2000))]
    text = "".join(f"{one}{END}\n" for one in prints)
    before, *after = parse_snapshots(f"a line of the program\n{text}")
    assert timing(before, after).latency.mean == pytest.approx(1.75)
    for cut in (text[:-40], text.split(END)[0], "", text.replace(END, "")):
        with pytest.raises(KilnError, match=r"not whole|no CostTm"):
            parse_snapshots(cut)
    assert command("a.wk", 3, program="/opt/run") == ["/opt/run", "a.wk", "3"]
    with pytest.raises(KilnError, match="at least 1"):
        command("a.wk", 0)
