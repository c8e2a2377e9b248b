"""Strata of a calibration set: face size, pose and light, and an even draw over them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from facekiln.config import known
from facekiln.data.calibration_pool import Looked, largest_face, network_scale

# Pixels of the network's input (of the stored picture for a crop): COCO's edges of small, medium and large.
_SIDES = (32.0, 96.0)
# Mean luminance 0..255: dark, middle and bright thirds.
_LIGHTS = (85.0, 170.0)
_TURNED = math.radians(30)
UNKNOWN = "unknown"
NO_FACE = "no face"


@dataclass(frozen=True)
class View:
    """How the network sees pictures: its (height, width), the resize policy, and whether it sees crops."""

    size: tuple[int, int]
    policy: str
    crops: bool


def _bin(value: float, edges: Sequence[float], unit: str) -> str:
    names = [f"< {edges[0]:g}", *(f"{a:g}..{b:g}" for a, b in pairwise(edges)), f">= {edges[-1]:g}"]
    return f"{names[int(np.searchsorted(edges, value, side='right'))]}{unit}"


def face_size(looked: Looked, view: View) -> str:
    """The longer side of the largest face that counts, in the network's pixels (stored pixels for crops)."""
    face = largest_face(looked.sample)
    if face is None:
        return NO_FACE
    x1, y1, x2, y2 = looked.sample.boxes[face]
    x, y = (1.0, 1.0) if view.crops else network_scale(looked.shape, view.size, view.policy)
    return _bin(max((x2 - x1) * x, (y2 - y1) * y), _SIDES, " px")


def pose(looked: Looked, _view: View) -> str:
    """The largest face: frontal under 30 degrees of yaw, else turned; without angles, WIDER's attribute."""
    sample = looked.sample
    face = largest_face(sample)
    if face is None:
        return NO_FACE
    if sample.pose is not None and np.isfinite(sample.pose[face, 0]):
        return "frontal" if abs(float(sample.pose[face, 0])) < _TURNED else "turned"
    if "pose" in sample.attributes:
        return "turned" if int(sample.attributes["pose"][face]) else "frontal"
    return UNKNOWN


def light(looked: Looked, _view: View) -> str:
    """The mean luminance of what the network sees."""
    return _bin(looked.light, _LIGHTS, " light")


FACTORS: dict[str, Callable[[Looked, View], str]] = {"face_size": face_size, "pose": pose, "light": light}
# What can be said of a picture without annotation.
UNANNOTATED = ("light",)


def usable_factors(strata: Sequence[str], annotated: bool) -> list[str]:
    """Return the factors that a source knows.

    Raises:
        KilnError: an unknown factor.
    """
    names = [known(name, FACTORS, "stratum") for name in strata]
    return [name for name in names if annotated or name in UNANNOTATED]


def stratum_of(looked: Looked, factors: Sequence[str], view: View) -> str:
    """Return the label of a picture's stratum; "all" without factors."""
    labels = dict.fromkeys(FACTORS[name](looked, view) for name in factors)
    return ", ".join(labels) or "all"


def even_draw(strata: Sequence[str], count: int, seed: int) -> list[int]:
    """Return up to `count` indices, taken in turn from each stratum until all are used up.

    The order of strata is the seed's; inside a stratum, pictures keep their order. The first n of a longer
    draw are the draw of n.
    """
    queues: dict[str, list[int]] = {label: [] for label in sorted(set(strata))}
    for index, label in enumerate(strata):
        queues[label].append(index)
    labels = list(queues)
    order = [labels[at] for at in np.random.default_rng(seed).permutation(len(labels))]
    rounds = max((len(queue) for queue in queues.values()), default=0)
    drawn = [queues[label][turn] for turn in range(rounds) for label in order if turn < len(queues[label])]
    return drawn[:count]


def tally(strata: Sequence[str], chosen: Sequence[int]) -> dict[str, dict[str, int]]:
    """Return per stratum how many pictures were there and how many were chosen."""
    there, taken = Counter(strata), Counter(strata[index] for index in chosen)
    return {label: {"available": there[label], "chosen": taken[label]} for label in sorted(there)}
