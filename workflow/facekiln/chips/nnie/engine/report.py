"""The report table of an emulated `.wk`: one row per operation of the chip, as the mapper lists them.

Order, ids, shapes and widths follow what the published RetinaFace files show (1435 records each, equal to
ours but for z, which depends on the calibration pictures): a grouped convolution or deconvolution becomes one
operation per group between a Slice and a Concat that have ids but no record; a Concat whose inputs can be
written in place has an id but no record; every reported blob adds a record behind its producer; Softmax over
channels, and the Reshape in front of it, see a map as one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from facekiln.caffe.geometry import axis_of
from facekiln.chips.nnie.engine.gfpq import FORMATS
from facekiln.chips.nnie.engine.plan import WIDE, Operation, Plan
from facekiln.chips.nnie.wk.memory import height_width_channels, joined_in_place

# Codes seen in published files.
OP_INPUT, OP_REPORT = 0x2C, 0x2D
_OPS = {
    "Convolution": 0x00,
    "ConvolutionDepthwise": 0x04,
    "DepthwiseConv": 0x04,
    "Deconvolution": 0x01,
    "Pooling": 0x03,
    "InnerProduct": 0x05,
    "ReLU": 0x07,
    "Softmax": 0x10,
    "BatchNorm": 0x18,
    "Scale": 0x18,
    "Eltwise": 0x1B,
    "Permute": 0x1F,
    "Concat": 0x25,
    "Reshape": 0x27,
    "Flatten": 0x27,
}
# The vendor's code of every other type is not known; this one is nobody's.
OP_UNKNOWN = 0xFF


@dataclass(frozen=True)
class ReportRow:
    """One record.

    Attributes:
        op: the vendor's operation code, or `OP_UNKNOWN`.
        elem_bytes: 1, 2 or 4.
        height, width, channels: of the blob; a vector is 1 x dim x 1.
        layer_id: counts up from 0, with gaps for operations without a record.
        z: zero point in 1/128 octave at either width; 0 where elem_bytes is 4.
        layer, blob: their names, for people.
    """

    op: int
    elem_bytes: int
    height: int
    width: int
    channels: int
    layer_id: int
    z: int
    layer: str
    blob: str


def table_z(plan: Plan, blob: str) -> int:
    """Return a blob's z in the report table's unit."""
    width = plan.blobs[blob].width
    if width == WIDE:
        return 0
    return plan.blobs[blob].z[8 * width] * FORMATS[8 * width].z_unit


def _over_channels(plan: Plan, operation: Operation) -> bool:
    shape = plan.blobs[operation.step.bottoms[0]].shape
    return operation.step.type == "Softmax" and len(shape) == 4 and axis_of(operation.step.layer, 4) == 1


def _in_one_row(plan: Plan, operation: Operation) -> bool:
    """Whether the chip sees the map as one row: a Softmax over channels, or the Reshape in front of it."""
    if operation.step.type != "Reshape":
        return _over_channels(plan, operation)
    readers = [other for other in plan.operations if operation.step.tops[0] in other.step.bottoms]
    return bool(readers) and all(_over_channels(plan, other) for other in readers)


def _parts(
    plan: Plan, operation: Operation, joined: Mapping[str, str]
) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Yield (ids to skip before, shape) of each record of an operation."""
    step = operation.step
    height, width, channels = height_width_channels(plan.blobs[step.tops[0]].shape)
    group = int(step.params.get("group", 1))
    if step.type == "Slice" or (step.type == "Concat" and joined.get(step.bottoms[0]) == step.tops[0]):
        return
    if step.type in ("Convolution", "Deconvolution") and group > 1:
        for place in range(group):
            yield int(place == 0), (height, width, channels // group)
    elif _in_one_row(plan, operation):
        yield 0, (1, height * width, channels)
    else:
        yield 0, (height, width, channels)


def report_rows(plan: Plan) -> list[ReportRow]:
    """Return the report table of a plan, for the container's writer; `Engine.plan` has one."""
    rows: list[ReportRow] = []
    count = 0

    def add(op: int, blob: str, sides: tuple[int, int, int], layer: str, *, report: bool = False) -> None:
        width = WIDE if report else plan.blobs[blob].width
        z = 0 if report else table_z(plan, blob)
        rows.append(ReportRow(op, width, *sides, count, z, layer, blob))

    for blob in plan.inputs:
        add(OP_INPUT, blob, height_width_channels(plan.blobs[blob].shape), blob)
        count += 1
    reported, joined = set(plan.outputs.values()), joined_in_place(plan)
    for operation in plan.operations:
        step = operation.step
        parts = list(_parts(plan, operation, joined))
        for skipped, sides in parts:
            count += skipped
            add(_OPS.get(step.type, OP_UNKNOWN), step.tops[0], sides, step.name)
            count += 1
        # The Concat behind a split operation, or an operation without a record, takes an id as well.
        count += int(len(parts) != 1)
        for top in step.tops:
            if top in reported:
                add(OP_REPORT, top, height_width_channels(plan.blobs[top].shape), step.name, report=True)
                count += 1
    return rows
