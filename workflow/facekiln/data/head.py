"""The geometry of a made-up head: 98 landmarks in the WFLW order, a pose, and their projection.

Head frame: x to the picture's right, y down, z toward the camera; half a face's width is 1 and the origin
lies between the eyes, inside the skull. Everything here is exact, so that a drawn face needs no annotator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

CONTOUR = slice(0, 33)
LEFT_BROW = slice(33, 42)
RIGHT_BROW = slice(42, 51)
NOSE_BRIDGE = slice(51, 55)
NOSE_BASE = slice(55, 60)
LEFT_EYE = slice(60, 68)
RIGHT_EYE = slice(68, 76)
OUTER_LIPS = slice(76, 88)
INNER_LIPS = slice(88, 96)
PUPILS = slice(96, 98)

# Left eye, right eye, nose tip, left and right corner of the mouth, as the picture shows them.
FIVE = (96, 97, 54, 76, 82)

# Landmark i of a mirrored picture is landmark MIRROR_98[i] of the original.
MIRROR_98: tuple[int, ...] = (
    *range(32, -1, -1),
    *(46, 45, 44, 43, 42, 50, 49, 48, 47),
    *(37, 36, 35, 34, 33, 41, 40, 39, 38),
    *(51, 52, 53, 54),
    *(59, 58, 57, 56, 55),
    *(72, 71, 70, 69, 68, 75, 74, 73),
    *(64, 63, 62, 61, 60, 67, 66, 65),
    *(82, 81, 80, 79, 78, 77, 76, 87, 86, 85, 84, 83),
    *(92, 91, 90, 89, 88, 95, 94, 93),
    *(97, 96),
)
MIRROR_5 = (1, 0, 2, 4, 3)


@dataclass(frozen=True)
class Shape:
    """Proportions and expression of one head; lengths in half face widths."""

    jaw_power: float = 0.7
    jaw_height: float = 1.4
    forehead: float = 0.85
    eye_gap: float = 0.42
    eye_width: float = 0.2
    eye_open: float = 0.075
    gaze: tuple[float, float] = (0.0, 0.0)
    brow_height: float = 0.3
    brow_slope: float = 0.0
    brow_thick: float = 0.07
    nose_length: float = 0.5
    nose_width: float = 0.2
    nose_depth: float = 0.36
    mouth_y: float = 0.8
    mouth_width: float = 0.36
    mouth_open: float = 0.0
    smile: float = 0.0
    lips: float = 1.0


def random_shape(rng: np.random.Generator) -> Shape:
    """Draw proportions and an expression."""
    u = rng.uniform
    mouth_open = float(u(0.04, 0.3)) if rng.random() < 0.35 else 0.0
    return Shape(
        jaw_power=float(u(0.58, 0.86)),
        jaw_height=float(u(1.25, 1.5)) + 0.4 * mouth_open,
        forehead=float(u(0.7, 0.98)),
        eye_gap=float(u(0.38, 0.46)),
        eye_width=float(u(0.17, 0.23)),
        eye_open=float(u(0.008, 0.03) if rng.random() < 0.08 else u(0.05, 0.11)),
        gaze=(float(u(-0.07, 0.07)), float(u(-0.02, 0.02))),
        brow_height=float(u(0.22, 0.36)),
        brow_slope=float(u(-0.07, 0.07)),
        brow_thick=float(u(0.04, 0.1)),
        nose_length=float(u(0.42, 0.58)),
        nose_width=float(u(0.16, 0.25)),
        nose_depth=float(u(0.26, 0.44)),
        mouth_y=float(u(0.76, 0.86)),
        mouth_width=float(u(0.29, 0.44)),
        mouth_open=mouth_open,
        smile=float(u(-0.04, 0.09)),
        lips=float(u(0.6, 1.3)),
    )


def surface_depth(x: Points, y: Points) -> Points:
    """Return z of the front of the head, without nose, at (x, y)."""
    inside = 1.0 - (x / 1.08) ** 2 - ((y - 0.05) / 1.6) ** 2
    return -0.35 + 1.1 * np.sqrt(np.maximum(inside, 0.02))


def on_surface(x: Points, y: Points, above: float | Points = 0.0) -> Points:
    """Return [n,3] points on the front of the head, lifted by `above` toward the camera."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.stack([x, y, surface_depth(x, y) + above], axis=1)


