"""Batches: the same for the same step, in order, prepared as the model declares."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np
import pytest

from facekiln.config import Model
from facekiln.training.batches import BatchMaker
from facekiln.training.pool import draw_pool
from facekiln.training.recipe import make_recipe
from facekiln.vision.preprocess import to_tensor


@pytest.fixture
def maker(model: Model, raw_recipe: dict[str, Any]) -> BatchMaker:
    recipe = make_recipe(raw_recipe)
    assert model.priors
    return BatchMaker(recipe, draw_pool(recipe.scenes, "train", 1, 1), model.input, model.priors)


def test_shapes_and_types(maker: BatchMaker) -> None:
    batch = maker.make(0)
    side = maker.kind(0).side
    priors = len(maker.priors[side])
    assert batch.images.shape == (2, 3, side, side) and batch.images.dtype == np.float32
    assert batch.labels.shape == (2, priors) and batch.labels.dtype == np.int8
    assert batch.loc.shape == (2, priors, 4) and batch.landms.shape == (2, priors, 10)


def test_iterating_gives_the_batches_of_all_steps_in_order(maker: BatchMaker) -> None:
    threads = threading.active_count()
    batches = list(maker)
    assert len(batches) == maker.recipe.steps
    for step, batch in enumerate(batches):
        expected = maker.make(step)
        assert batch.images.tobytes() == expected.images.tobytes()
        assert batch.loc.tobytes() == expected.loc.tobytes()
    assert threading.active_count() == threads


def test_leaving_early_leaves_no_thread(maker: BatchMaker) -> None:
    threads = threading.active_count()
    batches = iter(maker)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads


def test_kinds_come_by_their_shares(maker: BatchMaker) -> None:
    sides = [maker.kind(step).side for step in range(400)]
    assert sides.count(64) / 400 == pytest.approx(0.7, abs=0.08)


def test_seeds_differ(maker: BatchMaker, model: Model) -> None:
    assert model.priors
    other = BatchMaker(dataclasses.replace(maker.recipe, seed=2), maker.scenes, model.input, model.priors)
    same = next(step for step in range(50) if other.kind(step).side == maker.kind(step).side)
    assert other.make(same).images.tobytes() != maker.make(same).images.tobytes()


def test_images_are_prepared_by_the_models_declaration(
    maker: BatchMaker, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def recording(image: Any, declared: Any) -> Any:
        seen.append(declared)
        return to_tensor(image, declared)

    monkeypatch.setattr("facekiln.training.batches.to_tensor", recording)
    maker.make(1)
    assert seen == [model.input] * 2
