"""What the activations of an fp32 file reach on calibration pictures: extremes, and histograms.

The passes are those of Tengine's quant tools: extremes over all pictures first, then histograms of 2048 bins.
Their KL counts in bins of its own making; `facekiln.quant.thresholds` has ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.tengine.format import INPUT, VAR, TmGraph
from facekiln.chips.tengine.simulate import Simulation
from facekiln.errors import KilnError
from facekiln.progress import progress_bar
from facekiln.quant import thresholds

BINS = 2048
Feed = NDArray[np.float32]


@dataclass
class Range:
    """One activation.

    Attributes:
        low, high: extremes over all pictures, float32.
        elements: how many values it has in one picture.
        signed: the tools' histogram of x between the extremes, for uint8; zeros are not counted.
        absolute: theirs of |x|, for int8; zeros are not counted.
        magnitudes: ours of |x|, see `facekiln.quant.thresholds`.
    """

    low: np.float32
    high: np.float32
    elements: int
    signed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    absolute: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    magnitudes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(thresholds.BINS, np.int64))

    @property
    def largest(self) -> np.float32:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))


def activations(graph: TmGraph) -> list[str]:
    """Return the names of what is quantised by range, in the file's order."""
    return [tensor.name or "" for tensor in graph.tensors if tensor.kind in (VAR, INPUT)]


def _count_ours(found: Range, values: Feed) -> None:
    found.magnitudes += thresholds.folded(thresholds.signed_counts(values, float(found.largest)))


def _count(found: Range, values: Feed) -> None:
    values = values[values != 0]
    span = found.high - found.low
    if span > 0:
        width = np.float32(span / np.float32(BINS - 1))
        places = (values / width + np.float32(int(-found.low / width))).astype(np.int64)
        found.signed += np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)
    if found.largest > 0:
        width = np.float32(found.largest / np.float32(BINS - 1))
        places = np.floor(np.abs(values) / width + np.float32(0.5)).astype(np.int64)
        found.absolute += np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)


def measure_ranges(
    graph: TmGraph, pictures: Callable[[], Iterable[Feed]], count: int, *, histograms: str | None = None
) -> dict[str, Range]:
    """Run a file on pictures and return the range of every activation by name.

    Args:
        graph: an fp32 file.
        pictures: gives the network's inputs, float32 [1, C, H, W], anew at each call.
        count: how many it gives, for the bar.
        histograms: whether a second pass counts values: None, "tool" (for the tools' KL) or "ours".

    Raises:
        KilnError: there is no picture, an activation is not finite, or the file cannot be simulated.
    """
    simulation = Simulation(graph, intermediates=True)
    found: dict[str, Range] = {}
    with progress_bar(count * (2 if histograms else 1), "ranges", "picture") as bar:
        for feed in pictures():
            for name, values in _all(simulation, feed).items():
                low, high = values.min(), values.max()
                if not (np.isfinite(low) and np.isfinite(high)):
                    raise KilnError("an activation is not finite", where=f"tensor '{name}'")
                known = found.get(name)
                if known is None:
                    found[name] = Range(np.float32(low), np.float32(high), values.size)
                else:
                    known.low, known.high = min(known.low, low), max(known.high, high)
            bar.update(1)
        if not found:
            raise KilnError("no calibration picture", hint="make a set: facekiln calibration make")
        for feed in pictures() if histograms else ():
            for name, values in _all(simulation, feed).items():
                (_count if histograms == "tool" else _count_ours)(found[name], values.ravel())
            bar.update(1)
    return found


def _all(simulation: Simulation, feed: Feed) -> dict[str, Feed]:
    return {simulation.input: feed, **simulation.run(feed)}
