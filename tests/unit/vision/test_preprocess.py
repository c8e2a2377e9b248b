"""Preprocessing happens once, in the declared order, and fitting is undone exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekiln.config import Input
from facekiln.errors import KilnError
from facekiln.vision.detect import Faces
from facekiln.vision.preprocess import POLICIES, fit, pad_to_multiple, to_tensor

BGR = Input("input", "bgr", (104, 117, 123), (1, 1, 1))
RGB = Input("input", "rgb", (1, 2, 3), (0.5, 0.25, 0.125))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_mean_and_scale_are_taken_per_channel_in_bgr() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[...] = (10, 20, 30)
    tensor = to_tensor(image, BGR)
    assert tensor.shape == (1, 3, 2, 3)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert tensor[0, :, 1, 2].tolist() == [10 - 104, 20 - 117, 30 - 123]


def test_rgb_turns_the_picture_and_not_the_mean() -> None:
    image = np.zeros((1, 1, 3), np.uint8)
    image[...] = (10, 20, 30)
    assert to_tensor(image, RGB)[0, :, 0, 0].tolist() == [(30 - 1) * 0.5, (20 - 2) * 0.25, (10 - 3) * 0.125]


def test_raw_pixels_stay_raw_where_mean_is_zero_and_scale_one() -> None:
    # mnet.25 takes 0..255; a scale on top is the recorded cause of "no faces" (nniefacelib issue 28).
    image = picture(5, 7)
    raw = to_tensor(image, Input("data", "rgb", (0, 0, 0), (1, 1, 1)))
    assert np.array_equal(raw[0].transpose(1, 2, 0)[:, :, ::-1], image.astype(np.float32))


@pytest.mark.parametrize(
    "wrong",
    [
        picture(4, 4).astype(np.float32),
        picture(4, 4).astype(np.int16),
        picture(4, 4)[:, :, 0],
        picture(4, 4)[:, :, :1],
        picture(4, 4)[None],
        picture(4, 4)[:0],
    ],
)
def test_what_is_no_picture_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(KilnError, match=r"not a picture .*uint8 \[H, W, 3\]"):
        to_tensor(wrong, BGR)
    with pytest.raises(KilnError, match="not a picture"):
        fit(wrong, (4, 4))


def test_letterbox_pads_right_and_bottom_with_black() -> None:
    wide, how = fit(np.full((50, 100, 3), 200, np.uint8), (64, 64))
    assert (how.x_scale, how.y_scale) == (0.64, 0.64)
    assert (wide[:32] == 200).all()
    assert not wide[32:].any()
    tall, how = fit(np.full((100, 50, 3), 200, np.uint8), (64, 64))
    assert (tall[:, :32] == 200).all()
    assert not tall[:, 32:].any()


def test_letterbox_enlarges_too() -> None:
    fitted, how = fit(picture(10, 20), (64, 64))
    assert (how.x_scale, how.y_scale) == (3.2, 3.2)
    assert not fitted[32:].any()


def test_stretch_fills_both_axes() -> None:
    fitted, how = fit(np.full((50, 100, 3), 9, np.uint8), (64, 32), "stretch")
    assert fitted.shape == (64, 32, 3)
    assert (fitted == 9).all()
    assert (how.x_scale, how.y_scale) == (0.32, 1.28)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_picture_of_the_right_size_is_untouched(policy: str) -> None:
    image = picture(32, 48)
    fitted, how = fit(image, (32, 48), policy)
    assert np.array_equal(fitted, image)
    assert (how.x_scale, how.y_scale) == (1, 1)


def test_original_leaves_any_size() -> None:
    image = picture(33, 47)
    fitted, how = fit(image, (640, 640), "original")
    assert np.array_equal(fitted, image)
    assert (how.x_scale, how.y_scale) == (1, 1)


def test_an_unknown_policy_gets_a_suggestion() -> None:
    with pytest.raises(KilnError, match="unknown resize policy 'leterbox'; did you mean 'letterbox'"):
        fit(picture(4, 4), (8, 8), "leterbox")


def test_padding_to_a_multiple() -> None:
    image = picture(33, 64)
    padded = pad_to_multiple(image, 32)
    assert padded.shape == (64, 64, 3)
    assert padded.dtype == np.uint8
    assert np.array_equal(padded[:33], image)
    assert not padded[33:].any()
    assert pad_to_multiple(padded, 32).shape == (64, 64, 3)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(8, 128),
    st.integers(8, 128),
    st.sampled_from(POLICIES[:2]),
)
def test_the_picture_s_far_corner_goes_there_and_back(
    height: int, width: int, rows: int, columns: int, policy: str
) -> None:
    fitted, how = fit(np.full((height, width, 3), 255, np.uint8), (rows, columns), policy)
    assert fitted.shape == (rows, columns, 3)
    filled = fitted.any(axis=2)
    bottom, right = filled.any(axis=1).sum(), filled.any(axis=0).sum()
    assert filled[:bottom, :right].all()
    corner = np.array([right, bottom], np.float32)
    faces = Faces(
        boxes=np.array([[0, 0, right, bottom]], np.float32),
        scores=np.ones(1, np.float32),
        landmarks=np.tile(corner, (1, 5, 1)),
    )
    back = how.back(faces)
    assert np.allclose(back.boxes, [[0, 0, width, height]], rtol=1e-5)
    assert np.allclose(back.landmarks, [width, height], rtol=1e-5)
    assert back.boxes.dtype == np.float32


def test_going_back_without_faces_or_landmarks() -> None:
    _, how = fit(picture(10, 20), (64, 64))
    back = how.back(
        Faces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 0, 2), np.float32))
    )
    assert (len(back), back.boxes.shape, back.landmarks.shape) == (0, (0, 4), (0, 0, 2))
