"""Ranges: the largest magnitude that each blob reaches over a calibration set, in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.net import Net
from facekiln.chips.nnie.engine.graph import PlanGraph, input_name
from facekiln.chips.nnie.engine.onnx import Session
from facekiln.chips.nnie.engine.plan import FLOAT, make_plan
from facekiln.errors import KilnError


def measure_ranges(
    net: Net,
    batches: Iterable[Mapping[str, NDArray[np.float32]]],
    *,
    progress: Callable[[int], object] | None = None,
    start: Mapping[str, float] | None = None,
    threads: int = 2,
) -> dict[str, float]:
    """Run a network in float32 and keep the largest magnitude of each blob (libgfpq's mode UPDATE).

    Args:
        net: with weights; it is fused here, and ranges are those of the fused network's blobs.
        batches: per picture the input blobs, preprocessed ((x - mean) * scale), float32 [N, C, H, W].
        progress: called with 1 after each picture, like the `update` of a progress bar.
        start: ranges of an earlier set; the larger one is kept.
        threads: of onnxruntime.

    Returns:
        Blob -> max |x|, inputs among them.

    Raises:
        KilnError: no pictures, an input of another shape, or a blob that overflows (named).
    """
    plan = make_plan(net, {}, FLOAT)
    graph = PlanGraph(plan, threads)
    largest = {
        blob: graph.graph.node("ReduceMax", graph.graph.node("Abs", value), keepdims=0)
        for (blob, _), value in graph.everything().items()
    }
    session = Session(graph.graph, largest, threads)
    ranges = dict(start or {})
    count = 0
    for batch in batches:
        feeds = {}
        for name, shape in plan.inputs.items():
            value = np.ascontiguousarray(batch[name], np.float32) if name in batch else None
            if value is None or list(value.shape) != list(shape):
                raise KilnError(
                    f"input '{name}' of picture {count + 1} is missing or has another shape than the network",
                    where=plan.name,
                    value=None if value is None else list(value.shape),
                    limit=shape,
                )
            feeds[input_name(name, "float")] = value
        for blob, value in session.run(feeds).items():
            reached = float(value)
            if not math.isfinite(reached):
                raise KilnError(
                    f"blob '{blob}' overflows on picture {count + 1}",
                    where=plan.name,
                    value=reached,
                    hint="check the preprocessing and the weights",
                )
            ranges[blob] = max(ranges.get(blob, 0.0), reached)
        count += 1
        if progress:
            progress(1)
    if not count:
        raise KilnError("there are no pictures to calibrate on", where=plan.name)
    return ranges
