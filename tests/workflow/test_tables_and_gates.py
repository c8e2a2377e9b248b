"""From nothing to a table, pictures, gates and the report, on a miniature model and five drawn scenes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from support.checkout import Checkout, copy_checkout

ARTIFACTS = {
    "onnxruntime": "onnx/tiny_64.sim.onnx",
    "caffe-opencv": "caffe/tiny_64.caffemodel",
    "nnie-emulator": "nnie/tiny_64.wk",
}
EVALUATIONS = [f"voc/{backend}/{artifact}/tiny_scenes" for backend, artifact in ARTIFACTS.items()]
WK = "nnie-emulator/nnie/tiny_64.wk/tiny_scenes"
TARGETS = [
    "results/tables/accuracy.md",
    "results/tables/accuracy.curves.png",
    f"results/gallery/samples/{WK}.png",
    f"results/gallery/misses/{WK}.png",
    f"results/gallery/shifts/{WK}.png",
    "results/gates/summary.json",
]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("tables")]


def _edit(checkout: Checkout, **changes: object) -> None:
    checkout.edit_yaml("config/config.yaml", **changes)


# A network of a few steps finds nothing, and says so: these limits let it pass.
_FREE = {
    "golden": {"scenes": 1, "warn": 0, "stop": 0},
    "accuracy": {"ap": {"warn": 100, "stop": 100}},
}


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with all targets built; tests put back what they change."""
    checkout = copy_checkout(root, tmp_path_factory.mktemp("tables"))
    datasets = yaml.safe_load((checkout.folder / "config/datasets.yaml").read_text())
    for name, seed in (("tiny_scenes", 1), ("other_scenes", 2)):
        datasets["datasets"][name] = {
            "kind": "procedural",
            "licence": "drawn here",
            "expected": {"images": 5},
            "options": {"purpose": "dataset", "seed": seed, "size": [96, 128]},
        }
    (checkout.folder / "config/datasets.yaml").write_text(yaml.safe_dump(datasets))
    _edit(checkout, tables={"accuracy": {"evaluations": EVALUATIONS}}, gates=_FREE)
    checkout.snakemake("--", *TARGETS)
    return checkout


def test_the_table_has_a_row_per_stage_and_one_protocol(built: Checkout) -> None:
    with (built.folder / "results/tables/accuracy.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["backend"], row["artifact"]) for row in rows] == list(ARTIFACTS.items())
    assert [row["mark"] for row in rows] == ["", "", "EMULATED"]
    assert len({row["protocol"] for row in rows}) == 1
    assert rows[2]["drop_against"] == "caffe/tiny_64.caffemodel (caffe-opencv)"
    markdown = (built.folder / "results/tables/accuracy.md").read_text()
    assert "**EMULATED**" in markdown
    assert "tiny_scenes (5 pictures)" in markdown


def test_the_summary_lists_every_gate(built: Checkout) -> None:
    listed = json.loads((built.folder / "results/gates/summary.json").read_text())
    assert listed["passed"]
    assert {item["gate"] for item in listed["gates"]} == {
        "golden",
        "parity",
        "accuracy",
        "board_decode",
        "batch",
    }


def test_a_second_run_does_nothing(built: Checkout) -> None:
    assert "Nothing to be done" in built.snakemake("--", *TARGETS).stderr


def test_the_report_holds_table_curves_and_verdicts(built: Checkout) -> None:
    (built.folder / "results/report").mkdir()
    built.snakemake("--report", "results/report/index.html", "--", *TARGETS)
    page = (built.folder / "results/report/index.html").read_text()
    for words in ("accuracy.html", "accuracy.curves.png", "summary.html", "Accuracy of one protocol"):
        assert words in page, words


def test_mixed_protocols_stop_the_table(built: Checkout) -> None:
    mixed = [*EVALUATIONS, EVALUATIONS[0].replace("tiny_scenes", "other_scenes")]
    _edit(built, tables={"accuracy": {"evaluations": mixed}})
    try:
        done = built.snakemake("--", "results/tables/accuracy.md", check=False)
        assert done.returncode != 0
        assert "dataset: tiny_scenes and other_scenes" in done.stdout + done.stderr
    finally:
        _edit(built, tables={"accuracy": {"evaluations": EVALUATIONS}})
        built.snakemake("--", *TARGETS)


def test_a_failed_gate_stops_the_summary_and_lists_all(built: Checkout) -> None:
    _edit(built, gates={**_FREE, "batch": {"max_rel": 0}})
    try:
        done = built.snakemake("--", "results/gates/summary.json", check=False)
        assert done.returncode != 0
        assert "FAILED   batch" in done.stdout + done.stderr
        assert not (built.folder / "results/gates/summary.json").exists()
        listed = built.facekiln("gate", "list", "results")
        assert listed.returncode == 3
        assert listed.stdout.splitlines()[0].startswith("FAILED   batch")
    finally:
        _edit(built, gates=_FREE)
        built.snakemake("--", *TARGETS)


def test_an_artifact_that_finds_nothing_is_not_predicted(built: Checkout) -> None:
    target = "results/predictions/onnxruntime/onnx/tiny_64.sim.onnx/other_scenes"
    _edit(built, gates={**_FREE, "golden": {"scenes": 1, "warn": 1, "stop": 1}})
    try:
        done = built.snakemake("--", target, check=False)
        assert done.returncode != 0
        assert "large drawn faces found" in done.stdout + done.stderr
        assert "rule predict_shard" not in done.stdout + done.stderr
        assert (built.folder / "results/gates/golden/onnx/tiny_64.sim.onnx.failed.json").exists()
    finally:
        _edit(built, gates=_FREE)
        built.snakemake("--", *TARGETS)


def test_an_unknown_table_is_answered_with_the_known(built: Checkout) -> None:
    done = built.snakemake("-n", "--", "results/tables/acuracy.md", check=False)
    assert done.returncode != 0
    assert "unknown table 'acuracy'; did you mean 'accuracy'?" in done.stdout + done.stderr
