"""The training task of landmark models: batches by step, mixed sources, even sampling, and its judgement."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facekiln.config import Model, check, load_config
from facekiln.data.landmarks import SUBSET_68
from facekiln.data.procedural import Style, draw_scene, scene_seed
from facekiln.data.procedural_set import scene_sample
from facekiln.data.sample import Sample, landmarks_of
from facekiln.data.wflw import around
from facekiln.errors import KilnError
from facekiln.models.registry import build_network
from facekiln.training.device import deterministic
from facekiln.training.landmark_task import LandmarkTask
from facekiln.training.recipe import Recipe, make_recipe
from facekiln.training.sources import Pool


@pytest.fixture(scope="module")
def pfpld(root: Path) -> Model:
    return load_config(root / "config").model("pfpld")


@pytest.fixture(scope="module")
def drawn() -> list[Sample]:
    """Six scenes with drawn faces of 60 px and more."""
    scenes = [draw_scene(scene_seed("task", 2, index), (320, 320), Style((60, 120), 6)) for index in range(6)]
    return [scene_sample(f"scene_{index}", scene) for index, scene in enumerate(scenes)]


def recipe_of(train: list[dict[str, Any]] | None = None, **landmarks: Any) -> Recipe:
    value = {
        "title": "miniature",
        "steps": 20,
        "train": train or [{"drawn": {}}],
        "validate": {"drawn": {}},
        "goal": {"metric": "nme", "most": 10},
        "landmarks": {"pictures": 8, **landmarks},
    }
    return make_recipe(check(value, "recipe", "miniature.yaml"))


def as_68(samples: list[Sample]) -> list[Sample]:
    """The same faces as 300W-LP has them: 68 points, a pose, and no box of their own."""
    turned = []
    for sample in samples:
        assert sample.landmarks
        marks = landmarks_of("68", sample.landmarks.points[:, SUBSET_68])
        turned.append(replace(sample, landmarks=marks, boxes=around(marks.points)))
    return turned


def without_pose(samples: list[Sample]) -> list[Sample]:
    return [replace(sample, pose=None) for sample in samples]


def test_a_batch_is_a_function_of_its_step(pfpld: Model, drawn: list[Sample]) -> None:
    one, two = (LandmarkTask(pfpld, recipe_of(), Pool([drawn]), Pool([drawn])) for _ in range(2))
    two.batch(0)
    first, again = one.batch(7), two.batch(7)
    assert {name: (array.shape, str(array.dtype)) for name, array in first.items()} == {
        "images": ((8, 3, 112, 112), "float32"),
        "points": ((8, 98, 2), "float32"),
        "pose": ((8, 3), "float32"),
        "flags": ((8,), "int64"),
        "rarity": ((8,), "float32"),
    }
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    assert not np.array_equal(first["images"], one.batch(8)["images"])
    assert set(first["flags"].tolist()) == {1}  # drawn faces know all points and the pose
    assert first["images"].min() >= 0 and first["images"].max() <= 1
    assert one.steps == 20 and one.epoch_steps == max(1, round(sum(map(len, drawn)) / 8))


def test_sources_of_all_kinds_mix_by_their_shares(pfpld: Model, drawn: list[Sample]) -> None:
    train = [{"dataset": "wflw", "share": 0.5}, {"dataset": "lp", "share": 0.3}, {"drawn": {}, "share": 0.2}]
    parts = [without_pose(drawn), as_68(drawn), drawn]
    task = LandmarkTask(pfpld, recipe_of(train), Pool(parts, [0.5, 0.3, 0.2]), Pool([drawn]))
    batches = [task.batch(step) for step in range(task.steps)]
    flags = np.concatenate([batch["flags"] for batch in batches])
    shares = [np.mean(flags == flag) for flag in (-2, 0, 1)]
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.12)
    points, pose = (np.concatenate([batch[name] for batch in batches]) for name in ("points", "pose"))
    assert (np.isnan(pose).any(axis=1) == (flags == -2)).all()
    assert (np.isnan(points).any(axis=(1, 2)) == (flags == 0)).all()


def test_only_closed_eyes_are_taken_from_a_dataset_where_the_recipe_says_so(
    pfpld: Model, drawn: list[Sample]
) -> None:
    shut = [closed(drawn[0]), *drawn[1:]]
    train = [{"dataset": "wflw"}, {"dataset": "lapa"}]
    parts = [without_pose(drawn), without_pose(shut)]
    task = LandmarkTask(pfpld, recipe_of(train, closed_eyes=["lapa"]), Pool(parts), Pool([drawn]))
    faces = task._faces
    assert faces.counts[0] == sum(map(len, drawn)) and 0 < faces.counts[1] < faces.counts[0]
    assert faces.closed[faces.counts[0] :].all()
    with pytest.raises(KilnError, match=r"unknown dataset .*'lappa'; did you mean 'lapa'"):
        LandmarkTask(pfpld, recipe_of(train, closed_eyes=["lappa"]), Pool(parts), Pool([drawn]))


def closed(sample: Sample) -> Sample:
    """The sample with lids on the line between the eyes' corners."""
    assert sample.landmarks
    points = sample.landmarks.points.copy()
    for ring in (range(60, 68), range(68, 76)):
        ends = points[:, [ring[0], ring[4]]]
        for at, where in zip(ring, (0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25), strict=True):
            points[:, at] = ends[:, 0] * (1 - where) + ends[:, 1] * where
    return replace(sample, landmarks=landmarks_of("98", points))


