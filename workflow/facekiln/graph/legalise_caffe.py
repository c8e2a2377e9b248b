"""Edits of a simplified ONNX graph before it becomes a Caffe network; each says what it changed and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facekiln.graph.legalise_heads import Tail, cut_heads
from facekiln.graph.onnx_graph import Node, OnnxGraph, ints
from facekiln.provenance import Edit

_PADDING = "Caffe: a layer pads both sides of an axis alike, and no layer only pads"


def legalise(graph: OnnxGraph, steps: Sequence[int] | None = None) -> tuple[list[Tail], list[Edit]]:
    """Apply every rule to the graph, in place.

    Args:
        graph: a simplified graph, batch 1.
        steps: input pixels per cell of each level, in the order of the priors; None: told from the maps.

    Returns:
        The heads, grouped by the graph's outputs in their order, and the edits. The graph's outputs are then
        the heads' tensors.

    Raises:
        KilnError: an output is of no form that a chip's network can end in.
    """
    edits = [*drop_identities(graph), *fold_pads(graph)]
    tails, cut = cut_heads(graph, steps)
    return tails, edits + cut


def drop_identities(graph: OnnxGraph) -> list[Edit]:
    """Remove nodes that change nothing: Identity, Dropout, `* 1`, `+ 0`, Reshapes to the same shape."""
    edits = []
    for node in list(graph.nodes):
        source = _unchanged(graph, node)
        if source is None:
            continue
        if node.outputs[0] in graph.outputs and source in (*graph.inputs, *graph.outputs, *graph.constants):
            continue
        _bypass(graph, node, source)
        edits.append(
            Edit(
                rule="CAFFE-DROP-IDENTITY",
                target=node.name,
                change=f"removed a {node.op} that changes nothing",
                reason="it would cost a layer and a memory transfer",
            )
        )
    return edits


def _bypass(graph: OnnxGraph, node: Node, source: str) -> None:
    """Remove a node; its readers take `source`. A graph output keeps its name."""
    graph.nodes.remove(node)
    producer = graph.producer(source)
    if node.outputs[0] in graph.outputs and producer is not None:
        output = node.outputs[0]
        producer.outputs = [output if name == source else name for name in producer.outputs]
        graph.replace(source, output)
    else:
        graph.replace(node.outputs[0], source)


def _unchanged(graph: OnnxGraph, node: Node) -> str | None:
    """Return the input that a node passes on as it is, or None."""
    if node.op in ("Identity", "Dropout"):
        return node.inputs[0]
    if node.op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        return node.inputs[0] if graph.shapes[node.inputs[0]] == graph.shapes[node.outputs[0]] else None
    neutral = {"Mul": 1.0, "Div": 1.0, "Add": 0.0, "Sub": 0.0}.get(node.op)
    if neutral is None:
        return None
    for place, name in enumerate(node.inputs):
        other = node.inputs[1 - place]
        if place == 0 and node.op in ("Div", "Sub"):
            continue
        value = graph.constants.get(name)
        if value is None or not (value == neutral).all():
            continue
        if graph.shapes[other] == graph.shapes[node.outputs[0]]:
            return other
    return None


def fold_pads(graph: OnnxGraph) -> list[Edit]:
    """Move a Pad's zeros into the padding of the convolutions, or the poolings, that read it.

    A Pad that cannot be moved stays, and the converter refuses it by name.
    """
    edits = []
    for node in [node for node in graph.nodes if node.op == "Pad"]:
        readers = graph.consumers(node.outputs[0])
        spatial = _spatial_pads(graph, node)
        if spatial is None or node.outputs[0] in graph.outputs or not readers:
            continue
        if not all(_takes_pad(graph, node, reader) for reader in readers):
            continue
        for reader in readers:
            own = ints(reader.attrs.get("pads", [0, 0, 0, 0]))
            reader.attrs["pads"] = [a + b for a, b in zip(own, spatial, strict=True)]
            if reader.op == "AveragePool":
                reader.attrs["count_include_pad"] = 1
        _bypass(graph, node, node.inputs[0])
        edits.append(
            Edit(
                rule="CAFFE-FOLD-PAD",
                target=node.name,
                change=f"pads {spatial} moved into {', '.join(reader.name for reader in readers)}",
                reason="the same values without a layer of its own",
                limit=_PADDING,
            )
        )
    return edits


def _spatial_pads(graph: OnnxGraph, node: Node) -> list[int] | None:
    """Return [top, left, bottom, right] of a constant Pad of a map, or None for any other."""
    pads = graph.operand(node, "pads", 1)
    axes = graph.operand(node, "axes", 3)
    rank = len(graph.shapes[node.inputs[0]])
    if node.attrs.get("mode", "constant") != "constant" or pads is None or axes is not None or rank != 4:
        return None
    values = ints(pads)
    if any(values[axis] or values[axis + 4] for axis in (0, 1)) or min(values) < 0:
        return None
    return [values[2], values[3], values[6], values[7]]


def _takes_pad(graph: OnnxGraph, pad: Node, reader: Node) -> bool:
    value = graph.operand(pad, "value", 2)
    fill = 0.0 if value is None else float(np.asarray(value).ravel()[0])
    if reader.inputs[0] != pad.outputs[0] or reader.inputs.count(pad.outputs[0]) != 1:
        return False
    if reader.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID", ""):
        return False
    if reader.op == "Conv":
        return fill == 0.0
    if reader.op == "AveragePool":
        return fill == 0.0 and not any(ints(reader.attrs.get("pads", [0])))
    if reader.op == "MaxPool":
        source = graph.producer(pad.inputs[0])
        # Zeros are no maximum's winner over values that are never negative.
        never_negative = source is not None and source.op in ("Relu", "Sigmoid")
        return fill == -np.inf or (fill == 0.0 and never_negative)
    return False
