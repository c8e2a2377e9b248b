"""WFLW, LaPa, 300W-LP, the list of PFPLD, and drawn scenes behind the same interface."""

from pathlib import Path

import numpy as np
import pytest

from facekiln.data.aflw_300w_lp import read_300w_lp
from facekiln.data.landmarks import COMPATIBLE_68, SUBSET_68
from facekiln.data.lapa import read_lapa
from facekiln.data.pfld_list import read_pfld_list
from facekiln.data.procedural_set import procedural_set
from facekiln.data.wflw import read_wflw
from facekiln.errors import KilnError

RNG = np.random.default_rng(1)


def _row(values: np.ndarray, *more: object) -> str:
    return " ".join([*(f"{value:.6f}" for value in values.ravel()), *map(str, more)])


# ----------------------------------------------------------------------------------------------- WFLW


def test_wflw_rows_of_a_picture_become_one_sample(tmp_path: Path) -> None:
    points = RNG.uniform(10, 200, (3, 98, 2))
    rows = [
        _row(points[0], 10, 20, 110, 140, 0, 1, 0, 1, 0, 1, "37--Soccer/a.jpg"),
        _row(points[1], 1, 2, 11, 14, 1, 0, 0, 0, 0, 0, "7--Cheering/b.jpg"),
        _row(points[2], 5, 6, 50, 60, 0, 0, 1, 0, 1, 0, "37--Soccer/a.jpg"),
    ]
    path = tmp_path / "list_98pt_rect_attr_test.txt"
    path.write_text("\n".join(rows) + "\n")
    soccer, cheering = read_wflw("w", tmp_path, path)
    assert soccer.boxes.tolist() == [[10, 20, 110, 140], [5, 6, 50, 60]]
    assert soccer.landmarks is not None and soccer.landmarks.scheme == "98"
    np.testing.assert_allclose(soccer.landmarks.points, points[[0, 2]], atol=1e-6)
    assert soccer.attributes["expression"].tolist() == [1, 0]
    assert soccer.attributes["illumination"].tolist() == [0, 1]
    assert soccer.attributes["blur"].tolist() == [1, 0]
    assert cheering.attributes["pose"].tolist() == [1]


def test_wflw_without_rectangles_takes_the_box_around_the_points(tmp_path: Path) -> None:
    points = RNG.uniform(10, 200, (1, 98, 2))
    path = tmp_path / "list_98pt_test.txt"
    path.write_text(_row(points, "a.jpg"))
    (sample,) = read_wflw("w", tmp_path, path)
    np.testing.assert_allclose(
        sample.boxes[0], [*points.min(axis=(0, 1)), *points.max(axis=(0, 1))], atol=1e-6
    )
    assert not sample.attributes


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (_row(np.zeros((98, 2))), r"line 1: is no WFLW row .*196 columns"),
        (_row(np.zeros((98, 2)), "../a.jpg"), r"line 1: names a picture outside its folder"),
        (_row(np.full((98, 2), np.nan), "a.jpg"), r"line 1: is no finite number"),
    ],
)
def test_wflw_refuses_by_line(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(row)
    with pytest.raises(KilnError, match=message):
        read_wflw("w", tmp_path, path)


# ----------------------------------------------------------------------------------------------- LaPa


def test_lapa_has_106_points_and_the_box_around_them(tmp_path: Path) -> None:
    points = RNG.integers(0, 300, (106, 2))
    (tmp_path / "landmarks").mkdir()
    text = "106\n" + "".join(f"{x}.000000 {y}.000000\n" for x, y in points)
    (tmp_path / "landmarks/100_0.txt").write_text(text)
    listing = read_lapa("l", tmp_path / "images", tmp_path / "landmarks")
    (sample,) = listing
    assert listing.sources == ("100_0",)
    assert sample.picture == tmp_path / "images/100_0.jpg"
    assert sample.landmarks is not None and sample.landmarks.scheme == "106"
    np.testing.assert_array_equal(sample.landmarks.points[0], points)
    assert sample.boxes[0].tolist() == [*points.min(axis=0), *points.max(axis=0)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "106\n1 2\n",
        "105\n" + "1 2\n" * 105,
        "68\n" + "1 2\n" * 106,
        "106\n" + "1 2 3\n" * 106,
    ],
)
def test_lapa_refuses_other_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(KilnError, match=r"a\.txt: is no LaPa landmark file"):
        read_lapa("l", tmp_path, tmp_path)[0]


