"""A plan as one onnxruntime graph: operators, rounding to 1/4096, and GFPQ by table.

Every result first exists in units of 1/4096, as whole numbers in float32: the 20.12 form. GFPQ of such a
number is a look-up by the number itself, exact by construction, so the whole forward pass is one graph
without a detour through Python. Where a range needs too large a table, the code is estimated with a
logarithm and settled by a comparison with the exact threshold.
"""

from __future__ import annotations

import numpy as np

from facekiln.chips.nnie import gfpq
from facekiln.chips.nnie.engine_onnx import OnnxGraph
from facekiln.chips.nnie.engine_operators import emit
from facekiln.chips.nnie.engine_plan import FLOAT, WIDE, Operation, Plan

ONE = 4096.0
# Saturation of int32; the largest float32 below 2^31.
LOWEST, HIGHEST = -(2.0**31), 2.0**31 - 128

# 2^18 units are 64.0: a table of 1 MiB, or 2 MiB with a negative half.
_LARGEST_TABLE = 1 << 18
# Far above the error of S log2(x) in float32 (S = 128, x < 2^31: 5e-4), far below a code.
_SLACK = 0.05
# Results that consist of their operands' values need no rounding.
_MOVES = ("Reshape", "Flatten", "Permute", "Concat", "Slice")


