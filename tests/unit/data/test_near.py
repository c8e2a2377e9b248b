"""Near-duplicate pictures."""

import itertools

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from facekiln.data.near import CLOSE, fingerprint, groups


def _picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)


def test_a_re_encoded_smaller_copy_is_close_and_another_picture_is_not() -> None:
    picture = _picture(0)
    _, data = cv2.imencode(".jpg", cv2.resize(picture, (160, 120)), [cv2.IMWRITE_JPEG_QUALITY, 60])
    copy = cv2.imdecode(data, cv2.IMREAD_COLOR)
    one, two, other = (fingerprint(each) for each in (picture, copy, _picture(1)))
    assert one is not None and two is not None and other is not None
    assert (one ^ two).bit_count() <= CLOSE < (one ^ other).bit_count()


def test_a_picture_without_contrast_has_no_fingerprint() -> None:
    assert fingerprint(np.full((40, 40, 3), 7, np.uint8)) is None


@given(st.lists(st.integers(0, 2**64 - 1), max_size=12), st.integers(0, 63), st.integers(0, 63))
def test_groups_are_what_comparing_all_pairs_gives(hashes: list[int], one: int, two: int) -> None:
    named = {str(index): value for index, value in enumerate(hashes)}
    for index, value in enumerate(hashes[:4]):  # some near ones
        named[f"near {index}"] = value ^ (1 << one) ^ (1 << two)
    linked = {name: {name} for name in named}
    for first, second in itertools.combinations(named, 2):
        if (named[first] ^ named[second]).bit_count() <= CLOSE:
            together = linked[first] | linked[second]
            for name in together:
                linked[name] = together
    expected = {frozenset(group) for group in linked.values() if len(group) > 1}
    assert {frozenset(group) for group in groups(named)} == expected
