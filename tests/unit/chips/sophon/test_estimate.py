"""The compiler's estimate, read from its schedules. Tails verbatim from tpu_mlir 1.26."""

from pathlib import Path

import pytest

from facekiln.chips.sophon.estimate import read_estimate

BM1684 = """--------------------------------------
API_END total_cycle:2279660|b:5117|g:1230
TCYC : 2279660
GDMA SUMMARY : |dr[0] S2L:14302624|dr[1] L2S:5523200|dr[2] S2S:806400|dr[3] L2L:3292800
#######################################


flops: 1988046400, runtime: 4.144836ms, ComputationAbility: 0.479644T
"""
BM1688 = """--------------------------------------
API_END total_cycle:{cycles}|b:703|g:307
TCYC : {cycles}. (bdc_cycle:1603749, gdma_cycle:1077140)
DDR DATASIZE(MB) : 18.562878
#######################################


flops: 1988046400, runtime: {time}ms, ComputationAbility: 0.827795T
"""


def test_bm1684_writes_a_dat_file(tmp_path: Path) -> None:
    (tmp_path / "_0.dat").write_text("cycle by cycle\n" * 2000 + BM1684)
    found = read_estimate(tmp_path, "tpu_mlir 1.26")
    assert found is not None
    assert (found.cycles, found.milliseconds, found.release) == (2279660, 4.144836, "tpu_mlir 1.26")


def test_the_slowest_core_counts(tmp_path: Path) -> None:
    for core, (cycles, time) in enumerate([(1357973, 1.5), (2161454, 2.401616)]):
        (tmp_path / f"compiler_profile_{core}.txt").write_text(BM1688.format(cycles=cycles, time=time))
    found = read_estimate(tmp_path, "tpu_mlir 1.26")
    assert found is not None
    assert (found.cycles, found.milliseconds) == (2161454, 2.401616)


def test_a_record_says_what_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "_0.dat").write_text(BM1684)
    found = read_estimate(tmp_path, "tpu_mlir 1.26")
    assert found is not None
    record = found.record(batch=4)
    assert record["what"] == "compiler estimate, not a measurement"
    assert record["release"] == "tpu_mlir 1.26"
    assert record["milliseconds_per_picture"] == pytest.approx(1.036209)


@pytest.mark.parametrize("text", ["", "flops: 1, runtime: 4.1ms", "API_END total_cycle:7|b:1|g:1"])
def test_no_figures_give_no_estimate(tmp_path: Path, text: str) -> None:
    (tmp_path / "_0.dat").write_text(text)
    assert read_estimate(tmp_path, "tpu_mlir 1.26") is None
    assert read_estimate(tmp_path / "nowhere", "tpu_mlir 1.26") is None
