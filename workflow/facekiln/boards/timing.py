"""What one run of a benchmark tool said, in one form for every tool.

Latencies are milliseconds of one run, that is of one batch; a figure per image is derived, never stored as
the measured one. What a tool does not print stays absent.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from facekiln.errors import KilnError

# Tools round what they print (mm_run to five significant digits), so an order among figures holds to this.
_ROUNDING = 2e-4
_UNIT = 0.011  # tools that print two decimals


def _in_order(low: float | None, high: float | None) -> bool:
    return low is None or high is None or low <= high + max(_ROUNDING * abs(high), _UNIT)


@dataclass(frozen=True)
class Stats:
    """Figures of one quantity, in the unit that its owner names; only the mean is always there.

    Attributes:
        mean: arithmetic mean.
        min, max, median: where known.
        percentiles: {"90": value}, as printed by the tool or taken from `samples`.
        samples: single values in the order of time, where the tool prints them.
        runs_per_sample: how many runs stand behind each sample; above 1 a sample is a mean.
    """

    mean: float
    min: float | None = None
    max: float | None = None
    median: float | None = None
    percentiles: Mapping[str, float] = field(default_factory=dict)
    samples: tuple[float, ...] = ()
    runs_per_sample: int = 1

    def __post_init__(self) -> None:
        """Refuse figures that cannot belong together.

        Raises:
            KilnError: one is negative or not finite, or they are out of order.
        """
        values = [self.mean, *self.percentiles.values(), *self.samples]
        values += [value for value in (self.min, self.max, self.median) if value is not None]
        for value in values:
            if not math.isfinite(value) or value < 0:
                raise KilnError("a figure is negative or not finite", value=value)
        ranked = [self.percentiles[key] for key in sorted(self.percentiles, key=float)]
        chains: list[list[float | None]] = [
            [self.min, self.mean, self.max],
            [self.min, self.median, self.max],
            [self.min, *ranked, self.max],
            [self.median, *self._above_half()],
        ]
        for chain in chains:
            known = [value for value in chain if value is not None]
            if not all(_in_order(low, high) for low, high in itertools.pairwise(known)):
                raise KilnError(
                    "figures are out of order (min, median, mean, max, percentiles)",
                    value=", ".join(f"{value:g}" for value in known),
                    hint="the log is damaged, or two results were mixed",
                )

    def _above_half(self) -> list[float]:
        above = sorted((float(key), value) for key, value in self.percentiles.items() if float(key) >= 50)
        return [value for _, value in above[:1]]

    def scaled(self, factor: float) -> Stats:
        """Return the same figures in another unit, or per image."""

        def times(value: float | None) -> float | None:
            return None if value is None else value * factor

        return replace(
            self,
            mean=self.mean * factor,
            min=times(self.min),
            max=times(self.max),
            median=times(self.median),
            percentiles={key: value * factor for key, value in self.percentiles.items()},
            samples=tuple(value * factor for value in self.samples),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the figures that exist; `samples` last."""
        value: dict[str, Any] = {"mean": self.mean}
        value |= {
            key: getattr(self, key) for key in ("min", "max", "median") if getattr(self, key) is not None
        }
        if self.percentiles:
            value["percentiles"] = dict(self.percentiles)
        if self.samples:
            value["samples"] = list(self.samples)
            value["runs_per_sample"] = self.runs_per_sample
        return value


def stats_of(samples: Sequence[float], runs_per_sample: int = 1) -> Stats:
    """Return the figures of single values, with percentiles 90, 95 and 99 where each value is one run.

    Percentiles interpolate linearly between order statistics (Hyndman and Fan 1996, type 7, numpy's default);
    with fewer than 10, 20 and 100 values the 90th, 95th and 99th are left out, as they would be the maximum.

    Raises:
        KilnError: there is no value, or one is negative or not finite.
    """
    if not samples:
        raise KilnError("there is no sample to take figures of")
    ranked = sorted(samples)
    percentiles = {}
    if runs_per_sample == 1:
        for level, needed in ((90, 10), (95, 20), (99, 100)):
            if len(ranked) >= needed:
                percentiles[str(level)] = quantile(ranked, level / 100)
    return Stats(
        mean=math.fsum(ranked) / len(ranked),
        min=ranked[0],
        max=ranked[-1],
        median=quantile(ranked, 0.5),
        percentiles=percentiles,
        samples=tuple(samples),
        runs_per_sample=runs_per_sample,
    )


def quantile(ranked: Sequence[float], level: float) -> float:
    """Return a quantile of sorted values by linear interpolation (type 7); `level` in 0..1."""
    place = level * (len(ranked) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (place - low)


@dataclass(frozen=True)
class Timing:
    """One result of one tool.

    Attributes:
        tool: its name.
        measures: what the latency covers, e.g. "compute on the chip, host clock, without copies".
        latency: milliseconds per run, that is per batch.
        batch: images per run.
        runs: how many runs stand behind the latency, without warm-up; None where the tool does not say.
        tool_version: as printed.
        label: the net, stage, device or shape group that it belongs to, where the log has several.
        parts: milliseconds per run of other parts (copies, enqueue), by name.
        throughput: images per second as the tool states it; else None, see `images_per_second`.
        memory_mib: by name (device, host).
        readings: what else the tool measured, with the unit in the name ("power_w").
        facts: texts worth keeping: runtime and driver version, device, threads.
        notes: what a reader should know of these figures.
    """

    tool: str
    measures: str
    latency: Stats
    batch: int
    runs: int | None = None
    tool_version: str | None = None
    label: str = ""
    parts: Mapping[str, Stats] = field(default_factory=dict)
    throughput: float | None = None
    memory_mib: Mapping[str, float] = field(default_factory=dict)
    readings: Mapping[str, Stats] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a batch below 1 and a latency of nought.

        Raises:
            KilnError: see there.
        """
        if self.batch < 1:
            raise KilnError("the batch is below 1", where=self.tool, value=self.batch)
        if self.latency.mean <= 0:
            raise KilnError("the latency is nought", where=self.tool, value=self.latency.mean)

    @property
    def mean_only(self) -> bool:
        """Whether the tool gave no more than a mean with extremes: nothing to judge its noise by."""
        return not self.latency.samples and not self.latency.percentiles

    @property
    def per_image_ms(self) -> float:
        """Mean milliseconds per image."""
        return self.latency.mean / self.batch

    @property
    def images_per_second(self) -> float:
        """The tool's throughput, else the reciprocal of the mean latency (one run after the other)."""
        return self.throughput if self.throughput is not None else 1000 * self.batch / self.latency.mean

    @property
    def middle(self) -> float:
        """The median where known, else the mean."""
        return self.latency.median if self.latency.median is not None else self.latency.mean

    def to_json(self) -> dict[str, Any]:
        """Return the record of `results/bench/...` for this result."""
        value: dict[str, Any] = {
            "tool": self.tool,
            "tool_version": self.tool_version,
            "label": self.label,
            "measures": self.measures,
            "batch": self.batch,
            "runs": self.runs,
            "mean_only": self.mean_only,
            "latency_ms": self.latency.to_json(),
            "per_image_ms": self.per_image_ms,
            "images_per_second": self.images_per_second,
            "throughput_by_tool": self.throughput is not None,
            "parts_ms": {name: part.to_json() for name, part in self.parts.items()},
            "memory_mib": dict(self.memory_mib),
            "readings": {name: reading.to_json() for name, reading in self.readings.items()},
            "facts": dict(self.facts),
            "notes": list(self.notes),
        }
        return value
