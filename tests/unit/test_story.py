"""Sidecars and the story told from them."""

import json
from pathlib import Path

import pytest

from facekiln.artifact import sha256_of, write_json
from facekiln.errors import KilnError
from facekiln.provenance import Edit, read_record, sidecar_of, write_record
from facekiln.story import story_of


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source, a pair made from it and an emulated artifact made from that."""
    monkeypatch.chdir(tmp_path)
    for name in ("caffe", "nnie"):
        (tmp_path / "results" / name).mkdir(parents=True)
    source, middle, last = (
        Path("weights.pth"),
        Path("results/caffe/a_64.caffemodel"),
        Path("results/nnie/a_64.wk"),
    )
    for path in (source, middle, last):
        path.write_text(path.name)
    write_record(middle, verb="caffe convert", inputs=[source], settings={"opset": 13})
    edits = [
        Edit("NNIE-RESHAPE-N", f"layer{i}", "dim 1 -> 0", "only C, H, W may change", "guide")
        for i in range(5)
    ]
    write_record(last, verb="nnie map", inputs=[middle], edits=edits, emulated=True)
    return tmp_path / "results"


def test_sidecar_tells_hashes_and_has_no_clock(results: Path) -> None:
    record = read_record("results/nnie/a_64.wk")
    assert record is not None
    assert record.sha256 == sha256_of("results/nnie/a_64.wk")
    assert record.inputs == [
        {"path": "results/caffe/a_64.caffemodel", "sha256": sha256_of(record.inputs[0]["path"])}
    ]
    assert "time" not in sidecar_of("results/nnie/a_64.wk").read_text()


def test_story_goes_back_to_the_source_and_says_emulated(results: Path) -> None:
    story = "\n".join(story_of("results/nnie/a_64.wk"))
    assert story.splitlines()[0].endswith("EMULATED: no vendor tool made this; no chip runs it")
    assert "edit NNIE-RESHAPE-N, 5 times: only C, H, W may change [guide]" in story
    assert "... and 2 more" in story
    assert "parity: not measured" in story
    assert "with opset: 13" in story
    assert f"weights.pth\n{' ' * 10}a source file: sha256 {sha256_of('weights.pth')}" in story


def test_story_notices_what_changed_since(results: Path) -> None:
    Path("weights.pth").write_text("other")
    Path("results/nnie/a_64.wk").write_text("other")
    story = "\n".join(story_of("results/nnie/a_64.wk"))
    assert "NOTE: weights.pth has changed since" in story
    assert "CHANGED since it was made" in story


def test_story_tells_parity_and_a_report_of_an_earlier_file(results: Path) -> None:
    report = {
        "parent": {"path": "results/caffe/a_64.caffemodel"},
        "child": {"sha256": "0" * 64},
        "passed": True,
        "outputs": {"emulator": {"loc": {"cosine": 0.9, "max_rel": 0.1}}},
        "gates": [{"name": "loc cosine", "verdict": "warned", "value": 0.9, "limit": 0.95}],
    }
    write_json("results/parity/nnie/a_64.wk.json", report)
    story = "\n".join(story_of("results/nnie/a_64.wk"))
    assert "parity with results/caffe/a_64.caffemodel: passed" in story
    assert "this report is of an earlier a_64.wk" in story
    assert "gate loc cosine: warned (0.9, limit 0.95)" in story


def test_story_of_nothing_says_how_to_build(results: Path) -> None:
    with pytest.raises(KilnError, match=r"next step: build it: snakemake --cores 8 results/nnie/b_64\.wk"):
        list(story_of("results/nnie/b_64.wk"))
    Path("results/nnie/c.wk").write_text("x")
    with pytest.raises(KilnError, match="no record of how it was made"):
        list(story_of("results/nnie/c.wk"))


def test_foreign_sidecar_is_refused(results: Path) -> None:
    sidecar_of("results/nnie/a_64.wk").write_text(json.dumps({"artifact": "x", "colour": "green"}))
    with pytest.raises(KilnError, match="not a provenance record"):
        read_record("results/nnie/a_64.wk")


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": [{"sha256": "0"}]},
        {"inputs": [{"path": "x"}]},
        {"inputs": 3},
        {"edits": [{"rule": "x"}]},
        {"tools": 0},
        {"facts": []},
        {"verb": None},
    ],
)
def test_a_damaged_sidecar_is_named(results: Path, change: dict[str, object]) -> None:
    sidecar = sidecar_of("results/nnie/a_64.wk")
    write_json(sidecar, json.loads(sidecar.read_text()) | change)
    with pytest.raises(KilnError, match=r"a_64\.wk\.kiln\.json: is not a provenance record") as error:
        read_record("results/nnie/a_64.wk")
    assert f"'{next(iter(change))}'" in str(error.value)
