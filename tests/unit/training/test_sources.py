"""Samples for a training: drawn, or from declared and audited datasets, never both trained on and judged."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from facekiln.config import check
from facekiln.data.audit import audit
from facekiln.data.declared import hash_of, load_datasets, open_dataset
from facekiln.data.procedural import draw_scene, scene_seed
from facekiln.data.report import write_audit
from facekiln.errors import KilnError
from facekiln.training.pictures import PictureCache
from facekiln.training.recipe import Recipe, make_recipe
from facekiln.training.sources import Places, open_pools
from facekiln.training.train import Outputs, train_checkpoint
from facekiln.vision.image import write_image


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A dataset in WIDER FACE's layout, made of drawn scenes, declared and audited."""
    lines = []
    for index in range(8):
        scene = draw_scene(scene_seed("pictures", 3, index), (120, 160))
        name = f"0--Parade/{index}.png"
        write_image(tmp_path / "set/images" / name, scene.image)
        boxes = [[round(v) for v in (x1, y1, x2 - x1, y2 - y1)] for x1, y1, x2, y2 in scene.boxes()]
        lines += [name, str(len(boxes))]
        lines += [" ".join(map(str, [*box, 0, 0, 0, 0, 0, 0])) for box in boxes or [[0] * 4]]
        lines[-len(boxes or [0]) - 1] = str(len(boxes))
    (tmp_path / "set/gt.txt").write_text("\n".join(lines) + "\n")
    faces = sum(int(line) for line in lines if line.isdigit())
    entry = {
        "kind": "wider_text",
        "licence": "made here",
        "folder": str(tmp_path / "set"),
        "images": "images",
        "annotations": [{"path": "gt.txt", "sha256": hash_of(tmp_path / "set/gt.txt")}],
        "expected": {"images": 8, "faces": faces},
    }
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump({"datasets": {"tiny": entry}}))
    declared = load_datasets(tmp_path)["tiny"]
    write_audit(audit(declared, open_dataset(declared)), tmp_path / "reports/tiny")
    return Places(tmp_path, tmp_path / "reports")


def recipe_on(raw: dict[str, Any], train: list[Any], validate: dict[str, Any]) -> Recipe:
    # `check` fills defaults in: what tests share must stay as it is.
    value = copy.deepcopy({**raw, "train": train, "validate": validate})
    return make_recipe(check(value, "recipe", "x"))


DRAWN = {"drawn": {"count": 2, "size": [96, 96]}}


def test_a_dataset_is_what_its_audit_left(raw_recipe: dict[str, Any], places: Places) -> None:
    train, _ = open_pools(recipe_on(raw_recipe, [{"dataset": "tiny"}, DRAWN], DRAWN), places)
    assert train.counts == [8, 2] and len(train) == 10
    assert train[7].source == "0--Parade/7.png" and train[7].size == (120, 160)
    assert train[8].source == "train_0"
    with pytest.raises(IndexError):
        train[10]
    record = train.records[0]
    assert (record["name"], record["pictures"], record["licence"]) == ("tiny", 8, "made here")
    assert record["annotations"] and len(record["pictures_sha256"]) == 64


def test_pictures_held_out_of_a_training_set_are_not_trained_on(
    raw_recipe: dict[str, Any], places: Places
) -> None:
    recipe = recipe_on(raw_recipe, [{"dataset": "tiny"}], {"dataset": "tiny", "count": 3})
    train, held_out = open_pools(recipe, places)
    names = {train[i].source for i in range(len(train))}, {held_out[i].source for i in range(len(held_out))}
    assert (len(names[0]), len(names[1])) == (5, 3) and not names[0] & names[1]
    assert (train.records[0]["pictures"], held_out.records[0]["pictures"]) == (5, 3)


@pytest.mark.parametrize(
    ("count", "told"),
    [
        ({}, "no picture is left"),
        ({"count": 8}, "no picture is left"),
        ({"count": 9}, "more pictures than"),
    ],
)
def test_a_set_cannot_be_trained_on_and_judged_whole(
    raw_recipe: dict[str, Any], places: Places, count: dict[str, int], told: str
) -> None:
    recipe = recipe_on(raw_recipe, [{"dataset": "tiny"}], {"dataset": "tiny", **count})
    with pytest.raises(KilnError, match=told):
        open_pools(recipe, places)


def test_pictures_are_held_out_by_their_bytes_not_by_the_name_of_their_set(
    raw_recipe: dict[str, Any], places: Places
) -> None:
    value = yaml.safe_load((places.config / "datasets.yaml").read_text())
    value["datasets"]["twin"] = value["datasets"]["tiny"]
    (places.config / "datasets.yaml").write_text(yaml.safe_dump(value))
    declared = load_datasets(places.config)["twin"]
    write_audit(audit(declared, open_dataset(declared)), places.reports / "twin")
    recipe = recipe_on(raw_recipe, [{"dataset": "tiny"}], {"dataset": "twin", "count": 3})
    train, held_out = open_pools(recipe, places)
    names = {train[i].source for i in range(len(train))}, {held_out[i].source for i in range(len(held_out))}
    assert (len(names[0]), len(names[1])) == (5, 3) and not names[0] & names[1]


