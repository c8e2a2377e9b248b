"""What SOPHON's rules are made from."""

from argparse import Namespace
from pathlib import Path

import pytest

from facekiln.chips.sophon.targets import SophonTargets
from facekiln.config import load_config
from facekiln.errors import KilnError


@pytest.fixture(scope="module")
def targets(root: Path) -> SophonTargets:
    return SophonTargets(load_config(root / "config"))


def wildcards(**changes: str) -> Namespace:
    given = {"chip": "bm1688", "model": "retinaface", "size": "640", "precision": "int8", "batch": "4"}
    return Namespace(**{**given, "cores": "", **changes})


def test_int8_has_tables_of_its_batch_and_chip(targets: SophonTargets) -> None:
    files = targets.for_compile(wildcards())
    assert files["top"] == "results/sophon/mlir/retinaface_640_4b/top.mlir"
    assert files["table"] == "results/sophon/calibration/retinaface_640_4b.table"
    assert files["qtable"] == "results/sophon/calibration/bm1688/retinaface_640_4b.qtable"
    assert targets.table_options(wildcards()) == f"--table {files['table']} --qtable {files['qtable']}"


def test_floats_have_none(targets: SophonTargets) -> None:
    files = targets.for_compile(wildcards(precision="fp16"))
    assert not {"table", "qtable", "calibration"} & set(files)
    assert targets.table_options(wildcards(precision="fp16")) == ""


def test_a_transform_is_of_no_chip(targets: SophonTargets) -> None:
    files = targets.for_transform(Namespace(model="retinaface", size="640", batch="4"))
    assert files == {
        "onnx": "results/onnx/retinaface_640.sim.onnx",
        "calibration": "results/calibration/retinaface_640/calibration.json",
        "images": "results/calibration/retinaface_640/images",
    }
    with pytest.raises(KilnError, match="for batches of 3"):
        targets.for_transform(Namespace(model="retinaface", size="640", batch="3"))


def test_cores_are_told_by_the_names_end(targets: SophonTargets) -> None:
    assert targets.artifact(wildcards(cores="_2core")).cores == 2
    assert targets.artifact(wildcards()).cores == 1
    twin = targets.for_twin(wildcards(cores="_2core"))
    assert twin["bmodel"] == "results/sophon/bm1688/retinaface_640_int8_4b_2core.bmodel"
    with pytest.raises(KilnError, match="bm1684 has no 2 cores"):
        targets.for_compile(wildcards(chip="bm1684", cores="_2core"))


def test_the_tolerance_is_of_the_precision(targets: SophonTargets) -> None:
    assert targets.tolerance(wildcards(precision="fp32")) == [0.99, 0.99]


def test_another_release_is_another_stamp(targets: SophonTargets) -> None:
    assert targets.identity()["lock"] in targets.stamp()
    assert targets.stamp().endswith(".ready")
