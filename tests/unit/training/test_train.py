"""From a recipe to a checkpoint: the same bytes, killed or not, or nothing at all."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from facekiln.cli import main
from facekiln.config import Model
from facekiln.errors import GateError, KilnError
from facekiln.models.checkpoint import read_checkpoint
from facekiln.models.registry import build_network
from facekiln.training.train import Outputs, train_checkpoint


def outputs(folder: Path, name: str = "x.pth") -> Outputs:
    return Outputs(folder / name, folder / f"{name}.training")


@pytest.mark.parametrize("threads", [1, 2])
def test_two_runs_give_the_same_bytes_whatever_the_file_is_called(
    model: Model, raw_recipe: dict[str, Any], tmp_path: Path, threads: int
) -> None:
    """torch.save writes a file's name into the archive; a checkpoint must not depend on it."""
    raw_recipe["threads"] = threads
    places = [outputs(tmp_path, "one.pth"), outputs(tmp_path, "another_name.pth")]
    figures = [train_checkpoint(model, raw_recipe, place) for place in places]
    assert figures[0] == figures[1]
    assert places[0].checkpoint.read_bytes() == places[1].checkpoint.read_bytes()
    for name in ("curves.png", "history.json"):
        assert (places[0].folder / name).read_bytes() == (places[1].folder / name).read_bytes()
    assert sorted(item.name for item in places[0].folder.iterdir()) == ["curves.png", "history.json"]


def test_another_seed_gives_other_weights(model: Model, raw_recipe: dict[str, Any], tmp_path: Path) -> None:
    for seed in (1, 2):
        train_checkpoint(model, {**raw_recipe, "steps": 1, "seed": seed}, outputs(tmp_path, f"{seed}.pth"))
    one, two = (read_checkpoint(tmp_path / f"{seed}.pth").state for seed in (1, 2))
    assert any(not torch.equal(one[key], two[key]) for key in one)


