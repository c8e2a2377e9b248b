"""The threshold of a histogram by Kullback-Leibler divergence, as Tengine's quant tools search it.

Source: the method of their `threshold_distribution` (tools/quantize/quant_utils.cpp), which is TensorRT's and
ncnn's, too; here with cumulative sums instead of loops, in float64 instead of float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
# Thresholds that are tried at once: enough to pay for numpy, few enough for the cache.
_CHUNK = 48
_NOTHING = 1e-12


def threshold_bin(histogram: NDArray[np.int64], levels: int) -> int:
    """Return the first bin that is clipped, so that `levels` codes tell the least different distribution.

    Args:
        histogram: counts; bin 0 is not looked at.
        levels: codes: 256 for uint8, 128 for one side of int8.

    Returns:
        A number from `levels` to len(histogram) - 1; `levels` where there is nothing to choose from.
    """
    counts = histogram.astype(np.float64)
    counts[0] = 0.0
    total = counts.sum()
    if len(counts) <= levels or total == 0:
        return levels
    shares = counts / total
    thresholds = np.arange(levels, len(shares))
    found = [
        divergences(shares, thresholds[start : start + _CHUNK], levels)
        for start in range(0, len(thresholds), _CHUNK)
    ]
    return int(thresholds[int(np.concatenate(found).argmin())])


def _between(cumulative: Floats, places: Floats) -> Floats:
    """Read cumulative sums between their bins; both with one row per threshold."""
    last = cumulative.shape[1] - 2
    below = np.minimum(places.astype(np.int64), last)
    low = np.take_along_axis(cumulative, below, axis=1)
    return low + (places - below) * (np.take_along_axis(cumulative, below + 1, axis=1) - low)


def divergences(shares: Floats, thresholds: NDArray[np.int64], levels: int) -> Floats:
    """Return, for each threshold, the divergence of the bins below it from what `levels` codes tell of them.

    A bin that holds something of which the codes tell nothing counts 1, as in the tools.

    Args:
        shares: of each bin, their sum 1.
        thresholds: in bins, each at least `levels`.
        levels: codes.
    """
    rows, count = len(thresholds), int(thresholds.max())
    width = (thresholds / levels)[:, None]

    def rowwise(values: Floats) -> Floats:
        whole = np.concatenate([[0.0], np.cumsum(values)])
        return np.broadcast_to(whole, (rows, len(whole)))

    edges = np.arange(levels + 1) * width
    mass = np.diff(_between(rowwise(shares), edges), axis=1)
    room = np.diff(_between(rowwise((shares != 0).astype(np.float64)), edges), axis=1)
    # A code's mass is spread over those of its bins that held anything.
    density = np.divide(mass, room, out=np.zeros_like(mass), where=room > _NOTHING)
    spread = np.concatenate([np.zeros((rows, 1)), np.cumsum(density * width, axis=1)], axis=1)
    told = np.diff(_between(spread, np.minimum(np.arange(count + 1) / width, levels)), axis=1)
    told[:, shares[:count] == 0] = 0.0
    columns = np.arange(count)
    reference = np.where(columns < thresholds[:, None], shares[:count], 0.0)
    # What is clipped is told as the last code.
    reference[np.arange(rows), thresholds - 1] += np.maximum(1.0 - np.cumsum(shares)[thresholds - 1], 0.0)
    some = reference > _NOTHING
    both = some & (told > _NOTHING)
    ratio = np.divide(reference, told, out=np.ones_like(told), where=both)
    return np.asarray((some & ~both).sum(axis=1) + (reference * np.log(ratio)).sum(axis=1))
