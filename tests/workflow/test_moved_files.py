"""Where files lie is no part of what they are: moving folders makes nothing again; other files do."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import yaml

from support.checkout import Checkout, copy_checkout

WANTED = (
    "results/nnie/retinaface_640.wk",
    "results/tengine/retinaface_640_int8.tmfile",
    "results/ncnn/retinaface_640_int8.param",
    "results/gates/golden/onnx/retinaface_640.sim.onnx.json",
    "results/onnx/ghostone_112.onnx",
)


def _checkout(root: Path, folder: Path) -> Checkout:
    checkout = copy_checkout(root, folder)
    checkout.edit_yaml("config/config.yaml", weights="published")
    return checkout


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder = tmp_path_factory.mktemp("moved")
    checkout = _checkout(root, folder / "checkout")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEKILN_MIRROR", str(folder / "first"))
        checkout.pretend(*WANTED)
        assert checkout.planned(*WANTED) == {}
    return checkout


def test_another_mirror_or_none_makes_nothing_again(
    built: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEKILN_MIRROR", str(tmp_path / "second"))
    assert built.planned(*WANTED) == {}
    monkeypatch.delenv("FACEKILN_MIRROR")
    assert built.planned(*WANTED) == {}
    told = built.snakemake("-n", "--config", f"mirror={tmp_path / 'third'}", "--", *WANTED).stdout
    assert "Nothing to be done" in told


def test_the_mirror_reaches_the_command(built: Checkout, tmp_path: Path) -> None:
    """One with a space in its name, too."""
    mirror = f"mirror={tmp_path / 'my files'}"
    rules = ("fetch_checkpoint", "fetch_onnx", "check_golden")
    told = built.snakemake("-n", "-p", "--config", mirror, "--forcerun", *rules, "--", *WANTED).stdout
    assert told.count(f"--mirror '{tmp_path / 'my files'}'") == 3


def test_another_pinned_file_is_fetched(built: Checkout) -> None:
    path = built.folder / "config/models/retinaface.yaml"
    before = path.read_text()
    pinned = yaml.safe_load(before)["published"]
    try:
        built.edit_yaml("config/models/retinaface.yaml", published={**pinned, "sha256": "0" * 64})
        assert built.planned(*WANTED)["fetch_checkpoint"] == 1
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    ("chip", "section", "changes", "again"),
    [
        ("nnie", "mapper", {"timeout_minutes": 5}, set()),
        ("nnie", "mapper", {"exit_status": "ignore"}, {"map_nnie"}),
        ("nnie", "legalise", {"input_header": "layer"}, {"legalise_nnie", "map_nnie"}),
        ("tengine", "gate", {"least_faces": 0.7}, {"quantise_tengine"}),
        ("ncnn", "gate", {"least_faces": 0.7}, {"quantise_ncnn"}),
    ],
)
def test_a_setting_makes_again_what_it_decides(
    built: Checkout, chip: str, section: str, changes: dict[str, object], again: set[str]
) -> None:
    path = built.folder / f"config/chips/{chip}.yaml"
    before = path.read_text()
    try:
        built.edit_yaml(
            f"config/chips/{chip}.yaml", **{section: {**yaml.safe_load(before)[section], **changes}}
        )
        assert built.planned(*WANTED).keys() == again
    finally:
        path.write_text(before)


def test_a_moved_checkout_makes_nothing_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do another home, another library of Tengine's, and fewer processors."""
    checkout = _checkout(root, tmp_path / "here")
    monkeypatch.setenv("FACEKILN_MIRROR", str(tmp_path / "mirror"))
    wanted = (*WANTED, "results/bench/local/onnx/retinaface_640.sim.onnx.json", "results/gates/summary.json")
    checkout.pretend(*wanted)
    moved = Checkout((tmp_path / "here").rename(tmp_path / "there"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TENGINE_LIB", str(tmp_path / "libtengine-lite.so"))
    # Of `snakemake --cores all`, and of a bench on this machine, which takes them all.
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        done = moved.snakemake("-n", "--cores", "1", "--", *wanted)
    finally:
        os.sched_setaffinity(0, before)
    assert "Nothing to be done" in done.stdout


def test_a_file_of_ones_own_is_copied_again_when_it_is_another(root: Path, tmp_path: Path) -> None:
    checkout = copy_checkout(root, tmp_path / "checkout")
    mine, target = tmp_path / "mine.pth", "results/checkpoints/tiny.pth"
    mine.write_bytes(b"first")
    declared = "config/models/tiny.yaml"
    checkout.edit_yaml(declared, weights="local", local={"path": str(mine)})
    checkout.pretend(target)
    assert checkout.planned(target) == {}
    mine.write_bytes(b"second")
    assert checkout.planned(target) == {"fetch_checkpoint": 1}
    mine.unlink()
    done = checkout.snakemake("-n", "--", target, check=False)
    assert "mine.pth: your own checkpoint of 'tiny' is not there" in done.stdout + done.stderr


def test_a_pinned_file_of_ones_own_may_be_moved(root: Path, tmp_path: Path) -> None:
    checkout = copy_checkout(root, tmp_path / "checkout")
    target, declared = "results/checkpoints/tiny.pth", "config/models/tiny.yaml"
    pinned = {"path": str(tmp_path / "mine.pth"), "sha256": hashlib.sha256(b"first").hexdigest()}
    checkout.edit_yaml(declared, weights="local", local=pinned)
    checkout.pretend(target)
    checkout.edit_yaml(declared, local={**pinned, "path": str(tmp_path / "elsewhere.pth")})
    assert checkout.planned(target) == {}
    checkout.edit_yaml(declared, local={**pinned, "sha256": "0" * 64})
    assert checkout.planned(target) == {"fetch_checkpoint": 1}