def _contour(shape: Shape) -> Points:
    angle = np.pi * np.arange(33) / 32
    cos, sin = np.cos(angle), np.sin(angle)
    x = -np.sign(cos) * np.abs(cos) ** shape.jaw_power
    y = -0.15 + shape.jaw_height * sin
    return np.stack([x, y, -0.35 + 0.75 * np.abs(sin) ** 1.4], axis=1)


def _brow(shape: Shape) -> Points:
    """The left brow: upper edge from the outer end inward, lower edge back."""
    t = np.linspace(0, 1, 5)
    x = -(shape.eye_gap + 0.32) + t * 0.56
    arch = 0.09 * np.sin(np.pi * (0.15 + 0.75 * t))
    upper = -0.1 - shape.brow_height + 0.05 - arch + shape.brow_slope * (t - 0.5)
    inner = np.linspace(1, 0.22, 4)
    lower_y = np.interp(inner, t, upper) + shape.brow_thick * np.array([1.0, 1.0, 0.95, 0.7])
    lower_x = np.interp(inner, t, x)
    return on_surface(np.concatenate([x, lower_x]), np.concatenate([upper, lower_y]), 0.03)


def _eye(shape: Shape) -> Points:
    """The left eye: outer corner, upper lid inward, inner corner, lower lid back."""
    x = np.array([-1.0, -0.5, 0.0, 0.5, 1.0, 0.5, 0.0, -0.5]) * shape.eye_width - shape.eye_gap
    upper = np.array([0.0, -0.8, -1.0, -0.75, 0.25, 0.0, 0.0, 0.0]) * shape.eye_open
    lower = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.65, 0.75, 0.6]) * shape.eye_open
    return on_surface(x, -0.1 + upper + lower, -0.05)


def _mirrored(left: Points, order: tuple[int, ...]) -> Points:
    """The right-hand copy of a left-hand part; `order` re-numbers its points."""
    return left[list(order)] * np.array([-1.0, 1.0, 1.0])


def _nose(shape: Shape) -> Points:
    t = np.linspace(0, 1, 4)
    bridge_y = -0.12 + t * shape.nose_length
    bridge = np.stack([np.zeros(4), bridge_y, 0.72 + shape.nose_depth * t**1.3], axis=1)
    x = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) * shape.nose_width
    base_y = bridge_y[-1] + np.array([0.07, 0.12, 0.14, 0.12, 0.07])
    base_z = 0.7 + shape.nose_depth * np.array([0.1, 0.4, 0.55, 0.4, 0.1])
    return np.concatenate([bridge, np.stack([x, base_y, base_z], axis=1)])


def _lips(shape: Shape) -> Points:
    w, gap = shape.mouth_width, shape.mouth_open
    outer_x = np.array([-1.0, -0.6, -0.22, 0.0, 0.22, 0.6, 1.0, 0.62, 0.28, 0.0, -0.28, -0.62]) * w
    upper = np.array([0.0, -0.07, -0.11, -0.09, -0.11, -0.07, 0.0]) * shape.lips - 0.3 * gap
    lower = np.array([0.09, 0.13, 0.14, 0.13, 0.09]) * shape.lips + 0.7 * gap
    upper[[0, 6]] = 0.15 * gap
    outer_y = np.concatenate([upper, lower])
    inner_x = np.array([-0.86, -0.4, 0.0, 0.4, 0.86, 0.4, 0.0, -0.4]) * w
    opening = np.array([0.0, -0.3, -0.32, -0.3, 0.0, 0.65, 0.7, 0.65]) * gap
    opening += np.array([0.0, -0.01, -0.01, -0.01, 0.0, 0.01, 0.01, 0.01])
    opening[[0, 4]] += 0.15 * gap
    x = np.concatenate([outer_x, inner_x])
    y = shape.mouth_y + np.concatenate([outer_y, opening]) - shape.smile * (np.abs(x) / w) ** 2
    return on_surface(x, y, 0.06)


