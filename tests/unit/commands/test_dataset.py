"""facekiln dataset list, check and histogram."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from facekiln.artifact import read_json, sha256_of
from facekiln.cli import main


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A dataset of two good pictures and one that is missing."""
    import cv2
    import numpy as np

    for seed, name in enumerate("ab"):
        (tmp_path / "tiny/images").mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"tiny/images/{name}.png"), cv2.resize(coarse, (64, 48)))
    rows = "".join(
        f"{name}.png\n1\n4 5 {side} {side} 0 0 0 0 0 0\n" for name, side in (("a", 8), ("b", 30), ("c", 9))
    )
    (tmp_path / "tiny/gt.txt").write_text(rows)
    entry = {
        "kind": "wider_text",
        "licence": "made here",
        "folder": "tiny",
        "images": "images",
        "annotations": [{"path": "gt.txt", "sha256": sha256_of(tmp_path / "tiny/gt.txt")}],
        "expected": {"images": 3, "faces": 3},
        "rules": {"missing_image": "skip"},
        "small_faces": {"least": 10},
    }
    absent = {**entry, "folder": "nowhere"}
    value = {"root": str(tmp_path), "datasets": {"tiny": entry, "absent": absent}}
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    return tmp_path


def test_list_tells_what_is_here(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "list", "--config", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["tiny", "wider_text", "3", "3", "yes", "made", "here"]
    assert f"no: {config / 'nowhere' / 'gt.txt'}" in lines[2]


def test_check_writes_the_report_with_its_sidecar(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = config / "out"
    assert main(["dataset", "check", "tiny", "--config", str(config), "--output", str(out)]) == 0
    assert "left by the rules: 2 pictures, 2 faces" in capsys.readouterr().out
    assert read_json(out / "report.json")["skipped"] == {"c.png": "missing_image"}
    record = read_json(out / "report.json.kiln.json")
    assert record["verb"] == "dataset check"
    assert record["inputs"][0]["sha256"] == sha256_of(config / "tiny/gt.txt")
    assert record["sha256"] == sha256_of(out / "report.json")


def test_check_fails_where_a_rule_refuses_and_leaves_the_report(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = yaml.safe_load((config / "datasets.yaml").read_text())
    value["datasets"]["tiny"]["rules"] = {"missing_image": "refuse"}
    (config / "datasets.yaml").write_text(yaml.safe_dump(value))
    out = config / "out"
    assert main(["dataset", "check", "tiny", "--config", str(config), "--output", str(out)]) == 1
    assert "dataset 'tiny' is refused: 1 missing_image; the first: c.png" in capsys.readouterr().err
    assert read_json(out / "report.json")["usable"] is False


def test_check_of_annotations_only_reads_no_picture_and_writes_nothing(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config)
    assert main(["dataset", "check", "tiny", "--quick", "--config", str(config)]) == 0
    assert "left by the rules: 3 pictures, 3 faces" in capsys.readouterr().out
    assert not (config / "results").exists()


def test_histogram_takes_the_declared_limit_or_another(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["dataset", "histogram", "tiny", "--config", str(config), "--output", str(config / "out")]
    assert main(call) == 0
    assert "(2 left out, 66.7 %)" in capsys.readouterr().out
    assert main([*call, "--least", "8.5"]) == 0
    assert "(1 left out, 33.3 %)" in capsys.readouterr().out
    # c.png is not there, so its size is not known: rules leave it out.
    assert main([*call, "--measure", "input", "--input", "96x128"]) == 0
    assert "(0 left out, 0.0 %)" in capsys.readouterr().out
    assert {path.name for path in (config / "out").iterdir()} >= {"sizes.txt", "sizes.csv", "sizes.png"}


def test_a_wrong_name_gets_a_suggestion(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "check", "tinny", "--config", str(config)]) == 1
    assert "unknown dataset 'tinny'; did you mean 'tiny'?" in capsys.readouterr().err


def test_an_absent_dataset_says_so(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "check", "absent", "--config", str(config)]) == 1
    assert "is not here, so dataset 'absent' cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0x320", "240", "240x", "x", "-1x5", "axb"])
def test_a_wrong_size_is_refused(config: Path, size: str) -> None:
    with pytest.raises(SystemExit):
        main(["dataset", "histogram", "tiny", "--config", str(config), f"--input={size}"])


def test_the_shipped_datasets_are_listed(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    data: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FACEKILN_DATASETS", str(data("wider").parent))
    assert main(["dataset", "list", "--config", str(root / "config")]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "39,708" in rows["wider_val"] and " yes " in rows["wider_val"] and "drawn" in rows["procedural"]
