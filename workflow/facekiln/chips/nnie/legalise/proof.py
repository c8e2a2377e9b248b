"""Proof that legalising kept the function: both networks run in OpenCV's Caffe reader on the same inputs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.net import Net
from facekiln.chips.nnie.legalise.legalise import Legalised
from facekiln.errors import KilnError

Array = NDArray[np.float32]

# Folding and fusing reorder sums of float32; nothing else may change.
_TOLERANCE = 1e-3
_SEED = 40


class _Differs(KilnError):
    """An output is not what it was."""


def _inputs(net: Net) -> Iterator[dict[str, Array]]:
    """Yield pixels, whose large values find wrong weights, and small numbers, beside which biases count."""
    rng = np.random.default_rng(_SEED)
    yield {name: rng.integers(0, 256, shape).astype(np.float32) for name, shape in net.inputs.items()}
    yield {name: rng.normal(size=shape).astype(np.float32) for name, shape in net.inputs.items()}


def _checked(name: str, value: Array, reference: Array) -> float:
    scale = float(np.abs(reference).max()) or 1.0
    difference = float(np.abs(value.reshape(reference.shape) - reference).max()) / scale
    if not difference <= _TOLERANCE:
        raise _Differs(
            "legalising changed the network; nothing was written, please report this",
            where=f"output '{name}'",
            value=f"{difference:.3g} relative",
            limit=_TOLERANCE,
        )
    return difference


def prove(before: Net, after: Legalised) -> dict[str, Any]:
    """Return the largest difference of any output, relative to the output's largest magnitude.

    Args:
        before: the network that was given.
        after: the legal one.

    Returns:
        {"runtime": ..., "max_relative": ...}, or {"runtime": ..., "not_measured": why} where OpenCV cannot
            run one.

    Raises:
        KilnError: an output differs, which is a defect of ours: nothing may be written then.
    """
    from facekiln.caffe.opencv import OpenCvNet

    runtime = f"OpenCV {metadata.version('opencv-python-headless')}"
    worst = 0.0
    try:
        first, second = OpenCvNet(before), OpenCvNet(after.net)
        for values in _inputs(before):
            expected = first.run(values, before.outputs)
            got = second.run(dict(zip(after.net.inputs, values.values(), strict=True)), after.net.outputs)
            for name, value in got.items():
                reference = expected[after.original_names.get(name, name)]
                worst = max(worst, _checked(name, value, reference))
    except KilnError as error:
        if isinstance(error, _Differs):
            raise
        return {"runtime": runtime, "not_measured": str(error).splitlines()[0]}
    return {"runtime": runtime, "max_relative": float(f"{worst:.1e}")}
