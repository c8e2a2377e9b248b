"""A plan as one onnxruntime graph: operators, rounding to 1/4096, and GFPQ.

Every result first exists in units of 1/4096, as whole numbers in float32: the 20.12 form. GFPQ of such a
number can be looked up by the number itself, exactly, so that a forward pass is one graph without a detour
through Python.
"""

from __future__ import annotations

from facekiln.chips.nnie.engine.lookup import ONE, LookUp
from facekiln.chips.nnie.engine.onnx import OnnxGraph
from facekiln.chips.nnie.engine.operators import emit
from facekiln.chips.nnie.engine.plan import FLOAT, WIDE, Operation, Plan

# Saturation of int32; the largest float32 below 2^31.
LOWEST, HIGHEST = -(2.0**31), 2.0**31 - 128

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
            threads: that will run it.
        """
        self.graph = OnnxGraph()
        self._plan = plan
        self._look_up = LookUp(self.graph, threads)
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
        stored = self._plan.blobs[blob]
        return self._look_up.quantised(
            self._scaled(blob),
            lambda: self.linear(blob),
            stored.shape,
            stored.z[bits],
            bits,
            signed=blob not in self._non_negative,
        )


def input_name(blob: str, form: int | str) -> str:
    """Return the graph input that takes an input blob: `form` is bits of GFPQ, "linear" or "float"."""
    return f"{blob}#{form}"
