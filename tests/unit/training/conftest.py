"""A recipe so small that it trains in a second, and the model that it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facekiln.config import Model, check, load_config
from facekiln.training.recipe import make_recipe
from facekiln.training.sources import Places, Pool, open_pools

SCENES = {"size": [96, 96], "face_size": [14, 60], "most_faces": 3}


@pytest.fixture(scope="session")
def model(root: Path) -> Model:
    """The shipped RetinaFace."""
    return load_config(root / "config").model("retinaface")


@pytest.fixture
def raw_recipe() -> dict[str, Any]:
    """A miniature, with the schema's defaults filled in; it learns nothing, so its goal is reached."""
    value = {
        "title": "miniature",
        "threads": 1,
        "device": "cpu",
        "steps": 4,
        "train": [{"drawn": {"count": 6, **SCENES}}],
        "validate": {"drawn": {"count": 3, **SCENES}},
        "goal": {"metric": "ap", "least": 0},
        "detection": {
            "batches": [
                {"size": [64, 64], "pictures": 2, "share": 0.7},
                {"size": [96, 96], "pictures": 2, "share": 0.3},
            ],
        },
    }
    return check(value, "recipe", "miniature.yaml")


@pytest.fixture
def pools(raw_recipe: dict[str, Any]) -> tuple[Pool, Pool]:
    """What the miniature trains on, and what it is judged on."""
    return open_pools(make_recipe(raw_recipe), Places())
