"""What the rules of parity and predictions ask of a bmodel besides the file itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from facekiln.chips.sophon.targets import SophonTargets
from facekiln.config import load_config
from facekiln.errors import KilnError


@pytest.fixture(scope="module")
def targets(root: Path) -> SophonTargets:
    return SophonTargets(load_config(root / "config"))


def test_a_report_reads_the_twin_and_wants_the_environment(targets: SophonTargets) -> None:
    bmodel, stem = (f"sophon/bm1684x/retinaface_640_fp16_1b.{end}" for end in ("bmodel", "twin"))
    assert targets.proved_with(bmodel) == [f"results/{stem}/{file}" for file in ("final.mlir", "weights.npz")]
    assert targets.tools_of(bmodel) == [targets.stamp()]


def test_a_batch_is_proved_with_the_file_for_one_on_as_many_cores(targets: SophonTargets) -> None:
    files = targets.proved_with("sophon/bm1688/ulfd_rfb_320_320_int8_4b_2core.bmodel")
    assert "results/sophon/bm1688/ulfd_rfb_320_320_int8_1b_2core.bmodel" in files


def test_other_chips_files_need_nothing_more(targets: SophonTargets) -> None:
    assert targets.proved_with("nnie/retinaface_640.wk") == targets.tools_of("nnie/retinaface_640.wk") == []
    assert targets.run_settings("nnie/retinaface_640.wk") == ""
    assert targets.run_settings("sophon/bm1684/retinaface_640_int8_1b.bmodel") == repr(
        [(1e-3, 1e-3), (1.5e-1, 5e-3)]
    )


def test_what_a_chip_lacks_is_refused(targets: SophonTargets) -> None:
    with pytest.raises(KilnError, match="bm1684 has no fp16"):
        targets.proved_with("sophon/bm1684/retinaface_640_fp16_1b.bmodel")


def test_only_the_c_model_gets_four_threads(targets: SophonTargets) -> None:
    bmodel = "sophon/bm1684/retinaface_640_fp32_1b.bmodel"
    assert targets.threads_of(bmodel) == targets.threads_of(bmodel, "sophon-cmodel") == 4
    assert targets.threads_of(bmodel, "sophon-twin") == 2
    assert targets.threads_of("onnx/retinaface_640.onnx") == 2
