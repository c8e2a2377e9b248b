"""The report table of an emulated `.wk`: the engine's rows, each with its place in the temporary buffer."""

from __future__ import annotations

from facekiln.chips.nnie.engine.plan import Plan
from facekiln.chips.nnie.engine.report import OP_REPORT, report_rows
from facekiln.chips.nnie.wk.container import ReportRecord
from facekiln.chips.nnie.wk.memory import plan_memory, stride_and_size

_REPORT_FLAGS = 0x100


def report_records(plan: Plan, alignment: int) -> tuple[list[ReportRecord], int]:
    """Return the report table of an emulated `.wk`, and the bytes of its temporary buffer.

    Args:
        plan: what the engine runs.
        alignment: of rows, the .cfg's internal_stride.
    """
    rows = report_rows(plan)
    rooms, total = plan_memory(plan, alignment)
    written: dict[str, int] = {}
    records = []
    for position, row in enumerate(rows):
        stride, size = stride_and_size(row.height, row.width, row.channels, row.elem_bytes, alignment)
        is_report = row.op == OP_REPORT
        # The operations of a split layer write one behind the other into the layer's blob.
        offset = 0 if is_report else rooms[row.blob].offset + written.get(row.blob, 0)
        records.append(
            ReportRecord(
                op=row.op,
                elem_bytes=row.elem_bytes,
                width=row.width,
                height=row.height,
                channels=row.channels,
                tmp_offset=offset,
                row_stride=stride,
                layer_id=row.layer_id,
                position=position,
                z=row.z,
                blob_bytes=0 if is_report else size,
                flags=_REPORT_FLAGS if is_report else 0,
            )
        )
        if not is_report:
            written[row.blob] = written.get(row.blob, 0) + size
    return records, total
