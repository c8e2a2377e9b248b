"""How evenly a dataset covers poses, sizes and closed eyes, and weights that even it out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.data.landmarks import eye_aspect
from facekiln.data.sample import Sample

# PFPLD's authors take a LaPa picture as closed-eyed where one eye's aspect is at most this (view_lapa.py).
CLOSED = 0.1
MOST = 10.0  # largest weight beside the mean of 1; a bin of two faces must not fill every batch

_DEGREES = {"yaw": (-60, -30, -10, 10, 30, 60), "pitch": (-30, -10, 10, 30), "roll": (-30, -10, 10, 30)}
_PIXELS = (10, 16, 32, 64, 128, 256)
_BAR = 30


@dataclass(frozen=True, eq=False)
class Factor:
    """One way to divide faces.

    Attributes:
        name: e.g. "yaw".
        labels: of its bins.
        bins: int [n], the bin of each face, -1 where it is not known.
    """

    name: str
    labels: tuple[str, ...]
    bins: NDArray[np.int64]

    def counts(self) -> NDArray[np.int64]:
        """Return the faces per bin."""
        return np.bincount(self.bins[self.bins >= 0], minlength=len(self.labels))


@dataclass(frozen=True, eq=False)
class Balance:
    """The faces that count, their factors and their weights.

    Attributes:
        faces: picture and index of each face.
        factors: those that the dataset knows something about.
        weights: float64 [n], mean 1.
    """

    faces: list[tuple[str, int]]
    factors: list[Factor]
    weights: NDArray[np.float64]

    def record(self) -> dict[str, Any]:
        """Return counts by factor and bin, and the range of the weights, as JSON."""
        return {
            "faces": len(self.faces),
            "factors": {
                factor.name: {
                    **dict(zip(factor.labels, factor.counts().tolist(), strict=True)),
                    "unknown": int((factor.bins < 0).sum()),
                }
                for factor in self.factors
            },
            "weights": {"least": _least(self.weights), "most": _most(self.weights), "limit": MOST},
        }

    def text(self) -> str:
        """Return a table per factor for a person."""
        lines = []
        for factor in self.factors:
            counts, unknown = factor.counts(), int((factor.bins < 0).sum())
            known = max(int(counts.sum()), 1)
            lines.append(
                f"{factor.name}" + (f" ({unknown} of {len(factor.bins)} unknown)" if unknown else "")
            )
            for label, count in zip(factor.labels, counts.tolist(), strict=True):
                bar = "#" * round(_BAR * count / known)
                lines.append(f"  {label:>12} {count:>8} {100 * count / known:>5.1f} %  {bar}".rstrip())
        least, most = _least(self.weights), _most(self.weights)
        lines.append(f"sampling weights of {len(self.faces)} faces: {least:.2f} to {most:.2f}")
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Return source, face and weight of every face, with a header."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["source", "face", "weight"])
        for (source, face), weight in zip(self.faces, self.weights.tolist(), strict=True):
            rows.writerow([source, face, f"{weight:.6g}"])
        return text.getvalue()


def _least(weights: NDArray[np.float64]) -> float:
    return round(float(weights.min()), 6) if len(weights) else 1.0


def _most(weights: NDArray[np.float64]) -> float:
    return round(float(weights.max()), 6) if len(weights) else 1.0


def _divided(name: str, values: NDArray[np.float64], edges: Sequence[float], unit: str) -> Factor:
    bins = np.where(np.isnan(values), -1, np.digitize(values, edges))
    middle = [f"{low:g}..{high:g}" for low, high in pairwise(edges)]
    labels = [f"< {edges[0]:g}", *middle, f">= {edges[-1]:g}"]
    return Factor(name, tuple(f"{label} {unit}" for label in labels), bins.astype(np.int64))


def _columns(sample: Sample) -> dict[str, NDArray[np.float64]]:
    count = len(sample)
    pose = np.full((count, 3), np.nan) if sample.pose is None else sample.pose
    marks = sample.landmarks
    eyes = eye_aspect(marks.points, marks.scheme) if marks else np.full((count, 2), np.nan)
    columns = {
        "size": (sample.boxes[:, 2:] - sample.boxes[:, :2]).max(axis=1) if count else np.zeros(0),
        "eyes": eyes.min(axis=1),
        **{name: np.rad2deg(pose[:, at]) for at, name in enumerate(("yaw", "pitch", "roll"))},
    }
    whole = {name: v for name, v in sample.attributes.items() if np.asarray(v).dtype.kind in "iub"}
    return columns | {f"attribute {name}": np.asarray(v, np.float64) for name, v in whole.items()}


def balance(samples: Iterable[Sample]) -> Balance:
    """Divide the faces that are not ignored by yaw, pitch, roll (degrees), size (longer side, px) and eyes.

    Eyes are closed where the aspect of one of them is at most `CLOSED` (needs landmarks of the lids).
    Attributes with whole values are counted too, but do not enter the weights.

    A face's weight is the mean, over the factors in which it is known, of 1 / (share of its bin x number of
    bins in use), cut at `MOST` and scaled to a mean of 1. It is PFLD's rule (a sample weighs the inverse
    frequency of each class that it belongs to) with bins for classes; PFPLD's authors themselves sample
    evenly, and even the data out by adding pictures of the rare kinds.
    """
    faces: list[tuple[str, int]] = []
    parts: list[dict[str, NDArray[np.float64]]] = []
    for sample in samples:
        counting = np.flatnonzero(~sample.ignore)
        faces += [(sample.source, int(face)) for face in counting]
        parts.append({name: values[counting] for name, values in _columns(sample).items()})
    table = {
        name: np.concatenate(
            [part.get(name, np.full(len(part["size"]), np.nan)) for part in parts] or [np.zeros(0)]
        )
        for name in dict.fromkeys(name for part in parts for name in part)
    }
    factors = _factors(table)
    weighing = [factor for factor in factors if not factor.name.startswith("attribute ")]
    return Balance(faces, factors, _weights(weighing, len(faces)))


def _factors(table: dict[str, NDArray[np.float64]]) -> list[Factor]:
    factors = [
        *(_divided(name, table[name], edges, "deg") for name, edges in _DEGREES.items() if name in table),
        *([_divided("size", table["size"], _PIXELS, "px")] if "size" in table else []),
    ]
    if "eyes" in table:
        bins = np.where(np.isnan(table["eyes"]), -1, table["eyes"] > CLOSED)
        factors.append(Factor("eyes", ("closed", "open"), bins.astype(np.int64)))
    for name, values in table.items():
        if name.startswith("attribute "):
            found = np.unique(values[~np.isnan(values)])
            bins = np.where(np.isnan(values), -1, np.searchsorted(found, values))
            factors.append(Factor(name, tuple(f"{value:g}" for value in found), bins.astype(np.int64)))
    return [factor for factor in factors if (factor.bins >= 0).any()]


def inverse_shares(factors: Iterable[Factor], faces: int) -> NDArray[np.float64]:
    """Return per face the mean of 1 / (share of its bin x bins in use) over the factors that know it.

    1 where none does. Source: PFLD, arXiv:1902.10859, section 3.1, with bins for classes.
    """
    total, known = np.zeros(faces), np.zeros(faces)
    for factor in factors:
        counts, has = factor.counts(), factor.bins >= 0
        share = counts / max(int(counts.sum()), 1)
        total[has] += 1 / (share[factor.bins[has]] * (counts > 0).sum())
        known += has
    return np.divide(total, known, out=np.ones(faces), where=known > 0)


def _weights(factors: list[Factor], faces: int) -> NDArray[np.float64]:
    weights = inverse_shares(factors, faces)
    for _ in range(100 if faces else 0):  # what is cut off the rarest is spread over the others, and so on
        weights = np.minimum(weights / weights.mean(), MOST)
        if abs(weights.mean() - 1) < 1e-9:
            break
    return weights
