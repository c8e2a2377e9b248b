"""A recipe so small that it trains in a second, and the model that it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facekiln.config import Model, check, load_config


@pytest.fixture(scope="session")
def model(root: Path) -> Model:
    """The shipped RetinaFace."""
    return load_config(root / "config").model("retinaface")


@pytest.fixture
def raw_recipe() -> dict[str, Any]:
    """A miniature, with the schema's defaults filled in; it learns nothing, so its gate is open."""
    value = {
        "title": "miniature",
        "threads": 1,
        "scenes": {"count": 6, "side": 96, "face_size": [14, 60], "most_faces": 3},
        "batches": [
            {"side": 64, "pictures": 2, "share": 0.7},
            {"side": 96, "pictures": 2, "share": 0.3},
        ],
        "steps": 4,
        "held_out": {"count": 3, "side": 96, "face_size": [14, 60], "most_faces": 3},
        "minimum_ap": 0,
    }
    return check(value, "recipe", "miniature.yaml")
