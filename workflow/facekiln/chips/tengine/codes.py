"""Real numbers to a quantised file's codes and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.tengine.format import DTYPES, INT8, UINT8, Tensor

_RANGES = {UINT8: (0, 255), INT8: (-127, 127)}


def encode(tensor: Tensor, values: NDArray[np.float32]) -> NDArray[Any]:
    """Return an activation's codes: round(x / scale) + zero point, clipped; floats as they are."""
    if tensor.dtype not in _RANGES:
        return np.ascontiguousarray(values, DTYPES[tensor.dtype][1])
    quant = tensor.quant[0]
    low, high = _RANGES[tensor.dtype]
    scaled = values / np.float32(quant.scale) if quant.scale else np.zeros_like(values)
    return np.clip(np.rint(scaled) + quant.zero_point, low, high).astype(DTYPES[tensor.dtype][1])


def decode(tensor: Tensor, codes: NDArray[Any]) -> NDArray[np.float32]:
    """Return the real numbers of an activation's codes."""
    if tensor.dtype not in _RANGES:
        return codes.astype(np.float32)
    quant = tensor.quant[0]
    return (codes.astype(np.float32) - np.float32(quant.zero_point)) * np.float32(quant.scale)
