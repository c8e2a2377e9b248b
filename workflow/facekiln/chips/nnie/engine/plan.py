"""What the engine computes, decided once: codes of the weights, width and zero points of every blob.

The rules for widths are read off the report tables of published `.wk` files; no vendor text states them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.net import Net
from facekiln.chips.nnie.engine import gfpq
from facekiln.chips.nnie.engine.fuse import ACTIVATIONS, WEIGHTED, FusedNet, Step, fuse
from facekiln.chips.nnie.engine.operators import check_supported
from facekiln.errors import KilnError

FLOAT = 32
WIDE = 4
_DEFAULT_BITS = 8
# Operations whose 32-bit results are made of 32-bit operands.
_CHAIN = ("Reshape", "Flatten", "Permute", "Softmax", "Concat", "Eltwise", "Slice")


@dataclass(frozen=True)
class Blob:
    """How a blob is stored.

    Attributes:
        shape: [N, C, H, W], or fewer axes behind an InnerProduct.
        width: bytes per element: 1 or 2 (GFPQ), 4 (signed 20.12; float32 in a float plan).
        z: zero point by bits, for each width in which some step reads the blob.
    """

    shape: tuple[int, ...]
    width: int
    z: Mapping[int, int]


@dataclass(frozen=True)
class Operation:
    """A step with its precision.

    Attributes:
        step: its first blob is the decoded weights where `codes` is set.
        bits: 8, 16 or 32 (float weights, inputs as they are).
        codes: GFPQ codes of the weights, or None.
        z: zero point of the weights.
    """

    step: Step
    bits: int
    codes: NDArray[Any] | None = None
    z: int = 0


@dataclass(frozen=True)
class Plan:
    """A network ready to be executed.

    Attributes:
        name: the network's name.
        inputs: input blob -> [N, C, H, W].
        outputs: reported name -> blob.
        operations: in execution order.
        blobs: every blob.
        rounded: results are rounded to 1/4096, as on the chip; False for float checks.
    """

    name: str
    inputs: Mapping[str, list[int]]
    outputs: Mapping[str, str]
    operations: tuple[Operation, ...]
    blobs: Mapping[str, Blob]
    rounded: bool = True

    def operation(self, layer: str) -> Operation:
        """Return the operation of a layer.

        Raises:
            KilnError: there is none; fused layers are part of their producer's.
        """
        for operation in self.operations:
            if operation.step.name == layer:
                return operation
        raise KilnError(
            f"there is no operation of layer '{layer}'",
            where=self.name,
            hint="a fused BatchNorm, Scale or activation belongs to the layer before it",
        )

    def reading(self, operation: Operation, bottom: str) -> int:
        """Return how an operation reads a blob: bits of GFPQ, or 0 for signed 20.12 (or float)."""
        if not self.rounded or operation.bits == FLOAT:
            return 0
        if operation.step.type in WEIGHTED:
            return operation.bits
        width = self.blobs[bottom].width
        return 0 if width == WIDE else 8 * width


def blob_widths(net: FusedNet, bits: Mapping[str, int]) -> dict[str, int]:
    """Decide the width of every blob in bytes.

    4: reported blobs, inputs of stand-alone activations, and inputs of Reshape, Flatten, Permute, Softmax,
    Concat, Slice and Eltwise whose own result is 4. So the inputs of a Concat in front of a stand-alone ReLU
    are 4, and the ReLU's result is not. Every other blob: 1 or 2, the most that one of its readers needs.

    Args:
        net: the network.
        bits: 8, 16 or 32 of every step.
    """
    widths = dict.fromkeys(net.outputs.values(), WIDE)
    readers: dict[str, list[Step]] = {}
    for step in net.steps:
        for bottom in step.bottoms:
            readers.setdefault(bottom, []).append(step)
    produced = [blob for step in net.steps for blob in step.tops]
    for blob in [*reversed(produced), *net.inputs]:
        read_by = readers.get(blob, [])
        wide = blob in widths or any(
            step.type in ACTIVATIONS
            or bits[step.name] == FLOAT
            or (step.type in _CHAIN and any(widths[top] == WIDE for top in step.tops))
            for step in read_by
        )
        most = max((bits[step.name] for step in read_by), default=FLOAT)
        widths[blob] = WIDE if wide else most // 8
    return {blob: widths[blob] for blob in [*net.inputs, *produced]}


def bits_per_step(net: FusedNet, bits: int | Mapping[str, int]) -> dict[str, int]:
    """Return the precision of every step; a mapping names the layers that are not 8 bit.

    Raises:
        KilnError: another width than 8, 16 or 32, or a name that no step has.
    """
    names = [step.name for step in net.steps]
    if isinstance(bits, Mapping):
        for name in bits:
            if name not in names:
                raise KilnError(
                    f"bits are given for '{name}', which is no operation of the network",
                    where=net.name,
                    hint="name the layer that a fused BatchNorm, Scale or activation stands behind",
                )
    result = {name: bits.get(name, _DEFAULT_BITS) if isinstance(bits, Mapping) else bits for name in names}
    for name, value in result.items():
        if value not in (*gfpq.FORMATS, FLOAT):
            raise KilnError(
                "has no such precision", where=f"layer '{name}'", value=value, limit="8, 16 or 32"
            )
    return result


def _range_of(net: FusedNet, ranges: Mapping[str, float]) -> dict[str, float]:
    """Return the range of every blob; steps that only pick values hand their input's on."""
    found = {}
    for blob in [*net.inputs, *(top for step in net.steps for top in step.tops)]:
        if blob not in ranges:
            raise KilnError(
                f"there is no range of blob '{blob}'",
                where=net.name,
                hint="measure ranges on this very network (facekiln.chips.nnie.engine.ranges)",
            )
        found[blob] = float(ranges[blob])
    for step in net.steps:
        if step.keeps_codes:
            found[step.tops[0]] = found[step.bottoms[0]]
    return found


