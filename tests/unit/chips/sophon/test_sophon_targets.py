"""What SOPHON's rules are made from."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from facekiln.chips.sophon.targets import SophonTargets
from facekiln.config import Config, load_config
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


def changed(root: Path, change: Callable[[dict[str, Any]], None]) -> SophonTargets:
    config: Config = load_config(root / "config")
    change(config.chips["sophon"])
    return SophonTargets(config)


def triggers(targets: SophonTargets, chip: str, precision: str) -> list[Any]:
    named = wildcards(chip=chip, precision=precision)
    report = f"sophon/{chip}/retinaface_640_{precision}_1b.bmodel"
    table = [targets.calibration(), targets.plan(named)] if precision == "int8" else []
    return [*table, targets.tolerance(named), targets.gate(named), targets.run_settings(report)]


@pytest.mark.parametrize(
    ("section", "key", "value", "concerned"),
    [
        # How long a job may take changes no byte of it.
        ("calibrate", "timeout_minutes", 1, set()),
        ("mixed", "timeout_minutes", 1, set()),
        ("run", "timeout_minutes", 1, set()),
        ("mixed", "expected_cosine", 0.5, set()),
        ("calibrate", "method", "ours:kl", {"bm1684 int8", "bm1688 int8"}),
        ("mixed", "keep_float", {"bm1684": ["heads"], "bm1688": ["stem:23", "heads"]}, {"bm1684 int8"}),
        ("mixed", "models", {"retinaface": {"keep_float": {"bm1688": ["heads"]}}}, {"bm1688 int8"}),
        ("mixed", "models", {"pfpld": {"keep_float": {"bm1688": ["heads"]}}}, set()),
        ("mixed", "most_layers", 2, {"bm1684 int8", "bm1688 int8"}),
        ("mixed", "by", "tool:fast_search", {"bm1684 int8", "bm1688 int8"}),
        ("gate", "least_faces", 0.5, {"bm1684 int8", "bm1688 int8"}),
        ("run", "twin", {"fp32": 1e-3, "fp16": 1e-2, "int8": 1e-3, "mixed": 1.5e-1}, {"bm1684 fp32"}),
        (
            "run",
            "twin",
            {"fp32": 5e-5, "fp16": 1e-2, "int8": 1e-3, "mixed": 0},
            {"bm1684 int8", "bm1688 int8"},
        ),
    ],
)
def test_a_setting_makes_again_what_it_decides(
    root: Path, section: str, key: str, value: Any, concerned: set[str]
) -> None:
    before = SophonTargets(load_config(root / "config"))
    after = changed(root, lambda chip: chip[section].update({key: value}))
    files = [("bm1684", "fp32"), ("bm1684", "int8"), ("bm1688", "fp16"), ("bm1688", "int8")]
    found = {f"{one} {two}" for one, two in files if triggers(before, one, two) != triggers(after, one, two)}
    assert found == concerned


def test_only_our_own_methods_measure_ranges(root: Path) -> None:
    wildcards = SimpleNamespace(model="retinaface", size="640", batch="1")
    ours = SophonTargets(load_config(root / "config")).for_calibrate(wildcards)
    tools = changed(root, lambda chip: chip["calibrate"].update(method="tool:kl")).for_calibrate(wildcards)
    assert ours.keys() - tools.keys() == {"ranges"}


def test_an_int8_file_is_judged_anew_where_faces_are_decoded_otherwise(root: Path) -> None:
    config = load_config(root / "config")
    before = SophonTargets(config).gate(wildcards())
    model = config.models["retinaface"]
    config.models["retinaface"] = replace(model, decode=replace(model.decode, score_threshold=0.3))
    assert SophonTargets(config).gate(wildcards()) != before


@pytest.mark.parametrize(
    "changes",
    [{"batch": "04"}, {"cores": "_1core"}, {"cores": "_02core"}, {"batch": "01", "cores": "_2core"}],
)
def test_a_file_has_one_name(targets: SophonTargets, changes: dict[str, str]) -> None:
    """Else one file would be compiled twice, and `_1core` has no twin, no row and no parity."""
    with pytest.raises(KilnError, match="another name of a file"):
        targets.for_compile(wildcards(**changes))
    if "batch" in changes:
        with pytest.raises(KilnError, match="is spelled"):
            targets.for_transform(wildcards(**changes))
