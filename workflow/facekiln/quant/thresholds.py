"""Where to clip an activation before it is quantised: four methods on one histogram of magnitudes.

A threshold T means that |x| above T saturates and that int8's 127 steps spread over T. Every method takes the
counts of |x| in `BINS` equal bins over [0, top], where top is the largest magnitude seen, and returns a
threshold in [0, top].
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.quant.names import METHODS

Counts = NDArray[np.int64]

# Bins of the histogram and levels of int8's positive half, as in NVIDIA's description (S. Migacz, "8-bit
# Inference with TensorRT", GTC 2017).
BINS, LEVELS = 2048, 128
# Candidates are every fourth bin: 0.2 % of the range apart, and four times as fast.
_STRIDE = 4
# Probability of a level that the reference has and the candidate has not; the divergence would be infinite.
_LEAST = 1e-9
_STEPS = 127
_PORTION = 1 << 23


def minmax(_counts: Counts, top: float) -> float:
    """Clip nothing."""
    return top


def percentile(counts: Counts, top: float, percent: float) -> float:
    """Clip so that `percent` of the magnitudes, zeros included, are kept: the edge of the bin reached."""
    total = int(counts.sum())
    if not total:
        return 0.0
    reached = int(np.searchsorted(np.cumsum(counts), np.ceil(total * percent / 100), side="left"))
    return top * (min(reached, BINS - 1) + 1) / BINS


@functools.cache
def _levels(bins: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the level of each of `bins` bins, and the first bin of each level."""
    level = np.arange(bins) * LEVELS // bins
    return level, -(-np.arange(LEVELS) * bins // LEVELS)


def divergence(mass: NDArray[np.float64], bins: int) -> float:
    """Return the Kullback-Leibler divergence of the histogram clipped after `bins` bins from its int8 form.

    The reference is the first `bins` bins with everything beyond added to the last of them. The candidate
    spreads the same bins, without what lies beyond, over `LEVELS` levels, and each level's mass back over
    those of its bins that hold any.

    Args:
        mass: float64 [BINS].
        bins: at least `LEVELS`.
    """
    kept = mass[:bins]
    reference = kept.copy()
    reference[-1] += mass[bins:].sum()
    level, first = _levels(bins)
    filled = kept > 0
    per_level = np.add.reduceat(kept, first) / np.maximum(np.add.reduceat(filled, first, dtype=np.int64), 1)
    candidate = np.where(filled, per_level[level], 0.0)
    total = candidate.sum()
    if total <= 0:
        return float(-np.log(_LEAST))
    there = reference > 0
    p = reference[there] / reference.sum()
    q = np.maximum(candidate[there] / total, _LEAST)
    return float(np.sum(p * np.log(p / q)))


def without_spikes(counts: Counts) -> NDArray[np.float64]:
    """Return counts in which no bin holds more than the fuller of its neighbours, and none more than 1 alone.

    A lone spike is one value over and over: the zeros of a ReLU, which every scale represents exactly, or
    what a constant area gives, such as the padding of a letterboxed picture. It says nothing of where to
    clip, but would draw the divergence to thresholds at which it does not smear over a level. Measured on a
    RetinaFace with letterboxed photographs: int8 finds 96 % of the float network's faces, 84 % without.
    """
    mass = counts.astype(np.float64)
    left, right = np.concatenate([[0.0], mass[:-1]]), np.concatenate([mass[1:], [0.0]])
    return np.minimum(mass, np.maximum(np.maximum(left, right), 1.0))


def kl(counts: Counts, top: float) -> float:
    """Clip where the int8 form tells least from the whole: the smallest divergence of all candidates.

    Spikes are levelled first (see `without_spikes`). Of equal candidates the widest wins.
    """
    if not counts.any():
        return 0.0
    mass = without_spikes(counts)
    candidates = range(BINS, LEVELS - 1, -_STRIDE)
    best = min(candidates, key=lambda bins: divergence(mass, bins))
    return top * best / BINS


def mse(counts: Counts, top: float) -> float:
    """Clip where the mean squared error of int8 is least, of all bin edges.

    The error of a magnitude x is x^2 where it rounds to zero, step^2 / 12 where it is rounded to a step, and
    (x - T)^2 beyond the threshold T, with step = T / 127. Of equal thresholds the widest wins.
    """
    if not counts.any():
        return 0.0
    centres = np.arange(BINS) + 0.5
    zeroth, first, second = (
        np.concatenate([[0.0], np.cumsum(counts * centres**power)]) for power in (0, 1, 2)
    )
    edges = np.arange(BINS, 0, -1)
    step = edges / _STEPS
    to_zero = np.minimum(np.floor(step / 2).astype(np.int64), edges)
    below = second[to_zero]
    inside = step**2 / 12 * (zeroth[edges] - zeroth[to_zero])
    beyond = (
        (second[-1] - second[edges])
        - 2 * edges * (first[-1] - first[edges])
        + edges**2.0 * (zeroth[-1] - zeroth[edges])
    )
    return top * int(edges[int(np.argmin(below + inside + beyond))]) / BINS


def thresholds(counts: Counts, top: float, percent: float) -> dict[str, float]:
    """Return the threshold of each method.

    Args:
        counts: int64 [BINS] of |x| over [0, top]; all zero where nothing was seen.
        top: the largest |x|; 0 where the tensor is all zero, and so are its thresholds.
        percent: for `percentile`.
    """
    if top == 0:
        return dict.fromkeys(METHODS, 0.0)
    found: dict[str, Callable[[], float]] = {
        "minmax": lambda: minmax(counts, top),
        "percentile": lambda: percentile(counts, top, percent),
        "kl": lambda: kl(counts, top),
        "mse": lambda: mse(counts, top),
    }
    return {name: float(found[name]()) for name in METHODS}


def signed_counts(values: NDArray[np.float32], top: float) -> Counts:
    """Return int64 [2 * BINS] counts of values in equal bins over [-top, top]; all zero where top is 0.

    Args:
        values: float32, any shape; beyond top counts as top.
        top: the largest magnitude.
    """
    counts = np.zeros(2 * BINS, np.int64)
    if top == 0:
        return counts
    # Divided first: bins per unit overflow for a tensor of denormals.
    flat = values.ravel() / np.float32(top)
    # A graph with other outputs is fused otherwise, and may exceed the extremes of the first pass by an ulp.
    np.clip(flat, -1, 1, out=flat)
    # The upper edge is exclusive. OpenCV is five times as fast as numpy here; its counts are float32, exact
    # up to 2^24.
    edges = [-1.0, float(np.nextafter(np.float32(1), np.float32(2)))]
    for start in range(0, flat.size, _PORTION):
        part = cv2.calcHist([flat[start : start + _PORTION]], [0], None, [2 * BINS], edges)
        counts += part.ravel().astype(np.int64)
    return counts


def folded(signed: Counts) -> Counts:
    """Return int64 [BINS] counts of |x| from those of x (see `signed_counts`)."""
    return signed[BINS:] + signed[:BINS][::-1]
