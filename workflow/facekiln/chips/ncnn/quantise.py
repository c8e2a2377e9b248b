"""A float32 model with its table becomes an int8 model, as ncnn2int8 makes it.

Weights are rounded half away from zero and clipped to -127..127. A convolution whose every reader is an int8
convolution (directly or through Split) writes int8 itself, with the reader's scale: its parameter 8 is 100
more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.ncnn.model import NcnnModel
from facekiln.chips.ncnn.param import Graph, Layer
from facekiln.chips.ncnn.table import Table
from facekiln.chips.ncnn.weights import FP32, INT8, Blob
from facekiln.errors import KilnError

_TERM = {"Convolution": 2, "ConvolutionDepthWise": 1, "InnerProduct": 2}
_REQUANTISED = 100
_CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")


@dataclass(frozen=True)
class Quantised:
    """What was made.

    Attributes:
        model: in int8.
        layers: how many layers compute in int8.
        requantised: how many of them write int8, too.
        floating: layers that could have and stay in float.
    """

    model: NcnnModel
    layers: int
    requantised: int
    floating: tuple[str, ...]


def to_int8(values: NDArray[np.floating]) -> NDArray[np.int8]:
    """Round half away from zero and clip to -127..127, as ncnn's float2int8 does."""
    wide = values.astype(np.float64)
    return np.clip(np.trunc(wide + np.copysign(0.5, wide)), -127, 127).astype(np.int8)


def quantise(model: NcnnModel, table: Table, *, requantise: bool = True) -> Quantised:
    """Quantise a model.

    Args:
        model: weights in float32.
        table: scales of the layers that are to compute in int8.
        requantise: let convolutions that follow each other hand on int8.

    Raises:
        KilnError: the model is not in float32, or the table names no layer.
    """
    if not table:
        raise KilnError("the table names no layer: nothing would be int8")
    layers: list[Layer] = []
    weights = dict(model.weights)
    tops = _requantised(model.graph, table) if requantise else {}
    floating = []
    for layer in model.graph:
        if layer.name not in table:
            layers.append(layer)
            floating += [layer.name] if layer.type in _TERM else []
            continue
        scales = table[layer.name]
        term = _TERM[layer.type] + (_REQUANTISED if layer.name in tops else 0)
        layers.append(replace(layer, params={**layer.params, 8: str(term)}))
        blobs = []
        for blob in model.weights[layer.name]:
            if blob.role != "weight":
                blobs.append(blob)
                continue
            if blob.tag != FP32:
                raise KilnError(
                    "its weights are not in float32", where=layer.name, hint="quantise the fp32 file"
                )
            rows = blob.values.reshape(len(scales.weights), -1).astype(np.float32)
            blobs.append(Blob("weight", INT8, to_int8(rows * scales.weights[:, None]).ravel()))
        blobs.append(Blob("weight_scales", None, scales.weights))
        blobs.append(Blob("bottom_scale", None, np.array([scales.bottom], np.float32)))
        if layer.name in tops:
            blobs.append(Blob("top_scale", None, np.array([tops[layer.name]], np.float32)))
        weights[layer.name] = blobs
    made = NcnnModel(Graph(tuple(layers)), weights)
    return Quantised(made, len(table), len(tops), tuple(floating))


def _requantised(graph: Graph, table: Table) -> dict[str, float]:
    """Return the layers that may write int8, each with the scale that all its readers have."""
    readers = {blob: layer for layer in graph for blob in layer.bottoms}
    found: dict[str, float] = {}
    for layer in graph:
        if layer.name not in table or layer.type not in _CONVOLUTIONS:
            continue
        last = _last_readers(layer.tops[0], readers)
        inside = all(one is not None and one.type in _CONVOLUTIONS and one.name in table for one in last)
        scales = {table[one.name].bottom for one in last if one is not None and one.name in table}
        if last and inside and len(scales) == 1:
            found[layer.name] = scales.pop()
    return found


def _last_readers(blob: str, readers: dict[str, Layer]) -> list[Layer | None]:
    """Return who reads a blob, Splits followed; None for an output of the graph."""
    reader = readers.get(blob)
    if reader is not None and reader.type == "Split":
        return [one for top in reader.tops for one in _last_readers(top, readers)]
    return [reader]
