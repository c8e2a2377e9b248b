"""ncnn's calibration table: text in and out, in the form of ncnn2table and ncnn2int8.

Facts: https://github.com/Tencent/ncnn/wiki/quantized-int8-inference and tools/quantize of the same
repository. First a line `{layer}_param_0 scale scale ...` per layer with a scale per output channel (per
group in depthwise convolutions), then a line `{layer} scale` per layer for its input. A scale is what a
value is multiplied by: 127 over the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import read_text, write_text
from facekiln.chips.ncnn.model import NcnnModel, weighted
from facekiln.chips.ncnn.param import Layer
from facekiln.errors import KilnError

_WEIGHT = "_param_0"
STEPS = 127
# Winograd F(4,3) in ncnn keeps transformed int8 weights in 16 bit, which 127 steps overflow; ncnn2table uses
# 31 ("6bit") for every 3x3 convolution of stride and dilation 1.
WINOGRAD_STEPS = 31
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class Scales:
    """The scales of one layer: float32 [channels or groups] of its weights, one of its input."""

    weights: NDArray[np.float32]
    bottom: float


Table = dict[str, Scales]


def winograd_shaped(layer: Layer) -> bool:
    """Return whether ncnn may run a layer through Winograd's transforms: 3x3, stride 1, dilation 1,
    ungrouped."""
    if layer.type != "Convolution":
        return False
    width, dilation, stride = layer.integer(1), layer.integer(2, 1), layer.integer(3, 1)
    window = (width, layer.integer(11, width))
    steps = (dilation, layer.integer(12, dilation), stride, layer.integer(13, stride))
    return window == (3, 3) and steps == (1, 1, 1, 1)


def channels_of(layer: Layer) -> int:
    """Return how many weight scales a layer has."""
    return layer.integer(7, 1) if layer.type == "ConvolutionDepthWise" else layer.integer(0)


def weight_scales(
    model: NcnnModel, layer: Layer, winograd_steps: int = WINOGRAD_STEPS
) -> NDArray[np.float32]:
    """Return float32 scales of a layer's weights: steps over the largest magnitude; 1 where all are zero."""
    blob = model.blob(layer.name, "weight")
    assert blob is not None
    absmax = np.abs(blob.values.astype(np.float32).reshape(channels_of(layer), -1)).max(axis=1)
    steps = winograd_steps if winograd_shaped(layer) else STEPS
    usable = absmax > steps * _SMALLEST
    return np.where(usable, steps / np.where(usable, absmax, 1), 1).astype(np.float32)


def make_table(
    model: NcnnModel, thresholds: Mapping[str, float], winograd_steps: int = WINOGRAD_STEPS
) -> Table:
    """Return the table of a model.

    Args:
        model: in float32.
        thresholds: layer -> threshold of its input; layers that are not named stay in float.
        winograd_steps: of 3x3 convolutions' weights, see `WINOGRAD_STEPS`.
    """
    table: Table = {}
    for layer in model.graph:
        if weighted(layer) and layer.name in thresholds:
            top = thresholds[layer.name]
            bottom = float(np.float32(STEPS / top)) if top > STEPS * _SMALLEST else 1.0
            table[layer.name] = Scales(weight_scales(model, layer, winograd_steps), bottom)
    return table


def table_text(table: Table) -> str:
    """Return the table as ncnn2int8 reads it; nine digits, so that float32 comes back as it was."""
    lines = [
        f"{name}{_WEIGHT} {' '.join(f'{scale:.9g}' for scale in one.weights)} " for name, one in table.items()
    ]
    lines += [f"{name} {one.bottom:.9g} " for name, one in table.items()]
    return "\n".join(lines) + "\n"


def write_table(path: Path | str, table: Table) -> None:
    """Write a table.

    Raises:
        KilnError: the disk is full.
    """
    write_text(path, table_text(table))


def parse_table(text: str, model: NcnnModel, file: Path | str = "table") -> Table:
    """Parse a table, ours or ncnn2table's, for a model; layers that it does not name stay in float.

    Raises:
        KilnError: a layer that the model has not or that has no int8 form, a number of scales that does not
        fit,
            a scale that is not finite and positive, or a layer with only one of its two lines.
    """
    layers = {layer.name: layer for layer in model.graph if weighted(layer)}
    weights: dict[str, NDArray[np.float32]] = {}
    bottoms: dict[str, float] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f"line {number}"
        key, values = words[0], _numbers(words[1:], file, where)
        name = key.removesuffix(_WEIGHT)
        if name not in layers:
            raise KilnError(
                f"names layer '{name}', which the model has not, or not in int8",
                file=file,
                where=where,
                limit=f"{len(layers)} layers, first {next(iter(layers), 'none')}",
                hint="is it the table of this .param?",
            )
        expected = channels_of(layers[name]) if key != name else 1
        # ncnn2table once wrote the input's scale per group; they are all equal.
        if key == name and len(set(values)) == 1:
            values = values[:1]
        if len(values) != expected:
            raise KilnError(
                f"has another number of scales than '{key}' wants",
                file=file,
                where=where,
                value=len(values),
                limit=expected,
            )
        if key in bottoms or (key != name and name in weights):
            raise KilnError(f"names '{key}' twice", file=file, where=where)
        if key == name:
            bottoms[name] = values[0]
        else:
            weights[name] = np.array(values, np.float32)
    alone = sorted(weights.keys() ^ bottoms.keys())
    if alone:
        raise KilnError(f"has only one of the two lines of layer '{alone[0]}'", file=file)
    return {name: Scales(weights[name], bottoms[name]) for name in layers if name in weights}


def _numbers(words: list[str], file: Path | str, where: str) -> list[float]:
    try:
        values = [float(np.float32(float(word))) for word in words]
    except (ValueError, OverflowError) as error:
        raise KilnError("has a scale that is no number", file=file, where=where) from error
    if not values or not all(math.isfinite(value) and value > 0 for value in values):
        raise KilnError(
            "has a scale that is not finite and positive",
            file=file,
            where=where,
            hint="ncnn2table writes `inf` for a channel of zeros: write 1 there",
        )
    return values


def read_table(path: Path | str, model: NcnnModel) -> Table:
    """Read a table for a model (see `parse_table`)."""
    return parse_table(read_text(path), model, path)
