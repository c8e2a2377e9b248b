"""The rules of calibration sets and ranges: what they run, and what makes them run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from facekiln.artifact import read_json
from support.checkout import Checkout, copy_checkout


@pytest.fixture(scope="module")
def place(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return copy_checkout(root, tmp_path_factory.mktemp("calibration"))


def test_ranges_and_reports_are_made_from_set_and_network(place: Checkout) -> None:
    planned = place.planned("results/quant/tiny_64/sensitivity.json", "results/quant/tiny_64/stability.png")
    wanted = {
        "make_calibration",
        "simplify_onnx",
        "measure_ranges",
        "measure_sensitivity",
        "measure_stability",
    }
    assert {name: planned[name] for name in wanted} == dict.fromkeys(wanted, 1)
    assert "convert_caffe" not in planned


def test_the_set_and_its_sheet_are_made_and_rerun_by_their_rule_only(place: Checkout) -> None:
    sheet = "results/calibration/tiny_64.sheet.png"
    place.snakemake("--", sheet)
    facts = read_json(place.folder / "results/calibration/tiny_64/calibration.json")
    assert facts["count"] == 2 and facts["strata"] == ["face_size", "pose", "light"]
    assert (place.folder / sheet).is_file()
    assert place.planned(sheet) == {}
    config = place.folder / "config/config.yaml"
    before = config.read_text()
    config.write_text(before.replace("seed: 20", "seed: 21"))
    try:
        assert place.planned(sheet) == {"make_calibration": 1, "draw_calibration_sheet": 1}
    finally:
        config.write_text(before)
