"""WIDER FACE average precision: easy, medium and hard, by three protocols that are told by name.

`port` is the well-known Python port (wondervictor/WiderFace-Evaluation, biubug6/Pytorch_Retinaface), bit for
bit. `matlab` is the official tool, `octave` the same files run by GNU Octave. They differ in overlaps, in
the normalisation of scores and in the order of detections, by up to 0.12 points; figures of two protocols
are never comparable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from facekiln.evaluation.detections import Detections
from facekiln.evaluation.wider_counts import count, normalised, reach_of, sorted_detections
from facekiln.evaluation.wider_match import Matches, match
from facekiln.evaluation.wider_truth import SETTINGS, Truth

PROTOCOLS = ("port", "matlab", "octave")
# Raised when a figure of one of the protocols can change.
VERSION = "1"


@dataclass(frozen=True, eq=False)
class Precision:
    """The figures of one evaluation.

    Attributes:
        protocol: "port", "matlab" or "octave".
        ap: by setting, 0..1; NaN where no face counts.
        proposals: int64 [3, 1000], detections that count at each threshold.
        found: int64 [3, 1000], faces found at each threshold.
        totals: int64 [3], faces that count.
        detections: how many there were.
    """

    protocol: str
    ap: dict[str, float]
    proposals: NDArray[np.int64]
    found: NDArray[np.int64]
    totals: NDArray[np.int64]
    detections: int

    def curves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (recall, precision), both float64 [3, 1000]; precision is NaN where nothing was proposed."""
        return curves_of(self.proposals, self.found, self.totals)


def evaluate(detections: Detections, truth: Truth, protocol: str) -> Precision:
    """Return the average precision of a set of detections.

    Raises:
        KilnError: unknown protocol, or other pictures than the truth's.
    """
    return _Run(detections, truth, protocol).over(range(len(truth.images)))


def evaluate_events(detections: Detections, truth: Truth, protocol: str) -> dict[str, Precision]:
    """Return the same figures for each event alone; scores are normalised over the whole set."""
    run = _Run(detections, truth, protocol)
    return {event: run.over(pictures) for event, pictures in truth.events.items()}


class _Run:
    """What is computed once for a set: the matching and the normalised scores."""

    def __init__(self, detections: Detections, truth: Truth, protocol: str) -> None:
        if protocol not in PROTOCOLS:
            from facekiln.config import known  # slow to import, and needed for its suggestion only

            known(protocol, PROTOCOLS, "WIDER FACE protocol")
        self.protocol, self.truth = protocol, truth
        if len(detections.counts) != len(truth.images):
            raise ValueError(f"{len(detections.counts)} pictures, the truth has {len(truth.images)}")
        official = protocol != "port"
        self.detections = sorted_detections(detections) if official else detections
        self.matches = match(self.detections, truth, int32=official)
        self.reach = reach_of(normalised(self.detections.table[4], protocol), self.detections.starts)
        # Pictures without any box are passed over: what is detected there is no false positive.
        with_truth = truth.counts > 0
        self.counted = None if with_truth.all() else np.repeat(with_truth, detections.counts)

    def over(self, pictures: range) -> Precision:
        a, b = (int(self.detections.starts[at]) for at in (pictures.start, pictures.stop))
        first, last = np.searchsorted(self.matches.detection, (a, b))
        part = slice(int(first), int(last))
        boxes = slice(int(self.truth.starts[pictures.start]), int(self.truth.starts[pictures.stop]))
        matches = Matches(
            self.matches.detection[part] - a, self.matches.box[part] - boxes.start, self.matches.first[part]
        )
        truth = replace(self.truth, kept=self.truth.kept[:, boxes])
        counted = None if self.counted is None else self.counted[a:b]
        proposals, found = count(self.reach[a:b], counted, matches, truth)
        recall, precision = curves_of(proposals, found, truth.totals)
        areas = (
            area(recall[at], precision[at], ignore_nan=self.protocol != "port") for at in range(len(SETTINGS))
        )
        return Precision(
            self.protocol, dict(zip(SETTINGS, areas, strict=True)), proposals, found, truth.totals, b - a
        )


def curves_of(
    proposals: NDArray[np.int64], found: NDArray[np.int64], totals: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (recall, precision) of counts [k, 1000] and totals [k]; 0/0 is NaN, as in the tools."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return found / totals[:, None], found / proposals


def area(recall: NDArray[np.float64], precision: NDArray[np.float64], *, ignore_nan: bool = False) -> float:
    """Return the area under the envelope of a curve as PASCAL VOC counts it since 2010.

    The summands and their order are the port's, so that its last bit is. NaN, where nothing is proposed yet,
    stands at recall 0 and has no weight; numpy's maximum spreads it to lower recalls (port), MATLAB's passes
    it over.
    """
    if np.isnan(recall).any():
        return float("nan")
    x = np.concatenate(([0.0], recall, [1.0]))
    y = np.concatenate(([0.0], precision, [0.0]))
    greater = np.fmax if ignore_nan else np.maximum
    envelope = greater.accumulate(y[::-1])[::-1]
    steps = np.flatnonzero(x[1:] != x[:-1])
    return float(np.sum((x[steps + 1] - x[steps]) * envelope[steps + 1]))


def result_block(precision: Precision) -> str:
    """Return what the port prints, to the character."""
    lines = [f"{name.capitalize():<6} Val AP: {value}" for name, value in precision.ap.items()]
    return "\n".join([" Results ".center(49, "="), *lines, "=" * 49])
