"""A small detector and a landmark model whose stages are made up of the picture alone, and drawn datasets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facekiln.config import Config, Crop, Model, load_config
from facekiln.data.declared import Declared, Expected
from facekiln.vision.priors import make_priors

SIZE = (64, 96)


class MadeUpStage:
    """Outputs that differ from picture to picture; stops as told; counts its runs."""

    name, precision, emulated = "onnxruntime", "float", False

    def __init__(self, model: Model, stop_at: int | None = None) -> None:
        self.model, self.stop_at, self.runs, self.error = model, stop_at, 0, KeyboardInterrupt()

    def run(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        self.runs += 1
        if self.stop_at is not None and self.runs > self.stop_at:
            raise self.error
        rng = np.random.default_rng(int(picture.astype(np.int64).sum()))
        if self.model.crop:
            return {
                "pose": rng.normal(size=(1, 3)).astype(np.float32),
                "landms": rng.uniform(size=(1, 196)).astype(np.float32),
            }
        assert self.model.priors
        count = len(make_priors(self.model.priors, picture.shape[:2]))
        face = rng.uniform(size=(1, count, 1)) ** 8
        return {
            "loc": rng.normal(size=(1, count, 4)).astype(np.float32),
            "conf": np.concatenate([1 - face, face], axis=2).astype(np.float32),
            "landms": rng.normal(size=(1, count, 10)).astype(np.float32),
        }


class MadeUpBatch(MadeUpStage):
    """The same, several pictures at once, with the place of a picture in its answer."""

    def __init__(self, model: Model, batch: int, stop_at: int | None = None) -> None:
        super().__init__(model, stop_at)
        self.batch, self.places = batch, []

    def run_batch(self, pictures: Any) -> list[dict[str, np.ndarray]]:
        assert 0 < len(pictures) <= self.batch
        found = []
        for place, picture in enumerate(pictures):
            if picture is not None:
                outputs = self.run(picture)
                # A chip need not compute every place alike.
                first = self.model.outputs[0]
                found.append(outputs | {first: outputs[first] + np.float32(place / 64)})
        self.places.append(len(found))
        return found

    def trace(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        return self.run(picture)

    def name_in_parent(self, tensor: str) -> str:
        return tensor


@pytest.fixture(scope="session")
def config(root: Path) -> Config:
    return load_config(root / "config")


@pytest.fixture(scope="session")
def detector(config: Config) -> Model:
    return replace(config.model("retinaface"), name="small", sizes={"96": SIZE, "32": (32, 32)})


@pytest.fixture(scope="session")
def pointer(config: Config) -> Model:
    return replace(config.model("pfpld"), crop=Crop(0.9, 0.4))


@pytest.fixture
def scenes() -> Callable[..., Declared]:
    def declare(count: int = 7, **options: Any) -> Declared:
        return Declared(
            name="scenes",
            kind="procedural",
            licence="drawn",
            expected=Expected(images=count),
            options={"purpose": "dataset", "seed": 3, "size": (72, 108), **options},
        )

    return declare


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., MadeUpStage]:
    """Return a function that makes the stage that any artifact will be opened as."""

    def use(model: Model, stop_at: int | None = None, batch: int | None = None) -> MadeUpStage:
        made = MadeUpBatch(model, batch, stop_at) if batch else MadeUpStage(model, stop_at)
        monkeypatch.setattr("facekiln.predictions.run.open_stage", lambda *_, **__: made)
        return made

    return use
