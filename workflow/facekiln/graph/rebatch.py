"""Another batch for a network that was exported at batch 1."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from facekiln.errors import KilnError


def with_batch(model: onnx.ModelProto, batch: int | None) -> onnx.ModelProto:
    """Return a simplified network of batch 1 for another batch.

    Reshape nodes that put a 1 in front say 0 there instead, "as in the input", which keeps the batch.

    Args:
        model: of batch 1, with fixed shapes.
        batch: how many pictures; None: any, the dimension is named `batch`.

    Raises:
        KilnError: an input is not of batch 1, or a Reshape does not begin with the batch.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    for value in [*graph.graph.input, *graph.graph.output]:
        if value.name in stored:
            continue
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_value != 1:
            raise KilnError("is not of batch 1", where=value.name, value=first.dim_value or first.dim_param)
        if batch is None:
            first.dim_param = "batch"
        else:
            first.dim_value = batch
    for node in graph.graph.node:
        if node.op_type != "Reshape":
            continue
        shape = stored.get(node.input[1])
        sides = numpy_helper.to_array(shape) if shape is not None else np.empty(0, np.int64)
        if not len(sides) or sides[0] not in (0, 1):
            raise KilnError(
                "does not begin with the batch, so it cannot be given another",
                where=node.name or node.output[0],
                value=sides.tolist(),
                limit="1 or 0 first",
            )
        made = np.concatenate([[0], sides[1:]]).astype(np.int64)
        name = f"{node.input[1]}_any_batch"
        if name not in stored:
            stored[name] = numpy_helper.from_array(made, name)
            graph.graph.initializer.append(stored[name])
        node.input[1] = name
    del graph.graph.value_info[:]
    used = {name for node in graph.graph.node for name in node.input}
    kept = [tensor for tensor in graph.graph.initializer if tensor.name in used]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(kept)
    return graph
