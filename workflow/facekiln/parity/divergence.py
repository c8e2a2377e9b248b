"""Where two stages part: the first tensor, in execution order, that fails the limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from facekiln.parity.executors import Picture, Stage
from facekiln.parity.measure import Measure, measure


@dataclass(frozen=True)
class Divergence:
    """The first diverging layer.

    Attributes:
        tensor: the child's name of it.
        parent_tensor: the parent's name of it.
        figures: how far it is off.
        compared: how many tensors were compared up to it, it included.
        previous: the last tensor before it that was still within the limit, if any.
    """

    tensor: str
    parent_tensor: str
    figures: Measure
    compared: int
    previous: str | None

    def __str__(self) -> str:
        after = f", right after {self.previous}" if self.previous else ""
        return (
            f"stages first differ at '{self.tensor}' (parent: '{self.parent_tensor}'){after}: "
            f"cosine {self.figures.cosine:.6f}, max error {self.figures.max_rel:.2e} of scale"
        )


def first_divergence(
    parent: Stage, child: Stage, picture: Picture, limits: dict[str, Any]
) -> Divergence | None:
    """Trace both stages on one picture and return the first tensor outside the limits.

    Args:
        parent: the reference.
        child: the stage that failed; its tensors are matched to the parent's by `name_in_parent`.
        picture: uint8 BGR [H, W, 3] at the network's size.
        limits: `cosine` (least; else `warn_cosine`) and `max_rel` (most), as far as given.

    Returns:
        None where every tensor that can be matched is within the limits.
    """
    reference, own = parent.trace(picture), child.trace(picture)
    least = limits.get("cosine", limits.get("warn_cosine", -1))
    compared, previous = 0, None
    for name, value in own.items():
        other = child.name_in_parent(name)
        if other is None or other not in reference or reference[other].size != value.size:
            continue
        compared += 1
        figures = measure(reference[other].reshape(-1), value.reshape(-1))
        within = figures.cosine >= least and figures.max_rel <= limits.get("max_rel", float("inf"))
        if not within:
            return Divergence(name, other, figures, compared, previous)
        previous = name
    return None
