"""How close a simulated int8 network is to its float one: outputs, and the faces found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from facekiln.config import Model
from facekiln.parity.agreement import agreement_of_outputs
from facekiln.parity.measure import measure
from facekiln.progress import progress_bar
from facekiln.quant.names import METHODS, SCHEMES
from facekiln.quant.qdq import build_qdq
from facekiln.quant.ranges import Ranges
from facekiln.quant.run import Arrays, Session
from facekiln.vision.landmarks import Square, landmarks_from_outputs


@dataclass(frozen=True)
class Closeness:
    """A child against its parent over some pictures.

    Attributes:
        sqnr_db: per output, mean over pictures, dB.
        cosine: per output, mean over pictures.
        faces: agreement of faces (see `parity.agreement.Agreement`); empty for a landmark model.
        shift: largest difference of an output value over the output's scale, mean over pictures, per output.
        points: of a landmark model, `mean_px` over all points and `worst_px` of any, in pixels of the
            network's input; empty for a detector.
    """

    sqnr_db: Mapping[str, float]
    cosine: Mapping[str, float]
    shift: Mapping[str, float]
    faces: Mapping[str, float]
    points: Mapping[str, float]

    def least_sqnr(self) -> float:
        """Return the smallest SQNR of all outputs, dB."""
        return min(self.sqnr_db.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, rounded to what they can tell."""
        return {
            "sqnr_db": {name: round(value, 3) for name, value in self.sqnr_db.items()},
            "cosine": {name: round(value, 7) for name, value in self.cosine.items()},
            "shift": {name: round(value, 7) for name, value in self.shift.items()},
            "faces": {name: round(value, 6) for name, value in self.faces.items()},
            "points": {name: round(value, 5) for name, value in self.points.items()},
        }


def closeness(parents: Sequence[Arrays], children: Sequence[Arrays], model: Model, label: str) -> Closeness:
    """Compare outputs picture by picture.

    Args:
        parents: per picture the float network's outputs by name.
        children: those of the quantised one.
        model: its outputs, priors and thresholds.
        label: the size's label.
    """
    figures = {
        name: [measure(a[name], b[name]) for a, b in zip(parents, children, strict=True)]
        for name in model.outputs
    }
    faces: Mapping[str, float] = {}
    if model.priors:
        faces = agreement_of_outputs(parents, children, model, model.size(label)).as_dict()
    return Closeness(
        sqnr_db={name: float(np.mean([one.sqnr_db for one in row])) for name, row in figures.items()},
        cosine={name: float(np.mean([one.cosine for one in row])) for name, row in figures.items()},
        shift={name: float(np.mean([one.max_rel for one in row])) for name, row in figures.items()},
        faces=faces,
        points=_points(parents, children, model, label) if model.crop else {},
    )


def _points(
    parents: Sequence[Arrays], children: Sequence[Arrays], model: Model, label: str
) -> dict[str, float]:
    """Return how far landmarks moved, in pixels of the network's input (outputs are shares of it)."""
    moved = []
    for parent, child in zip(parents, children, strict=True):
        one, other = (landmarks_from_outputs(outputs, model, Square(0, 0, 1)) for outputs in (parent, child))
        apart = other.points - one.points
        moved.append(np.linalg.norm(apart * np.array(model.size(label)[::-1]), axis=1))
    return {"mean_px": float(np.mean(moved)), "worst_px": float(np.max(moved))}


def run_all(
    network: onnx.ModelProto,
    pictures: Sequence[NDArray[np.float32]],
    progress: Callable[[int], object] | None = None,
) -> list[Arrays]:
    """Return a network's outputs for every picture; `progress` is called with 1 after each."""
    session, outputs = Session(network), []
    for picture in pictures:
        outputs.append(session.run({session.inputs[0]: picture}))
        if progress:
            progress(1)
    return outputs


def compare_methods(
    network: onnx.ModelProto,
    ranges: Ranges,
    pictures: Sequence[NDArray[np.float32]],
    model: Model,
    label: str,
    *,
    methods: Sequence[str] = METHODS,
    schemes: Sequence[str] = SCHEMES,
) -> list[dict[str, Any]]:
    """Estimate int8 by every method and scheme and compare each with float.

    Args:
        network: simplified ONNX.
        ranges: of it.
        pictures: input tensors that it was not calibrated on.
        model: of both.
        label: the size's label.
        methods: range methods.
        schemes: activation schemes.

    Returns:
        A row per combination: `method`, `scheme`, and the figures of `Closeness.as_dict`.
    """
    rows = []
    with progress_bar((1 + len(methods) * len(schemes)) * len(pictures), "int8 estimates", "run") as bar:
        parents = run_all(network, pictures, bar.update)
        for scheme in schemes:
            for method in methods:
                children = run_all(build_qdq(network, ranges, method, scheme), pictures, bar.update)
                figures = closeness(parents, children, model, label)
                rows.append({"method": method, "scheme": scheme, **figures.as_dict()})
    return rows


def methods_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of `compare_methods` for a person."""
    lines = ["SIMULATED int8 against float (SQNR in dB, mean over pictures):"]
    for row in rows:
        outputs = "  ".join(f"{name} {value:6.2f}" for name, value in row["sqnr_db"].items())
        faces = row["faces"]
        found = (
            f"  found {faces['found']:.3f}, invented {faces['invented']:.3f}, IoU {faces['mean_iou']:.3f}"
            if faces
            else "  points moved {mean_px:.2f} px, worst {worst_px:.2f} px".format(**row["points"])
            if row["points"]
            else ""
        )
        lines.append(f"  {row['scheme']:<10} {row['method']:<10} {outputs}{found}")
    return "\n".join(lines)
