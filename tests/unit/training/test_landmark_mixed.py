"""Mixed supervision for real: WFLW, LaPa and 300W-LP on disk in their own layouts, declared and audited.

The faces are drawn; files, folders, numbering of the points and units are those of the three sets.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from scipy.io import savemat

from facekiln.artifact import read_json
from facekiln.cli import main
from facekiln.config import check, load_config
from facekiln.data.declared import KINDS, hash_of
from facekiln.data.landmarks import SUBSET_68, SUBSET_98_OF_106, eye_aspect
from facekiln.data.procedural import Face, Style, draw_scene, scene_seed
from facekiln.models.registry import build_network
from facekiln.training.recipe import make_recipe
from facekiln.training.sources import Places, open_pools
from facekiln.training.train import Outputs, train_checkpoint

Portrait = tuple[np.ndarray, Face, np.ndarray]  # a picture with one face, the face, its points in the picture


def portraits(purpose: str, scenes: int) -> Iterator[Portrait]:
    """Pictures cut around the faces of drawn scenes."""
    for index in range(scenes):
        scene = draw_scene(scene_seed(purpose, 4, index), (420, 420), Style((60, 110), 14, max_yaw=0.6))
        for face in scene.faces:
            if face.visible < 1:
                continue
            low = np.maximum(np.floor(face.landmarks98.min(axis=0) - 40), 0).astype(int)
            high = np.ceil(face.landmarks98.max(axis=0) + 30).astype(int)
            picture = scene.image[low[1] : high[1], low[0] : high[0]]
            yield picture, face, face.landmarks98 - low


def write(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def write_wflw(folder: Path, name: str, faces: list[Portrait]) -> None:
    """WFLW_images/<event>/<picture>, and rows of 98 points, rectangle, six attributes, picture."""
    rows = []
    for index, (picture, face, points) in enumerate(faces):
        source = f"37--Soccer/{name}_{index}.jpg"
        write(picture, folder / "WFLW_images" / source)
        shift = (points - face.landmarks98)[0]
        rectangle = np.rint(np.array(face.box) + np.tile(shift, 2)).astype(int)
        numbers = " ".join(f"{value:.6f}" for value in points.ravel())
        rows.append(f"{numbers} {' '.join(map(str, rectangle))} 0 0 0 0 0 0 {source}\n")
    (folder / f"list_98pt_rect_attr_{name}.txt").write_text("".join(rows))


def write_lapa(folder: Path, faces: list[Portrait]) -> None:
    """train/images/N.jpg and train/landmarks/N.txt: the number 106, then a line per point."""
    # The eight points that the 98 lack stand where others do: sides of the nose, centres of the eyes.
    lacking = {55: 51, 56: 52, 57: 53, 63: 53, 64: 52, 65: 51, 74: 96, 83: 97}
    for index, (picture, _, points) in enumerate(faces):
        write(picture, folder / f"train/images/{index}.jpg")
        whole = np.zeros((106, 2))
        whole[list(SUBSET_98_OF_106)] = points
        for at, like in lacking.items():
            whole[at] = points[like]
        lines = "".join(f"{x:.6f} {y:.6f}\n" for x, y in whole)
        (folder / "train/landmarks").mkdir(parents=True, exist_ok=True)
        (folder / f"train/landmarks/{index}.txt").write_text(f"106\n{lines}")


def write_300w_lp(folder: Path, faces: list[Portrait]) -> None:
    """AFW/N.jpg and AFW/N.mat: pt2d [2,68], and Pose_Para with pitch, yaw, roll, translation and scale."""
    for index, (picture, face, points) in enumerate(faces):
        write(picture, folder / f"AFW/AFW_{index}.jpg")
        yaw, pitch, roll = face.pose
        para = np.array([[pitch, yaw, roll, 60, 60, 0, 1e-3]], np.float32)
        savemat(folder / f"AFW/AFW_{index}.mat", {"Pose_Para": para, "pt2d": points[list(SUBSET_68)].T})


def shut(portrait: Portrait) -> bool:
    return bool((eye_aspect(portrait[2], "98") <= 0.1).any())


@pytest.fixture(scope="module")
def sets(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config folder that declares the four sets on disk beside it, and their audits in results/."""
    folder = tmp_path_factory.mktemp("mixed")
    faces = list(portraits("mixed", 9))
    assert len(faces) >= 24 and any(map(shut, faces[12:])) and not all(map(shut, faces[12:]))
    write_wflw(folder / "wflw", "train", faces[:6])
    write_wflw(folder / "wflw", "test", faces[6:12])
    write_lapa(folder / "lapa", faces[12:])
    write_300w_lp(folder / "300w_lp", faces[:6])  # none that is held out: that would not be learned
    entries = {
        "wflw_train": ("wflw", "wflw", "WFLW_images", "list_98pt_rect_attr_train.txt", 6),
        "wflw_test": ("wflw", "wflw", "WFLW_images", "list_98pt_rect_attr_test.txt", 6),
        "lapa_train": ("lapa", "lapa", "train/images", "train/landmarks", len(faces) - 12),
        "300w_lp": ("300w_lp", "300w_lp", ".", "AFW", 6),
    }
    value: dict[str, Any] = {"root": str(folder), "datasets": {}}
    for name, (kind, where, images, annotation, count) in entries.items():
        path = folder / where / annotation
        value["datasets"][name] = {
            "kind": kind,
            "licence": "drawn here",
            "folder": where,
            "images": images,
            "annotations": [{"path": annotation, "sha256": hash_of(path, KINDS[kind].ending)}],
            "expected": {"images": count, "faces": count},
        }
    config = folder / "config"
    config.mkdir()
    (config / "datasets.yaml").write_text(yaml.safe_dump(value))
    for name in entries:
        out = str(folder / "results" / name)
        assert main(["dataset", "check", name, "--config", str(config), "--output", out]) == 0
    return folder