def _quantised(step: Step, bits: int) -> Operation:
    if step.type not in WEIGHTED or bits == FLOAT:
        return Operation(step, bits)
    weights, *others = step.blobs
    z = gfpq.zero_point(float(np.abs(weights).max(initial=0)), bits)
    return with_codes(replace(step, blobs=tuple(others)), bits, gfpq.encode(weights, z, bits), z)


def with_codes(step: Step, bits: int, codes: NDArray[Any], z: int) -> Operation:
    """Return the operation of a step without its weights, given their codes."""
    return Operation(replace(step, blobs=(gfpq.decode(codes, z, bits), *step.blobs)), bits, codes, z)


def _readings(plan: Plan) -> Iterable[tuple[str, int]]:
    for operation in plan.operations:
        for bottom in operation.step.bottoms:
            yield bottom, plan.reading(operation, bottom)


def make_plan(net: Net, ranges: Mapping[str, float], bits: int | Mapping[str, int]) -> Plan:
    """Fuse a network and quantise its weights.

    Args:
        net: with weights.
        ranges: largest magnitude of every blob of the fused network, see `ranges.measure_ranges`; not needed
            where bits is 32.
        bits: 8, 16, or 32 for float without any rounding; or a mapping of the layers that are not 8 bit.

    Raises:
        KilnError: a layer cannot be run, a range is missing, or a precision is unknown.
    """
    fused = fuse(net)
    check_supported(fused.steps)
    per_step = bits_per_step(fused, bits)
    rounded = bits != FLOAT
    widths = blob_widths(fused, per_step)
    blobs = {blob: Blob(tuple(fused.shapes[blob]), width, {}) for blob, width in widths.items()}
    operations = tuple(_quantised(step, per_step[step.name]) for step in fused.steps)
    plan = Plan(fused.name, fused.inputs, fused.outputs, operations, blobs, rounded)
    if not rounded:
        return plan
    largest = _range_of(fused, ranges)
    needed = {(blob, reading) for blob, reading in _readings(plan) if reading}
    needed |= {(blob, 8 * width) for blob, width in widths.items() if width != WIDE}
    z = {
        blob: {b: gfpq.zero_point(largest[blob], b) for b in sorted(gfpq.FORMATS) if (blob, b) in needed}
        for blob in widths
    }
    return replace(plan, blobs={blob: replace(old, z=z[blob]) for blob, old in blobs.items()})
