"""Which layers int8 hurts: each quantised alone, the rest in float, judged at the outputs and by faces found.

Quantising one node changes nothing before it. So the float network runs once per picture for a block of
nodes, and each node needs only the part of the graph behind it: about half the work of whole runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from facekiln.config import Model
from facekiln.progress import progress_bar
from facekiln.quant.estimate import Closeness, closeness, run_all
from facekiln.quant.nodes import node_name, quantisable
from facekiln.quant.qdq import at_opset, build_qdq
from facekiln.quant.ranges import Ranges
from facekiln.quant.run import Arrays, Session, runs_within
from facekiln.quant.suffix import Suffix, suffix_of

WHOLE = "(all)"
# Activations of a block of nodes, for all pictures, that are held at once.
_HELD = 512 << 20


@dataclass(frozen=True)
class Layer:
    """One node quantised alone: its name, op, the tensor that it makes, and what that costs."""

    node: str
    op: str
    tensor: str
    closeness: Closeness

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return {"node": self.node, "op": self.op, "tensor": self.tensor, **self.closeness.as_dict()}


def sensitivity(
    network: onnx.ModelProto,
    ranges: Ranges,
    pictures: Sequence[NDArray[np.float32]],
    model: Model,
    label: str,
    *,
    method: str,
    scheme: str,
) -> list[Layer]:
    """Quantise every quantisable node alone, and all together, and measure what it costs.

    Args:
        network: simplified ONNX.
        ranges: of it.
        pictures: input tensors that it was not calibrated on.
        model: its outputs, priors and thresholds.
        label: the size's label.
        method: of the ranges.
        scheme: of activations, "symmetric" or "asymmetric".

    Returns:
        The row of all nodes together (`WHOLE`), then each node, by the least SQNR of all outputs.

    Raises:
        KilnError: an unknown method or scheme, or ranges of another network.
    """
    network = at_opset(network)
    nodes = quantisable(network)
    suffixes = [suffix_of(network, node_name(node)) for node in nodes]
    layers = []
    with progress_bar(len(nodes) + 1, f"sensitivity {model.name}_{label}", "layer") as bar:
        floats = run_all(network, pictures)
        whole = closeness(floats, run_all(build_qdq(network, ranges, method, scheme), pictures), model, label)
        bar.update(1)
        for block in runs_within((suffix.bytes * len(pictures) for suffix in suffixes), _HELD):
            held = _traced(network, pictures, [suffixes[index] for index in block])
            for index in block:
                name = node_name(nodes[index])
                alone = build_qdq(suffixes[index].model, ranges, method, scheme, only=[name])
                session = Session(alone)
                children = [
                    own | session.run({key: one[key] for key in suffixes[index].inputs})
                    for own, one in zip(floats, held, strict=True)
                ]
                figures = closeness(floats, children, model, label)
                layers.append(Layer(name, nodes[index].op_type, nodes[index].output[0], figures))
                bar.update(1)
    layers.sort(key=lambda layer: (layer.closeness.least_sqnr(), layer.node))
    return [Layer(WHOLE, "", "", whole), *layers]


def _traced(
    network: onnx.ModelProto, pictures: Sequence[NDArray[np.float32]], suffixes: Sequence[Suffix]
) -> list[Arrays]:
    """Return, per picture, the float tensors that the suffixes are fed."""
    graph = onnx.ModelProto()
    graph.CopyFrom(network)
    source = network.graph.input[0].name
    asked = [name for name in dict.fromkeys(n for one in suffixes for n in one.inputs) if name != source]
    del graph.graph.output[:]
    graph.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in asked or [network.graph.output[0].name]
    )
    session = Session(graph)
    return [{source: picture, **session.run({source: picture})} for picture in pictures]
