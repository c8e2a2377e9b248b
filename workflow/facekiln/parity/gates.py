"""Gates on parity figures: limits are the config's; verdicts `passed`, `warned`, `failed`, `skipped`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facekiln.parity.agreement import Agreement
from facekiln.parity.measure import Measure
from facekiln.verdict import FAILED, SKIPPED, WARNED, at_least, at_most


@dataclass(frozen=True)
class Gate:
    """One verdict.

    Attributes:
        name: what was judged, e.g. "opencv loc cosine".
        value: the figure.
        limit: what it had to reach, or stay under.
        verdict: "passed", "warned", "failed", or "skipped" where there was nothing to judge.
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


def judge_differences(cosines: Mapping[str, float], limits: Mapping[str, Any], reader: str) -> list[Gate]:
    """Judge what differs between pictures, of models that find no faces (`sight.cosine_of_differences`).

    Args:
        cosines: by output; empty where a single picture has no differences.
        limits: `differences` (least) where it is judged at all.
        reader: what ran the child, for the gates' names.

    Returns:
        A gate for each output; a warning where nothing at all stops this child, which is no pass.
    """
    if "differences" in limits and cosines:
        named = {f"{reader} {name} differences between pictures": value for name, value in cosines.items()}
        return [_at_least(name, value, limits["differences"]) for name, value in named.items()]
    if stops(limits):
        return []
    return [Gate(f"{reader} outputs that were judged", 0.0, 1.0, WARNED)]


def stops(limits: Mapping[str, Any]) -> bool:
    """Return whether limits stop a child by its outputs; else its faces alone decide."""
    return "cosine" in limits or "max_rel" in limits


def judge_faces(
    faces: Agreement, limits: Mapping[str, Any], reader: str, *, alone: bool = False
) -> list[Gate]:
    """Judge whether the same faces are found: least `found`, most `invented`, least `mean_iou`.

    Where the parent finds no face, no share of them can be found: the child fails if it invents some, and
    else nothing was judged, which is no pass.

    Args:
        faces: the figures.
        limits: of `found`, `invented` and `mean_iou`.
        reader: what ran the child, for the gate's name.
        alone: no other gate stops this child, so that it warns where nothing was judged.
    """
    invented = _at_most(f"{reader} faces invented", faces.invented, limits["invented"])
    if not faces.parent:
        nothing = Gate(f"{reader} faces in the parent", 0.0, 1.0, WARNED if alone else SKIPPED)
        return [invented] if invented.verdict == FAILED else [nothing]
    return [
        _at_least(f"{reader} faces found", faces.found, limits["found"]),
        invented,
        _at_least(f"{reader} mean IoU of faces", faces.mean_iou, limits["mean_iou"]),
    ]


def _at_least(name: str, value: float, limit: float) -> Gate:
    return Gate(name, value, limit, at_least(value, limit))


def _at_most(name: str, value: float, limit: float) -> Gate:
    return Gate(name, value, limit, at_most(value, limit))
