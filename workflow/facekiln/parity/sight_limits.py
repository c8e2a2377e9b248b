"""Limits of `facekiln.parity.sight`, apart from it: what reads settings that hold them need not judge."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SightLimits:
    """When a quantised file is refused.

    Attributes:
        least_faces: share of the fp32 file's faces that it has to find.
        most_invented: share of its own faces that the fp32 file may lack.
        least_cosine: of what differs between pictures in each output, for models that find no faces.
        pictures: how many of the calibration set are looked at.
    """

    least_faces: float
    most_invented: float
    least_cosine: float
    pictures: int
