"""Temporary buffer and report table, against the published files of the same network."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from facekiln.caffe.reader import read_net
from facekiln.chips.nnie.engine.fuse import fuse
from facekiln.chips.nnie.engine.plan import Plan, make_plan
from facekiln.chips.nnie.wk.container import ReportRecord
from facekiln.chips.nnie.wk.memory import plan_memory
from facekiln.chips.nnie.wk.read import read_wk
from facekiln.chips.nnie.wk.report_table import report_records

# Ours counts records, the vendor's points into the instructions; z depends on calibration pictures that are
# not published; two flags are of unknown meaning.
_OWN = {"position", "z", "flags"}


@pytest.fixture(scope="module")
def plan(mirror):
    """mnet.25 with made-up ranges, which decide nothing but z."""
    net = read_net(mirror("mnet25_nnie.prototxt"), mirror("mnet25_nnie.caffemodel"))
    ranges = dict.fromkeys(fuse(net).shapes, 1.0)
    return lambda bits: make_plan(net, ranges, bits)


def differences(ours: list[ReportRecord], theirs: tuple[ReportRecord, ...]) -> list[int]:
    pairs = zip(ours, theirs, strict=True)
    return [
        place
        for place, (a, b) in enumerate(pairs)
        if any(value != asdict(b)[key] for key, value in asdict(a).items() if key not in _OWN)
    ]


def test_all_records_of_the_16_bit_file(mirror, plan) -> None:
    # nniefacelib's mnet_640_inst.wk: 1435 records with shapes, ids, strides, sizes and places in the buffer.
    published = read_wk(mirror("mnet_640_inst.wk"))
    records, total = report_records(plan(16), 16)
    assert total == published.tmp_bytes == 7_372_800
    assert differences(records, published.report) == []


def test_the_8_bit_file_but_for_packed_rows(mirror, plan) -> None:
    # There the vendor packs four rows of eight maps into one, which moves what lies behind them.
    published = read_wk(mirror("mnet_mergebn_640L_inst.wk"))
    records, total = report_records(plan(8), 16)
    assert total == published.tmp_bytes == 3_686_400
    different = differences(records, published.report)
    packed = [record for record in published.report if record.flags & 0x01000000]
    assert len(different) == 74 and len(packed) == 8
    assert all(record.row_stride == 4 * record.width for record in packed)
    assert min(different) == published.report.index(packed[0])


def overlapping(plan: Plan, alignment: int) -> list[tuple[str, str]]:
    """Return pairs of blobs that are alive at the same time and share bytes, parts of a Concat apart."""
    rooms, total = plan_memory(plan, alignment)
    alive: dict[str, tuple[int, int]] = dict.fromkeys(plan.inputs, (-1, -1))
    for place, operation in enumerate(plan.operations):
        alive.update(dict.fromkeys(operation.step.tops, (place, place)))
        for bottom in operation.step.bottoms:
            alive[bottom] = (alive[bottom][0], place)
    for blob in plan.outputs.values():
        alive[blob] = (alive[blob][0], len(plan.operations))
    joins = {op.step.tops[0]: op.step.bottoms for op in plan.operations if op.step.type == "Concat"}
    names = list(rooms)
    assert all(
        room.offset + room.size <= total and room.row_stride % alignment == 0 for room in rooms.values()
    )
    return [
        (a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if alive[a][0] <= alive[b][1]
        and alive[b][0] <= alive[a][1]
        and rooms[a].offset < rooms[b].offset + rooms[b].size
        and rooms[b].offset < rooms[a].offset + rooms[a].size
        and b not in joins.get(a, ())
        and a not in joins.get(b, ())
    ]


@pytest.mark.parametrize(("bits", "alignment"), [(8, 16), (16, 32)])
def test_no_two_living_blobs_share_bytes(plan, bits: int, alignment: int) -> None:
    assert overlapping(plan(bits), alignment) == []


def test_no_two_living_blobs_share_bytes_in_a_small_net(tiny_net) -> None:
    net = tiny_net()
    assert overlapping(make_plan(net, dict.fromkeys(fuse(net).shapes, 1.0), 8), 16) == []
