"""The loop: it learns, stops early, goes on after a kill with the same result, tells divergence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facekiln.config import check
from facekiln.errors import KilnError
from facekiln.training.device import choose_device, deterministic
from facekiln.training.loop import Trainer
from facekiln.training.recipe import Recipe, make_recipe
from facekiln.training.state import StateFile
from facekiln.training.task import Arrays


class Kill(BaseException):
    """Stands for a SIGKILL between two steps."""


class Wish:
    """A task without pictures: outputs should be 0.7. Its judgement gets worse after `best` steps."""

    epoch_steps = 5
    goals = ("ap",)

    def __init__(self, steps: int, best: int = 10**9, kill_at: int | None = None) -> None:
        self.steps, self.best, self.kill_at, self.judged = steps, best, kill_at, 0

    def batch(self, step: int) -> Arrays:
        if step == self.kill_at:
            raise Kill
        rng = np.random.default_rng(step)
        noise = rng.normal(0, 0.05, (4, 3, 8, 8)).astype(np.float32)
        return {"images": noise, "wish": np.full((4, 2), 0.7, np.float32)}

    def loss(self, outputs: tuple[Tensor, ...], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        error = (outputs[0] - batch["wish"]).abs()
        return {"near": error.mean(), "far": 0.5 * error.max()}

    def judge(self, network: nn.Module) -> dict[str, Any]:
        assert not network.training
        self.judged += 1
        return {"ap": 1.0 - abs(self.judged - self.best) / 100}


class Two(nn.Module):
    """A convolution, a norm with statistics, and two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.last(self.norm(self.conv(images)).mean(dim=(2, 3))),)


def recipe_of(raw: dict[str, Any], **change: Any) -> Recipe:
    return make_recipe(check({**raw, **change}, "recipe", "x"))


def trained(recipe: Recipe, task: Wish, saved: StateFile | None = None) -> tuple[nn.Module, dict[str, Any]]:
    with deterministic(recipe.seed, 1):
        network = Two()
        trainer = Trainer(network, task, recipe, choose_device(recipe))
        figures = trainer.run(saved)
    return network, {**figures, "history": trainer.history.record()}


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_it_learns_and_ends_in_evaluation_mode(raw_recipe: dict[str, Any], kind: str) -> None:
    recipe = recipe_of(raw_recipe, optimiser={"kind": kind}, schedule={"rate": 0.05})
    network, figures = trained(recipe, Wish(150))
    assert not network.training
    assert figures["loss"] < 0.1 and figures["steps"] == 150 and not figures["stopped_early"]
    assert all(key in figures["history"]["curve"][0] for key in ("near", "far", "loss", "rate", "step"))


def test_bfloat16_learns_too(raw_recipe: dict[str, Any]) -> None:
    recipe = recipe_of(raw_recipe, amp="bfloat16", schedule={"rate": 0.05})
    network, figures = trained(recipe, Wish(150))
    assert figures["loss"] < 0.15
    assert all(p.dtype == torch.float32 for p in network.parameters())


@pytest.mark.parametrize("ema", [0, 0.9])
@pytest.mark.parametrize("freeze_norms", [0, 0.4])
@pytest.mark.parametrize("kill_at", [11, 30, 37])
def test_a_killed_training_ends_as_if_it_had_not_been(
    raw_recipe: dict[str, Any], tmp_path: Path, ema: float, freeze_norms: float, kill_at: int
) -> None:
    """Before, at and after the step from which on norms are frozen."""
    validate = {**raw_recipe["validate"], "every": 10}
    recipe = recipe_of(raw_recipe, ema=ema, freeze_norms=freeze_norms, validate=validate)
    expected, told = trained(recipe, Wish(50, best=3))
    saved = StateFile(tmp_path, "key", every=0)
    with pytest.raises(Kill):
        trained(recipe, Wish(50, best=3, kill_at=kill_at), saved)
    again = Wish(50, best=3)
    again.judged = kill_at // 10
    network, figures = trained(recipe, again, StateFile(tmp_path, "key", every=1e9))
    assert figures == told
    for key, value in network.state_dict().items():
        assert torch.equal(value, expected.state_dict()[key]), key


