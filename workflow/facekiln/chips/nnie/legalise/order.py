"""The order of layers: depth first, activations right behind their producers, heads last, grouped by kind.

The order of a prototxt's outputs is the order of the nodes in the `.wk`, and board code indexes by it: the
order is the ABI. A published network failed in the mapper, or gave wrong results on the board, until its
layers were sorted like this (nniefacelib's article).
"""

from __future__ import annotations

from collections.abc import Sequence

from facekiln.caffe.dataflow import INPUT, producers
from facekiln.caffe.net import Net
from facekiln.chips.nnie.legalise.graph import edit
from facekiln.provenance import Edit


def _units(net: Net) -> tuple[list[list[int]], list[list[int]]]:
    """Group each layer with the in-place layers behind it; return the groups, and which others each needs.

    In-place layers must be the only readers of what they write over (`separate_overwritten` sees to it).
    """
    unit_of: dict[int, int] = {}
    units: list[list[int]] = []
    needs: list[list[int]] = []
    for index, sources in enumerate(producers(net)):
        if net.layers[index].in_place and sources[0] != INPUT:
            unit = unit_of[sources[0]]
            units[unit].append(index)
        else:
            unit = len(units)
            units.append([index])
            needs.append([unit_of[source] for source in sources if source != INPUT])
        unit_of[index] = unit
    return units, needs


def _reached_outputs(needs: Sequence[Sequence[int]], ends: Sequence[int]) -> list[set[int]]:
    """Return, per unit, the outputs (by place in `ends`) that it leads to."""
    reached: list[set[int]] = [set() for _ in needs]
    for place, end in enumerate(ends):
        waiting = [end]
        while waiting:
            unit = waiting.pop()
            if place not in reached[unit]:
                reached[unit].add(place)
                waiting += needs[unit]
    return reached


def _visit(
    start: int, needs: Sequence[Sequence[int]], allowed: set[int], done: list[int], seen: set[int]
) -> None:
    """Append `start` and what it needs of `allowed` to `done`, needs first, without recursion."""
    stack = [(start, False)]
    while stack:
        unit, ready = stack.pop()
        if ready:
            done.append(unit)
        elif unit not in seen and unit in allowed:
            seen.add(unit)
            stack.append((unit, True))
            stack += [(need, False) for need in reversed(needs[unit])]


def sort_layers(net: Net, outputs: Sequence[str]) -> list[Edit]:
    """Sort a network's layers in place; `outputs` names its outputs in the order wanted.

    Layers that lead to one output only are its head; heads follow the body in the order of `outputs`.
    Layers that lead to none of them are dropped.
    """
    units, needs = _units(net)
    writer = {
        top: place for place, unit in enumerate(units) for index in unit for top in net.layers[index].tops
    }
    ends = [writer[output] for output in outputs]
    reached = _reached_outputs(needs, ends)
    body = {unit for unit, places in enumerate(reached) if len(places) > 1 or len(ends) == 1}
    done: list[int] = []
    seen: set[int] = set()
    for place, end in enumerate(ends):
        roots = [unit for unit in _head_needs(end, needs, reached, place) if unit in body]
        for root in roots:
            _visit(root, needs, body, done, seen)
    for place, end in enumerate(ends):
        _visit(
            end, needs, {unit for unit, places in enumerate(reached) if places == {place}} | body, done, seen
        )
    order = [index for unit in done for index in units[unit]]
    before = list(net.layers)
    net.layers = [before[index] for index in order]
    kept = [layer for place, layer in enumerate(before) if place in set(order)]
    moved = sum(a is not b for a, b in zip(kept, net.layers, strict=True))
    edits = [
        edit("NNIE-ORDER", layer.name, "removed", "it leads to no output")
        for layer in before
        if all(layer is not other for other in kept)
    ]
    if moved:
        change = f"{moved} of {len(kept)} layers stand elsewhere; outputs are now {', '.join(outputs)}"
        reason = "depth first, activations behind producers, heads last: the order of outputs is the ABI"
        edits.append(edit("NNIE-ORDER", net.name or "network", change, reason))
    return edits


def _head_needs(
    end: int, needs: Sequence[Sequence[int]], reached: Sequence[set[int]], place: int
) -> list[int]:
    """Return the units that an output's head reads from outside itself, in the order of its bottoms."""
    if reached[end] != {place}:
        return [end]
    found: list[int] = []
    waiting, seen = [end], {end}
    while waiting:
        unit = waiting.pop(0)
        for need in needs[unit]:
            if need in seen:
                continue
            seen.add(need)
            if reached[need] == {place}:
                waiting.append(need)
            else:
                found.append(need)
    return found
