"""The outputs of a file as its consumer wants them: order and names, by role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from facekiln.chips.tengine.format import TmGraph
from facekiln.config import Model
from facekiln.errors import KilnError

_DETECTOR = {4: "boxes", 2: "scores", 10: "landmarks"}
_POSE_VALUES = 3


def roles_of(model: Model, shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Return each output's role by name, told from the number of its values.

    Args:
        model: with priors: boxes, scores, landmarks; without: points and pose.
        shapes: of the outputs.

    Raises:
        KilnError: an output is of no role, or two are of one.
    """
    roles: dict[str, str] = {}
    for name in model.outputs:
        if name not in shapes:
            raise KilnError(
                f"its outputs are not those of '{model.name}'",
                value=sorted(shapes),
                limit=list(model.outputs),
            )
        last = shapes[name][-1]
        role = _DETECTOR.get(last) if model.priors else "pose" if last == _POSE_VALUES else "points"
        if role is None or role in roles.values():
            raise KilnError(
                "is of no role, or of one that another has",
                where=f"output '{name}'",
                value=list(shapes[name]),
            )
        roles[name] = role
    return roles


def check_size(size: tuple[int, int], name: str, consumer: Mapping[str, Any]) -> None:
    """Refuse a size that the consumer does not feed: it would fail on the board, in shape inference.

    Raises:
        KilnError: it feeds another.
    """
    if list(size) != list(consumer.get("size", size)):
        raise KilnError(
            f"consumer '{name}' feeds pictures of one size only",
            file="config/chips/tengine.yaml",
            where=f"consumers.{name}.size",
            value=list(size),
            limit=consumer["size"],
            hint="declare that size in the model's file, or choose another consumer",
        )


def ordered(model: Model, roles: Mapping[str, str], consumer: Mapping[str, Any]) -> list[str]:
    """Return the outputs in the consumer's order; those that it does not name follow as the model has them.

    Raises:
        KilnError: the consumer names a role that the model has not.
    """
    by_role = {role: name for name, role in roles.items()}
    missing = [
        role for role in (*consumer.get("order", ()), *consumer.get("names", {})) if role not in by_role
    ]
    if missing:
        raise KilnError(
            f"the consumer wants an output that model '{model.name}' has not",
            file="config/chips/tengine.yaml",
            where="consumers",
            value=missing[0],
            limit=", ".join(by_role),
            hint="choose another consumer for this model",
        )
    first = [by_role[role] for role in consumer.get("order", ())]
    return first + [name for name in model.outputs if name not in first]


def rename(graph: TmGraph, roles: Mapping[str, str], consumer: Mapping[str, Any]) -> dict[str, str]:
    """Give the outputs the consumer's names, in place, and return the model's names by those in the file.

    Raises:
        KilnError: a name is taken by another tensor.
    """
    wanted = consumer.get("names", {})
    names: dict[str, str] = {}
    for tensor in graph.output_tensors():
        own = tensor.name or ""
        name = wanted.get(roles[own], own)
        if name != own and any(other.name == name for other in graph.tensors):
            raise KilnError("another tensor has this name", where=f"consumers, {roles[own]}", value=name)
        tensor.name = name
        names[name] = own
    return names