def test_it_stops_early_and_keeps_the_best(raw_recipe: dict[str, Any]) -> None:
    validate = {**raw_recipe["validate"], "every": 10, "patience": 2}
    recipe = recipe_of(raw_recipe, validate=validate)
    network, figures = trained(recipe, Wish(200, best=3))
    assert figures["stopped_early"] and figures["steps"] == 50 and figures["ap"] == 1.0
    same, _ = trained(recipe_of(raw_recipe), Wish(200, best=3))
    assert not torch.equal(network.state_dict()["last.weight"], same.state_dict()["last.weight"])


def test_every_is_in_epochs_where_the_length_is(raw_recipe: dict[str, Any]) -> None:
    del raw_recipe["steps"]
    recipe = recipe_of(raw_recipe, epochs=4, validate={**raw_recipe["validate"], "every": 2})
    _, figures = trained(recipe, Wish(20))
    assert [entry["step"] for entry in figures["history"]["judged"]] == [10, 20]


def test_frozen_norms_keep_their_statistics(raw_recipe: dict[str, Any]) -> None:
    counts = {}
    for share in (0.0, 0.5, 1.0):
        network, _ = trained(recipe_of(raw_recipe, freeze_norms=share), Wish(20))
        counts[share] = int(network.state_dict()["norm.num_batches_tracked"])
    assert counts == {0.0: 20, 0.5: 10, 1.0: 0}


def test_a_goal_that_the_task_has_not_is_told(raw_recipe: dict[str, Any]) -> None:
    """Before the first step, not after the last."""
    with pytest.raises(KilnError, match="is no figure that decides"):
        trained(recipe_of(raw_recipe, goal={"metric": "map", "least": 0}), Wish(2, kill_at=0))


def test_divergence_is_told_with_its_step(raw_recipe: dict[str, Any]) -> None:
    class Broken(Wish):
        def batch(self, step: int) -> Arrays:
            value = super().batch(step)
            return value if step < 1 else {**value, "wish": np.full((4, 2), np.nan, np.float32)}

    with pytest.raises(KilnError, match=r"step 1.*diverged"):
        trained(recipe_of(raw_recipe), Broken(5))


def test_torch_is_left_as_it_was() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    with pytest.raises(RuntimeError), deterministic(5, 1):
        assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
        raise RuntimeError
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_told(raw_recipe: dict[str, Any]) -> None:
    with pytest.raises(KilnError, match="no GPU"):
        choose_device(recipe_of(raw_recipe, device="cuda"))
    assert choose_device(recipe_of(raw_recipe, device="auto")).name() == "cpu float32"
    with pytest.raises(KilnError, match="float16 needs a GPU"):
        choose_device(recipe_of(raw_recipe, amp="float16"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_float16_learns_on_a_gpu(raw_recipe: dict[str, Any]) -> None:
    recipe = recipe_of(raw_recipe, device="cuda", amp="float16", schedule={"rate": 0.05})
    network, figures = trained(recipe, Wish(150))
    assert figures["loss"] < 0.2 and next(network.parameters()).device.type == "cpu"


def test_trainings_do_not_take_each_others_state(tmp_path: Path) -> None:
    StateFile(tmp_path, "one").save({"step": 3})
    assert StateFile(tmp_path, "one").load() == {"step": 3}
    assert StateFile(tmp_path, "two").load() is None
    StateFile(tmp_path, "two").save({"step": 4})
    assert StateFile(tmp_path, "one").load() == {"step": 3}
    StateFile(tmp_path, "one").path.rename(StateFile(tmp_path, "two").path)
    with pytest.raises(KilnError, match="no state of this training"):
        StateFile(tmp_path, "two").load()


def flipped(data: bytes) -> bytes:
    """One bit of a tensor's values: torch itself does not notice."""
    at = data.index(b"\x03\x00\x00\x00\x00\x00\x00\x00\x04")
    return data[:at] + b"\x02" + data[at + 1 :]


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"<html>", flipped]
)
def test_a_damaged_state_is_told(tmp_path: Path, damage: Any) -> None:
    saved = StateFile(tmp_path, "one")
    saved.save({"step": torch.arange(1000)})
    saved.path.write_bytes(damage(saved.path.read_bytes()))
    with pytest.raises(KilnError, match="remove it to train from the start"):
        saved.load()
