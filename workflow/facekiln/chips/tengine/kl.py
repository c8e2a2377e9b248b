"""The threshold of a histogram by Kullback-Leibler divergence, as Tengine's quant tools search it.

Source: the method of their `threshold_distribution` (tools/quantize/quant_utils.cpp), which is TensorRT's and
ncnn's, too; here with cumulative sums instead of loops, in float64 instead of float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


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
    cumulative = np.concatenate([[0.0], np.cumsum(shares)])
    filled = np.concatenate([[0.0], np.cumsum(shares != 0)])
    best, least = levels, np.inf
    for threshold in range(levels, len(shares)):
        divergence = _divergence(shares, cumulative, filled, threshold, levels)
        if divergence < least:
            best, least = threshold, divergence
    return best


def _at(cumulative: Floats, places: Floats) -> Floats:
    """Read a cumulative sum between its bins."""
    below = np.minimum(places.astype(np.int64), len(cumulative) - 2)
    return cumulative[below] + (places - below) * (cumulative[below + 1] - cumulative[below])


def _divergence(shares: Floats, cumulative: Floats, filled: Floats, threshold: int, levels: int) -> float:
    """Return the divergence of the first `threshold` bins from what `levels` codes can tell of them."""
    width = threshold / levels
    edges = np.arange(levels + 1) * width
    mass = np.diff(_at(cumulative, edges))
    room = np.diff(_at(filled, edges))
    # A code's mass is spread over those of its bins that held anything.
    density = np.divide(mass, room, out=np.zeros_like(mass), where=room > 0)
    spread = np.concatenate([[0.0], np.cumsum(density * width)])
    told = np.diff(_at(spread, np.arange(threshold + 1) / width))
    told[shares[:threshold] == 0] = 0.0
    reference = shares[:threshold].copy()
    reference[-1] += 1.0 - cumulative[threshold]
    some = reference > 1e-12
    lost = some & (told <= 0)
    both = some & ~lost
    return float(lost.sum() + (reference[both] * np.log(reference[both] / told[both])).sum())
