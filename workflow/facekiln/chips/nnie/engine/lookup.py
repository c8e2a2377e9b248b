"""GFPQ of 20.12 numbers as ONNX nodes: by a table of all of them, or by a logarithm settled with thresholds.

GatherElements is the one look-up that onnxruntime cuts among its threads, along rows; so a table stands in
the graph once per thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.nnie.engine import gfpq
from facekiln.chips.nnie.engine.onnx import OnnxGraph

ONE = 4096.0

# Up to 2^22 units (a range of 1024) and up to this much memory, a table is twice as fast as a logarithm.
_LARGEST_TABLE = 1 << 22
_TABLE_BYTES = 128 << 20
# Far above the error of S log2(x) in float32 (S = 128, x < 2^31: 2e-3), far below a code.
_SLACK = 0.05


class LookUp:
    """The look-ups of one graph; tables of equal zero points are shared."""

    def __init__(self, graph: OnnxGraph, threads: int) -> None:
        """Start without tables.

        Args:
            graph: where nodes go.
            threads: into how many rows a look-up is cut.
        """
        self._graph = graph
        self._threads = threads
        self._bytes = 0
        self._made: set[tuple[Any, ...]] = set()

    def quantised(
        self, scaled: str, whole: Callable[[], str], shape: Sequence[int], z: int, bits: int, *, signed: bool
    ) -> str:
        """Return the GFPQ values of a blob.

        Args:
            scaled: the blob in units of 1/4096, rounded or not.
            whole: returns it rounded.
            shape: its shape.
            z: zero point.
            bits: 8 or 16.
            signed: whether it can be negative.
        """
        top = int(np.ceil(float(gfpq.thresholds(z, bits)[-1]) * ONE))
        if top <= (np.iinfo(np.int16) if signed else np.iinfo(np.uint16)).max:
            return self._by_short_index(scaled, shape, z, bits, signed=signed)
        if self._has_room(top, z, bits, signed=signed):
            index = self._index(whole(), -top if signed else 0, top)
            return self._find(
                index, shape, ("table", z, bits, signed, top), lambda: _table(z, bits, top, signed)
            )
        return self._by_logarithm(whole(), shape, z, bits, signed=signed)

    def _has_room(self, top: int, z: int, bits: int, *, signed: bool) -> bool:
        key = (z, bits, signed)
        size = 4 * (top + 1) * (2 if signed else 1) * self._threads
        if key in self._made:
            return True
        if top > _LARGEST_TABLE or self._bytes + size > _TABLE_BYTES:
            return False
        self._bytes += size
        self._made.add(key)
        return True

    def _find(
        self, index: str, shape: Sequence[int], key: tuple[Any, ...], table: Callable[[], NDArray[np.float32]]
    ) -> str:
        """Return table[index]; a negative index counts from the end."""
        graph = self._graph
        rows = self._threads if int(np.prod(shape)) % self._threads == 0 else 1
        data = graph.constant_once(("look-up", rows, *key), lambda: np.tile(table(), (rows, 1)))
        index = graph.node("Reshape", index, graph.ints([rows, -1]))
        return graph.node("Reshape", graph.node("GatherElements", data, index, axis=1), graph.ints(shape))

    def _index(self, value: str, low: float, high: float) -> str:
        """Return a value as int32, cut to a range and rounded towards zero."""
        clipped = self._graph.node("Clip", value, self._graph.scalar(low), self._graph.scalar(high))
        return self._to_int(clipped)

    def _to_int(self, value: str) -> str:
        from onnx import TensorProto

        return self._graph.node("Cast", value, to=TensorProto.INT32)

    def _by_short_index(self, scaled: str, shape: Sequence[int], z: int, bits: int, *, signed: bool) -> str:
        """Round (half to even), saturate and narrow in one pass; the table is as long as the 16-bit type."""
        graph = self._graph
        dtype = np.int16 if signed else np.uint16
        zero = graph.constant(0, dtype, key=("zero", dtype))
        index = self._to_int(graph.node("QuantizeLinear", scaled, graph.scalar(1), zero))

        def table() -> NDArray[np.float32]:
            made = _table(z, bits, int(np.iinfo(dtype).max), signed)
            # int16 has one more negative number.
            return np.insert(made, 1 << 15, made[1 << 15]) if signed else made

        return self._find(index, shape, ("short", z, bits, signed), table)

    def _by_logarithm(self, whole: str, shape: Sequence[int], z: int, bits: int, *, signed: bool) -> str:
        """Guess the code, at most one too high, and compare with the exact threshold below the guess."""
        graph, form = self._graph, gfpq.format_of(bits)
        length = form.top + 2
        magnitude = graph.node("Abs", whole) if signed else whole
        # log(0) is -infinity, which the cut to 0 takes care of.
        octaves = graph.node("Mul", graph.node("Log", magnitude), graph.scalar(form.steps / np.log(2)))
        shift = 0.5 + _SLACK - z - form.steps * np.log2(ONE)
        guess = self._index(graph.node("Add", octaves, graph.scalar(shift)), 0, form.top)
        if signed:
            negative = self._to_int(graph.node("Less", whole, graph.scalar(0)))
            half = graph.constant(length, np.int32, key=("half", length))
            guess = graph.node("Add", guess, graph.node("Mul", negative, half))
        key = ("logarithm", z, bits, signed)
        edge = self._find(guess, shape, (*key, "edges"), lambda: _edges_and_values(z, bits, signed)[0])
        reached = self._to_int(graph.node("GreaterOrEqual", magnitude, edge))
        place = graph.node("Add", guess, reached)
        return self._find(place, shape, (*key, "values"), lambda: _edges_and_values(z, bits, signed)[1])


def _table(z: int, bits: int, top: int, signed: bool) -> NDArray[np.float32]:
    """Return the GFPQ value of 0..top units; if signed, then those of -top..-1, as indices count back."""

    def half(*, negative: bool) -> NDArray[np.float32]:
        edges = np.ceil(gfpq.thresholds(z, bits, negative=negative).astype(np.float64) * ONE).astype(int)
        known = gfpq.magnitudes(z, bits, negative=negative)
        return np.repeat(np.concatenate([[np.float32(0)], known]), np.diff([0, *edges, top + 1]))

    positive = half(negative=False)
    return np.concatenate([positive, -half(negative=True)[:0:-1]]) if signed else positive


def _edges_and_values(z: int, bits: int, signed: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return, by guessed code, the edge in units that decides, and the value of the code before it.

    The value at or beyond the edge is the next entry. With `signed` those of negative numbers follow.
    """
    up, magnitudes = gfpq.thresholds(z, bits) * np.float32(ONE), gfpq.magnitudes(z, bits)
    # Both halves have top + 2 entries; the last edge is never asked for.
    edges = np.concatenate([up, [np.float32(0)]])
    values = np.concatenate([[np.float32(0)], magnitudes])
    if not signed:
        return edges, values
    down = gfpq.thresholds(z, bits, negative=True) * np.float32(ONE)
    # Negative numbers have no code 0: a guess of 1 needs no decision, code 1 follows zero.
    down_edges = np.concatenate([down[:1], [np.float32(0)], down[1:], [np.float32(0)]])
    down_values = np.concatenate([[np.float32(0)], -magnitudes[1:2], -magnitudes[1:]])
    return np.concatenate([edges, down_edges]), np.concatenate([values, down_values])