def test_three_kinds_of_annotation_train_one_network(root: Path, sets: Path, tmp_path: Path) -> None:
    model = load_config(root / "config").model("pfpld")
    # The shipped recipe, but for its length and the size of a batch.
    raw = yaml.safe_load((root / "config/training/pfpld_mixed.yaml").read_text())
    raw = {key: item for key, item in raw.items() if key != "epochs"}
    raw |= {"steps": 4, "threads": 1, "goal": {"metric": "nme", "most": 100}, "device": "cpu", "amp": "none"}
    raw["schedule"]["rate"] = 0.001
    raw["landmarks"]["pictures"] = 4
    raw["validate"]["every"] = 0
    raw = check(raw, "recipe", "mixed")
    outputs = Outputs(tmp_path / "pfpld.pth", tmp_path / "training")
    figures = train_checkpoint(model, raw, outputs, Places(sets / "config", sets / "results"))
    assert figures["faces"] == 6 and np.isfinite(figures["nme"])
    value = torch.load(outputs.checkpoint, weights_only=True)
    build_network(model).load_state_dict(value["state_dict"], strict=True)
    named = [source["name"] for source in value["facekiln"]["data"]["train"]]
    assert named == ["wflw_train", "lapa_train", "300w_lp"]
    curve = read_json(outputs.folder / "history.json")["curve"]
    taught = {name: max(point[name] for point in curve) for name in ("points_98", "points_68", "pose")}
    assert all(value > 0 for value in taught.values()), taught


def test_what_reaches_the_network_is_what_was_annotated(root: Path, sets: Path) -> None:
    """Every face of the three sets, from its file to the table: kind of labels, points, pose, square."""
    from facekiln.training.landmark_task import LandmarkTask

    model = load_config(root / "config").model("pfpld")
    names = ("wflw_train", "lapa_train", "300w_lp")
    raw = {
        "title": "mixed",
        "steps": 4,
        "train": [{"dataset": name} for name in names],
        "validate": {"dataset": "wflw_test"},
        "goal": {"metric": "nme", "most": 9},
        "landmarks": {"pictures": 6, "closed_eyes": ["lapa_train"], "balance": False},
    }
    recipe = make_recipe(check(raw, "recipe", "mixed"))
    train, held_out = open_pools(recipe, Places(sets / "config", sets / "results"))
    task = LandmarkTask(model, recipe, train, held_out)
    faces = task._faces
    drawn = list(portraits("mixed", 9))
    closed = sum(map(shut, drawn[12:]))
    assert faces.counts == [6, closed, 6] and 0 < closed < len(drawn) - 12
    assert faces.flags.tolist() == [-2] * 6 + [-2] * closed + [0] * 6
    np.testing.assert_allclose(faces.points[:6], [points for _, _, points in drawn[:6]], atol=1e-5)
    np.testing.assert_allclose(faces.pose[-6:], [face.pose for _, face, _ in drawn[:6]], atol=1e-6)
    known = ~np.isnan(faces.points[-6:])
    assert known.any(axis=2).sum(axis=1).tolist() == [43] * 6
    truth = np.stack([points for _, _, points in drawn[:6]])
    np.testing.assert_allclose(faces.points[-6:][known], truth[known], atol=1e-4)
    # The six faces are in both sets: squares from WFLW's rectangle and from 300W-LP's points are much alike.
    ratio = faces.squares[-8:-2, 2] / faces.squares[:6, 2]
    assert ratio.min() > 0.8 and ratio.max() < 1.35
