"""Strata: their edges, and an even draw."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.data.calibration_pool import Looked, largest_face, network_scale
from facekiln.data.calibration_strata import View, even_draw, face_size, light, pose, tally
from facekiln.data.sample import sample_of
from facekiln.vision.preprocess import fit


def looked(boxes: Any, brightness: float = 100.0, shape: tuple[int, int] = (100, 200), **more: Any) -> Looked:
    return Looked(sample_of("a", Path("a.png"), boxes, **more), "0" * 64, None, shape, brightness)


VIEW = View((100, 200), "letterbox", False)


@pytest.mark.parametrize(("side", "label"), [(31.9, "< 32 px"), (32, "32..96 px"), (96, ">= 96 px")])
def test_face_size_is_the_longer_side_in_network_pixels(side: float, label: str) -> None:
    assert face_size(looked([[0, 0, 5, side]]), VIEW) == label
    assert face_size(looked([[0, 0, 2 * side, 5]], shape=(200, 400)), VIEW) == label
    assert (
        face_size(looked([[0, 0, 2 * side, 5]], shape=(200, 400)), View((100, 200), "stretch", False))
        == label
    )


def test_crops_count_stored_pixels() -> None:
    assert face_size(looked([[0, 0, 50, 50]]), View((1000, 2000), "letterbox", True)) == "32..96 px"


def test_the_largest_face_that_counts_decides() -> None:
    one = looked([[0, 0, 90, 90], [0, 0, 40, 40], [5, 5, 5, 9]], ignore=[True, False, False])
    assert largest_face(one.sample) == 1
    assert face_size(one, VIEW) == "32..96 px"
    assert face_size(looked([[0, 0, 9, 9]], ignore=[True]), VIEW) == pose(looked([]), VIEW) == "no face"


def test_pose_is_by_angle_and_else_by_attribute() -> None:
    box = [[0, 0, 9, 9]]
    assert pose(looked(box, pose=np.radians([[29.0, 80, 80]])), VIEW) == "frontal"
    assert pose(looked(box, pose=np.radians([[-31.0, 0, 0]])), VIEW) == "turned"
    unknown = {"pose": np.array([[np.nan] * 3])}
    assert pose(looked(box, **unknown), VIEW) == "unknown"
    assert pose(looked(box, **unknown, attributes={"pose": np.array([1])}), VIEW) == "turned"


def test_light_is_in_thirds() -> None:
    labels = [light(looked([], value), VIEW) for value in (0, 84.9, 85, 169.9, 170, 255)]
    assert labels == ["< 85 light"] * 2 + ["85..170 light"] * 2 + [">= 170 light"] * 2


@pytest.mark.parametrize("policy", ["letterbox", "stretch", "original"])
def test_network_scale_is_that_of_fit(policy: str) -> None:
    image = np.zeros((120, 400, 3), np.uint8)
    _, fitted = fit(image, (240, 320), policy)
    assert network_scale((120, 400), (240, 320), policy) == pytest.approx(
        (fitted.x_scale, fitted.y_scale), rel=0.01
    )


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=60), st.integers(1, 80), st.integers(0, 99))
def test_a_draw_is_as_even_as_it_can_be(strata: list[str], count: int, seed: int) -> None:
    drawn = even_draw(strata, count, seed)
    assert len(drawn) == len(set(drawn)) == min(count, len(strata))
    there, taken = Counter(strata), Counter(strata[index] for index in drawn)
    for one in there:
        for other in there:
            # A stratum has less than another only where it has no more to give, or by one.
            assert taken[one] >= min(there[one], taken[other] - 1)
    assert even_draw(strata, count // 2, seed) == drawn[: count // 2]
    counts = tally(strata, drawn)
    assert sum(row["chosen"] for row in counts.values()) == len(drawn)
