"""Stored tensors of an ONNX model."""

from __future__ import annotations

import onnx


def drop_unused_constants(model: onnx.ModelProto) -> None:
    """Drop, in place, the initialisers that no node reads; those that stay keep their order.

    Only the main graph's nodes count: exported face networks have no subgraphs.
    """
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
