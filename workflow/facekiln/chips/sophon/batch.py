"""An ONNX file for more than one picture per run, from one that is fixed to one picture.

tpu_mlir takes another batch by --input_shapes, but a simplified file holds `1` in the targets of Reshape and
Resize: [1, -1, 4] then quietly joins four pictures' boxes into one list of four times the length.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from facekiln.errors import KilnError
from facekiln.parity.measure import measure
from facekiln.provenance import Edit
from facekiln.quant.run import Arrays, Session

# Where each operator has its target shape.
_TARGET = {"Reshape": 1, "Resize": 3, "Expand": 1}
_RULE = "SOPHON-BATCH"
# Outputs of a batch against the same pictures one by one, over the output's scale: sums may be reordered.
_MOST_APART = 1e-4


def with_batch(model: onnx.ModelProto, batch: int) -> tuple[onnx.ModelProto, list[Edit]]:
    """Return a copy for `batch` pictures, and what was changed.

    Args:
        model: with fixed shapes and one picture; its first axis is the batch.
        batch: pictures per run.

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
    edits = _widen_targets(graph, stored, batch)
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    try:
        # With data propagation, so that a declared output that does not follow is an error here.
        onnx.shape_inference.infer_shapes(wider, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise KilnError(
            f"an output does not follow a batch of {batch}: {error}",
            hint="ask for _1b, or export the model with a free batch",
        ) from error
    return wider, edits


def _widen_targets(graph: onnx.GraphProto, stored: dict[str, onnx.TensorProto], batch: int) -> list[Edit]:
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
                rule=_RULE,
                target=node.name or node.output[0],
                change=f"{node.op_type} to {wide.tolist()} instead of {target.tolist()}",
                reason="the exported graph is fixed to one picture",
            )
        )
    return edits


def prove_batch(
    one: onnx.ModelProto, many: onnx.ModelProto, pictures: NDArray[np.float32]
) -> tuple[Arrays, float]:
    """Run a batch at once and its pictures one by one in ONNX Runtime, and compare.

    Args:
        one: for one picture.
        many: for as many as `pictures` has; may be the same.
        pictures: float32 [B, 3, H, W].

    Returns:
        The outputs of the batch by name, and the largest difference over its output's scale.

    Raises:
        KilnError: they differ by more than 1e-4 of scale, or in shape.
    """
    session = Session(many)
    (name,) = session.inputs
    together = session.run({name: pictures})
    if len(pictures) == 1:
        return together, 0.0
    single = Session(one)
    singles = [single.run({name: picture[None]}) for picture in pictures]
    worst = 0.0
    for output, values in together.items():
        apart = np.concatenate([outputs[output] for outputs in singles])
        if apart.shape != values.shape:
            raise KilnError(
                "a batch gives another shape than its pictures one by one",
                where=f"output {output}",
                value=list(values.shape),
                limit=list(apart.shape),
            )
        worst = max(worst, measure(apart, values).max_rel)
    if worst > _MOST_APART:
        raise KilnError(
            "a batch gives other values than its pictures one by one",
            value=f"{worst:.1e} of scale",
            limit=_MOST_APART,
            hint="ask for _1b, or export the model with a free batch",
        )
    return together, worst
