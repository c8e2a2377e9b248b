"""Gates on parity figures: limits come from the config, verdicts are `passed`, `warned` or `failed`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facekiln.parity.agreement import Agreement
from facekiln.parity.measure import Measure
from facekiln.verdict import WARNED, at_least, at_most


@dataclass(frozen=True)
class Gate:
    """One verdict.

    Attributes:
        name: what was judged, e.g. "opencv loc cosine".
        value: the figure.
        limit: what it had to reach, or stay under.
        verdict: "passed", "warned" or "failed".
    """

    name: str
    value: float
    limit: float
    verdict: str


def judge_outputs(outputs: Mapping[str, Measure], limits: Mapping[str, Any], reader: str) -> list[Gate]:
    """Judge each output's figures.

    Args:
        outputs: per output the worst figures over all pictures.
        limits: any of `cosine` (least), `max_rel` (most), `warn_cosine` (least; a warning only).
        reader: what ran the child, for the gate's name.
    """
    gates: list[Gate] = []
    for output, figures in outputs.items():
        if "cosine" in limits:
            gates.append(_at_least(f"{reader} {output} cosine", figures.cosine, limits["cosine"]))
        if "max_rel" in limits:
            gates.append(
                _at_most(f"{reader} {output} max error of scale", figures.max_rel, limits["max_rel"])
            )
        if "warn_cosine" in limits and figures.cosine < limits["warn_cosine"]:
            gates.append(Gate(f"{reader} {output} cosine", figures.cosine, limits["warn_cosine"], WARNED))
    return gates


def judge_faces(faces: Agreement, limits: Mapping[str, Any], reader: str) -> list[Gate]:
    """Judge whether the same faces are found: least `found`, most `invented`, least `mean_iou`."""
    gates = [
        _at_least(f"{reader} faces found", faces.found, limits["found"]),
        _at_most(f"{reader} faces invented", faces.invented, limits["invented"]),
    ]
    if faces.parent or faces.child:
        gates.append(_at_least(f"{reader} mean IoU of faces", faces.mean_iou, limits["mean_iou"]))
    return gates


def _at_least(name: str, value: float, limit: float) -> Gate:
    return Gate(name, value, limit, at_least(value, limit))


def _at_most(name: str, value: float, limit: float) -> Gate:
    return Gate(name, value, limit, at_most(value, limit))
