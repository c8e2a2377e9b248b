"""Landmark models: the square around a face, and points and pose in the picture's own units."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.config import Crop, Model, load_config
from facekiln.errors import KilnError
from facekiln.vision.image import read_image
from facekiln.vision.landmarks import Square, cut, landmarks_from_outputs, square_around
from facekiln.vision.preprocess import to_tensor

PFPLD = Crop(side=0.9, above=0.4)


@pytest.fixture(scope="module")
def model(root: Path) -> Model:
    return load_config(root / "config").model("pfpld")


def test_the_square_of_pfpld(model: Model) -> None:
    # nniefacelib, PFPLD: side = 0.9 * max(w, h), left = cx - side / 2, top = cy - 0.4 * side.
    assert model.crop == PFPLD
    assert square_around(np.array([100, 200, 200, 400]), PFPLD) == Square(150 - 90, 300 - 72, 180)


@given(
    st.tuples(*[st.floats(-500, 1500)] * 2, *[st.floats(1, 900)] * 2),
    st.floats(0.5, 2),
    st.floats(0, 1),
)
def test_the_square_has_the_declared_side_and_place(
    box: tuple[float, ...], side: float, above: float
) -> None:
    x, y, width, height = box
    square = square_around(np.array([x, y, x + width, y + height]), Crop(side, above))
    assert abs(square.side - max(1, side * max(width, height))) <= 0.51
    assert abs(square.x - (x + width / 2 - side * max(width, height) / 2)) <= 0.51
    assert abs(square.y - (y + height / 2 - above * side * max(width, height))) <= 0.51


@pytest.mark.parametrize("box", [[10, 10, 10, 20], [10, 20, 20, 10], [0, 0, np.nan, 5], [0, 0, np.inf, 5]])
def test_what_is_no_box_is_refused(box: list[float]) -> None:
    with pytest.raises(KilnError, match="no box of a face"):
        square_around(np.array(box), PFPLD)


def test_the_cut_is_the_picture_inside_and_black_outside() -> None:
    # Upstream's Caffe and ncnn samples test x1, y1 for the padding at the right and bottom: not copied.
    image = np.random.default_rng(0).integers(1, 256, (40, 60, 3), dtype=np.uint8)
    for x, y in ((-10, -7), (45, 30), (5, 5), (-30, 38)):
        square = Square(x, y, 24)
        got = cut(image, square, (24, 24))
        for row in range(24):
            for column in range(24):
                place = (y + row, x + column)
                inside = 0 <= place[0] < 40 and 0 <= place[1] < 60
                assert (got[row, column] == (image[place] if inside else 0)).all()
    assert not cut(image, Square(100, 100, 10), (24, 24)).any()


def test_the_cut_is_resized_to_the_input() -> None:
    image = np.full((100, 100, 3), 77, np.uint8)
    assert (cut(image, Square(10, 10, 50), (112, 112)) == 77).all()


def test_a_square_of_a_wild_box_is_refused() -> None:
    with pytest.raises(KilnError, match=r"far larger than its picture.*80"):
        cut(np.zeros((10, 10, 3), np.uint8), Square(0, 0, 10**6), (112, 112))


def test_points_and_pose_are_in_the_pictures_units(model: Model) -> None:
    shares = np.tile(np.float32([0.25, 0.5]), 98)[None]
    outputs = {"pose": np.float32([[np.pi / 2, -np.pi / 4, 0.1]]), "landms": shares}
    told = landmarks_from_outputs(outputs, model, Square(100, 40, 200))
    assert told.points.shape == (98, 2)
    # Upstream's demo subtracts the bottom padding from y where the top one is meant: not copied.
    assert (told.points == [150, 140]).all()
    assert told.pose is not None
    assert np.allclose(told.pose, [90, -45, np.degrees(0.1)])
    assert {told.points.dtype, told.pose.dtype} == {np.dtype(np.float32)}


def test_order_names_and_trailing_axes_do_not_matter(model: Model) -> None:
    # ONNX gives pose first; a .wk gives landms first.
    renamed = replace(model, outputs=("b", "a"))
    outputs = {"a": np.zeros((1, 3, 1, 1), np.float32), "b": np.zeros((1, 196, 1, 1), np.float32)}
    assert landmarks_from_outputs(outputs, renamed, Square(5, 6, 7)).points.tolist() == [[5, 6]] * 98


def test_pose_may_be_missing(model: Model) -> None:
    only = replace(model, outputs=("landms",))
    assert landmarks_from_outputs({"landms": np.zeros((1, 196))}, only, Square(0, 0, 1)).pose is None


def test_outputs_that_do_not_belong_are_refused(model: Model) -> None:
    square = Square(0, 0, 1)
    pose, points = np.zeros((1, 3), np.float32), np.zeros((1, 196), np.float32)
    with pytest.raises(KilnError, match="output 'landms' is missing"):
        landmarks_from_outputs({"pose": pose}, model, square)
    with pytest.raises(KilnError, match="no output holds points"):
        landmarks_from_outputs({"pose": pose}, replace(model, outputs=("pose",)), square)
    for wrong in (np.zeros((2, 196)), np.zeros((1, 5)), np.zeros((1, 0))):
        with pytest.raises(KilnError, match="'landms' is not of one face"):
            landmarks_from_outputs({"pose": pose, "landms": wrong}, model, square)
    assert landmarks_from_outputs({"pose": pose, "landms": points}, model, square).pose is not None


@pytest.mark.published
def test_ghostone_finds_the_features_of_a_face(
    root: Path, mirror: Callable[[str], Path], data: Callable[[str], Path]
) -> None:
    """A real model on a real picture: shifted squares of one face give the same places in the picture."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = load_config(root / "config").model("ghostone")
    assert model.crop
    session = onnxruntime.InferenceSession(
        str(mirror("pfld_ghostone_112.onnx")), providers=["CPUExecutionProvider"]
    )
    image = read_image(data("images/det39.jpg"))
    # The one face that mnet.25 finds there, to two decimals in three runtimes.
    box = np.array([173.65, 23.56, 516.89, 471.16])
    found = []
    for shift in (-12, 0, 12):
        square = square_around(box + shift, model.crop)
        given = to_tensor(cut(image, square, model.size("112")), model.input)
        found.append(
            landmarks_from_outputs({"output": session.run(None, {"input": given})[0]}, model, square)
        )
    for told in found:
        assert np.abs(told.points - found[1].points).mean() < 0.03 * 448
    eyes, nose, mouth = found[1].points[[96, 97]], found[1].points[54], found[1].points[76:96].mean(axis=0)
    # Read off the picture by a person, to a few pixels.
    assert np.abs(eyes - [[236, 195], [420, 203]]).max() < 12
    assert np.abs(nose - [338, 278]).max() < 15
    assert np.abs(mouth - [323, 352]).max() < 15
    # The points move with the picture when it is mirrored.
    mirrored = cv2.flip(image, 1)
    square = square_around(np.array([640 - box[2], box[1], 640 - box[0], box[3]]), model.crop)
    given = to_tensor(cut(mirrored, square, model.size("112")), model.input)
    flipped = landmarks_from_outputs({"output": session.run(None, {"input": given})[0]}, model, square)
    assert np.abs((640 - flipped.points[[97, 96], 0]) - eyes[:, 0]).max() < 15
