"""Faces too small to learn from: the filter, and the sizes of all faces before and after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from facekiln.data.declared import SmallFaces
from facekiln.data.sample import Floats, Mask
from facekiln.errors import KilnError

_EDGES = (0, 4, 8, 10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_BAR = 40  # characters


def shorter_sides(boxes: Floats, small: SmallFaces, size: tuple[int, int] | None) -> Floats:
    """Return the shorter side of [n,4] boxes in pixels, measured as `small` says, [n].

    Args:
        boxes: in pixels of the stored picture.
        small: "original" measures there; "input" after the picture was resized to `small.input`, each axis
            by itself.
        size: (height, width) of the picture, needed for "input".

    Raises:
        KilnError: the size is needed and not known.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    if small.measure == "input":
        if size is None:
            raise KilnError(
                "faces cannot be measured at the network's input: the picture's size is not known",
                hint="read the pictures too, or use `measure: original`",
            )
        sides = sides * (np.array(small.input[::-1]) / np.array(size[::-1]))
    shortest: Floats = sides.min(axis=1)
    return shortest


def large_enough(boxes: Floats, small: SmallFaces, size: tuple[int, int] | None) -> Mask:
    """Tell which of [n,4] boxes have both sides of at least `small.least` pixels."""
    return shorter_sides(boxes, small, size) >= small.least


@dataclass(frozen=True, eq=False)
class Histogram:
    """Sizes before and after the filter.

    Attributes:
        name: the dataset's.
        small: the filter.
        edges: lower edge of each bin, pixels; the last bin is open.
        before, after: faces per bin.
        images_before, images_after: pictures that have a face.
        flat: boxes without width or height, in no bin.
    """

    name: str
    small: SmallFaces
    edges: tuple[float, ...]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    images_before: int
    images_after: int
    flat: int

    def labels(self) -> list[str]:
        """Return the bins as text."""
        ends = [f"{low:g}-{high:g}" for low, high in pairwise(self.edges)]
        return [*ends, f"{self.edges[-1]:g}+"]

    def title(self) -> str:
        """Return what is counted, in a line."""
        small = self.small
        where = (
            "stored picture" if small.measure == "original" else f"input {small.input[1]}x{small.input[0]}"
        )
        limit = f"both sides >= {small.least:g}"
        return f"{self.name}: shorter side of faces, pixels of the {where}; filter: {limit}"

    def text(self) -> str:
        """Return a table with bars for a person."""
        most = max(int(self.before.max(initial=0)), 1)
        lines = [self.title(), f"{'pixels':>9} {'before':>8} {'after':>8}"]
        for label, before, after in zip(self.labels(), self.before, self.after, strict=True):
            bar = "#" * round(_BAR * after / most)
            bar += "." * (round(_BAR * before / most) - len(bar))
            lines.append(f"{label:>9} {before:>8} {after:>8}  {bar}".rstrip())
        total, left = int(self.before.sum()), int(self.after.sum())
        lines.append(
            f"{'faces':>9} {total:>8} {left:>8}  ({total - left} left out, {_share(total - left, total)})"
        )
        lines.append(f"{'pictures':>9} {self.images_before:>8} {self.images_after:>8}  with a face")
        if self.flat:
            lines.append(f"{self.flat} boxes without width or height are not counted")
        return "\n".join([*lines, "# after the filter, . left out", ""])

    def csv(self) -> str:
        """Return the bins as comma-separated values with a header."""
        ends = [*(f"{edge:g}" for edge in self.edges[1:]), ""]
        rows = zip(self.edges, ends, self.before, self.after, strict=True)
        return "from,to,before,after\n" + "".join(f"{low:g},{high},{b},{a}\n" for low, high, b, a in rows)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def size_histogram(
    name: str, faces: Iterable[tuple[Floats, tuple[int, int] | None]], small: SmallFaces
) -> Histogram:
    """Count faces by size, before and after the filter.

    Args:
        name: the dataset's.
        faces: per picture its [n,4] boxes and its (height, width), which only `measure: input` needs.
        small: the filter; its limit is always an edge between two bins.
    """
    edges = tuple(sorted({*map(float, _EDGES), float(small.least)}))
    sides, images_before, images_after, flat = [], 0, 0, 0
    for boxes, size in faces:
        real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        flat += int((~real).sum())
        measured = shorter_sides(boxes[real], small, size)
        images_before += bool(len(measured))
        images_after += bool((measured >= small.least).any())
        sides.append(measured)
    every = np.concatenate([np.zeros(0), *sides])
    bins = [*edges, np.inf]
    before, after = (np.histogram(part, bins)[0] for part in (every, every[every >= small.least]))
    return Histogram(name, small, edges, before, after, images_before, images_after, flat)