def test_rare_faces_are_drawn_by_their_weights_where_balance_is_on(pfpld: Model, drawn: list[Sample]) -> None:
    for balance in (True, False):
        recipe = replace(recipe_of(balance=balance), steps=400)
        task = LandmarkTask(pfpld, recipe, Pool([drawn]), Pool([drawn]))
        weights = task._faces.balance.weights
        rare = weights > 1.1
        assert 0 < rare.sum() < len(weights)
        taken = np.concatenate([task._plan.samples(step) for step in range(task.steps)])
        often = np.bincount(taken, minlength=len(weights)) / len(taken) * len(weights)
        wanted = weights[rare].mean() if balance else 1.0
        assert often[rare].mean() == pytest.approx(wanted, rel=0.07)


def test_a_picture_decoded_at_a_fraction_gives_the_same_crop(
    pfpld: Model, drawn: list[Sample], tmp_path: Path
) -> None:
    """A size that is known lets a large JPEG be read small; points and picture must still fit."""
    scene = draw_scene(scene_seed("large", 1, 0), (1000, 1000), Style((700, 800), 1, empty=0))
    sample = scene_sample("large", scene)
    path = tmp_path / "large.jpg"
    cv2.imwrite(str(path), sample.load(), [cv2.IMWRITE_JPEG_QUALITY, 98])
    whole, small = (replace(sample, picture=path, size=size) for size in (None, (1000, 1000)))
    rows = [LandmarkTask(pfpld, recipe_of(), Pool([[one]]), Pool([drawn])).batch(3) for one in (whole, small)]
    np.testing.assert_allclose(rows[0]["points"], rows[1]["points"], atol=0.01)
    # Compared without the changes of looks, which are the same but act on other numbers.
    quiet = {"light": 0, "grey": 0, "blur": 0, "noise": 0, "patch": 0}
    images = [
        LandmarkTask(pfpld, recipe_of(look=quiet), Pool([[one]]), Pool([drawn])).batch(3)["images"]
        for one in (whole, small)
    ]
    assert np.abs(images[0] - images[1]).mean() < 0.02


def test_what_cannot_be_learned_is_told(pfpld: Model, drawn: list[Sample]) -> None:
    bare = [replace(sample, landmarks=None, pose=None) for sample in drawn]
    with pytest.raises(KilnError, match="holds no face with landmarks or a pose"):
        LandmarkTask(pfpld, recipe_of([{"dataset": "faces"}]), Pool([bare]), Pool([drawn]))
    with pytest.raises(KilnError, match=r"validate: holds no face"):
        LandmarkTask(pfpld, recipe_of(), Pool([drawn]), Pool([bare]))
    with pytest.raises(KilnError, match="has no crop: no landmark model to train"):
        LandmarkTask(replace(pfpld, crop=None), recipe_of(), Pool([drawn]), Pool([drawn]))


class Oracle(nn.Module):
    """Says what it is told, crop by crop, whatever it sees."""

    def __init__(self, points: np.ndarray, pose: np.ndarray) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))
        self.points, self.pose, self.at = torch.from_numpy(points), torch.from_numpy(pose), 0

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        rows = slice(self.at, self.at + len(images))
        self.at += len(images)
        return self.pose[rows].float(), self.points[rows].flatten(1).float()


def truth_of(task: LandmarkTask) -> tuple[np.ndarray, np.ndarray]:
    """Points in shares of the crop of use, and poses."""
    faces = task._judged
    squares = []
    for x, y, side in faces.squares:
        whole = max(1, round(side))
        squares.append([round(x - side / 2), round(y - side / 2), whole])
    placed = np.array(squares, float)
    return (faces.points - placed[:, None, :2]) / placed[:, None, 2:], faces.pose


