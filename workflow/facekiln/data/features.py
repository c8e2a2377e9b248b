"""Painting the parts of one head: skull, ears, neck, skin, eyes, mouth and nose, then light over them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from facekiln.data import head
from facekiln.data.brush import SHIFT, Canvas, fixed, hull, smooth
from facekiln.data.head import Points, Shape, View
from facekiln.data.looks import Looks

_IRIS = 0.085  # radius, in half face widths


@dataclass(frozen=True)
class Sitter:
    """All that one head is drawn from."""

    shape: Shape
    looks: Looks
    view: View
    seed: int

    def landmarks(self) -> Points:
        """Return the 98 landmarks in the scene, [98,2] pixels."""
        return self.view.project(head.landmarks_3d(self.shape))

    def outline(self) -> Points:
        """Return the points that bound the face: contour, hairline and every landmark, [n,2] pixels."""
        return self.view.project(
            np.concatenate([head.landmarks_3d(self.shape), head.hairline_3d(self.shape)])
        )


def shade(colour: tuple[float, ...], factor: float) -> tuple[float, ...]:
    """Return a colour made darker or lighter."""
    return tuple(min(255.0, channel * factor) for channel in colour)


class Painter:
    """Paints one sitter; lengths given in half face widths."""

    def __init__(self, sitter: Sitter, corner: tuple[int, int], zoom: int, height: int, width: int) -> None:
        self.sitter, self.looks, self.shape = sitter, sitter.looks, sitter.shape
        seen = sitter.view
        offset = ((seen.offset[0] - corner[0]) * zoom, (seen.offset[1] - corner[1]) * zoom)
        self.view = View(seen.rotation, seen.distance, seen.scale * zoom, offset)
        self.unit = self.view.scale
        self.canvas = Canvas(height * zoom, width * zoom)
        self.rng = np.random.default_rng(sitter.seed)
        self.points = head.landmarks_3d(self.shape)
        self.flat = self.view.project(self.points)
        self.roll = float(np.arctan2(*(self.flat[97] - self.flat[96])[::-1]))
        self.face = hull(
            self.view.project(
                np.concatenate([self.points[:33], head.hairline_3d(self.shape), self._cheeks()])
            )
        )

    def _cheeks(self) -> Points:
        """Points on the front of the head that bound it when it is seen from the side."""
        y, x = np.meshgrid(np.linspace(-0.75, 1.0, 8), np.linspace(-0.85, 0.85, 9))
        inside = (np.abs(x) < 0.85 * np.sqrt(np.clip(1 - ((y - 0.1) / 1.35) ** 2, 0, 1))).ravel()
        return head.on_surface(x.ravel()[inside], y.ravel()[inside])

    def _sees(self, x: float, y: float) -> bool:
        """Whether the front of the head at (x, y) faces the camera enough to be drawn on."""
        normal = np.array([1.2 * x, 0.35 * y, 1.0])
        point = np.array([x, y, head.surface_depth(np.array(x), np.array(y)).item()])
        return self.view.facing(point, normal) > 0.12

    def _skull(self, grow: float = 1.0) -> Points:
        turn = np.linspace(0, 2 * np.pi, 17)[:-1]
        rise = np.linspace(-1.3, 1.3, 7)
        angle, tilt = (grid.ravel() for grid in np.meshgrid(turn, rise))
        x, y, z = np.cos(angle) * np.cos(tilt), np.sin(tilt), np.sin(angle) * np.cos(tilt)
        ball = np.stack([1.08 * grow * x, -0.28 + 1.08 * grow * y, -0.42 + 1.0 * grow * z], axis=1)
        return hull(self.view.project(ball))

    def behind(self) -> None:
        """Neck, clothes, hair or scarf behind the face, ears."""
        looks, view, unit = self.looks, self.view, self.unit
        chin_x, chin_y = view.project(np.array([[0.0, 0.9, -0.5]]))[0]
        if looks.hair_style in ("long", "scarf"):
            colour = looks.hair if looks.hair_style == "long" else looks.hat_colour
            drop = self.rng.uniform(1.2, 2.2)
            fall = np.array([[-1.1, -0.3, -0.4], [1.1, -0.3, -0.4], [1.2, drop, -0.6], [-1.2, drop, -0.6]])
            self.canvas.polygon(smooth(hull(np.concatenate([view.project(fall), self._skull(1.06)]))), colour)
        if looks.body:
            reach = 1.9 * unit
            body = np.array([[-0.75, 0.5], [0.75, 0.5], [2.0, 0.95], [2.3, 2.4], [-2.3, 2.4], [-2.0, 0.95]])
            body = smooth(np.array([chin_x, chin_y + 0.35 * unit]) + body * reach * np.array([0.52, 0.75]))
            self.canvas.polygon(body, looks.clothes)
            neck = np.array([[-0.5, -0.8], [0.5, -0.8], [0.52, 0.9], [0.0, 1.2], [-0.52, 0.9]])
            self.canvas.polygon(np.array([chin_x, chin_y]) + neck * unit, shade(looks.skin, 0.72))
        if looks.hair_style != "bald":
            grow = {"short": 1.04, "hat": 1.0}.get(looks.hair_style, 1.1)
            self.canvas.polygon(
                self._skull(grow), looks.hat_colour if looks.hair_style == "scarf" else looks.hair
            )
        else:
            self.canvas.polygon(self._skull(0.99), shade(looks.skin, 0.93))
        if looks.ears and looks.hair_style not in ("long", "scarf"):
            for side in (-1.0, 1.0):
                at = view.project(np.array([[side * 1.02, 0.1, -0.45]]))[0]
                self.canvas.ellipse(
                    at, (0.13 * unit, 0.26 * unit), self.roll - side * 0.15, shade(looks.skin, 0.85)
                )

    def skin(self) -> None:
        """The face itself, its sockets, cheeks and beard."""
        looks, canvas, unit = self.looks, self.canvas, self.unit
        canvas.polygon(self.face, looks.skin)
        if looks.beard:
            around = np.concatenate(
                [self.points[4:29], head.on_surface(np.array([0.5, 0, -0.5]), np.full(3, 0.58))]
            )
            canvas.polygon(self.view.project(around), shade(looks.hair, 1.1), 0.75 * looks.beard, 0.06 * unit)
        for side in (-1.0, 1.0):
            if self._sees(side * self.shape.eye_gap, -0.1):
                eye = self.flat[head.LEFT_EYE if side < 0 else head.RIGHT_EYE]
                axes = (0.27 * unit * self._narrow(side), 0.17 * unit)
                canvas.ellipse(eye.mean(axis=0), axes, self.roll, shade(looks.skin, 0.62), 0.55, 0.07 * unit)
            if self._sees(side * 0.6, 0.4):
                cheek = self.view.project(head.on_surface(np.array([side * 0.55]), np.array([0.38])))[0]
                red = (looks.skin[0] * 0.92, looks.skin[1] * 0.92, min(255.0, looks.skin[2] * 1.08))
                canvas.ellipse(
                    cheek, (0.2 * unit, 0.16 * unit), 0, red, 0.3 + 0.4 * looks.make_up, 0.1 * unit
                )

    def _narrow(self, side: float) -> float:
        eye = self.flat[head.LEFT_EYE if side < 0 else head.RIGHT_EYE]
        width = float(np.linalg.norm(eye[4] - eye[0]))
        return float(np.clip(width / (2 * self.shape.eye_width * self.unit), 0.25, 1.2))

    def eyes(self) -> None:
        """Eyes and brows, each only where its side of the face can be seen."""
        looks, canvas, unit, shape = self.looks, self.canvas, self.unit, self.shape
        brow = shade(looks.hair, 0.8) if sum(looks.hair) < 420 else shade(looks.skin, 0.6)
        for side, part, arch, pupil in (
            (-1.0, head.LEFT_EYE, head.LEFT_BROW, 96),
            (1.0, head.RIGHT_EYE, head.RIGHT_BROW, 97),
        ):
            if self._sees(side * shape.eye_gap, -0.45):
                canvas.polygon(self.flat[arch], brow, 0.85, 0.015 * unit)
            if not self._sees(side * shape.eye_gap, -0.1):
                continue
            lids = smooth(self.flat[part], rounds=1)
            canvas.polygon(lids, (225, 228, 232), 0.9)
            self._iris(lids, self.flat[pupil], self._narrow(side))
            radius = _IRIS * unit
            upper = self.flat[part][:5]
            canvas.line(upper, (20, 22, 28), (0.03 + 0.03 * looks.make_up) * unit, 0.9)
            glint = self.flat[pupil] + np.array([-0.25, -0.3]) * radius
            canvas.ellipse(glint, (0.18 * radius, 0.18 * radius), 0, (250, 250, 250), 0.9)

    def _iris(self, lids: Points, pupil: Points, narrow: float) -> None:
        """Lay an iris between its lids."""
        low = np.maximum(np.floor(lids.min(axis=0)).astype(int) - 2, 0)
        high = np.ceil(lids.max(axis=0)).astype(int) + 3
        under = self.canvas.image[low[1] : high[1], low[0] : high[0]]
        if not under.size:
            return
        eye, radius = Canvas(*under.shape[:2]), _IRIS * self.unit
        for size, colour in ((1.0, self.looks.iris), (0.45, (12, 12, 14))):
            axes = (radius * size * max(narrow, 0.5), radius * size)
            eye.ellipse(pupil - low, axes, self.roll, colour)
        inside = np.zeros(under.shape[:2], np.uint8)
        cv2.fillPoly(inside, [fixed(lids - low)], 255, cv2.LINE_AA, SHIFT)
        weight = cv2.merge([cv2.min(inside, eye.cover)] * 3).astype(np.int32)
        under[...] = under + (eye.image.astype(np.int32) - under) * weight // 255

    def mouth(self) -> None:
        """Lips, and what an open mouth shows."""
        looks, canvas, unit = self.looks, self.canvas, self.unit
        outer, inner = self.flat[head.OUTER_LIPS], self.flat[head.INNER_LIPS]
        red = (looks.skin[0] * 0.62, looks.skin[1] * 0.6, looks.skin[2] * 0.86)
        painted = tuple(
            c * (1 - looks.make_up) + p * looks.make_up for c, p in zip(red, (60, 40, 185), strict=True)
        )
        canvas.polygon(smooth(outer, rounds=1), painted, 0.9, 0.01 * unit)
        if self.shape.mouth_open > 0.02:
            canvas.polygon(inner, (25, 22, 45))
            teeth = np.concatenate([inner[:5], 0.55 * inner[4:0:-1] + 0.45 * inner[[4, 5, 6, 7]]])
            canvas.polygon(teeth, (215, 225, 230), 0.9)
        canvas.line(inner[:5], (20, 18, 38), 0.035 * unit, 0.8)
        below = self.view.project(head.on_surface(np.array([0.0]), np.array([self.shape.mouth_y + 0.28])))[0]
        canvas.ellipse(below, (0.2 * unit, 0.05 * unit), self.roll, shade(looks.skin, 0.7), 0.5, 0.04 * unit)

    def nose(self) -> None:
        """The nose: a lit ridge, a side in shadow, wings and nostrils."""
        looks, canvas, unit = self.looks, self.canvas, self.unit
        half = np.array([[0.09, -0.1, 0.7], [0.1, 0.15, 0.78]])
        for side in (-1.0, 1.0):
            edge = self.view.project(half * np.array([side, 1.0, 1.0]))
            wing = self.flat[55 if side < 0 else 59]
            flank = np.concatenate([self.flat[51:55], self.flat[57:58], wing[None], edge[::-1]])
            lit = side * looks.light[0] > 0
            canvas.polygon(flank, shade(looks.skin, 1.0 if lit else 0.72), 0.8, 0.02 * unit)
        canvas.line(self.flat[51:55], shade(looks.skin, 1.2), 0.08 * unit, 0.5)
        tip = self.flat[54]
        canvas.ellipse(tip, (0.09 * unit, 0.09 * unit), 0, shade(looks.skin, 1.18), 0.6, 0.03 * unit)
        for at in (56, 58):
            canvas.ellipse(
                self.flat[at], (0.07 * unit, 0.035 * unit), self.roll, (25, 25, 40), 0.75, 0.012 * unit
            )
        canvas.line(smooth(self.flat[55:60], closed=False), shade(looks.skin, 0.55), 0.03 * unit, 0.7)

    def light(self) -> None:
        """Light the head like a ball: brighter toward the lamp, darker away from it."""
        centre = 0.5 * (self.face.min(axis=0) + self.face.max(axis=0))
        reach = 0.62 * (self.face.max(axis=0) - self.face.min(axis=0)) + 1.0
        height, width = self.canvas.cover.shape
        u = np.clip((np.arange(width, dtype=np.float32) + 0.5 - centre[0]) / reach[0], -1, 1)[None, :]
        v = np.clip((np.arange(height, dtype=np.float32) + 0.5 - centre[1]) / reach[1], -1, 1)[:, None]
        front = np.sqrt(np.maximum(1.0 - u * u - v * v, 0.05))
        x, y, z = self.looks.light
        gain = self.looks.ambient + self.looks.contrast * np.maximum(x * u + y * v + z * front, 0.0)
        image = self.canvas.image
        lit = cv2.multiply(image, cv2.merge([gain.astype(np.float32)] * 3), dtype=cv2.CV_8U)
        self.canvas.image = np.asarray(lit, np.uint8)
