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
# A hundredth of a factor is nothing beside 255 steps.
_SETTLED = 1e-2
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


class _Reach:
    """How far a convolution's weights reach, by group, output and input channel, under factors of both."""

    def __init__(self, weights: Floats, group: int) -> None:
        outputs, inputs = weights.shape[:2]
        kernels = np.abs(weights).reshape(group, outputs // group, inputs, -1)
        self._reach = kernels.max(axis=3)
        self.outputs = np.ones(outputs, np.float32)
        self.inputs = np.ones(group * inputs, np.float32)

    def _scaled(self) -> Floats:
        group, outputs, inputs = self._reach.shape
        scaled = self._reach * self.outputs.reshape(group, outputs, 1)
        scaled *= self.inputs.reshape(group, 1, inputs)
        return scaled

    def by_output(self) -> Floats:
        """Return the largest magnitude of each output channel."""
        return self._scaled().max(axis=2).ravel()

    def by_input(self) -> Floats:
        """Return the largest magnitude of each input channel."""
        return self._scaled().max(axis=1).ravel()

    def applied(self, weights: Floats) -> Floats:
        """Return the weights under the factors."""
        group, outputs, inputs = self._reach.shape
        split = weights.reshape(group, outputs, inputs, -1) * self.outputs.reshape(group, outputs, 1, 1)
        split *= self.inputs.reshape(group, 1, inputs, 1)
        return split.reshape(weights.shape)


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
    nodes = {node.inputs[1]: node for pair in pairs for node in (pair.first, pair.second)}
    reaches = {
        place: _Reach(graph.tensors[place].values, node.params["group"]) for place, node in nodes.items()
    }
    for _ in range(_SWEEPS):
        moved = 0.0
        for pair in pairs:
            first, second = reaches[pair.first.inputs[1]], reaches[pair.second.inputs[1]]
            factors = _factors(first.by_output(), second.by_input())
            first.outputs /= factors
            second.inputs *= factors
            moved = max(moved, float(np.abs(np.log(factors)).max(initial=0)))
        if moved < _SETTLED:
            break
    values = {place: reach.applied(graph.tensors[place].values) for place, reach in reaches.items()}
    for place, node in nodes.items():
        for bias in node.inputs[2:]:
            own = graph.tensors[bias].values
            values[bias] = own * reaches[place].outputs.reshape(own.shape)
    return _with_values(graph, values), len(pairs)


def _with_values(graph: TmGraph, values: Mapping[int, Floats]) -> TmGraph:
    tensors = [
        constant(tensor.name or "", values[place]) if place in values else tensor
        for place, tensor in enumerate(graph.tensors)
    ]
    return replace(graph, tensors=tensors)