# -------------------------------------------------------------------------------------------- 300W-LP


def _write_300w_lp(folder: Path, name: str = "AFW_1", **variables: np.ndarray) -> None:
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    pose = np.array([[0.1, -0.5, 0.2, 1, 2, 3, 4e-4]], np.float32)
    savemat(folder / f"{name}.mat", {"Pose_Para": pose, **variables})


def test_300w_lp_orders_the_pose_as_yaw_pitch_roll(tmp_path: Path) -> None:
    points = RNG.uniform(100, 300, (2, 68))
    points[:, 5] = -1
    _write_300w_lp(tmp_path / "AFW", pt2d=points)
    _write_300w_lp(tmp_path / "AFW", "AFW_1_pts", pts_2d=points.T)  # other tools put their files beside
    listing = read_300w_lp("a", tmp_path, tmp_path / "AFW")
    (sample,) = listing
    assert listing.sources == ("AFW/AFW_1",)
    assert sample.picture == tmp_path / "AFW/AFW_1.jpg"
    assert sample.pose is not None
    np.testing.assert_allclose(sample.pose, [[-0.5, 0.1, 0.2]], atol=1e-6)
    marks = sample.landmarks
    assert marks is not None and marks.scheme == "68"
    assert np.flatnonzero(~marks.labelled[0]).tolist() == [5]
    np.testing.assert_allclose(marks.points[0, 6:], points.T[6:])
    assert sample.boxes.min() >= 100  # a missing point does not pull the box


def test_300w_lp_reads_the_points_that_pfpld_is_trained_on(tmp_path: Path) -> None:
    from scipy.io import savemat

    points = RNG.uniform(0, 300, (68, 2))
    _write_300w_lp(tmp_path / "AFW", pt2d=np.zeros((2, 68)))
    (tmp_path / "landmarks/AFW").mkdir(parents=True)
    savemat(tmp_path / "landmarks/AFW/AFW_1_pts.mat", {"pts_2d": points})
    (sample,) = read_300w_lp("a", tmp_path, tmp_path / "AFW", points="pts_2d")
    assert sample.landmarks is not None
    np.testing.assert_allclose(sample.landmarks.points[0], points)


def test_aflw2000_has_68_points_in_another_variable(tmp_path: Path) -> None:
    points = RNG.uniform(0, 300, (3, 68))
    _write_300w_lp(tmp_path / "AFLW2000", pt2d=np.full((2, 21), -1.0), pt3d_68=points)
    with pytest.raises(KilnError, match=r"AFW_1\.mat: pt2d: has AFLW's 21 points (?s:.)*points: pt3d_68"):
        read_300w_lp("a", tmp_path, tmp_path / "AFLW2000")[0]
    (sample,) = read_300w_lp("a", tmp_path, tmp_path / "AFLW2000", points="pt3d_68")
    assert sample.landmarks is not None
    np.testing.assert_allclose(sample.landmarks.points[0], points[:2].T)


