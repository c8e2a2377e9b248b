"""Preprocessing happens once, in the declared order, and fitting is undone exactly."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekiln.config import Input
from facekiln.errors import KilnError
from facekiln.vision.detect import Faces
from facekiln.vision.preprocess import (
    FIXED_POLICIES,
    Resize,
    Unrounded,
    fit,
    pad_to_multiple,
    to_tensor,
)

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


@pytest.mark.parametrize("policy", [*FIXED_POLICIES, "original"])
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
    st.sampled_from(FIXED_POLICIES),
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


def test_long_side_is_scaled_and_nothing_is_padded() -> None:
    how = Resize("long_side", side=320, interpolation="linear")
    fitted, back = how(picture(100, 1000))
    assert fitted.shape == (32, 320, 3)
    assert (back.x_scale, back.y_scale) == (0.32, 0.32)
    fitted, back = how(picture(160, 80))
    assert fitted.shape == (320, 160, 3)
    assert str(how) == "long_side_320"


@pytest.mark.parametrize(
    ("size", "ratio"),
    [((800, 900), 2.0), ((900, 800), 2.0), ((400, 1000), 2.15), ((3200, 3200), 0.5), ((1600, 2150), 1.0)],
)
def test_short_side_stops_where_the_long_one_would_be_too_long(size: tuple[int, int], ratio: float) -> None:
    """Pytorch_Retinaface, test_widerface.py: target_size 1600, max_size 2150."""
    how = Resize("short_side", side=1600, longest=2150, interpolation="linear")
    fitted, back = how(picture(*size))
    assert back.x_scale == back.y_scale == pytest.approx(ratio)
    assert fitted.shape[:2] == tuple(round(side * ratio) for side in size)
    assert str(how) == "short_1600_max_2150"


def test_short_side_decides_where_the_long_one_only_rounds_to_the_longest() -> None:
    # 201 * 0.5 rounds to 100, which is not more than 100 (Pytorch_Retinaface, test_widerface.py).
    _, back = Resize("short_side", side=75, longest=100, interpolation="linear")(picture(150, 201))
    assert (back.x_scale, back.y_scale) == (0.5, 0.5)


def test_pixels_are_resampled_by_the_ratio_and_not_by_the_rounded_size() -> None:
    """999 x 350 at 320: the short side is 112.11 pixels and is rounded; its ratio is not 112 / 350."""
    image = picture(350, 999)
    ratio = 320 / 999
    fitted, back = Resize("long_side", side=320, interpolation="linear")(image)
    assert back.y_scale == ratio != 112 / 350
    wanted = cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(fitted, wanted)
    assert not np.array_equal(fitted, cv2.resize(image, (320, 112), interpolation=cv2.INTER_LINEAR))


def test_interpolation_is_areas_when_shrinking_or_bilinear_always() -> None:
    image = picture(480, 640)
    for policy in FIXED_POLICIES:
        for name, flag in (("auto", cv2.INTER_AREA), ("linear", cv2.INTER_LINEAR)):
            fitted, _ = fit(image, (240, 320), policy, name)
            assert np.array_equal(fitted, cv2.resize(image, (320, 240), interpolation=flag)), (policy, name)
        larger = [fit(image, (960, 1280), policy, name)[0] for name in ("auto", "linear")]
        assert np.array_equal(*larger)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"policy": "longside"}, "did you mean 'long_side'"),
        ({"policy": "original", "interpolation": "liner"}, "did you mean 'linear'"),
        ({"policy": "long_side"}, "'long_side' needs `side`"),
        ({"policy": "short_side", "side": 8}, "'short_side' needs `longest`"),
        ({"policy": "letterbox"}, "'letterbox' needs `size`"),
    ],
)
def test_a_resize_that_cannot_be_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(KilnError, match=told):
        Resize(**given)


def test_a_picture_that_would_have_no_row_is_refused() -> None:
    with pytest.raises(KilnError, match="too thin for long_side_320"):
        Resize("long_side", side=320)(picture(1, 1000))


@settings(max_examples=30)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    colour=st.sampled_from(["bgr", "rgb"]),
    mean=st.tuples(*[st.sampled_from([0.0, 104.0, 127.5])] * 3),
    scale=st.tuples(*[st.sampled_from([1.0, 1 / 128, 1 / 255])] * 3),
)
def test_tensor_has_the_bits_of_the_formula(
    height: int, width: int, colour: str, mean: tuple[float, ...], scale: tuple[float, ...]
) -> None:
    image = picture(height, width)
    ordered = image[..., ::-1] if colour == "rgb" else image
    wanted = (ordered.astype(np.float32) - np.asarray(mean, np.float32)) * np.asarray(scale, np.float32)
    got = to_tensor(image, Input("input", colour, mean, scale))  # type: ignore[arg-type]
    assert np.array_equal(got[0], wanted.transpose(2, 0, 1))


def test_a_picture_that_is_a_view_is_read_rightly() -> None:
    image = picture(20, 30)
    assert np.array_equal(to_tensor(image[::2, 5:20:3], BGR), to_tensor(image[::2, 5:20:3].copy(), BGR))


def test_linear_float_resamples_without_rounding() -> None:
    """Reference scripts resize float32 pictures; such a picture is told from a normalised one."""
    image = picture(90, 120)
    for how in (
        Resize("long_side", side=64, interpolation="linear_float"),
        Resize("stretch", (32, 40), interpolation="linear_float"),
        Resize("letterbox", (32, 48), interpolation="linear_float"),
    ):
        fitted, back = how(image)
        plain, other = replace(how, interpolation="linear")(image)
        assert isinstance(fitted, Unrounded)
        assert back == other
        assert fitted.shape == plain.shape
        assert (np.asarray(fitted) != np.round(fitted)).any()
        # OpenCV's whole-number bilinear has 11 bits of fraction.
        assert np.abs(np.asarray(fitted) - plain).max() < 1.01
        tensor = to_tensor(fitted, RGB)
        assert type(tensor) is np.ndarray
        wanted = (np.asarray(fitted)[..., ::-1] - np.float32(RGB.mean)) * np.float32(RGB.scale)
        assert np.array_equal(tensor[0], wanted.transpose(2, 0, 1))
    with pytest.raises(KilnError, match="not a picture"):
        to_tensor(np.asarray(fitted), RGB)


def test_linear_float_leaves_a_picture_of_the_right_size_as_it_is() -> None:
    image = picture(8, 8)
    assert Resize("stretch", (8, 8), interpolation="linear_float")(image)[0] is image
