"""Recipes: the shipped ones hold, wrong ones are refused by file and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from facekiln.config import check, load_config, load_recipe
from facekiln.errors import KilnError
from facekiln.training.recipe import make_recipe


def test_every_model_that_names_a_recipe_has_it(root: Path) -> None:
    config = load_config(root / "config")
    named = {model.recipe for model in config.models.values() if model.recipe}
    assert "retinaface_synthetic" in named
    for name in named:
        recipe = make_recipe(load_recipe(name, root / "config"))
        assert recipe.threads == 2
        assert recipe.minimum_ap >= 0.9
        assert recipe.held_out.count >= 200 and recipe.held_out.side == 640


def test_defaults_are_those_of_pytorch_retinaface(raw_recipe: dict[str, Any]) -> None:
    """Overlap 0.35, seven negatives, box weight 2 (Pytorch_Retinaface: multibox_loss.py, train.py)."""
    recipe = make_recipe(raw_recipe)
    assert (recipe.matching.overlap, recipe.loss.negatives, recipe.loss.boxes) == (0.35, 7, 2)


def test_face_sizes_are_sorted(raw_recipe: dict[str, Any]) -> None:
    raw_recipe["scenes"]["face_size"] = [60, 14]
    assert make_recipe(raw_recipe).scenes.face_size == (14.0, 60.0)
    assert make_recipe(raw_recipe).scenes.style().face_size == (14.0, 60.0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stpes": 3}, "did you mean 'steps'"),
        ({"steps": 0}, "steps"),
        ({"batches": [{"side": 100, "pictures": 2, "share": 1}]}, "batches.0.side"),
        ({"batches": []}, "batches"),
        ({"schedule": {"rate": 0}}, "schedule.rate"),
        ({"minimum_ap": 1.1}, "minimum_ap"),
        ({"threads": 0}, "threads"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    value = {"title": "x", "steps": 1, "batches": [{"side": 64, "pictures": 2, "share": 1}], **change}
    path = tmp_path / "training" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(KilnError) as caught:
        load_recipe("mine", tmp_path)
    assert told in str(caught.value) and "mine.yaml" in str(caught.value)


def test_an_unknown_recipe_gets_a_suggestion(root: Path) -> None:
    with pytest.raises(KilnError, match="did you mean 'retinaface_synthetic'"):
        load_recipe("retinaface_syntetic", root / "config")


def test_the_defaults_pass_their_own_schema(raw_recipe: dict[str, Any]) -> None:
    assert check(raw_recipe, "recipe", "again") == raw_recipe
