"""A bmodel for more than one picture per run: its ONNX, and the proof that it computes each picture alike."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from facekiln.errors import KilnError
from facekiln.graph.rebatch import fixed_batch
from facekiln.parity.measure import measure
from facekiln.provenance import Edit
from facekiln.quant.run import Arrays, Session

_RULE = "SOPHON-BATCH"
# Outputs of a batch against the same pictures one by one, over the output's scale: sums may be reordered.
_MOST_APART = 1e-4


def with_batch(model: onnx.ModelProto, batch: int) -> tuple[onnx.ModelProto, list[Edit]]:
    """Return a copy for `batch` pictures, and what was changed (see `fixed_batch`).

    tpu_mlir takes another batch by --input_shapes, but leaves the targets of Reshape and Resize as they are.
    """
    return fixed_batch(model, batch, _RULE)


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
