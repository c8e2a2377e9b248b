"""Pictures that look the same: a 64-bit difference hash, and groups of pictures whose hashes are close."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

CLOSE = 4  # bits that two hashes may differ by; re-encoded and resized copies stay below it
_LEAST_CONTRAST = 8  # grey levels in the 8x9 thumbnail; a flatter one hashes noise


def fingerprint(picture: NDArray[np.uint8]) -> int | None:
    """Return 64 bits, one per pixel of an 8x9 grey thumbnail that is darker than its right neighbour.

    None for a picture without contrast, whose bits would be noise.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    small = np.asarray(cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA), np.int16)
    if np.ptp(small) < _LEAST_CONTRAST:
        return None
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def groups(hashes: Mapping[str, int], close: int = CLOSE) -> list[list[str]]:
    """Return the groups of two and more names whose hashes are linked by steps of at most `close` bits.

    Names keep their order. Two hashes that differ in `close` bits agree in one of `close` + 1 bands whole,
    so only names that share a band are compared.
    """
    names = list(hashes)
    parent = list(range(len(names)))

    def top(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    edges = [round(64 * band / (close + 1)) for band in range(close + 2)]
    for low, high in pairwise(edges):
        buckets: dict[int, list[int]] = {}
        for index, name in enumerate(names):
            buckets.setdefault((hashes[name] >> low) & ((1 << (high - low)) - 1), []).append(index)
        for bucket in buckets.values():
            for at, one in enumerate(bucket):
                for other in bucket[at + 1 :]:
                    if (hashes[names[one]] ^ hashes[names[other]]).bit_count() <= close:
                        low_root, high_root = sorted((top(one), top(other)))
                        parent[high_root] = low_root
    members: dict[int, list[str]] = {}
    for index, name in enumerate(names):
        members.setdefault(top(index), []).append(name)
    return [group for group in members.values() if len(group) > 1]
