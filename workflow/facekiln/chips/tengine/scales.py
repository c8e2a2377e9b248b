"""Ranges to scales and zero points, by the algorithms of Tengine's quant tools and by our own.

`minmax`, `kl` and `aciq` are the tools'; `mse` is ours (`facekiln.quant.thresholds`), as is whatever
`scales_of_ranges` takes over. `style` says how closely the tools are followed. "tool" repeats their
arithmetic, with their text table's six decimals, the zero point cut off, and the slip that takes the scale of
a KL-calibrated sum's operands from its result before that has one. "exact" keeps float32 scales, rounds the
zero point up, so that nothing lies below the smallest code (uint8 averages wrap around there), and leaves the
slip out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from facekiln.chips.tengine.format import INT8, UINT8, Quant, TmGraph
from facekiln.chips.tengine.kl import threshold_bin
from facekiln.chips.tengine.ops import OP_IDS
from facekiln.chips.tengine.ranges import BINS, Range, activations
from facekiln.config import known
from facekiln.progress import progress_bar
from facekiln.quant import thresholds
from facekiln.quant.ranges import Ranges

# The tools' number of an algorithm; they have none for ours, which reaches them as a table.
ALGORITHMS = {"minmax": 0, "kl": 1, "aciq": 2, "mse": None}
# What the algorithms that need a second pass count (see `ranges.measure_ranges`).
HISTOGRAMS = {"kl": "tool", "mse": "ours"}
STYLES = ("exact", "tool")
# Clipping point of a Gaussian at 8 bits, in standard deviations (ACIQ, Banner et al. 2019).
_ACIQ_ALPHA = np.float32(3.92403714)
_ACIQ_SPREAD = 0.5 * 0.35 * (1 + math.sqrt(math.pi * math.log(4)))
_F = np.float32


def asymmetric(low: np.float32, high: np.float32, style: str) -> Quant:
    """Return uint8's record of a range; `style` as in `scales_of`."""
    if high < 0:
        high = _F(0)
    elif low > 0:
        low = _F(0)
    scale = _F((high - low) / _F(255))
    if scale == 0:
        return Quant(0.0, 0)
    place = float(-low / scale)
    zero = int(place) if style == "tool" else math.ceil(place - 1e-6)
    return Quant(float(scale), min(max(zero, 0), 255))


def _aciq(found: Range, dtype: int) -> Quant:
    """Return the record of a Gaussian's clipping point, its spread guessed from the extreme and the count."""
    count = max(found.elements, 2)
    deviation = float(found.largest * _F(2)) * _ACIQ_SPREAD / math.sqrt(2 * math.log(count))
    threshold = _F(_ACIQ_ALPHA * deviation)
    if dtype == INT8:
        return Quant(float(threshold / _F(127)), 0)
    scale = _F(_F(2) * threshold / _F(255))
    return Quant(float(scale), int(threshold / scale) if scale else 0)


def _edge(start: np.float32, span: np.float32, place: int) -> np.float32:
    return _F(_F(span / _F(BINS)) * _F(place + 0.5) + start)


def _kl(found: Range, dtype: int, style: str) -> Quant:
    if dtype == INT8:
        place = threshold_bin(found.absolute, 128)
        return Quant(float(_edge(_F(0), found.largest, place) / _F(127)), 0)
    high = threshold_bin(found.signed, 256)
    low = high - threshold_bin(found.signed[high::-1], 256) + 1
    span = found.high - found.low
    return asymmetric(_edge(found.low, span, low), _edge(found.low, span, high), style)


def _clipped(low: np.float32, high: np.float32, limit: float, dtype: int, style: str) -> Quant:
    """Return the record of a range of which only magnitudes up to a limit are kept."""
    edge = _F(limit)
    if dtype == INT8:
        return Quant(float(_F(edge / _F(127))), 0)
    return asymmetric(max(low, -edge), min(high, edge), style)


def _scale(found: Range, dtype: int, algorithm: str, style: str) -> Quant:
    if algorithm == "mse":
        limit = thresholds.mse(found.magnitudes, float(found.largest))
        return _clipped(found.low, found.high, limit, dtype, style)
    if algorithm == "kl":
        return _kl(found, dtype, style)
    if algorithm == "aciq":
        return _aciq(found, dtype)
    if dtype == INT8:
        return Quant(float(_F(found.largest / _F(127))), 0)
    return asymmetric(found.low, found.high, style)


def _fixed(graph: TmGraph, dtype: int) -> dict[str, Quant]:
    """Return the records that are not a matter of pictures: a Softmax gives 0 to 1."""
    record = Quant(float(_F(1) / _F(255 if dtype == UINT8 else 127)), 0)
    softmax = [node.outputs[0] for node in graph.nodes if node.op == OP_IDS["Softmax"]]
    return {graph.tensors[place].name or "": record for place in softmax}


def scales_of(
    graph: TmGraph,
    ranges: Mapping[str, Range],
    dtype: int,
    *,
    algorithm: str = "minmax",
    style: str = "exact",
) -> dict[str, Quant]:
    """Return the record of every activation by name, before scales are handed back (see `quantise`).

    Args:
        graph: the fp32 file.
        ranges: of every activation; with the histograms that the algorithm needs (`HISTOGRAMS`).
        dtype: UINT8 or INT8.
        algorithm: a key of `ALGORITHMS`.
        style: "exact" or "tool", see the module.

    Raises:
        KilnError: unknown algorithm or style.
    """
    known(algorithm, ALGORITHMS, "algorithm")
    known(style, STYLES, "style")
    fixed = _fixed(graph, dtype)
    summed = {
        graph.tensors[place].name
        for node in graph.nodes
        if node.op == OP_IDS["Eltwise"]
        for place in node.inputs[:2]
    }
    names = activations(graph)
    scales = {}
    with progress_bar(len(names), f"scales ({algorithm})", "tensor") as bar:
        for name in names:
            if name in fixed:
                scales[name] = fixed[name]
            elif style == "tool" and algorithm == "kl" and dtype == INT8 and name in summed:
                # The result's scale is still unset when the operands take it: they become all 0.
                scales[name] = Quant(0.0, 0)
            else:
                scales[name] = _scale(ranges[name], dtype, algorithm, style)
            bar.update(1)
    if style == "tool":
        return {name: Quant(float(_F(f"{item.scale:.6f}")), item.zero_point) for name, item in scales.items()}
    return scales


def scales_of_ranges(graph: TmGraph, ranges: Ranges, dtype: int, method: str) -> dict[str, Quant]:
    """Return the record of every activation by our own ranges of the ONNX file that a tmfile was made from.

    Args:
        graph: the fp32 file; its activations have their ONNX names.
        ranges: of `facekiln quant ranges`.
        dtype: UINT8 or INT8.
        method: "minmax", "percentile", "kl" or "mse", each ours.

    Raises:
        KilnError: an unknown method, or an activation that the ONNX file has not.
    """
    fixed = _fixed(graph, dtype)
    scales = {}
    for name in activations(graph):
        found = ranges.of(name)
        low, high = _F(found.min), _F(found.max)
        limit = ranges.threshold(name, method)
        scales[name] = fixed.get(name) or _clipped(low, high, limit, dtype, "exact")
    return scales
