"""Confidence intervals and drift of repeated measurements, without scipy.

Repeats of a whole run are the unit: runs inside one process share a warm cache, a memory layout and a clock,
so that their scatter says too little (Georges, Buytaert, Eeckhout, "Statistically rigorous Java performance
evaluation", OOPSLA 2007; Hoefler, Belli, "Scientific benchmarking of parallel computing systems", SC 2015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from facekiln.boards.timing import quantile
from facekiln.errors import KilnError

# Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom (NIST/SEMATECH e-Handbook, 1.3.6.7.2).
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_Z95 = 1.959964


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval.

    Attributes:
        low, high: its ends, in the unit of the values.
        method: how it was made.
    """

    low: float
    high: float
    method: str

    def relative_half_width(self, centre: float) -> float:
        """Half its width as a share of `centre`."""
        return (self.high - self.low) / 2 / centre


def t95(degrees: int) -> float:
    """Return the two-sided 95 % point of Student's t.

    Beyond 30 degrees by the expansion in 1/degrees (Abramowitz and Stegun 26.7.5, three terms).
    """
    if degrees <= len(_T95):
        return _T95[degrees - 1]
    z = _Z95
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def mean_interval(values: Sequence[float]) -> Interval:
    """Return Student's interval of the mean of independent repeats.

    Raises:
        KilnError: fewer than two values.
    """
    count = len(values)
    if count < 2:
        raise KilnError("an interval needs two repeats", value=count)
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = t95(count - 1) * deviation / math.sqrt(count)
    return Interval(mean - half, mean + half, f"Student's t over {count} repeats")


def median_interval(samples: Sequence[float]) -> Interval | None:
    """Return the interval of the median between two order statistics, or None with fewer than 6 samples.

    Free of any distribution: the number of samples below the median is binomial (Le Boudec, "Performance
    Evaluation of Computer and Communication Systems", EPFL Press 2010, theorem 2.1). It takes samples as
    independent, which runs in one process are not quite.
    """
    count = len(samples)
    if count < 6:
        return None
    ranked = sorted(samples)
    below, tail = 0.5**count if count < 1000 else 0.0, 0
    if count < 1000:
        total = below
        while total <= 0.025:
            tail += 1
            below *= (count - tail + 1) / tail
            total += below
    else:
        tail = math.floor(count / 2 - _Z95 * math.sqrt(count) / 2)
    return Interval(
        ranked[max(tail - 1, 0)], ranked[min(count - tail, count - 1)], f"order statistics of {count} runs"
    )


@dataclass(frozen=True)
class Drift:
    """A trend over time.

    Attributes:
        share: how far the trend line goes from first to last, as a share of the median; negative = faster.
        z: Mann and Kendall's statistic; beyond 1.96 the trend is not chance (95 %).
    """

    share: float
    z: float

    @property
    def certain(self) -> bool:
        """Whether the trend is not chance."""
        return abs(self.z) > _Z95


def drift_of(values: Sequence[float]) -> Drift | None:
    """Return the trend by Theil and Sen's slope and Mann and Kendall's test; None with fewer than 4 values.

    Longer series are thinned to 200 values, as every pair is looked at.
    """
    if len(values) < 4:
        return None
    step = max(1, math.ceil(len(values) / 200))
    kept = [float(value) for value in values[::step]]
    count = len(kept)
    slopes, score = [], 0
    for first in range(count):
        for second in range(first + 1, count):
            rise = kept[second] - kept[first]
            slopes.append(rise / (second - first))
            score += (rise > 0) - (rise < 0)
    slope = quantile(sorted(slopes), 0.5)
    ties = [kept.count(value) for value in set(kept)]
    variance = count * (count - 1) * (2 * count + 5) - sum(tie * (tie - 1) * (2 * tie + 5) for tie in ties)
    z = 0.0
    if variance > 0 and score:
        z = (score - math.copysign(1, score)) / math.sqrt(variance / 18)
    return Drift(slope * (count - 1) / quantile(sorted(kept), 0.5), z)


def spread(values: Sequence[float]) -> float:
    """Return (largest - smallest) / smallest."""
    return max(values) / min(values) - 1
