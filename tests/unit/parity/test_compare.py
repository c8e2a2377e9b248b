"""The pictures of a comparison are brought to the input as the model declares."""

from pathlib import Path

import numpy as np
import pytest

from facekiln.config import Crop, load_config
from facekiln.data.calibration_pool import drawn_sample
from facekiln.parity import compare
from facekiln.parity.pictures import choose_pictures
from facekiln.vision.image import write_image
from facekiln.vision.landmarks import cut, square_around


@pytest.mark.parametrize(("policy", "below"), [("letterbox", 0), ("stretch", 200)])
def test_pictures_are_fitted_by_the_declared_policy(tmp_path: Path, policy: str, below: int) -> None:
    write_image(tmp_path / "wide.png", np.full((50, 200, 3), 200, np.uint8))
    ((name, picture),) = choose_pictures(str(tmp_path), 1, 0, (64, 64), policy)
    assert (name, picture.shape) == ("wide.png", (64, 64, 3))
    assert (picture[:16] == 200).all()
    assert (picture[20:] == below).all()


class _Stage:
    """A stage whose network finds nothing, in every picture the same."""

    name, precision, emulated = "fake", "int8", True

    def run(self, _picture: np.ndarray) -> dict[str, np.ndarray]:
        rows = np.random.default_rng(0).normal(size=(1, 16800, 10)).astype(np.float32)
        conf = np.tile(np.array([0.9, 0.1], np.float32), (1, 16800, 1))
        return {"loc": rows[..., :4], "conf": conf, "landms": rows}


def test_8_bit_without_a_face_is_warned_of_and_a_float_stage_is_judged_by_its_outputs(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, child = tmp_path / "x_640.onnx", tmp_path / "x_640.wk"
    for path in (parent, child):
        path.write_bytes(b"x")
    monkeypatch.setattr(compare, "open_stage", lambda *_, **__: _Stage())
    config = load_config(root / "config")

    def verdicts() -> dict[str, str]:
        report = compare.compare(
            parent, child, config.model("retinaface"), "640", config, source="procedural", count=1, seed=40
        )
        assert report["passed"]
        return {gate["name"]: gate["verdict"] for gate in report["gates"]}

    # At 8 bit the faces alone decide.
    assert verdicts() == {"fake faces in the parent": "warned"}
    monkeypatch.setattr(_Stage, "precision", "float")
    judged = verdicts()
    assert judged.pop("fake faces in the parent") == "skipped"
    assert set(judged.values()) == {"passed"}


class _MeanFace:
    """A landmark stage; as a child it answers the same face for every picture."""

    precision, emulated = "int8", True

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        points = np.random.default_rng(1).uniform(0.2, 0.8, (1, 196))
        if self.name == "parent":
            points += np.random.default_rng(int(picture.sum())).normal(0, 0.05, points.shape)
        return {"output": points.astype(np.float32)}

    trace = run

    def name_in_parent(self, tensor: str) -> str:
        return tensor


@pytest.mark.parametrize(
    ("child", "count", "verdicts", "passed"),
    [("mean", 3, {"failed"}, False), ("parent", 3, {"passed"}, True), ("mean", 1, {"warned"}, True)],
)
def test_8_bit_landmarks_have_to_follow_the_face(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    child: str,
    count: int,
    verdicts: set[str],
    passed: bool,
) -> None:
    """Their cosine is over 0.95 whatever the face, and there are no faces to count: no gate was left."""
    paths = {"parent": tmp_path / "x_112.onnx", "child": tmp_path / "x_112.wk"}
    for path in paths.values():
        path.write_bytes(b"x")
    stages = {paths["parent"]: _MeanFace("parent"), paths["child"]: _MeanFace(child)}
    monkeypatch.setattr(compare, "open_stage", lambda path, *_, **__: stages[path])
    config = load_config(root / "config")
    report = compare.compare(
        *paths.values(), config.model("ghostone"), "112", config, source="procedural", count=count, seed=40
    )
    assert report["outputs"][child]["output"]["cosine"] > 0.95
    assert ({gate["verdict"] for gate in report["gates"]}, report["passed"]) == (verdicts, passed)


def test_landmark_models_are_compared_on_crops(tmp_path: Path) -> None:
    crop = Crop(side=1.0, above=0.5)
    (_, whole), (name, cut_out) = (
        choose_pictures("procedural", 1, 5, (112, 112), "letterbox", one)[0] for one in (None, crop)
    )
    assert name == "procedural_5_0000" and cut_out.shape == whole.shape == (112, 112, 3)
    sample = drawn_sample(0, 5, (112, 112), crop)
    expected = cut(sample.load(), square_around(sample.boxes[0], crop), (112, 112))
    assert np.array_equal(cut_out, expected)
    write_image(tmp_path / "face.png", np.full((50, 200, 3), 200, np.uint8))
    ((_, picture),) = choose_pictures(str(tmp_path), 1, 0, (64, 64), "letterbox", crop)
    assert (picture == 200).all()  # a folder's pictures are crops already
