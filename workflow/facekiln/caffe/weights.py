"""Weights of a Caffe layer: which shapes it must have, and stored blobs brought into them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.geometry import CONVOLUTIONS, axis_of, geometry
from facekiln.caffe.net import Layer
from facekiln.caffe.schema import message_class
from facekiln.caffe.shapes import Shape, grouped, map_shape
from facekiln.errors import KilnError

# A blob as it is stored: flat values, and the shape that stands beside them.
Stored = tuple[NDArray[np.float32], list[int]]


def blob_shapes(layer: Layer, bottoms: Sequence[Shape]) -> list[Shape]:
    """Return the shapes of the weights that a layer must have, given its input shapes.

    Raises:
        KilnError: its parameters and its input do not go together.
    """
    if layer.type in CONVOLUTIONS or layer.type == "Deconvolution":
        channels = map_shape(layer, list(bottoms[0]))[1]
        outputs, group = grouped(layer, channels)
        kernel = list(geometry(layer).kernel)
        first = (
            [channels, outputs // group] if layer.type == "Deconvolution" else [outputs, channels // group]
        )
        return [[*first, *kernel], *([[outputs]] if layer.params.get("bias_term", True) else [])]
    if layer.type == "InnerProduct":
        outputs = int(layer.params.get("num_output", 0))
        inputs = math.prod(bottoms[0][axis_of(layer, len(bottoms[0])) :])
        weights = [inputs, outputs] if layer.params.get("transpose") else [outputs, inputs]
        return [weights, *([[outputs]] if layer.params.get("bias_term", True) else [])]
    if layer.type == "BatchNorm":
        channels = bottoms[0][1]
        return [[channels], [channels], [1]]
    if layer.type in ("Scale", "Bias") and len(bottoms) == 1:
        axis = axis_of(layer, len(bottoms[0]))
        count = int(layer.params.get("num_axes", 1))
        own = list(bottoms[0][axis:] if count == -1 else bottoms[0][axis : axis + count])
        return [own, own] if layer.type == "Scale" and layer.params.get("bias_term") else [own]
    if layer.type == "Scale" and layer.params.get("bias_term"):
        return [list(bottoms[1])]
    if layer.type == "PReLU":
        # One shared slope is a blob without axes.
        return [[] if layer.params.get("channel_shared") else [bottoms[0][1]]]
    if layer.type == "Normalize":
        return [[1] if layer.params.get("channel_shared", True) else [bottoms[0][1]]]
    if layer.type == "Parameter":
        return [[int(dim) for dim in layer.params.get("shape", {}).get("dim", [])]]
    return []


def stored_blob(blob: Any) -> Stored:
    """Return a blob's values, flat, and its declared shape."""
    if blob.data:
        values = np.frombuffer(b"".join(blob.data), "<f4")
    elif blob.double_data:
        values = np.frombuffer(b"".join(blob.double_data), "<f8").astype(np.float32)
    else:
        unpacked = message_class("UnpackedBlob").FromString(blob.SerializeToString())
        values = np.array(unpacked.data, np.float32)
    if blob.HasField("shape"):
        shape = [int(dim) for dim in blob.shape.dim]
    elif any(blob.HasField(field) for field in ("num", "channels", "height", "width")):
        shape = [blob.num, blob.channels, blob.height, blob.width]
    else:
        shape = [len(values)]
    return values, shape


def _without_leading_ones(shape: list[int]) -> list[int]:
    first = next((place for place, dim in enumerate(shape) if dim != 1), len(shape))
    return shape[first:]


def fit_blobs(
    layer: Layer,
    stored: list[Stored],
    wanted: list[list[int]],
    path: Path | str,
) -> list[NDArray[np.float32]]:
    where = f"layer '{layer.name}' ({layer.type})"
    if len(stored) != len(wanted):
        missing = (
            "its weights are missing" if not stored else "has not as many weight blobs as its parameters say"
        )
        raise KilnError(
            missing,
            file=path,
            where=where,
            value=f"{len(stored)} blobs",
            limit=f"{len(wanted)} blobs",
            hint="the two files are not a pair, or the caffemodel's end is missing",
        )
    blobs = []
    for place, ((values, shape), target) in enumerate(zip(stored, wanted, strict=True)):
        if math.prod(shape) != len(values) or _without_leading_ones(shape) != _without_leading_ones(target):
            raise KilnError(
                f"weight blob {place} has the wrong shape",
                file=path,
                where=where,
                value=f"{shape} with {len(values)} values",
                limit=target,
                hint="the two files are not a pair",
            )
        if not np.isfinite(values).all():
            raise KilnError(f"weight blob {place} holds NaN or infinity", file=path, where=where)
        blobs.append(values.reshape(target))
    return blobs
