"""What may be wrong with one picture and its boxes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.data.declared import Rules
from facekiln.data.near import fingerprint
from facekiln.data.sample import Dataset, Mask, Sample
from facekiln.errors import KilnError


@dataclass(frozen=True)
class Fault:
    """One finding: its kind (a field of `Rules`), where, what exactly; `face` where it is about one box."""

    kind: str
    source: str
    detail: str
    face: int | None = None


@dataclass(frozen=True, eq=False)
class Examined:
    """One sample after a look at it.

    Attributes:
        source: its name.
        faults: what is wrong with it by itself.
        sample: its annotation (a drawn picture is let go), or None where that does not parse.
        size: (height, width) of the picture, where it was read or the annotation states it.
        sha256: of the picture's file; of the array where it was drawn; "" where it was not read.
        near: see `facekiln.data.near.fingerprint`.
        dropped: faces left out by rule.
        clipped: boxes cut at the picture's edge by rule, by face.
    """

    source: str
    faults: list[Fault]
    sample: Sample | None = None
    size: tuple[int, int] | None = None
    sha256: str = ""
    near: int | None = None
    dropped: tuple[int, ...] = ()
    clipped: dict[int, tuple[float, ...]] = field(default_factory=dict)


def examine(dataset: Dataset, index: int, rules: Rules, pictures: bool) -> Examined:
    """Look at one sample: its annotation, its picture (if `pictures`), its boxes."""
    source = dataset.sources[index]
    try:
        sample = dataset[index]
    except KilnError as error:
        return Examined(source, [Fault("broken_annotation", source, error.what)])
    size, sha256, near = sample.size, "", None
    kept = sample if isinstance(sample.picture, Path) else replace(sample, picture=Path(source))
    faults: list[Fault] = []
    if pictures:
        if isinstance(sample.picture, Path) and not sample.picture.is_file():
            return Examined(source, [Fault("missing_image", source, "no such file")], kept, size)
        try:
            picture = sample.load()
        except KilnError as error:
            return Examined(source, [Fault("corrupt_image", source, error.what)], kept, size)
        size = picture.shape[0], picture.shape[1]
        if sample.size and sample.size != size:
            detail = f"annotation says {_wide(sample.size)}, the picture is {_wide(size)}"
            faults.append(Fault("size_mismatch", source, detail))
        sha256, near = sample.sha256(picture), fingerprint(picture)
    found, dropped, clipped = _boxes(sample, size, rules)
    faults += found
    if len(dropped) == len(sample):
        detail = "no face is left" if len(sample) else "no face is annotated"
        faults.append(Fault("empty_annotation", source, detail))
    return Examined(source, faults, kept, size, sha256, near, dropped, clipped)


def _wide(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def inside(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return [n,4] boxes cut at the edges of a picture of (height, width)."""
    height, width = size
    return np.clip(boxes, 0, [width, height, width, height])


def flat(boxes: NDArray[np.float64]) -> Mask:
    """Tell which of [n,4] boxes have no width or no height."""
    return np.asarray((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))


def _boxes(
    sample: Sample, size: tuple[int, int] | None, rules: Rules
) -> tuple[list[Fault], tuple[int, ...], dict[int, tuple[float, ...]]]:
    boxes, count = sample.boxes, len(sample)
    cut = inside(boxes, size) if size else boxes
    degenerate = flat(boxes) | flat(cut)
    outside = (cut != boxes).any(axis=1) & ~degenerate
    again = np.ones(count, bool)
    again[np.unique(boxes, axis=0, return_index=True)[1]] = False
    marks = {"degenerate_box": degenerate, "outside_box": outside, "duplicate_box": again & ~degenerate}
    frame = f" in {_wide(size)}" if size else ""
    faults = [
        Fault(kind, sample.source, " ".join(f"{value:g}" for value in boxes[face]) + frame, face=int(face))
        for kind, mask in marks.items()
        for face in np.flatnonzero(mask)
    ]
    leave = np.zeros(count, bool)
    for kind, mask in marks.items():
        if getattr(rules, kind) in ("skip", "refuse"):
            leave |= mask
    clip = outside & ~leave if rules.outside_box == "clip" else np.zeros(count, bool)
    clipped = {int(face): tuple(cut[face].tolist()) for face in np.flatnonzero(clip)}
    return faults, tuple(np.flatnonzero(leave).tolist()), clipped
