"""Even out the channels of convolutions before they share one scale.

Between two convolutions with nothing but leaky or plain ReLUs between them, a channel may be divided by any
positive number in the first if it is multiplied by it in the second: the network computes the same. A uint8
file has one scale for all of a weight's channels, and those of depthwise convolutions with folded batch norms
differ by powers of ten; so the numbers are chosen that make both sides reach equally far.

Source: cross-layer equalisation of Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction" (ICCV 2019), section 4.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.tengine.format import CONST, FP32, Node, TmGraph, constant
from facekiln.chips.tengine.ops import NO_ACTIVATION, OP_IDS, RELU, op_name

# Sweeps over all pairs; a chain of convolutions settles in a few.
_SWEEPS = 20
_SETTLED = 1e-3
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Two convolutions, of which only the second reads what the first makes."""

    first: Node
    second: Node


def pairs_of(graph: TmGraph) -> list[Pair]:
    """Return the pairs between which channels may be scaled, in the file's order."""
    readers: dict[int, list[Node]] = {}
    for node in graph.nodes:
        for place in node.inputs:
            readers.setdefault(place, []).append(node)
    asked = {place for output in graph.outputs for place in graph.nodes[output].outputs}
    constants_read = Counter(place for node in graph.nodes for place in node.inputs[1:])

    def own(node: Node) -> bool:
        """Whether nothing else reads its weights and bias, which are there, in float."""
        kept = [graph.tensors[place] for place in node.inputs[1:]]
        return all(one.kind == CONST and one.dtype == FP32 and one.data is not None for one in kept) and all(
            constants_read[place] == 1 for place in node.inputs[1:]
        )

    def next_of(node: Node) -> Node | None:
        place = node.outputs[0]
        return readers[place][0] if place not in asked and len(readers.get(place, ())) == 1 else None

    found = []
    for node in graph.nodes:
        if node.op != OP_IDS["Convolution"] or node.params["activation"] not in (NO_ACTIVATION, RELU):
            continue
        behind = next_of(node)
        while behind is not None and op_name(behind.op) == "ReLU" and behind.params["negative_slope"] >= 0:
            behind = next_of(behind)
        if behind is not None and behind.op == OP_IDS["Convolution"] and own(node) and own(behind):
            found.append(Pair(node, behind))
    return found


def _by_input(weights: Floats, group: int) -> Floats:
    """Return a view's copy [input channels, values] of a convolution's weights [oc, ic / group, h, w]."""
    outputs, per_group = weights.shape[:2]
    split = weights.reshape(group, outputs // group, per_group, -1)
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3).reshape(group * per_group, -1))


def _scaled_by_input(weights: Floats, group: int, factors: Floats) -> Floats:
    outputs, per_group = weights.shape[:2]
    split = weights.reshape(group, outputs // group, per_group, -1)
    return (split * factors.reshape(group, 1, per_group, 1)).reshape(weights.shape)


def _factors(first: Floats, second: Floats) -> Floats:
    """Return by how much the first one's channels are divided and the second's multiplied."""
    usable = (first > 0) & (second > 0)
    return np.where(usable, np.sqrt(first / np.where(usable, second, 1)), 1).astype(np.float32)


def equalise(graph: TmGraph) -> tuple[TmGraph, int]:
    """Return an fp32 copy that computes the same with evened-out weights, and the number of pairs.

    Args:
        graph: fp32, with its weights.
    """
    pairs = pairs_of(graph)
    values: dict[int, Floats] = {
        place: graph.tensors[place].values.copy()
        for pair in pairs
        for node in (pair.first, pair.second)
        for place in node.inputs[1:]
    }
    for _ in range(_SWEEPS):
        moved = 0.0
        for pair in pairs:
            weights, behind = pair.first.inputs[1], pair.second.inputs[1]
            group = pair.second.params["group"]
            rows = np.abs(values[weights].reshape(len(values[weights]), -1)).max(axis=1)
            columns = np.abs(_by_input(values[behind], group)).max(axis=1)
            factors = _factors(rows, columns)
            values[weights] /= factors.reshape(-1, 1, 1, 1)
            for bias in pair.first.inputs[2:]:
                values[bias] /= factors.reshape(values[bias].shape)
            values[behind] = _scaled_by_input(values[behind], group, factors)
            moved = max(moved, float(np.abs(np.log(factors)).max(initial=0)))
        if moved < _SETTLED:
            break
    return _with_values(graph, values), len(pairs)


def _with_values(graph: TmGraph, values: Mapping[int, Floats]) -> TmGraph:
    tensors = [
        constant(tensor.name or "", values[place]) if place in values else tensor
        for place, tensor in enumerate(graph.tensors)
    ]
    return replace(graph, tensors=tensors)
