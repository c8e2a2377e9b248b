"""Recipes: the shipped ones hold, wrong ones are refused by file and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from facekiln.config import check, load_config, load_recipe
from facekiln.errors import KilnError
from facekiln.training.detection import batch_kinds
from facekiln.training.recipe import Goal, datasets_of, make_recipe, without_limit


def test_every_model_that_names_a_recipe_has_it(root: Path) -> None:
    config = load_config(root / "config")
    named = {model.recipe for model in config.models.values() if model.recipe}
    assert "retinaface_synthetic" in named
    for name in named:
        recipe = make_recipe(load_recipe(name, root / "config"))
        assert recipe.threads == 2 and recipe.device == "cpu"  # the same bytes on every machine
        assert recipe.goal.limit() > 0
        assert recipe.validate.source.drawn and recipe.validate.source.drawn.count >= 200


def test_every_shipped_recipe_is_whole(root: Path) -> None:
    for path in (root / "config" / "training").glob("*.yaml"):
        make_recipe(load_recipe(path.stem, root / "config"))


def test_defaults_are_those_of_pytorch_retinaface(raw_recipe: dict[str, Any]) -> None:
    """Overlap 0.35, seven negatives, box weight 2 (Pytorch_Retinaface: multibox_loss.py, train.py)."""
    settings = make_recipe(raw_recipe).settings
    assert settings["matching"]["overlap"] == 0.35
    assert (settings["loss"]["negatives"], settings["loss"]["boxes"]) == (7, 2)


def test_face_sizes_are_sorted(raw_recipe: dict[str, Any]) -> None:
    raw_recipe["train"][0]["drawn"]["face_size"] = [60, 14]
    drawn = make_recipe(raw_recipe).train[0].drawn
    assert drawn and drawn.face_size == (14.0, 60.0) and drawn.style().face_size == (14.0, 60.0)


def test_defaults_inside_lists_are_filled_in() -> None:
    value = {"title": "x", "steps": 1, "train": [{"drawn": {}}], "validate": {"drawn": {}}}
    filled = check(value, "recipe", "x.yaml")
    assert filled["train"][0]["drawn"]["count"] == 600
    assert filled["validate"]["drawn"]["size"] == [448, 448]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stpes": 3}, "did you mean 'steps'"),
        ({"steps": 0}, "steps"),
        ({"detection": {"batches": [{"size": [100], "pictures": 2}]}}, "detection.batches.0.size"),
        ({"detection": {"batches": []}}, "detection.batches"),
        ({"schedule": {"rate": 0}}, "schedule.rate"),
        ({"optimiser": {"kind": "lamb"}}, "optimiser.kind"),
        ({"goal": {"most": 1}}, "goal"),
        ({"threads": 0}, "threads"),
        ({"ema": 1}, "ema"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    value = {"title": "x", "steps": 1, "train": [{"drawn": {}}], "validate": {"drawn": {}}, **change}
    path = tmp_path / "training" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(KilnError) as caught:
        load_recipe("mine", tmp_path)
    assert told in str(caught.value) and "mine.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"validate": {"drawn": {}, "count": 3}}, r"validate\.count"),
        ({"validate": {"drawn": {}, "patience": 3}}, r"validate\.patience"),
        ({"epochs": 2}, "either `steps` or `epochs`"),
        ({"train": [{"share": 0.5}]}, r"train\.0: a source is either"),
        ({"train": [{"drawn": {}, "dataset": "x"}]}, "a source is either"),
        ({"goal": {"metric": "ap"}}, "either `least` or `most`"),
        ({"goal": {"metric": "ap", "least": 1, "most": 1}}, "either `least` or `most`"),
    ],
)
def test_what_does_not_go_together_is_told(
    raw_recipe: dict[str, Any], change: dict[str, Any], told: str
) -> None:
    with pytest.raises(KilnError, match=told):
        make_recipe(check({**raw_recipe, **change}, "recipe", "x"))


def test_one_task_is_needed(raw_recipe: dict[str, Any]) -> None:
    del raw_recipe["detection"]
    with pytest.raises(KilnError, match="give one section"):
        make_recipe(raw_recipe)


def test_shares_are_all_or_none(raw_recipe: dict[str, Any]) -> None:
    raw_recipe["train"].append({**raw_recipe["train"][0], "share": 0.5})
    with pytest.raises(KilnError, match="every source a `share`, or none"):
        make_recipe(raw_recipe)


def test_goals_know_their_direction() -> None:
    more, less = Goal("ap", least=0.9), Goal("nme", most=0.1)
    assert more.better(0.8, 0.7) and less.better(0.7, 0.8) and not less.better(0.8, 0.7)
    assert more.reached(0.9) and not more.reached(0.89) and less.reached(0.1) and not less.reached(0.11)
    assert not more.reached(float("nan")) and not less.reached(float("nan"))
    assert (more.limit(), less.limit()) == (0.9, 0.1)


def test_crops_show_faces_of_sizes_that_fit(raw_recipe: dict[str, Any]) -> None:
    kinds = batch_kinds(raw_recipe["detection"])
    assert [kind.cut.faces for kind in kinds] == [(9, 0.95 * 64), (9, 0.95 * 96)]
    raw_recipe["detection"]["batches"][0]["faces"] = [50, 20]
    assert batch_kinds(raw_recipe["detection"])[0].cut.faces == (20, 50)


def test_each_task_has_a_goal_of_its_own(raw_recipe: dict[str, Any]) -> None:
    del raw_recipe["goal"]
    assert make_recipe(raw_recipe).goal == Goal("ap", least=0.0)
    raw_recipe["landmarks"] = raw_recipe.pop("detection")
    assert make_recipe(raw_recipe).goal.metric == "nme"


def test_how_good_it_must_get_is_no_part_of_what_is_trained(raw_recipe: dict[str, Any]) -> None:
    strict = {**raw_recipe, "goal": {"metric": "ap", "least": 0.9}}
    assert without_limit(strict) == without_limit(raw_recipe) != without_limit({**strict, "seed": 9})
    assert without_limit({**strict, "goal": {"metric": "ap", "most": 1}}) != without_limit(strict)


def test_the_datasets_of_a_recipe_are_named_once() -> None:
    value = {"train": [{"dataset": "a"}, {"drawn": {}}, {"dataset": "b"}], "validate": {"dataset": "a"}}
    assert datasets_of(value) == ["a", "b"]


def test_an_unknown_recipe_gets_a_suggestion(root: Path) -> None:
    with pytest.raises(KilnError, match="did you mean 'retinaface_synthetic'"):
        load_recipe("retinaface_syntetic", root / "config")


def test_the_defaults_pass_their_own_schema(raw_recipe: dict[str, Any]) -> None:
    assert check(raw_recipe, "recipe", "again") == raw_recipe