def test_small_faces_are_left_out_of_what_learns_not_of_what_judges(
    raw_recipe: dict[str, Any], places: Places
) -> None:
    value = yaml.safe_load((places.config / "datasets.yaml").read_text())
    value["datasets"]["tiny"]["small_faces"] = {"least": 30, "treat": "ignore"}
    (places.config / "datasets.yaml").write_text(yaml.safe_dump(value))
    declared = load_datasets(places.config)["tiny"]
    write_audit(audit(declared, open_dataset(declared)), places.reports / "tiny")
    recipe = recipe_on(raw_recipe, [{"dataset": "tiny"}], {"dataset": "tiny", "count": 4})
    for pool, most in zip(open_pools(recipe, places), (0, 1000), strict=True):
        samples = [pool[index] for index in range(len(pool))]
        small = sum(
            int(((s.boxes[:, 2:] - s.boxes[:, :2]).min(axis=1) < 30)[~s.ignore].sum()) for s in samples
        )
        assert (small > 0) == (most > 0)
        assert pool.records[0]["faces"] == sum(int((~s.ignore).sum()) for s in samples)


def test_a_dataset_that_was_not_audited_is_told(raw_recipe: dict[str, Any], places: Places) -> None:
    recipe = recipe_on(raw_recipe, [{"dataset": "tiny"}], DRAWN)
    with pytest.raises(KilnError, match="facekiln dataset check tiny"):
        open_pools(recipe, Places(places.config, places.reports / "elsewhere"))


def test_an_unknown_dataset_gets_a_suggestion(raw_recipe: dict[str, Any], places: Places) -> None:
    with pytest.raises(KilnError, match="did you mean 'tiny'"):
        open_pools(recipe_on(raw_recipe, [{"dataset": "tinny"}], DRAWN), places)


def test_a_declaration_that_changed_needs_a_new_audit(raw_recipe: dict[str, Any], places: Places) -> None:
    value = yaml.safe_load((places.config / "datasets.yaml").read_text())
    value["datasets"]["tiny"]["rules"] = {"outside_box": "skip"}
    (places.config / "datasets.yaml").write_text(yaml.safe_dump(value))
    with pytest.raises(KilnError, match="as it is declared now"):
        open_pools(recipe_on(raw_recipe, [{"dataset": "tiny"}], DRAWN), places)


def test_a_detector_trains_on_a_declared_dataset(
    model: Any, raw_recipe: dict[str, Any], places: Places, tmp_path: Path
) -> None:
    del raw_recipe["steps"]
    raw_recipe |= {"epochs": 2, "train": [{"dataset": "tiny"}]}
    raw_recipe["validate"] = {"dataset": "tiny", "count": 2, "size": "512", "every": 1, "patience": 0}
    outputs = Outputs(tmp_path / "x.pth", tmp_path / "t")
    figures = train_checkpoint(model, check(raw_recipe, "recipe", "x"), outputs, places)
    assert figures["pictures"] == 2 and figures["steps"] == 6 and outputs.checkpoint.is_file()


def test_pictures_are_read_no_larger_than_needed_and_once(
    places: Places, raw_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from facekiln.training import pictures

    train, _ = open_pools(recipe_on(raw_recipe, [{"dataset": "tiny"}], DRAWN), places)
    read: list[int] = []
    original = pictures.read_image
    monkeypatch.setattr(pictures, "read_image", lambda path, by: read.append(by) or original(path, by))
    cache = PictureCache()
    shapes = [cache.load(0, train[0], scale).shape[:2] for scale in (1.0, 0.6, 0.5, 0.26, 0.2, 0.01)]
    assert shapes == [(120, 160), (120, 160), (60, 80), (60, 80), (30, 40), (15, 20)]
    assert read == [1, 2, 4, 8]


def test_a_small_budget_forgets_the_oldest(places: Places, raw_recipe: dict[str, Any]) -> None:
    train, _ = open_pools(recipe_on(raw_recipe, [{"dataset": "tiny"}], DRAWN), places)
    cache = PictureCache(budget=2 * 120 * 160 * 3)
    first = cache.load(0, train[0], 1.0)
    assert cache.load(0, train[0], 1.0) is first
    for index in (1, 2):
        cache.load(index, train[index], 1.0)
    again = cache.load(0, train[0], 1.0)
    assert again is not first and np.array_equal(again, first)