def landmarks_3d(shape: Shape) -> Points:
    """Return the 98 landmarks of a head in its own frame, [98,3], WFLW order.

    0..32 contour from the left ear over the chin, 33..50 brows, 51..59 nose, 60..75 eyes, 76..95 lips,
    96 and 97 pupils; left and right as the picture shows them (source: the WFLW annotation scheme).
    """
    brow, eye = _brow(shape), _eye(shape)
    centre = eye.mean(axis=0)
    gaze = np.array([*shape.gaze, 0.0])
    limit = np.array([0.4 * shape.eye_width, 0.3 * shape.eye_open, 0.0])
    gaze = np.clip(gaze, -limit, limit)
    pupils = np.stack([centre + gaze, centre * np.array([-1.0, 1.0, 1.0]) + gaze])
    return np.concatenate(
        [
            _contour(shape),
            brow,
            _mirrored(brow, (4, 3, 2, 1, 0, 8, 7, 6, 5)),
            _nose(shape),
            eye,
            _mirrored(eye, (4, 3, 2, 1, 0, 7, 6, 5)),
            _lips(shape),
            pupils,
        ]
    )


def hairline_3d(shape: Shape) -> Points:
    """Return the upper edge of the face, [15,3], from the left end of the contour to the right."""
    angle = np.pi * np.linspace(0, 1, 17)[1:-1]
    x = -np.cos(angle)
    y = -0.15 - shape.forehead * np.sin(angle) ** 0.7
    return np.stack([x, y, -0.35 + 0.8 * np.sin(angle) ** 0.8], axis=1)


def rotation(pose: tuple[float, float, float]) -> Points:
    """Return the rotation of a head pose (yaw, pitch, roll) in radians, [3,3], for the head frame (y down).

    Positive yaw turns the nose to the picture's left, positive pitch lifts it, positive roll tilts the head
    clockwise in the picture: the signs and the order R = Rx(pitch) Ry(yaw) Rz(roll) of 300W-LP's labels.
    """
    yaw, pitch, roll = pose
    cx, sx, cy, sy, cz, sz = (f(a) for a in (pitch, yaw, roll) for f in (np.cos, np.sin))
    about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    flip = np.diag([1.0, -1.0, 1.0])  # 300W-LP's frame has y up
    turned: Points = flip @ about_x @ about_y @ about_z @ flip
    return turned


@dataclass(frozen=True)
class View:
    """How a head is seen: rotated, then projected from `distance`, scaled to pixels and moved.

    `distance` is in half face widths from the origin of the head frame; `scale` is in pixels per half face
    width at that distance; `offset` is where the origin falls, pixels.
    """

    rotation: Points
    distance: float
    scale: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)

    def project(self, points: Points) -> Points:
        """Return where [n,3] points of the head frame appear, [n,2] pixels (pixel edges at integers)."""
        turned = np.asarray(points, np.float64) @ self.rotation.T
        near = self.distance / (self.distance - turned[:, 2:])
        return turned[:, :2] * near * self.scale + np.asarray(self.offset)

    def facing(self, point: Points, normal: Points) -> float:
        """Return how squarely a surface faces the camera: 1 head-on, 0 edge-on, negative from behind."""
        turned = self.rotation @ normal
        toward = np.array([0.0, 0.0, self.distance]) - self.rotation @ point
        return float(turned @ toward / (np.linalg.norm(turned) * np.linalg.norm(toward)))
