"""The detection task: the same batch for the same step, prepared as the model declares."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facekiln.config import Model, check, load_config
from facekiln.errors import KilnError
from facekiln.models.registry import build_network
from facekiln.training.detection import DetectionTask
from facekiln.training.prefetch import loaders, prefetched
from facekiln.training.recipe import make_recipe
from facekiln.training.sources import Pool
from facekiln.vision.preprocess import to_tensor


@pytest.fixture
def task(model: Model, raw_recipe: dict[str, Any], pools: tuple[Pool, Pool]) -> DetectionTask:
    return DetectionTask(model, make_recipe(raw_recipe), *pools)


def test_shapes_and_types(task: DetectionTask) -> None:
    for step in range(task.steps):
        batch = task.batch(step)
        side = batch["images"].shape[2]
        priors = 2 * sum((side // stride) ** 2 for stride in (8, 16, 32))
        assert batch["images"].shape == (2, 3, side, side) and batch["images"].dtype == np.float32
        assert batch["labels"].shape == (2, priors) and batch["labels"].dtype == np.int8
        assert batch["loc"].shape == (2, priors, 4) and batch["landms"].shape == (2, priors, 10)
        assert batch["pointed"].shape == (2, priors)


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_come_in_the_order_of_their_steps_whoever_makes_them(
    task: DetectionTask, threads: int
) -> None:
    before = threading.active_count()
    for step, batch in enumerate(prefetched(task, 1, task.steps, threads), start=1):
        expected = task.batch(step)
        assert {name: value.tobytes() for name, value in batch.items()} == {
            name: value.tobytes() for name, value in expected.items()
        }
    assert step == task.steps - 1 and threading.active_count() == before


def test_leaving_early_leaves_no_thread(task: DetectionTask) -> None:
    before = threading.active_count()
    batches = prefetched(task, 0, task.steps, 2)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_there_is_always_a_loader() -> None:
    assert loaders(1000) == 1 and loaders(1) >= 1


def test_seeds_differ(
    model: Model, raw_recipe: dict[str, Any], pools: tuple[Pool, Pool], task: DetectionTask
) -> None:
    recipe = dataclasses.replace(make_recipe(raw_recipe), seed=2)
    other = DetectionTask(model, recipe, *pools)
    assert other.batch(0)["images"].tobytes() != task.batch(0)["images"].tobytes()


def test_images_are_prepared_by_the_models_declaration(
    task: DetectionTask, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def recording(image: Any, declared: Any) -> Any:
        seen.append(declared)
        return to_tensor(image, declared)

    monkeypatch.setattr("facekiln.training.detection.to_tensor", recording)
    task.batch(1)
    assert seen == [model.input] * 2


@pytest.mark.parametrize("name", ["ulfd_slim_320", "ulfd_rfb_640", "slim_1mb", "rfb_1mb"])
def test_it_fits_every_small_detector(
    root: Path, raw_recipe: dict[str, Any], pools: tuple[Pool, Pool], name: str
) -> None:
    """Other priors, other outputs in another order, a size that is not square."""
    model = load_config(root / "config").model(name)
    raw_recipe["detection"]["batches"] = [{"size": [64, 96], "pictures": 2}]
    task = DetectionTask(model, make_recipe(check(raw_recipe, "recipe", "x")), *pools)
    network = build_network(model)
    batch = {key: torch.from_numpy(value) for key, value in task.batch(0).items()}
    parts = task.loss(network(batch.pop("images")), batch)
    assert set(parts) == {"boxes", "scores"} | ({"landmarks"} if name.endswith("1mb") else set())
    torch.stack(list(parts.values())).sum().backward()
    figures = task.judge(network.eval())
    assert 0 <= figures["ap"] <= 1 and figures["pictures"] == 3


def test_a_model_without_priors_is_no_detector(
    root: Path, raw_recipe: dict[str, Any], pools: tuple[Pool, Pool]
) -> None:
    with pytest.raises(KilnError, match="no priors"):
        DetectionTask(load_config(root / "config").model("pfpld"), make_recipe(raw_recipe), *pools)
