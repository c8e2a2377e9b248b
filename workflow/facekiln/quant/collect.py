"""What activations reach over pictures: least and largest values, then histograms, in two passes.

No activation outlives its picture, and no more of them are held at once than `_HELD` bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from facekiln.errors import KilnError
from facekiln.progress import progress_bar
from facekiln.quant.nodes import Tensor, activations
from facekiln.quant.run import Session, runs_within
from facekiln.quant.thresholds import BINS, signed_counts

_HELD = 256 << 20


@dataclass(frozen=True, eq=False)
class Spread:
    """What tensors reached over sets of pictures.

    Attributes:
        tensors: those with values of their own, in the graph's order (one that only reorders another is left
            out).
        lows, highs: float32 [pictures, tensors].
        counts: int64 [sets, tensors, 2 * BINS], values in equal bins over [-top, top], top being the largest
            magnitude over all pictures.
    """

    tensors: list[Tensor]
    lows: NDArray[np.float32]
    highs: NDArray[np.float32]
    counts: NDArray[np.int64]

    def tops(self) -> NDArray[np.float64]:
        """Return the largest magnitude per tensor over all pictures, float64 [tensors]."""
        return np.maximum(np.abs(self.lows).max(axis=0), np.abs(self.highs).max(axis=0)).astype(np.float64)


def _with_outputs(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> Session:
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    graph.graph.node.extend(nodes)
    del graph.graph.output[:]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return Session(graph)


def _extremes(
    model: onnx.ModelProto, tensors: Sequence[Tensor], pictures: Sequence[NDArray[np.float32]], what: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    nodes, names = [], []
    for op in ("ReduceMin", "ReduceMax"):
        for index, tensor in enumerate(tensors):
            names.append(f"facekiln_{op}_{index}")
            nodes.append(helper.make_node(op, [tensor.name], [names[-1]], keepdims=0))
    session = _with_outputs(model, nodes, names)
    found = np.empty((len(pictures), 2, len(tensors)), np.float32)
    with progress_bar(len(pictures), f"{what}: extremes", "picture") as bar:
        for index, picture in enumerate(pictures):
            values = session.run({session.inputs[0]: picture})
            found[index] = np.array([values[name] for name in names], np.float32).reshape(2, -1)
            for place in np.flatnonzero(~np.isfinite(found[index]).all(axis=0)).tolist():
                raise KilnError(
                    f"tensor '{tensors[place].name}' is not finite on picture {index}",
                    where=tensors[place].node,
                    value=found[index][:, place].tolist(),
                    hint="check the weights and the preprocessing",
                )
            bar.update(1)
    return found[:, 0], found[:, 1]


def collect(
    model: onnx.ModelProto,
    pictures: Sequence[NDArray[np.float32]],
    *,
    sets: Sequence[Sequence[int]] | None = None,
    what: str = "ranges",
) -> Spread:
    """Run a network over pictures twice and keep extremes and histograms of every activation.

    Args:
        model: simplified, with fixed shapes.
        pictures: input tensors, each read once per pass.
        sets: indices of the pictures of each set that wants its own histogram; one of all where None.
        what: for the progress bar.

    Raises:
        KilnError: no pictures, a shape that is not fixed, or a value that is not finite (named).
    """
    if not len(pictures):
        raise KilnError("there are no pictures to calibrate on")
    chosen: Sequence[Sequence[int]] = [range(len(pictures))] if sets is None else sets
    own = [tensor for tensor in activations(model) if tensor.same_as is None]
    lows, highs = _extremes(model, own, pictures, what)
    counts = np.zeros((len(chosen), len(own), 2 * BINS), np.int64)
    spread = Spread(own, lows, highs, counts)
    tops = spread.tops()
    members: list[list[int]] = [[] for _ in range(len(pictures))]
    for at, one in enumerate(chosen):
        for index in set(one):
            members[index].append(at)
    portions = runs_within((4 * int(np.prod(tensor.shape)) for tensor in own), _HELD)
    with progress_bar(len(pictures) * len(portions), f"{what}: histograms", "run") as bar:
        for portion in portions:
            # An input cannot be an output of its own graph.
            asked = [own[at].name for at in portion if own[at].node]
            session = _with_outputs(model, [], asked or [model.graph.output[0].name])
            for index, picture in enumerate(pictures):
                feeds = {session.inputs[0]: picture}
                values = feeds | session.run(feeds)
                for at in portion if members[index] else ():
                    counts[members[index], at] += signed_counts(values[own[at].name], float(tops[at]))
                bar.update(1)
    return spread
