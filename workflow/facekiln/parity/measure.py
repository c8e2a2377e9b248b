"""How two arrays differ: the one comparison of the project."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Measure:
    """The difference of a child's array from its parent's.

    Attributes:
        cosine: cosine similarity of the flattened arrays; 1 where both are all zero, 0 where only one is.
        max_abs: largest absolute difference, in the array's own unit.
        max_rel: `max_abs` over the parent's largest absolute value (the output's scale).
        sqnr_db: signal to error ratio, dB; capped at 200.
    """

    cosine: float
    max_abs: float
    max_rel: float
    sqnr_db: float

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


_SQNR_CAP = 200.0


def measure(parent: NDArray[np.floating], child: NDArray[np.floating]) -> Measure:
    """Measure how far `child` is from `parent`.

    Raises:
        ValueError: the shapes differ.
    """
    if parent.shape != child.shape:
        raise ValueError(f"shapes differ: {parent.shape} and {child.shape}")
    a, b = parent.astype(np.float64).ravel(), child.astype(np.float64).ravel()
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Measure(cosine=0.0, max_abs=_HUGE, max_rel=_HUGE, sqnr_db=-_SQNR_CAP)
    norm_a, norm_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if norm_a == 0.0 or norm_b == 0.0:
        cosine = 1.0 if norm_a == norm_b else 0.0
    else:
        cosine = min(1.0, float(a @ b) / (norm_a * norm_b))
    error = b - a
    max_abs = float(np.abs(error).max(initial=0.0))
    scale = float(np.abs(a).max(initial=0.0))
    noise = float(np.linalg.norm(error))
    if noise == 0.0:
        sqnr = _SQNR_CAP
    elif norm_a == 0.0:
        sqnr = -_SQNR_CAP
    else:
        sqnr = float(np.clip(20 * np.log10(norm_a / noise), -_SQNR_CAP, _SQNR_CAP))
    max_rel = max_abs / scale if scale else (0.0 if max_abs == 0.0 else _HUGE)
    return Measure(cosine=cosine, max_abs=max_abs, max_rel=max_rel, sqnr_db=sqnr)


# JSON has no infinity; a figure this large fails every gate.
_HUGE = 1e30


def worst(measures: list[Measure]) -> Measure:
    """Return the worst of each figure over several pictures.

    Raises:
        ValueError: the list is empty.
    """
    return Measure(
        cosine=min(m.cosine for m in measures),
        max_abs=max(m.max_abs for m in measures),
        max_rel=max(m.max_rel for m in measures),
        sqnr_db=min(m.sqnr_db for m in measures),
    )
