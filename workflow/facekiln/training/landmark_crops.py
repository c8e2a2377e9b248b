"""The square crop of a face for a landmark model: as it is used, and varied for training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facekiln.config import Crop
from facekiln.data.head import rotation
from facekiln.data.landmarks import mirror
from facekiln.training.landmark_looks import change_looks
from facekiln.training.landmark_settings import CropSettings, LandmarkSettings
from facekiln.vision.landmarks import Square, cut

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """A square crop of one face.

    Attributes:
        image: uint8 BGR [side,side,3].
        points: float64 [k,2], shares of the crop's side; NaN where not known.
        pose: float64 [3] yaw, pitch, roll in radians; NaN where not known.
    """

    image: Picture
    points: Floats
    pose: Floats


def turned_pose(pose: Floats, angle: float) -> Floats:
    """Return the pose of a head in a picture turned clockwise by `angle` radians.

    Of a frontal head only the roll grows. Of any other the picture's axis is not the head's own: yaw and
    pitch pass into each other, and the angles are read off the turned rotation, R = Rx(pitch) Ry(yaw)
    Rz(roll) as in 300W-LP.
    """
    if np.isnan(pose).any():
        return pose
    flip = np.diag([1.0, -1.0, 1.0])
    turned = flip @ rotation((0.0, 0.0, angle)) @ rotation((pose[0], pose[1], pose[2])) @ flip
    yaw = math.asin(float(np.clip(-turned[0, 2], -1, 1)))
    return np.array([yaw, math.atan2(turned[1, 2], turned[2, 2]), math.atan2(turned[0, 1], turned[0, 0])])


def mirrored_pose(pose: Floats) -> Floats:
    """Return the pose of a head in a picture mirrored left to right: yaw and roll change their signs."""
    return pose * np.array([-1.0, 1.0, -1.0])


def place(box: Floats, extent: Floats, boxed: bool, declared: Crop, settings: CropSettings) -> Floats:
    """Return the square of a face, [3]: centre x, centre y and side, pixels, not rounded.

    Where the dataset annotates a face's box, the square is the one that the model's declared `crop` cuts
    around a detector's box. Where it has landmarks only, it is the square around these times `margin`, as
    PFPLD's data is prepared (nniefacelib `PFPLD/data/SetPreparation.py`: 1.2).

    Args:
        box: [4] x1, y1, x2, y2.
        extent: [4], the box around the annotated landmarks; NaN where there are none, and the box decides.
        boxed: whether the box was annotated for itself.
        declared: the model's.
        settings: which of both.
    """
    by_box = settings.around == "box" or (settings.around == "auto" and boxed)
    x1, y1, x2, y2 = (box if by_box or np.isnan(extent).any() else extent).tolist()
    longer = max(x2 - x1, y2 - y1)
    if by_box or np.isnan(extent).any():
        side = declared.side * longer
        return np.array([(x1 + x2) / 2, (y1 + y2) / 2 + side * (0.5 - declared.above), side])
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, settings.margin * longer])


def plain_crop(picture: Picture, where: Floats, points: Floats, pose: Floats, side: int) -> FaceCrop:
    """Cut a face out as it is done in use (`facekiln.vision.landmarks.cut`).

    Args:
        picture: uint8 BGR [h,w,3].
        where: [3] centre x, centre y, side of the square, pixels.
        points: [k,2] pixels, NaN where not known.
        pose: [3] radians.
        side: of the crop, pixels.
    """
    x, y, length = where.tolist()
    square = Square(round(x - length / 2), round(y - length / 2), max(1, round(length)))
    image = cut(picture, square, (side, side))
    return FaceCrop(image, (points - [square.x, square.y]) / square.side, pose)


def turned_crop(
    picture: Picture, where: Floats, points: Floats, pose: Floats, side: int, angle: float
) -> FaceCrop:
    """Cut a face out of the picture turned clockwise by `angle` radians about the square's centre.

    The upright square that holds the turned one is cut first, so that shrinking averages areas as in use.
    """
    grown = abs(math.cos(angle)) + abs(math.sin(angle))
    outer = round(side * grown)
    whole = plain_crop(picture, where * [1, 1, outer / side], points, pose, outer)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    # On the plane, where pixel i covers i to i + 1; OpenCV counts from the middle of pixel 0.
    shift = np.array([side, side]) / 2 - turn @ np.array([outer, outer]) / 2
    matrix = np.column_stack([turn, turn @ [0.5, 0.5] + shift - 0.5])
    image = cv2.warpAffine(whole.image, matrix, (side, side), flags=cv2.INTER_LINEAR)
    placed = (whole.points * outer @ turn.T + shift) / side
    return FaceCrop(np.asarray(image, np.uint8), placed, turned_pose(pose, angle))


def mirrored_crop(crop: FaceCrop) -> FaceCrop:
    """Return the crop mirrored left to right, its points (68, 98 or 106) re-numbered."""
    image = np.ascontiguousarray(crop.image[:, ::-1])
    return FaceCrop(image, mirror(crop.points, 1.0, str(len(crop.points))), mirrored_pose(crop.pose))


def training_crop(
    rng: np.random.Generator,
    picture: Picture,
    where: Floats,
    points: Floats,
    pose: Floats,
    side: int,
    settings: LandmarkSettings,
) -> FaceCrop:
    """Cut a face out with a random shift, scale, turn, mirroring and look; `rng` decides everything.

    Args as of `plain_crop`; `where` is the square as it would be in use.
    """
    ways = settings.crop
    low, high = np.log(ways.scale)
    length = where[2] * np.exp(rng.uniform(low, high))
    centre = where[:2] + rng.uniform(-ways.shift, ways.shift, 2) * where[2]
    angle = math.radians(float(rng.uniform(-ways.turn, ways.turn)))
    crop = turned_crop(picture, np.array([*centre, length]), points, pose, side, angle)
    if rng.random() < ways.mirror:
        crop = mirrored_crop(crop)
    return FaceCrop(change_looks(rng, crop.image, settings.look), crop.points, crop.pose)
