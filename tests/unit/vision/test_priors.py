"""Priors: counts, order and centres."""

from dataclasses import replace

import numpy as np
import pytest

from facekiln.config import Priors
from facekiln.vision.priors import centre_gap, centre_note, feature_sizes, make_priors

RETINAFACE = Priors(((16, 32), (64, 128), (256, 512)), (8, 16, 32), (0.1, 0.2))
# The sides of Ultra-Light-Fast-Generic-Face-Detector-1MB and of 1MB's slim and RFB.
ULTRA_LIGHT = Priors(((10, 16, 24), (32, 48), (64, 96), (128, 192, 256)), (8, 16, 32, 64), (0.1, 0.2))


@pytest.mark.parametrize(
    ("priors", "size", "count"),
    [
        # Shapes printed by Cambricon's mm_run log (28224) and SOPHON's sample (16800).
        (RETINAFACE, (640, 640), 16800),
        (RETINAFACE, (672, 1024), 28224),
        (RETINAFACE, (240, 320), 3160),
        # The output lengths of the published ULFD ONNX files; pull request 33 once shipped 4402.
        (ULTRA_LIGHT, (240, 320), 4420),
        (ULTRA_LIGHT, (480, 640), 17640),
        (ULTRA_LIGHT, (96, 128), 708),
    ],
)
def test_counts(priors: Priors, size: tuple[int, int], count: int) -> None:
    made = make_priors(priors, size)
    assert made.shape == (count, 4)
    assert made.dtype == np.float32


def test_maps_are_rounded_up() -> None:
    # 624 x 1024, the sample picture of Pytorch_Retinaface: 39 rows at step 16, and 20 at 32, not 19.
    assert feature_sizes(RETINAFACE, (624, 1024)) == [(78, 128), (39, 64), (20, 32)]


def test_order_is_level_row_column_side() -> None:
    height, width = 64, 128
    pixels = make_priors(RETINAFACE, (height, width)) * [width, height, width, height]
    assert pixels[:4].tolist() == [[4, 4, 16, 16], [4, 4, 32, 32], [12, 4, 16, 16], [12, 4, 32, 32]]
    second_row = 2 * (width // 8)
    assert pixels[second_row].tolist() == [4, 12, 16, 16]
    second_level = 2 * (width // 8) * (height // 8)
    assert pixels[second_level].tolist() == [8, 8, 64, 64]
    assert pixels[-1].tolist() == [112, 48, 512, 512]


def test_centres_are_of_the_nominal_step_where_the_side_is_no_multiple() -> None:
    pixels = make_priors(RETINAFACE, (240, 320)) * [320, 240, 320, 240]
    centres = sorted(set(pixels[pixels[:, 2].round() == 256][:, 1].round(3).tolist()))
    assert centres == [16, 48, 80, 112, 144, 176, 208, 240]


def test_clipping_is_only_on_request() -> None:
    assert make_priors(RETINAFACE, (64, 64)).max() == 8.0
    assert make_priors(replace(RETINAFACE, clip=True), (64, 64)).max() == 1.0


def test_two_sizes_in_one_process_do_not_disturb_each_other() -> None:
    # ULFD's define_img_size appends to a module's list: the first size stays.
    first = make_priors(RETINAFACE, (64, 64))
    make_priors(RETINAFACE, (96, 64))
    assert np.array_equal(make_priors(RETINAFACE, (64, 64)), first)


def test_even_centres_divide_the_side_by_the_cells() -> None:
    # ULFD's training and its full ONNX file: 30 px, not 32, at a height of 240.
    priors = replace(ULTRA_LIGHT, centre="even")
    pixels = make_priors(priors, (240, 320)) * [320, 240, 320, 240]
    assert sorted(set(pixels[pixels[:, 2].round() == 96][:, 1].round(3).tolist())) == list(range(15, 240, 30))
    assert sorted(set(pixels[pixels[:, 2].round() == 256][:, 1].round(3).tolist())) == [30, 90, 150, 210]
    assert np.array_equal(pixels[:, 2:], (make_priors(ULTRA_LIGHT, (240, 320)) * [320, 240, 320, 240])[:, 2:])


@pytest.mark.parametrize("size", [(64, 64), (960, 1280), (128, 192)])
def test_both_rules_agree_where_the_steps_divide_the_sides(size: tuple[int, int]) -> None:
    even = make_priors(replace(ULTRA_LIGHT, centre="even"), size)
    assert np.allclose(even, make_priors(ULTRA_LIGHT, size), atol=1e-7)
    assert centre_gap(ULTRA_LIGHT, size) == 0


@pytest.mark.parametrize(
    ("size", "pixels"), [((240, 320), 15), ((480, 640), 30), ((96, 128), 24), ((960, 1280), 0)]
)
def test_the_gap_between_the_rules(size: tuple[int, int], pixels: float) -> None:
    # Measured on ULFD: up to 15 px at 320x240, 30 at 640x480, 24 at 128x96, none at 1280x960.
    even, step = (
        make_priors(replace(ULTRA_LIGHT, centre=rule), size) * [size[1], size[0], 0, 0]
        for rule in ("even", "step")
    )
    assert np.abs(even - step).max() == pytest.approx(pixels, abs=1e-3)
    assert centre_gap(ULTRA_LIGHT, size) == pytest.approx(pixels)


def test_the_note_says_which_rule_is_declared_and_what_the_other_costs() -> None:
    assert centre_note(ULTRA_LIGHT, (960, 1280)) is None
    told = centre_note(replace(ULTRA_LIGHT, centre="even"), (240, 320))
    assert told is not None
    assert "by even spacing; nominal steps would move boxes by up to 15 pixels" in told
    assert "by nominal steps; even spacing would" in (centre_note(ULTRA_LIGHT, (240, 320)) or "")


def test_clipping_lowers_the_tall_priors_of_a_low_picture() -> None:
    # ULFD clips: its 256 px prior is 240 px high at a height of 240.
    clipped = make_priors(replace(ULTRA_LIGHT, clip=True), (240, 320))
    assert clipped[-1, 3] == 1.0
    assert make_priors(ULTRA_LIGHT, (240, 320))[-1, 3] > 1.0
