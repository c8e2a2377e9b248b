"""Pools of scenes: one order, whoever draws."""

from __future__ import annotations

from facekiln.training.pool import draw_pool
from facekiln.training.recipe import Drawn

SCENES = Drawn(count=18, size=(48, 64), face_size=(12.0, 40.0), most_faces=2)


def test_the_number_of_processes_changes_nothing() -> None:
    alone, together = draw_pool(SCENES, "train", 3, 1), draw_pool(SCENES, "train", 3, 2)
    assert [scene.image.tobytes() for scene in alone] == [scene.image.tobytes() for scene in together]
    assert [[f.box for f in s.faces] for s in alone] == [[f.box for f in s.faces] for s in together]
    assert alone[0].image.shape == (48, 64, 3)


def test_held_out_scenes_are_not_among_those_trained_on() -> None:
    few = Drawn(count=6, size=(48, 48), face_size=(12.0, 40.0), most_faces=2)
    train = {scene.image.tobytes() for scene in draw_pool(few, "train", 1, 1)}
    assert not train & {scene.image.tobytes() for scene in draw_pool(few, "held-out", 1, 1)}
