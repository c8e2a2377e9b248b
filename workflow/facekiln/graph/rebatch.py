"""Another batch for a network that was exported at batch 1.

A simplified file holds `1` in the targets of Reshape and Resize: with another input alone, [1, -1, 4] quietly
joins four pictures' boxes into one list of four times the length.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from facekiln.errors import KilnError
from facekiln.graph.constants import drop_unused_constants
from facekiln.provenance import Edit

# Where each operator has its target shape.
_TARGET = {"Reshape": 1, "Resize": 3, "Expand": 1}


def fixed_batch(model: onnx.ModelProto, batch: int, rule: str) -> tuple[onnx.ModelProto, list[Edit]]:
    """Return a copy for `batch` pictures, and what was changed.

    Args:
        model: with fixed shapes and one picture; its first axis is the batch.
        batch: pictures per run.
        rule: the id that the edits carry.

    Raises:
        KilnError: an input is not for one picture, or an output does not follow.
    """
    if batch == 1:
        return model, []
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    graph = wider.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for value in (value for value in graph.input if value.name not in stored):
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_value != 1:
            raise KilnError(
                "is not for one picture", where=f"input {value.name}", value=first.dim_value, limit=1
            )
        first.dim_value = batch
    edits = _widen_targets(graph, stored, batch, rule)
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    try:
        # With data propagation, so that a declared output that does not follow is an error here.
        onnx.shape_inference.infer_shapes(wider, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise KilnError(
            f"an output does not follow a batch of {batch}: {error}",
            hint="ask for batch 1 (_1b), or export the model with a free batch",
        ) from error
    return wider, edits


def _widen_targets(
    graph: onnx.GraphProto, stored: dict[str, onnx.TensorProto], batch: int, rule: str
) -> list[Edit]:
    edits = []
    for node in graph.node:
        at = _TARGET.get(node.op_type)
        name = node.input[at] if at is not None and len(node.input) > at else ""
        if name not in stored:
            continue
        target = numpy_helper.to_array(stored[name])
        if not target.size or target[0] != 1 or target.dtype != np.int64:
            continue
        wide = target.copy()
        wide[0] = batch
        assert at is not None
        node.input[at] = f"{name}_{batch}b"
        if node.input[at] not in stored:
            stored[node.input[at]] = numpy_helper.from_array(wide, node.input[at])
            graph.initializer.append(stored[node.input[at]])
        edits.append(
            Edit(
                rule=rule,
                target=node.name or node.output[0],
                change=f"{node.op_type} to {wide.tolist()} instead of {target.tolist()}",
                reason="the exported graph is fixed to one picture",
            )
        )
    return edits


def free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a simplified network of batch 1 for any batch; the dimension is named `batch`.

    Reshape nodes that put a 1 in front say 0 there instead, "as in the input", which keeps the batch.

    Args:
        model: of batch 1, with fixed shapes.

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
        first.dim_param = "batch"
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
    drop_unused_constants(graph)
    return graph