def test_the_checkpoint_says_what_its_tensors_do_not(
    model: Model, raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "x.pth"
    figures = train_checkpoint(model, raw_recipe, outputs(tmp_path))
    value = torch.load(path, weights_only=True)
    assert set(value) == {"state_dict", "facekiln"}
    meta = value["facekiln"]
    assert meta["format"] == 1 and meta["model"] == "retinaface"
    assert meta["declaration"]["options"] == {"leaky_slope": 0.1}
    assert meta["recipe"] == raw_recipe and meta["metrics"] == figures
    assert meta["data"]["held_out"][0]["pictures"] == 3 and meta["data"]["train"][0]["faces"] > 0
    assert len(meta["data"]["sha256"]) == 64
    assert meta["torch"] == torch.__version__ and meta["device"] == "cpu float32"
    network = build_network(model)
    network.load_state_dict(value["state_dict"], strict=True)
    assert read_checkpoint(path).meta == meta
    assert path.read_bytes()[:2] == b"PK"


def test_a_missed_goal_writes_no_checkpoint_but_shows_how_it_went(
    model: Model, raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    raw_recipe["goal"] = {"metric": "ap", "least": 0.99}
    with pytest.raises(GateError, match=r"goal\.ap") as caught:
        train_checkpoint(model, raw_recipe, outputs(tmp_path))
    assert "0.99" in str(caught.value)
    assert [item.name for item in tmp_path.iterdir()] == ["x.pth.training"]
    history = json.loads((tmp_path / "x.pth.training/history.failed.json").read_text())
    assert history["judged"][0]["step"] == 4 and len(history["curve"]) == 4
    assert (tmp_path / "x.pth.training/curves.failed.png").is_file()


def test_a_lower_goal_costs_no_new_training(
    model: Model, raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GateError):
        train_checkpoint(model, {**raw_recipe, "goal": {"metric": "ap", "least": 0.99}}, outputs(tmp_path))
    monkeypatch.setattr("facekiln.training.loop.Trainer.take_step", None)
    train_checkpoint(model, raw_recipe, outputs(tmp_path))
    monkeypatch.undo()
    train_checkpoint(model, raw_recipe, outputs(tmp_path, "again.pth"))
    assert (tmp_path / "x.pth").read_bytes() == (tmp_path / "again.pth").read_bytes()
    assert not list((tmp_path / "x.pth.training").glob("state*"))


def test_a_place_that_cannot_be_written_is_told_before_the_first_step(
    model: Model, raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("facekiln.training.train.open_pools", None)
    with pytest.raises(KilnError, match="cannot be written"):
        train_checkpoint(model, raw_recipe, Outputs(tmp_path / "file" / "x.pth", tmp_path / "t"))
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_weights_are_not_lost_when_the_disk_is_full_at_the_end(
    model: Model, raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> bytes:
        raise KilnError("the disk is full")

    monkeypatch.setattr("facekiln.training.train.checkpoint_bytes", full)
    with pytest.raises(KilnError, match="the disk is full"):
        train_checkpoint(model, raw_recipe, outputs(tmp_path))
    assert len(list((tmp_path / "x.pth.training").glob("state-*.pth"))) == 1


def test_a_size_that_the_model_has_not_is_told_before_the_first_step(
    model: Model, raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    raw_recipe["validate"]["size"] = "641"
    with pytest.raises(KilnError, match=r"validate\.size.*unknown size"):
        train_checkpoint(model, raw_recipe, outputs(tmp_path))


def config_with(recipe: dict[str, Any], root: Path, folder: Path) -> Path:
    """A config folder with one model and one recipe."""
    (folder / "models").mkdir(parents=True)
    (folder / "training").mkdir()
    (folder / "config.yaml").write_text("weights: synthetic\n")
    declared = yaml.safe_load((root / "config/models/retinaface.yaml").read_text())
    (folder / "models/retinaface.yaml").write_text(yaml.safe_dump({**declared, "recipe": "mini"}))
    (folder / "training/mini.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def words(config: Path, output: Path) -> list[str]:
    verb = ["checkpoint", "train", "--model", "retinaface"]
    return [*verb, "--config", str(config), "--output", str(output)]


def test_the_command_writes_a_checkpoint_with_sidecars(
    root: Path,
    raw_recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    config = config_with(raw_recipe, root, tmp_path / "config")
    assert main(words(config, tmp_path / "out/x.pth")) == 0
    told = capsys.readouterr().err
    assert "ap 0" in told and "trained by recipe 'mini'" in told
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["x.pth", "x.pth.kiln.json"]
    assert (tmp_path / "results/training/retinaface/curves.png.kiln.json").is_file()


def test_the_command_ends_with_3_at_a_missed_goal(
    root: Path, raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw_recipe["goal"]["least"] = 0.99
    config = config_with(raw_recipe, root, tmp_path / "config")
    assert main(words(config, tmp_path / "out/x.pth")) == 3
    assert not list((tmp_path / "out").iterdir())


KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
from facekiln.config import load_config, load_recipe
from facekiln.training import state, train
from facekiln.training.loop import Trainer

one = Trainer.take_step
def step(self, batch):
    if self.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    one(self, batch)
Trainer.take_step = step
state.StateFile.is_due = lambda self: True
config, folder = sys.argv[1], Path(sys.argv[2])
model = load_config(config).model("retinaface")
train.train_checkpoint(model, load_recipe("mini", config), train.Outputs(folder / "x.pth", folder / "t"))
"""


def test_a_training_that_was_killed_goes_on_to_the_same_bytes(
    model: Model, root: Path, raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    raw_recipe |= {"steps": 6, "ema": 0.9, "freeze_norms": 0.7}
    config = config_with(raw_recipe, root, tmp_path / "config")
    folder = tmp_path / "killed"
    run = subprocess.run([sys.executable, "-c", KILLED_IN_THE_MIDDLE, config, folder], check=False)
    assert run.returncode == -signal.SIGKILL
    (saved,) = (folder / "t").iterdir()
    packed = torch.load(saved, weights_only=True)["state"].numpy().tobytes()
    assert torch.load(io.BytesIO(packed), weights_only=True)["step"] == 3
    train_checkpoint(model, raw_recipe, Outputs(folder / "x.pth", folder / "t"))
    train_checkpoint(model, raw_recipe, outputs(tmp_path))
    assert (folder / "x.pth").read_bytes() == (tmp_path / "x.pth").read_bytes()
    assert (folder / "t/curves.png").read_bytes() == (tmp_path / "x.pth.training/curves.png").read_bytes()


def test_an_interruption_leaves_nothing(root: Path, raw_recipe: dict[str, Any], tmp_path: Path) -> None:
    config = config_with({**raw_recipe, "steps": 100000}, root, tmp_path / "config")
    log = tmp_path / "log"
    with log.open("w") as stream:
        run = subprocess.Popen(
            [sys.executable, "-m", "facekiln", *words(config, tmp_path / "out/x.pth")],
            stderr=stream,
            cwd=tmp_path,
        )
        try:
            deadline = time.monotonic() + 300
            while "train:" not in log.read_text().replace("draw train", "") and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.3)
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=120) == 130
        finally:
            run.kill()
    assert "interrupted" in log.read_text()
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
