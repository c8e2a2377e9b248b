"""Whether a measurement may be believed, and which variants nobody should ship."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from facekiln.boards.statistics import Interval, drift_of, mean_interval, median_interval, spread
from facekiln.boards.timing import Timing
from facekiln.errors import KilnError

STEADY, NOISY, UNJUDGED = "steady", "noisy: rejected", "unjudged"


@dataclass(frozen=True)
class Limits:
    """When a measurement is too noisy; shares of the latency.

    Attributes:
        half_width: half of the 95 % interval over repeats.
        spread: the slowest repeat over the fastest, less one.
        drift: a trend over repeats, or within a single one, that is not chance.
    """

    half_width: float = 0.05
    spread: float = 0.15
    drift: float = 0.05


@dataclass(frozen=True)
class Judgement:
    """A verdict with its figures.

    Attributes:
        verdict: STEADY, NOISY, or UNJUDGED where nothing can be said: one repeat, and only a mean.
        reasons: why it is noisy or unjudged.
        latency_ms: mean over the repeats of each repeat's median (its mean where the tool gives no median).
        interval: of it, None with a single repeat without samples.
        spread, drift: as shares; None where they cannot be taken.
    """

    verdict: str
    reasons: tuple[str, ...]
    latency_ms: float
    interval: Interval | None
    spread: float | None
    drift: float | None

    def to_json(self) -> dict[str, Any]:
        """Return it for a record."""
        interval = None
        if self.interval is not None:
            interval = {"low": self.interval.low, "high": self.interval.high, "method": self.interval.method}
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "latency_ms": self.latency_ms,
            "interval_95_ms": interval,
            "spread": self.spread,
            "drift": self.drift,
        }


def judge(repeats: Sequence[Timing], limits: Limits | None = None, remarks: Sequence[str] = ()) -> Judgement:
    """Judge the repeats of one measurement, in the order of time.

    Args:
        repeats: one result per repeat, all of one batch and one meaning.
        limits: see `Limits`.
        remarks: what the board's monitor found wrong in itself (a governor that changed); each rejects.

    Raises:
        KilnError: there is no repeat, or they measure different things.
    """
    limits = limits or Limits()
    if not repeats:
        raise KilnError("there is no repeat to judge")
    kinds = {(timing.tool, timing.label, timing.measures, timing.batch) for timing in repeats}
    if len(kinds) != 1:
        raise KilnError("repeats measure different things", value=sorted(map(str, kinds)))
    middles = [timing.middle for timing in repeats]
    latency = math.fsum(middles) / len(middles)
    reasons = list(remarks)
    samples = repeats[0].latency.samples
    interval: Interval | None
    between: float | None
    if len(repeats) > 1:
        interval, between = mean_interval(middles), spread(middles)
        trend = drift_of(middles)
    elif repeats[0].mean_only or len(samples) < 6:
        return Judgement(
            NOISY if reasons else UNJUDGED,
            (*reasons, "one repeat, without single runs: nothing to judge the noise by"),
            latency,
            None,
            None,
            None,
        )
    else:
        interval, between = median_interval(samples), None
        trend = drift_of(samples)
    if interval is not None and (half := interval.relative_half_width(latency)) > limits.half_width:
        reasons.append(f"the 95 % interval is +-{half:.1%} wide (limit {limits.half_width:.1%})")
    if between is not None and between > limits.spread:
        reasons.append(f"repeats differ by {between:.1%} (limit {limits.spread:.1%})")
    if trend is not None and trend.certain and abs(trend.share) > limits.drift:
        reasons.append(f"the latency drifted by {trend.share:+.1%} (limit {limits.drift:.1%})")
    return Judgement(
        NOISY if reasons else STEADY,
        tuple(reasons),
        latency,
        interval,
        between,
        None if trend is None else trend.share,
    )


@dataclass(frozen=True)
class Variant:
    """One artifact on one board.

    Attributes:
        name: of the artifact.
        low_ms, high_ms: 95 % interval of the latency per image.
        quality: figures of accuracy, more of each is better.
        protocol: what the quality means; only equal ones are compared.
    """

    name: str
    low_ms: float
    high_ms: float
    quality: tuple[float, ...]
    protocol: str


def dominated(variants: Sequence[Variant]) -> dict[str, str]:
    """Return {name: the name of a variant that is surely faster and in no figure less accurate}.

    Surely faster: its interval ends below the other's start. Of several, the fastest is named.

    Args:
        variants: of one board.
    """
    found = {}
    for one in variants:
        better = [
            other
            for other in variants
            if other.protocol == one.protocol
            and other.high_ms < one.low_ms
            and all(theirs >= ours for theirs, ours in zip(other.quality, one.quality, strict=True))
        ]
        if better:
            found[one.name] = min(better, key=lambda other: other.high_ms).name
    return found