def test_the_judge_measures_by_the_annotated_eye_corners(pfpld: Model, drawn: list[Sample]) -> None:
    task = LandmarkTask(pfpld, recipe_of(), Pool([drawn]), Pool([drawn]))
    points, pose = truth_of(task)
    perfect = task.judge(Oracle(points, pose))
    assert perfect["nme"] < 1e-5 and perfect["failure_rate"] == 0 and perfect["pose_mae_deg"] < 1e-3
    assert perfect["faces"] == sum(map(len, drawn))
    # Every point off by a tenth of the distance of the outer eye corners, 60 and 72, of the annotation.
    eyes = np.linalg.norm(points[:, 60] - points[:, 72], axis=1)
    off = points + np.stack([0.11 * eyes, 0 * eyes], axis=1)[:, None]
    figures = task.judge(Oracle(off, pose + np.radians([3.0, -6.0, 0.0])))
    assert figures["nme"] == pytest.approx(0.11, abs=1e-4) and figures["failure_rate"] == 1
    assert figures["yaw_mae_deg"] == pytest.approx(3, abs=1e-3)
    assert figures["pitch_mae_deg"] == pytest.approx(6, abs=1e-3)
    assert figures["pose_mae_deg"] == pytest.approx(3, abs=1e-3)


def test_the_judge_takes_68_points_and_tells_closed_eyes_apart(pfpld: Model, drawn: list[Sample]) -> None:
    some = LandmarkTask(pfpld, recipe_of(), Pool([drawn]), Pool([as_68(drawn)]))
    points, pose = truth_of(some)
    assert some.judge(Oracle(np.nan_to_num(points, nan=9.0), pose))["nme"] < 1e-5
    shut = [closed(drawn[0]), *without_pose(drawn[1:])]
    task = LandmarkTask(pfpld, recipe_of(), Pool([drawn]), Pool([shut]))
    points, pose = truth_of(task)
    eyes = np.linalg.norm(points[:, 60] - points[:, 72], axis=1)
    worse = points + (0.2 * eyes * task._judged.closed)[:, None, None] * [1, 0]
    figures = task.judge(Oracle(worse, np.nan_to_num(pose)))
    assert figures["closed_eyes"] >= len(drawn[0]) and figures["nme_closed_eyes"] == pytest.approx(
        0.2, abs=1e-3
    )
    assert 0 < figures["nme"] < 0.2


def test_a_goal_that_no_held_out_face_tells_is_refused(pfpld: Model, drawn: list[Sample]) -> None:
    value = recipe_of()
    recipe = replace(value, goal=replace(value.goal, metric="pose_mae_deg"))
    task = LandmarkTask(pfpld, recipe, Pool([drawn]), Pool([without_pose(drawn)]))
    points, pose = truth_of(task)
    with pytest.raises(KilnError, match=r"pose_mae_deg: no held-out face tells this figure"):
        task.judge(Oracle(points, np.nan_to_num(pose)))


@pytest.mark.parametrize("loss", [{}, {"kind": "pfld", "points": 100, "pose": 100}, {"unit": "pixel"}])
def test_the_network_learns_a_batch(pfpld: Model, drawn: list[Sample], loss: dict[str, Any]) -> None:
    """A few steps on one batch of PFPLD: outputs in the model's order, every part finite, the sum falls."""
    torch.manual_seed(0)
    task = LandmarkTask(pfpld, recipe_of(pictures=3, loss=loss), Pool([drawn]), Pool([drawn]))
    network = build_network(pfpld).train()
    task.start(network)
    sums = []
    with deterministic(seed=0, threads=1):
        batch = {name: torch.from_numpy(array) for name, array in task.batch(0).items()}
        optimiser = torch.optim.Adam(network.parameters(), 1e-3)
        for _ in range(6):
            parts = task.loss(network(batch["images"]), batch)
            whole = torch.stack(list(parts.values())).sum()
            optimiser.zero_grad()
            whole.backward()
            optimiser.step()
            sums.append(whole.item())
    assert np.isfinite(sums).all() and min(sums) < 0.8 * sums[0]


def test_a_fresh_network_starts_from_the_mean_face(pfpld: Model, drawn: list[Sample]) -> None:
    """Faces known only in part count where they are known."""
    task = LandmarkTask(pfpld, recipe_of([{"drawn": {}}] * 2), Pool([drawn, as_68(drawn)]), Pool([drawn]))
    network = build_network(pfpld).eval()
    task.start(network)
    with torch.inference_mode():
        _, points = network(torch.rand(1, 3, 112, 112))
    whole = LandmarkTask(pfpld, recipe_of(), Pool([drawn]), Pool([drawn]))
    wanted = truth_of(whole)[0].mean(axis=0)
    got = points.numpy().reshape(98, 2)
    np.testing.assert_allclose(got[:33], wanted[:33], atol=0.01)  # the contour is in one source only
    np.testing.assert_allclose(got[33:], wanted[33:], atol=0.06)  # the two squares differ a little