def test_300w_lp_refuses_what_does_not_fit(tmp_path: Path) -> None:
    _write_300w_lp(tmp_path / "AFW", pt2d=np.zeros((2, 67)))
    with pytest.raises(KilnError, match=r"pt2d: is no array of the expected shape .*2x67.*2x68"):
        read_300w_lp("a", tmp_path, tmp_path / "AFW")[0]
    _write_300w_lp(tmp_path / "AFW", pt2d=np.full((2, 68), np.inf))
    with pytest.raises(KilnError, match=r"not finite"):
        read_300w_lp("a", tmp_path, tmp_path / "AFW")[0]
    _write_300w_lp(tmp_path / "AFW", pt2d=np.full((2, 68), -1))
    with pytest.raises(KilnError, match=r"has no landmark"):
        read_300w_lp("a", tmp_path, tmp_path / "AFW")[0]
    with pytest.raises(KilnError, match="unknown kind of 300W-LP points 'pts2d'; did you mean 'pts_2d'"):
        read_300w_lp("a", tmp_path, tmp_path / "AFW", points="pts2d")


# ----------------------------------------------------------------------------------------------- PFPLD


def _pfpld_row(name: str, flag: object, angles: tuple[float, float, float] = (30.0, -10.0, 5.0)) -> str:
    points = RNG.uniform(0.1, 0.9, (98, 2))
    if flag == 0:
        points[[index for index in range(98) if index not in SUBSET_68]] = -256.0
    return f"{name} " + _row(points, 1, 0, 0, 0, 0, 1, *angles, flag)


def test_pfpld_flags_say_which_labels_count(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\n".join(_pfpld_row(f"imgs/{flag}.png", flag) for flag in (-2, 0, -1)))
    wflw, lp, aflw = read_pfld_list("p", tmp_path, path)
    assert wflw.landmarks and wflw.landmarks.labelled.all()
    assert wflw.pose is not None and np.isnan(wflw.pose).all()
    assert lp.landmarks and np.flatnonzero(lp.landmarks.labelled[0]).tolist() == sorted(SUBSET_68)
    assert set(COMPATIBLE_68) < set(np.flatnonzero(lp.landmarks.labelled[0]))
    assert lp.pose is not None
    np.testing.assert_allclose(lp.pose, np.deg2rad([[30, -10, 5]]))  # yaw, pitch, roll
    assert aflw.landmarks and not aflw.landmarks.labelled.any()
    assert aflw.pose is not None and not np.isnan(aflw.pose).any()
    for sample in (wflw, lp, aflw):
        assert sample.boxes.tolist() == [[0, 0, 112, 112]] and sample.size == (112, 112)
        assert {name for name, value in sample.attributes.items() if value[0] == 1} == {"pose", "blur"}
    assert np.nanmin(wflw.landmarks.points) > 10 and np.nanmax(wflw.landmarks.points) < 102


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            _pfpld_row("a.png", 0).rsplit(" ", 1)[0],
            r"line 1: is no row .*206 columns(?s:.)*add the type flag",
        ),
        (_pfpld_row("a.png", 7), r"line 1: is no type flag .*7"),
        (_pfpld_row("a.png", 0.5), r"line 1: is no type flag"),
        (_pfpld_row("/a.png", 0), r"line 1: names a picture outside its folder"),
    ],
)
def test_pfpld_refuses_by_line(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(row)
    with pytest.raises(KilnError, match=message):
        read_pfld_list("p", tmp_path, path)


# ------------------------------------------------------------------------------------------ procedural


def test_drawn_scenes_are_a_dataset_like_any_other() -> None:
    one = procedural_set("d", 4, seed=3, size=(96, 128))
    two = procedural_set("d", 4, seed=3, size=(96, 128))
    assert len(one) == 4 and one.images is None
    for here, there in zip(one, two, strict=True):
        picture = here.load()
        assert picture.shape == (96, 128, 3) and picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, there.load())
        np.testing.assert_array_equal(here.boxes, there.boxes)
        assert here.landmarks is not None and here.landmarks.points.shape == (len(here), 98, 2)
        assert here.pose is not None and here.pose.shape == (len(here), 3)
        assert set(here.attributes) == {"blur", "occlusion", "visible"}
    assert sum(map(len, one)) > 0
    other = procedural_set("d", 1, seed=3, size=(96, 128), purpose="another")
    assert not np.array_equal(one[0].load(), other[0].load())
