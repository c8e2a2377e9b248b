"""The filter of small faces and the histogram before and after it."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.data.chart import draw_bars
from facekiln.data.declared import SmallFaces
from facekiln.data.report import write_sizes
from facekiln.data.sizes import large_enough, shorter_sides, size_histogram
from facekiln.data.wider_mat import read_wider_mat
from facekiln.errors import KilnError

TEN = SmallFaces(10)


def _boxes(*sides: tuple[float, float]) -> np.ndarray:
    return np.array([(5, 6, 5 + width, 6 + height) for width, height in sides], float).reshape(-1, 4)


def test_both_sides_must_reach_the_limit() -> None:
    boxes = _boxes((10, 10), (9, 50), (50, 9), (9.99, 10), (200, 100))
    assert large_enough(boxes, TEN, None).tolist() == [True, False, False, False, True]


def test_the_networks_input_is_reached_axis_by_axis() -> None:
    small = SmallFaces(10, measure="input", input=(240, 320))
    # 1024 x 768 to 320 x 240: both axes by 0.3125; 1024 x 1536: heights by 0.15625.
    assert shorter_sides(_boxes((32, 64)), small, (768, 1024)).tolist() == [10]
    assert shorter_sides(_boxes((32, 32)), small, (1536, 1024)).tolist() == [5]
    with pytest.raises(KilnError, match="the picture's size is not known"):
        shorter_sides(_boxes((32, 64)), small, None)


def test_counts_before_and_after() -> None:
    faces = [(_boxes((9, 9), (10, 12), (0, 5)), None), (_boxes((3, 3)), None), (_boxes(), None)]
    histogram = size_histogram("tiny", faces, TEN)
    assert (histogram.before.sum(), histogram.after.sum(), histogram.flat) == (3, 1, 1)
    assert (histogram.images_before, histogram.images_after) == (2, 1)
    text = histogram.text()
    assert "both sides >= 10" in text
    assert "(2 left out, 66.7 %)" in text
    assert "1 boxes without width or height are not counted" in text


@given(st.lists(st.tuples(st.floats(0.5, 900), st.floats(0.5, 900))), st.floats(1, 100))
def test_no_face_is_lost_or_split_by_the_limit(sides: list[tuple[float, float]], least: float) -> None:
    small = SmallFaces(least)
    histogram = size_histogram("any", [(_boxes(*sides), None)], small)
    assert histogram.before.sum() == len(sides)
    large = np.asarray(histogram.edges) >= least
    np.testing.assert_array_equal(histogram.after, np.where(large, histogram.before, 0))


def test_csv_has_the_bins(tmp_path: Path) -> None:
    histogram = size_histogram("tiny", [(_boxes((9, 9), (10, 12), (600, 700)), None)], TEN)
    rows = list(csv.DictReader(io.StringIO(histogram.csv())))
    assert sum(int(row["before"]) for row in rows) == 3 and sum(int(row["after"]) for row in rows) == 2
    assert rows[-1] == {"from": "512", "to": "", "before": "1", "after": "1"}
    files = write_sizes(histogram, tmp_path)
    assert [path.name for path in files] == ["sizes.txt", "sizes.csv", "sizes.png"]
    assert cv2.imread(str(files[2])) is not None


def test_bars_are_as_high_as_their_counts() -> None:
    picture = draw_bars("t", ["a", "b"], [100, 50], [100, 10])
    columns = [24 + 8 + 20, 24 + 72 + 8 + 20]
    full = [int((picture[:, x] == (150, 90, 30)).all(axis=1).sum()) for x in columns]
    pale = [int((picture[:, x] == (200, 190, 180)).all(axis=1).sum()) for x in columns]
    assert pale[0] == 0 and full[0] == pytest.approx(270, abs=2)
    assert full[1] == pytest.approx(27, abs=2) and pale[1] == pytest.approx(108, abs=2)


def test_an_empty_chart_is_drawn_too() -> None:
    assert draw_bars("nothing", ["a"], [0], [0]).shape == (420, 900, 3)


def test_real_faces_below_ten_pixels(data: Callable[[str], Path]) -> None:
    # 11,119 of the 39,708 boxes have a side below 10 pixels, 11 of them without any width or height.
    path = data("wider/ground_truth/wider_face_val.mat")
    listing = read_wider_mat("wider_val", Path("images"), path)
    histogram = size_histogram("wider_val", [(sample.boxes, None) for sample in listing], TEN)
    assert (histogram.before.sum(), histogram.after.sum(), histogram.flat) == (39697, 28589, 11)
    assert (histogram.images_before, histogram.images_after) == (3222, 3219)
