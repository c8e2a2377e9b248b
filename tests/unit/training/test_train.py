"""From a recipe to a checkpoint: the same bytes, or nothing at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from facekiln.config import Model
from facekiln.errors import GateError
from facekiln.models.checkpoint import read_checkpoint
from facekiln.models.registry import build_network
from facekiln.training.train import train_checkpoint


@pytest.mark.parametrize("threads", [1, 2])
def test_two_runs_give_the_same_bytes_whatever_the_file_is_called(
    model: Model, raw_recipe: dict[str, Any], tmp_path: Path, threads: int
) -> None:
    """torch.save writes a file's name into the archive; a checkpoint must not depend on it."""
    raw_recipe["threads"] = threads
    paths = [tmp_path / "one.pth", tmp_path / "another_name.pth"]
    metrics = [train_checkpoint(model, raw_recipe, path) for path in paths]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert metrics[0] == metrics[1]
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_another_seed_gives_other_weights(model: Model, raw_recipe: dict[str, Any], tmp_path: Path) -> None:
    for seed in (1, 2):
        train_checkpoint(model, {**raw_recipe, "steps": 1, "seed": seed}, tmp_path / f"{seed}.pth")
    one, two = (read_checkpoint(tmp_path / f"{seed}.pth").state for seed in (1, 2))
    assert any(not torch.equal(one[key], two[key]) for key in one)


def test_the_checkpoint_says_what_its_tensors_do_not(
    model: Model, raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "x.pth"
    metrics = train_checkpoint(model, raw_recipe, path)
    value = torch.load(path, weights_only=True)
    assert set(value) == {"state_dict", "facekiln"}
    meta = value["facekiln"]
    assert meta["format"] == 1 and meta["model"] == "retinaface"
    assert meta["declaration"]["options"] == {"leaky_slope": 0.1}
    assert meta["recipe"]["steps"] == 4 and meta["metrics"] == metrics
    assert meta["data"]["held_out_scenes"] == 3 and meta["data"]["train_faces"] > 0
    network = build_network(model)
    network.load_state_dict(value["state_dict"], strict=True)
    assert read_checkpoint(path).meta == meta
    assert path.read_bytes()[:2] == b"PK"


def test_a_missed_gate_writes_nothing(model: Model, raw_recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(GateError, match="minimum_ap") as caught:
        train_checkpoint(model, {**raw_recipe, "minimum_ap": 0.99}, tmp_path / "x.pth")
    assert "0.99" in str(caught.value)
    assert not list(tmp_path.iterdir())


def config_with(recipe: dict[str, Any], root: Path, folder: Path) -> Path:
    """A config folder with one model and one recipe."""
    (folder / "models").mkdir(parents=True)
    (folder / "training").mkdir()
    (folder / "config.yaml").write_text("weights: synthetic\n")
    declared = yaml.safe_load((root / "config/models/retinaface.yaml").read_text())
    (folder / "models/retinaface.yaml").write_text(yaml.safe_dump({**declared, "recipe": "mini"}))
    (folder / "training/mini.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def command(config: Path, output: Path) -> list[str]:
    verb = ["checkpoint", "train", "--model", "retinaface"]
    return [sys.executable, "-m", "facekiln", *verb, "--config", str(config), "--output", str(output)]


def test_the_command_writes_a_checkpoint_and_its_sidecar(
    root: Path, raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    config = config_with(raw_recipe, root, tmp_path / "config")
    run = subprocess.run(
        command(config, tmp_path / "out/x.pth"), capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "AP" in run.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["x.pth", "x.pth.kiln.json"]


def test_the_command_ends_with_3_at_a_missed_gate(
    root: Path, raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    config = config_with({**raw_recipe, "minimum_ap": 0.99}, root, tmp_path / "config")
    run = subprocess.run(
        command(config, tmp_path / "out/x.pth"), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert run.returncode == 3
    assert not (tmp_path / "out").exists()


def test_an_interruption_leaves_nothing(root: Path, raw_recipe: dict[str, Any], tmp_path: Path) -> None:
    config = config_with({**raw_recipe, "steps": 100000}, root, tmp_path / "config")
    log = tmp_path / "log"
    with log.open("w") as stream:
        run = subprocess.Popen(command(config, tmp_path / "out/x.pth"), stderr=stream, cwd=tmp_path)
        try:
            deadline = time.monotonic() + 60
            while "train:" not in log.read_text().replace("draw train", "") and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.3)
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=30) == 130
        finally:
            run.kill()
    assert "interrupted" in log.read_text()
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
