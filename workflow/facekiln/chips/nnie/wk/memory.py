"""Where each blob lies in the temporary buffer: first fit among the holes, else behind all others.

The rule was found from the published RetinaFace files: it gives the size and the offset of all 1435 records
of the 16-bit one. In the 8-bit one the vendor packs four rows of a few 20x20 maps into one, which is not
done here; the size of the buffer is the same. That every mapper allocates by this rule is not known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from facekiln.caffe.geometry import axis_of
from facekiln.chips.nnie.engine.plan import Plan


@dataclass(frozen=True)
class Room:
    """Where a blob lies.

    Attributes:
        offset: bytes from the start of the temporary buffer.
        row_stride: bytes of a row, a multiple of the alignment.
        size: bytes of the whole blob.
    """

    offset: int
    row_stride: int
    size: int


def height_width_channels(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (H, W, C) of a blob; one with fewer axes is a row, as vectors stand in published node tables."""
    if len(shape) == 4:
        return shape[2], shape[3], shape[1]
    return 1, math.prod(shape[1:]), 1


def stride_and_size(
    height: int, width: int, channels: int, elem_bytes: int, alignment: int
) -> tuple[int, int]:
    """Return bytes of a row and of the whole blob."""
    stride = -(-width * elem_bytes // alignment) * alignment
    return stride, stride * height * channels


def _blob_room(plan: Plan, blob: str, alignment: int) -> tuple[int, int]:
    return stride_and_size(*height_width_channels(plan.blobs[blob].shape), plan.blobs[blob].width, alignment)


class _Arena:
    def __init__(self) -> None:
        self.taken: dict[str, tuple[int, int]] = {}
        self.end = 0

    def take(self, blob: str, size: int) -> int:
        place = 0
        for offset, length in sorted(self.taken.values()):
            if offset - place >= size:
                break
            place = max(place, offset + length)
        else:
            # The last hole ends where the buffer ends so far; one that is too small is not stretched.
            if self.end - place < size:
                place = self.end
        self.taken[blob] = (place, size)
        self.end = max(self.end, place + size)
        return place


def joined_in_place(plan: Plan) -> dict[str, str]:
    """Return part -> whole for Concats along C whose parts can be written right into the result.

    They cost no operation: published report tables have no record of them.
    """
    readers = Counter(bottom for operation in plan.operations for bottom in operation.step.bottoms)
    kept = {*plan.inputs, *plan.outputs.values()}
    found: dict[str, str] = {}
    for operation in plan.operations:
        step = operation.step
        if step.type != "Concat" or axis_of(step.layer, len(plan.blobs[step.tops[0]].shape)) != 1:
            continue
        parts, (whole,) = step.bottoms, step.tops
        if all(
            part not in kept and readers[part] == 1 and plan.blobs[part].width == plan.blobs[whole].width
            for part in parts
        ):
            found.update(dict.fromkeys(parts, whole))
    return found


def plan_memory(plan: Plan, alignment: int) -> tuple[Mapping[str, Room], int]:
    """Return each blob's room, and the bytes of the whole temporary buffer.

    Args:
        plan: operations in order, blobs with shapes and widths.
        alignment: of rows, 16 or 32.
    """
    joined = joined_in_place(plan)
    parts_of: dict[str, list[str]] = {}
    for part, whole in joined.items():
        parts_of.setdefault(whole, []).append(part)
    last_read = dict.fromkeys(plan.blobs, -1)
    for place, operation in enumerate(plan.operations):
        last_read.update(dict.fromkeys(operation.step.bottoms, place))
    # Reported blobs stay to the end.
    last_read.update(dict.fromkeys(plan.outputs.values(), len(plan.operations)))
    arena = _Arena()
    rooms: dict[str, Room] = {}

    def add(blob: str) -> None:
        if blob in rooms:
            return
        if blob in joined:
            add(joined[blob])
            return
        stride, size = _blob_room(plan, blob, alignment)
        start = arena.take(blob, size)
        rooms[blob] = Room(start, stride, size)
        for part in parts_of.get(blob, []):
            stride, size = _blob_room(plan, part, alignment)
            rooms[part] = Room(start, stride, size)
            start += size

    for blob in plan.inputs:
        add(blob)
    for place, operation in enumerate(plan.operations):
        for top in operation.step.tops:
            add(top)
        for blob in [*operation.step.bottoms, *operation.step.tops]:
            if last_read[blob] <= place:
                arena.taken.pop(blob, None)
    return rooms, arena.end
