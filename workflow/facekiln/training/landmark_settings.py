"""The `landmarks` section of a training recipe with types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KINDS = ("wing", "pfld")
UNITS = ("share", "pixel")
SQUARES = ("box", "landmarks", "auto")


@dataclass(frozen=True)
class LandmarkLoss:
    """What is minimised; see `facekiln.training.landmark_losses`.

    Attributes:
        kind: "wing" (PFPLD) or "pfld".
        width: of the wing loss's logarithmic part, in `unit`.
        epsilon: its curvature, in `unit`.
        eyes: factor of the distance of lid points.
        unit: "share": coordinates in shares of the crop's side, which PFPLD's published code takes, so that
            its width of 10 is never reached and the logarithm is nearly a line; "pixel": in pixels of the
            crop.
        points: weight of the landmarks.
        pose: weight of the pose.
    """

    kind: str = "wing"
    width: float = 10.0
    epsilon: float = 2.0
    eyes: float = 5.0
    unit: str = "share"
    points: float = 1.0
    pose: float = 1000.0


@dataclass(frozen=True)
class CropSettings:
    """The square that is cut around a face, and how it is varied in training.

    Attributes:
        around: "box": the face's box, by the model's declared crop; "landmarks": the box around the
            landmarks, times `margin`; "auto": the face's box where the dataset annotates one.
        margin: side of the square over the longer side of the landmarks.
        shift: largest, a share of the square's side, in x and in y.
        scale: least and largest factor of the square's side.
        turn: largest, degrees.
        mirror: share of the crops.
    """

    around: str = "auto"
    margin: float = 1.2
    shift: float = 0.06
    scale: tuple[float, float] = (0.9, 1.15)
    turn: float = 20.0
    mirror: float = 0.5


@dataclass(frozen=True)
class LookSettings:
    """Shares of the crops that are changed; a patch hides a part of the face."""

    light: float = 0.5
    grey: float = 0.1
    blur: float = 0.2
    noise: float = 0.2
    patch: float = 0.2


@dataclass(frozen=True)
class LandmarkSettings:
    """The whole section.

    Attributes:
        pictures: crops per batch.
        loss, crop, look: see there.
        balance: draw faces by the weights of `facekiln.data.balance`; otherwise each once per pass.
        closed_eyes: datasets of which only faces with a closed eye are taken.
        least_face: a face whose square is smaller is left out, pixels.
    """

    pictures: int
    loss: LandmarkLoss
    crop: CropSettings
    look: LookSettings
    balance: bool = True
    closed_eyes: tuple[str, ...] = ()
    least_face: float = 24.0


def make_settings(value: Mapping[str, Any]) -> LandmarkSettings:
    """Return the typed form of a checked `landmarks` section."""
    crop = dict(value["crop"])
    low, high = sorted(crop.pop("scale"))
    return LandmarkSettings(
        pictures=value["pictures"],
        loss=LandmarkLoss(**value["loss"]),
        crop=CropSettings(scale=(float(low), float(high)), **crop),
        look=LookSettings(**value["look"]),
        balance=value["balance"],
        closed_eyes=tuple(value["closed_eyes"]),
        least_face=value["least_face"],
    )
