"""The table of faces: what is left out, where each face comes from, how rare it is."""

from pathlib import Path

import numpy as np

from facekiln.config import Crop
from facekiln.data.balance import balance
from facekiln.data.sample import Sample, landmarks_of, sample_of
from facekiln.training.landmark_faces import rarity, table_of
from facekiln.training.landmark_settings import CropSettings
from facekiln.training.sources import Pool

RNG = np.random.default_rng(2)
DECLARED = Crop(side=0.9, above=0.4)


def faces_of(name: str, sides: list[float], **more: object) -> Sample:
    """Square faces of some sides beside each other, with 98 points well inside their boxes."""
    corners = np.array([[100.0 * index, 10.0] for index in range(len(sides))])
    boxes = np.concatenate([corners, corners + np.array(sides)[:, None]], axis=1)
    shares = RNG.uniform(0.2, 0.8, (len(sides), 98, 2))
    points = corners[:, None] + shares * np.array(sides)[:, None, None]
    return sample_of(name, Path(name), boxes, landmarks=landmarks_of("98", points), **more)


def test_small_faces_are_left_out_and_the_others_keep_their_picture() -> None:
    parts = [[faces_of("a", [80, 20]), faces_of("b", [20])], [faces_of("c", [40, 90, 30])]]
    table = table_of(Pool(parts), DECLARED, CropSettings(), least_face=0.9 * 35)
    assert table.samples.tolist() == [0, 2, 2] and table.counts == [1, 2] and len(table) == 3
    np.testing.assert_allclose(table.squares[:, 2], [0.9 * 80, 0.9 * 40, 0.9 * 90])
    assert [face for _, face in table.balance.faces] == [0, 0, 1]
    assert len(table.balance.weights) == 3


def test_a_pool_without_a_face_gives_an_empty_table() -> None:
    bare = sample_of("a", Path("a"), np.zeros((0, 4)))
    table = table_of(Pool([[bare]]), DECLARED, CropSettings())
    assert len(table) == 0 and table.counts == [0] and table.points.shape == (0, 98, 2)


def test_rarity_is_the_mean_inverse_share_of_a_faces_classes() -> None:
    """By hand: PFLD (arXiv:1902.10859) weighs by the inverse share of each class that a face belongs to."""
    sides = [40.0, 40, 40, 40, 90, 90, 90, 90, 90, 90]
    blur = np.array([1, 0, 0, 0, 0, 0, 0, 0, 1, 0])
    sample = faces_of("a", sides, attributes={"blur": blur})
    of = balance([sample])
    assert {factor.name for factor in of.factors} == {"size", "eyes", "attribute blur"}
    eyes = next(factor for factor in of.factors if factor.name == "eyes").bins
    by_hand = []
    for face in range(10):
        size = 1 / (sides.count(sides[face]) / 10 * 2)
        lids = 1 / ((eyes == eyes[face]).sum() / 10 * len(set(eyes.tolist())))
        flag = 1 / ((blur == blur[face]).sum() / 10 * 2)
        by_hand.append((size + lids + flag) / 3)
    weights = rarity(of)
    np.testing.assert_allclose(weights, np.array(by_hand) / np.mean(by_hand))
    assert weights[0] > weights[1] and weights.mean() == 1
