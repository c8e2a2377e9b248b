"""Stored tensors of an ONNX model."""

from __future__ import annotations

import onnx


def drop_unused_constants(model: onnx.ModelProto) -> None:
    """Drop, in place, the initialisers that no node reads and that are no output; the order stays.

    Old exporters list initialisers among the inputs too; one that is dropped goes from there as well, for it
    would have to be fed. Only the main graph's nodes count: exported face networks have no subgraphs.
    """
    graph = model.graph
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    dropped = {tensor.name for tensor in graph.initializer} - used
    kept = [tensor for tensor in graph.initializer if tensor.name not in dropped]
    inputs = [value for value in graph.input if value.name not in dropped]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(kept)
    graph.input.extend(inputs)
