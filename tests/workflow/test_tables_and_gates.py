"""From nothing to a table, pictures, gates and the report, on a miniature model and five drawn scenes."""

from __future__ import annotations

import csv
import json
import shutil
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
    "results/gates/passed.json",
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


def test_a_failed_gate_is_listed_and_stops_after_the_list(built: Checkout) -> None:
    _edit(built, gates={**_FREE, "batch": {"max_rel": 0}})
    try:
        done = built.snakemake("--", "results/gates/passed.json", check=False)
        assert done.returncode != 0
        assert "1 gates failed: batch results/checkpoints/tiny.pth" in done.stdout + done.stderr
        assert not (built.folder / "results/gates/passed.json").exists()
        whole = json.loads((built.folder / "results/gates/summary.json").read_text())
        assert (whole["passed"], whole["counts"]["failed"]) == (False, 1)
        assert "<b>FAILED</b>" in (built.folder / "results/gates/summary.html").read_text()
        # The list itself is there to be read, whatever it says.
        assert "Nothing to be done" in built.snakemake("--", "results/gates/summary.json").stderr
        listed = built.facekiln("gate", "list", "results")
        assert listed.returncode == 3
        assert listed.stdout.splitlines()[0].startswith("FAILED   batch")
    finally:
        _edit(built, gates=_FREE)
        built.snakemake("--", *TARGETS)
    assert (built.folder / "results/gates/passed.json").exists()


def test_a_corrected_published_figure_makes_the_table_again(built: Checkout) -> None:
    path = built.folder / "config/published.yaml"
    before = path.read_text()
    path.write_text(before.replace("easy: 0.907", "easy: 0.906"))
    try:
        assert built.planned("results/tables/accuracy.md") == {"make_accuracy_table": 1}
    finally:
        path.write_text(before)
        built.snakemake("--", *TARGETS)


def test_an_artifact_that_finds_nothing_is_not_predicted_and_is_listed(built: Checkout) -> None:
    target = "results/predictions/onnxruntime/onnx/tiny_64.sim.onnx/other_scenes"
    summary = built.folder / "results/gates/summary.json"
    assert json.loads(summary.read_text())["passed"]
    shutil.rmtree(built.folder / target, ignore_errors=True)
    _edit(built, gates={**_FREE, "golden": {"scenes": 1, "warn": 1, "stop": 1}})
    try:
        done = built.snakemake("--", target, check=False)
        assert done.returncode != 0
        assert "large drawn faces found" in done.stdout + done.stderr
        assert not (built.folder / target).exists()
        golden = built.folder / "results/gates/golden/onnx/tiny_64.sim.onnx.json"
        assert json.loads(golden.read_text())["verdict"] == "failed"
        # The summary's rule never ran; the run that stopped has made it true all the same.
        whole = json.loads(summary.read_text())
        assert not whole["passed"]
        assert [item["gate"] for item in whole["gates"] if item["verdict"] == "failed"] == ["golden"]
        assert "<b>FAILED</b>" in summary.with_suffix(".html").read_text()
    finally:
        _edit(built, gates=_FREE)
        built.snakemake("--", *TARGETS)
    assert json.loads(summary.read_text())["passed"]


def test_a_failed_parity_leaves_no_summary_that_says_passed(built: Checkout) -> None:
    config = yaml.safe_load((built.folder / "config/config.yaml").read_text())
    # No 8 bit network has the cosines of its float parent.
    free = config["parity"]
    strict = {**free, "gates": {**free["gates"], "int8": {**free["gates"]["int8"], "cosine": 1}}}
    _edit(built, parity=strict)
    try:
        assert built.snakemake("--", "results/gates/passed.json", check=False).returncode != 0
        whole = json.loads((built.folder / "results/gates/summary.json").read_text())
        assert not whole["passed"]
        assert whole["gates"][0]["gate"] == "parity"
        assert whole["gates"][0]["verdict"] == "failed"
    finally:
        _edit(built, parity=free)
        built.snakemake("--", *TARGETS)
    assert not list((built.folder / "results/parity").rglob("*.failed.json"))


@pytest.mark.parametrize(
    "change",
    [
        {"golden": {"sha256": "ab" * 32, "faces": [1, 2]}},
        {"decode": {"score_threshold": 0.4, "nms_iou": 0.4, "top_k": 5000, "keep": 750, "extent": 1}},
    ],
)
def test_what_a_gate_takes_from_the_model_judges_again(built: Checkout, change: dict[str, object]) -> None:
    path = built.folder / "config/models/tiny.yaml"
    before = path.read_text()
    try:
        built.edit_yaml("config/models/tiny.yaml", **change)
        planned = built.planned("results/gates/summary.json")
    finally:
        path.write_text(before)
    assert planned["check_golden"] == len(ARTIFACTS)
    assert planned["check_board_decode"] == 1
    assert planned["compare_stages"] == len(ARTIFACTS)


def test_an_unknown_table_is_answered_with_the_known(built: Checkout) -> None:
    done = built.snakemake("-n", "--", "results/tables/acuracy.md", check=False)
    assert done.returncode != 0
    assert "unknown table 'acuracy'; did you mean 'accuracy'?" in done.stdout + done.stderr