class PlanGraph:
    """Values of a plan's blobs in a graph, made when asked for.

    `linear(blob)` is in units of 1/4096 and whole; `decoded(blob, bits)` in the blob's own unit.
    """

    def __init__(self, plan: Plan, threads: int) -> None:
        """Build the graph of all operations.

        Args:
            plan: what to compute.
            threads: into how many rows a look-up is cut.
        """
        self.graph = OnnxGraph()
        self._plan = plan
        self._threads = threads
        self._values: dict[tuple[str, int | str], str] = {}
        self._non_negative: set[str] = set()
        for operation in plan.operations:
            if plan.rounded:
                self._add(operation)
            else:
                self._add_float(operation)

    def outputs(self) -> dict[str, str]:
        """Return public output name -> value, in the blob's own unit."""
        return {name: self.raw(blob) for name, blob in self._plan.outputs.items()}

    def everything(self) -> dict[tuple[str, int], str]:
        """Return (blob, 0) -> linear value and, per width it is read in, (blob, bits) -> decoded value."""
        if not self._plan.rounded:
            return {(blob, 0): self.raw(blob) for blob in self._plan.blobs}
        result = {(name, 0): self.linear(name) for name in self._plan.blobs}
        for name, blob in self._plan.blobs.items():
            result.update({(name, bits): self.decoded(name, bits) for bits in blob.z})
        return result

    def raw(self, blob: str) -> str:
        """Return a blob in its own unit, not quantised."""
        if not self._plan.rounded:
            return self._values.get((blob, "float")) or self._input(blob, "float")
        key = (blob, "raw")
        if key not in self._values:
            low, high = self.graph.scalar(LOWEST), self.graph.scalar(HIGHEST)
            value = self.graph.node("Clip", self.linear(blob), low, high)
            self._values[key] = self.graph.node("Mul", value, self.graph.scalar(1 / ONE))
        return self._values[key]

    def linear(self, blob: str) -> str:
        """Return a blob in units of 1/4096, whole."""
        key = (blob, "linear")
        if key not in self._values:
            if blob in self._plan.inputs:
                return self._input(blob, "linear")
            self._values[key] = self.graph.node("Round", self._scaled(blob))
        return self._values[key]

    def _scaled(self, blob: str) -> str:
        """Return a blob in units of 1/4096, before rounding where that has not happened yet."""
        for form in ("linear", "scaled"):
            if (blob, form) in self._values:
                return self._values[(blob, form)]
        # Only a blob that was passed on as codes gets here.
        (bits,) = self._plan.blobs[blob].z
        return self.graph.node("Mul", self._values[(blob, bits)], self.graph.scalar(ONE))

    def decoded(self, blob: str, bits: int) -> str:
        """Return a blob as its codes of that width say."""
        key = (blob, bits)
        if key not in self._values:
            if blob in self._plan.inputs:
                return self._input(blob, bits)
            self._values[key] = self._quantised(blob, bits)
        return self._values[key]

    def _input(self, blob: str, form: int | str) -> str:
        name = self.graph.input(input_name(blob, form), self._plan.inputs[blob])
        self._values[(blob, form)] = name
        return name

    def _add_float(self, operation: Operation) -> None:
        step = operation.step
        shapes = {name: blob.shape for name, blob in self._plan.blobs.items()}
        values = emit(self.graph, step, [self.raw(blob) for blob in step.bottoms], shapes)
        self._values.update(zip([(top, "float") for top in step.tops], values, strict=True))

    def _add(self, operation: Operation) -> None:
        plan, step = self._plan, operation.step
        shapes = {name: blob.shape for name, blob in plan.blobs.items()}
        readings = [plan.reading(operation, blob) for blob in step.bottoms]
        if step.non_negative or (
            (step.keeps_codes or step.type in _MOVES) and self._non_negative.issuperset(step.bottoms)
        ):
            self._non_negative.update(step.tops)
        if self._passes_codes(operation):
            (value,) = emit(self.graph, step, [self.decoded(step.bottoms[0], readings[0])], shapes)
            self._values[(step.tops[0], readings[0])] = value
            return
        if self._moves(operation, readings):
            values, form = (
                emit(self.graph, step, [self.linear(blob) for blob in step.bottoms], shapes),
                "linear",
            )
        else:
            operands = [
                self.decoded(blob, bits) if bits else self.raw(blob)
                for blob, bits in zip(step.bottoms, readings, strict=True)
            ]
            values, form = emit(self.graph, step, operands, shapes, ONE), "scaled"
        self._values.update(zip([(top, form) for top in step.tops], values, strict=True))

    def _passes_codes(self, operation: Operation) -> bool:
        """Whether input codes can be handed on as they are."""
        step = operation.step
        if not step.keeps_codes or operation.bits == FLOAT:
            return False
        source, target = self._plan.blobs[step.bottoms[0]], self._plan.blobs[step.tops[0]]
        bits = self._plan.reading(operation, step.bottoms[0])
        return bits != 0 and target.width != WIDE and dict(target.z) == {bits: source.z[bits]}

    @staticmethod
    def _moves(operation: Operation, readings: list[int]) -> bool:
        step = operation.step
        picks = step.type in _MOVES or (step.type == "ReLU" and not step.params.get("negative_slope", 0))
        return picks and not any(readings)

    def _quantised(self, blob: str, bits: int) -> str:
        z = self._plan.blobs[blob].z[bits]
        top = int(np.ceil(float(gfpq.thresholds(z, bits)[-1]) * ONE))
        if top <= _LARGEST_TABLE:
            return self._by_table(blob, z, bits, top)
        positive = self._by_logarithm(blob, z, bits, negative=False)
        if blob in self._non_negative:
            return positive
        negative = self._by_logarithm(blob, z, bits, negative=True)
        below = self.graph.node("Less", self.linear(blob), self.graph.scalar(0))
        return self.graph.node("Where", below, negative, positive)

    def _rows(self, blob: str) -> int:
        size = int(np.prod(self._plan.blobs[blob].shape))
        return self._threads if size % self._threads == 0 else 1

    def _look_up(self, blob: str, index: str, table: np.ndarray, key: tuple[object, ...]) -> str:
        """Return table[index]: GatherElements is the one look-up that onnxruntime cuts into rows."""
        rows = self._rows(blob)
        data = self.graph.constant(np.tile(table, (rows, 1)), key=(*key, rows))
        index = self.graph.node("Reshape", index, self.graph.ints([rows, -1]))
        found = self.graph.node("GatherElements", data, index, axis=1)
        return self.graph.node("Reshape", found, self.graph.ints(self._plan.blobs[blob].shape))

    def _whole(self, value: str, low: float, high: float) -> str:
        from onnx import TensorProto

        clipped = self.graph.node("Clip", value, self.graph.scalar(low), self.graph.scalar(high))
        return self.graph.node("Cast", clipped, to=TensorProto.INT32)

    def _by_table(self, blob: str, z: int, bits: int, top: int) -> str:
        from onnx import TensorProto

        signed = blob not in self._non_negative
        short = np.iinfo(np.int16 if signed else np.uint16)
        if top > short.max:
            index = self._whole(self.linear(blob), -top if signed else 0, top)
        else:
            # One pass of the same rounding (half to even) and saturation; the table is as long as the type.
            top = short.max
            one, zero = self.graph.scalar(1), self.graph.constant(0, short.dtype, key=("zero", short.dtype))
            index = self.graph.node("QuantizeLinear", self._scaled(blob), one, zero)
            index = self.graph.node("Cast", index, to=TensorProto.INT32)
        table = _table(z, bits, top, signed=signed)
        if signed and top == short.max:
            # int16 has one more negative number.
            table = np.insert(table, top + 1, table[top + 1])
        return self._look_up(blob, index, table, ("table", z, bits, signed))

    def _by_logarithm(self, blob: str, z: int, bits: int, *, negative: bool) -> str:
        graph, form = self.graph, gfpq.format_of(bits)
        edges = gfpq.thresholds(z, bits, negative=negative)
        sign = -1.0 if negative else 1.0
        known = np.concatenate([[0.0], sign * gfpq.magnitudes(z, bits, negative=negative)])
        magnitude = graph.node(
            "Max", graph.node("Mul", self.linear(blob), graph.scalar(sign)), graph.scalar(0.5)
        )
        octaves = graph.node("Mul", graph.node("Log", magnitude), graph.scalar(form.steps / np.log(2)))
        # The place of the last edge that may lie below the magnitude.
        first = 0.5 + _SLACK - z - (form.top + 1 - len(edges)) - form.steps * np.log2(ONE)
        place = graph.node("Floor", graph.node("Add", octaves, graph.scalar(first)))
        place = self._whole(place, 0, len(edges) - 1)
        key = (z, bits, negative)
        edge = self._look_up(blob, place, edges * np.float32(ONE), ("edges", *key))
        reached = graph.node("Not", graph.node("Less", magnitude, edge))
        step = graph.node("Cast", reached, to=_int32())
        return self._look_up(blob, graph.node("Add", place, step), known, ("known", *key))


def _table(z: int, bits: int, top: int, *, signed: bool) -> np.ndarray:
    """Return the GFPQ value of 0..top units; with `signed` then those of -top..-1, as indices count back."""

    def half(*, negative: bool) -> np.ndarray:
        edges = np.ceil(gfpq.thresholds(z, bits, negative=negative).astype(np.float64) * ONE).astype(int)
        known = gfpq.magnitudes(z, bits, negative=negative)
        return np.repeat(np.concatenate([[np.float32(0)], known]), np.diff([0, *edges, top + 1]))

    positive = half(negative=False)
    return np.concatenate([positive, -half(negative=True)[:0:-1]]) if signed else positive


def _int32() -> int:
    from onnx import TensorProto

    return int(TensorProto.INT32)


def input_name(blob: str, form: int | str) -> str:
    """Return the graph input that takes an input blob: `form` is bits of GFPQ, "linear" or "float"."""
    return f"{blob}#{form}"
