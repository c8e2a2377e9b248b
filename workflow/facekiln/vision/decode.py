"""Offsets to boxes and points, and back: the one place that knows what variances are for.

The rule is SSD's, as Pytorch_Retinaface uses it: centre offsets are in units of the prior's size times the
first variance, sizes are logarithms in units of the second. Priors [N, 4] are centre x, centre y, width and
height; boxes [N, 4] are corners x1, y1, x2, y2, in the priors' unit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def decode_boxes(loc: Floats, priors: Floats, variances: tuple[float, float]) -> Floats:
    """Turn offsets [N, 4] into boxes [N, 4].

    An offset too large for the exponential gives infinity, quietly: `faces_from_outputs` drops such a box.
    """
    centre = priors[:, :2] + loc[:, :2] * variances[0] * priors[:, 2:]
    with np.errstate(over="ignore", invalid="ignore"):
        half = priors[:, 2:] * np.exp(loc[:, 2:] * variances[1]) / 2
        return np.concatenate([centre - half, centre + half], axis=1)


def encode_boxes(boxes: Floats, priors: Floats, variances: tuple[float, float]) -> Floats:
    """Turn boxes [N, 4] with positive sides into offsets [N, 4]: the inverse of `decode_boxes`."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = boxes[:, 2:] - boxes[:, :2]
    offset = (centre - priors[:, :2]) / (variances[0] * priors[:, 2:])
    return np.concatenate([offset, np.log(size / priors[:, 2:]) / variances[1]], axis=1)


def decode_landmarks(landms: Floats, priors: Floats, variances: tuple[float, float]) -> Floats:
    """Turn offsets [N, 2 * P] into points [N, P, 2] (x, y), in the priors' unit."""
    offsets = landms.reshape(len(landms), landms.shape[1] // 2, 2)
    return priors[:, None, :2] + offsets * variances[0] * priors[:, None, 2:]


def encode_landmarks(points: Floats, priors: Floats, variances: tuple[float, float]) -> Floats:
    """Turn points [N, P, 2] into offsets [N, 2 * P]: the inverse of `decode_landmarks`."""
    offsets = (points - priors[:, None, :2]) / (variances[0] * priors[:, None, 2:])
    return offsets.reshape(len(points), 2 * points.shape[1])
