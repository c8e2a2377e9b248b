"""What an annotation says to a landmark model: kinds, conversions, real boxes and stand-ins."""

from pathlib import Path

import numpy as np
import pytest

from facekiln.data.landmarks import COMPATIBLE_68, SUBSET_68, SUBSET_98_OF_106
from facekiln.data.pfld_list import read_pfld_list
from facekiln.data.sample import Sample, landmarks_of, sample_of
from facekiln.data.wflw import around
from facekiln.training.landmark_labels import ALL_98_AND_POSE, SOME_68, label_faces

RNG = np.random.default_rng(5)
POSE = np.array([[0.1, -0.2, 0.3]])


def a_sample(scheme: str, pose: np.ndarray | None = None, box: list[float] | None = None) -> Sample:
    points = RNG.uniform(20, 90, (1, int(scheme), 2))
    boxes = [box] if box else around(points)
    return sample_of("a", Path("a.jpg"), boxes, landmarks=landmarks_of(scheme, points), pose=pose)


@pytest.mark.parametrize(
    ("scheme", "pose", "flag"),
    [
        ("98", None, -2),
        ("106", None, -2),
        ("68", POSE, 0),
        ("98", POSE, ALL_98_AND_POSE),
        ("68", None, SOME_68),
        ("5", POSE, -1),
        ("98", np.full((1, 3), np.nan), -2),
    ],
)
def test_the_kind_follows_from_what_is_annotated(scheme: str, pose: np.ndarray | None, flag: int) -> None:
    labels = label_faces(a_sample(scheme, pose))
    assert labels.flags.tolist() == [flag]
    assert np.isnan(labels.pose).any() == (flag in (-2, SOME_68))


def test_five_points_alone_teach_nothing() -> None:
    assert len(label_faces(a_sample("5"))) == 0


def test_106_points_hold_the_98_and_68_only_the_compatible_ones() -> None:
    lapa, lp = a_sample("106"), a_sample("68", POSE)
    assert lapa.landmarks and lp.landmarks
    np.testing.assert_array_equal(
        label_faces(lapa).points[0], lapa.landmarks.points[0, list(SUBSET_98_OF_106)]
    )
    points = label_faces(lp).points[0]
    assert np.flatnonzero(~np.isnan(points).any(axis=1)).tolist() == sorted(COMPATIBLE_68)
    for index in COMPATIBLE_68:
        np.testing.assert_array_equal(points[index], lp.landmarks.points[0, SUBSET_68.index(index)])


def test_pfplds_lists_keep_their_flags(tmp_path: Path) -> None:
    rows = []
    for flag in (-2, 0, -1):
        points = RNG.uniform(0.1, 0.9, (98, 2))
        if flag == 0:
            points[[index for index in range(98) if index not in SUBSET_68]] = -256.0
        rows.append(" ".join([f"{flag}.png", *map(str, points.ravel()), *"000000", "10 5 -3", str(flag)]))
    path = tmp_path / "list.txt"
    path.write_text("\n".join(rows))
    found = [label_faces(sample) for sample in read_pfld_list("p", tmp_path, path)]
    assert [labels.flags.tolist() for labels in found] == [[-2], [0], [-1]]
    assert not any(labels.boxed.any() for labels in found)  # the box is the crop itself
    # Contour and lids of a 68-point face are there and must not count among the 98.
    known = ~np.isnan(found[1].points[0]).any(axis=1)
    assert np.flatnonzero(known).tolist() == sorted(COMPATIBLE_68)
    assert np.isnan(found[2].points).all() and np.isnan(found[2].extents).all()


def test_a_box_around_the_landmarks_was_not_annotated_even_when_an_audit_cut_it() -> None:
    assert label_faces(a_sample("98", box=[10, 0, 95, 120])).boxed.tolist() == [True]
    made = a_sample("106")
    assert label_faces(made).boxed.tolist() == [False]
    cut = np.clip(made.boxes, 0, 60)
    clipped = sample_of("a", Path("a.jpg"), cut, landmarks=made.landmarks, size=(60, 60))
    assert label_faces(clipped).boxed.tolist() == [False]


def test_ignored_faces_are_left_out_and_closed_eyes_are_told() -> None:
    points = RNG.uniform(20, 90, (3, 98, 2))
    for face, height in enumerate((0.02, 6.0, 0.02)):
        for ring in (range(60, 68), range(68, 76)):
            x = 30 + 10 * (1 - np.cos(np.linspace(0, 2 * np.pi, 9)[:8]))
            y = 50 - height * np.sin(np.linspace(0, 2 * np.pi, 9)[:8])
            points[face, list(ring)] = np.stack([x, y], axis=1)
    sample = sample_of(
        "a",
        Path("a.jpg"),
        [[0, 0, 99, 99]] * 3,
        landmarks=landmarks_of("98", points),
        ignore=[False, False, True],
    )
    labels = label_faces(sample)
    assert labels.faces.tolist() == [0, 1] and labels.closed.tolist() == [True, False]
    assert labels.take(np.array([False, True])).faces.tolist() == [1]
