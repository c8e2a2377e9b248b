"""Report rows against the tables of two published .wk files, and rules that those files do not show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facekiln.caffe.net import Layer, Net
from facekiln.caffe.reader import read_net
from facekiln.chips.nnie.engine.engine import Engine
from facekiln.chips.nnie.engine.ranges import measure_ranges
from facekiln.chips.nnie.engine.report import OP_REPORT, OP_UNKNOWN, ReportRow, report_rows
from facekiln.chips.nnie.wk.read import parse_wk


@pytest.mark.published
@pytest.mark.parametrize(("bits", "name"), [(8, "mnet_mergebn_640L_inst.wk"), (16, "mnet_640_inst.wk")])
def test_rows_equal_the_published_retinaface(
    mirror: Callable[[str], Path], data: Callable[[str], Path], bits: int, name: str
) -> None:
    """All 1435 records of each file (nniefacelib): operation, bytes, shape and layer id."""
    import cv2

    net = read_net(mirror("mnet25_nnie.prototxt"), mirror("mnet25_nnie.caffemodel"))
    path = mirror(name)
    real = parse_wk(path.read_bytes(), path).report
    pictures = [cv2.imread(str(data(f"images/det{n}.jpg"))) for n in (39, 41)]
    batches = [{"data": p[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32)} for p in pictures]
    rows = report_rows(Engine(net, measure_ranges(net, batches), bits).plan)

    def structure(row: Any) -> tuple[int, ...]:
        return (row.op, row.elem_bytes, row.height, row.width, row.channels, row.layer_id)

    assert len(real) == 1435
    assert [structure(row) for row in rows] == [structure(row) for row in real]
    assert rows[0].z == real[0].z == {8: 0, 16: -384}[bits]  # 0..255
    # The vendor's pictures are not published and were more than our two: ranges agree within 1.25 octaves,
    # and are hardly ever above theirs.
    distance = {a.blob: a.z - b.z for a, b in zip(rows, real, strict=True) if a.elem_bytes != 4}
    assert len(distance) == 46
    assert max(distance.values()) <= 24
    assert min(distance.values()) >= -160
    assert -32 <= float(np.median(list(distance.values()))) <= 0


def rows_of(*layers: Layer, bits: int = 8) -> list[ReportRow]:
    net = Net("n", {"data": [1, 4, 6, 10]}, list(layers))
    rng = np.random.default_rng(0)
    batch = {"data": rng.normal(size=(1, 4, 6, 10)).astype(np.float32)}
    return report_rows(Engine(net, measure_ranges(net, [batch]), bits).plan)


def conv(name: str, bottom: str, kind: str = "Convolution", inputs: int = 4, **params: Any) -> Layer:
    weights = np.full((4, inputs // params.get("group", 1), 1, 1), 0.3, np.float32)
    given = {"num_output": 4, "kernel_size": [1], "bias_term": False, **params}
    return Layer(name, kind, [bottom], [name], given, [weights])


def test_split_convolutions_count_a_slice_and_a_concat() -> None:
    rows = rows_of(conv("a", "data"), conv("b", "a", group=2), conv("c", "b"))
    assert [(row.op, row.channels, row.layer_id) for row in rows] == [
        (0x2C, 4, 0), (0x00, 4, 1), (0x00, 2, 3), (0x00, 2, 4), (0x00, 4, 6), (OP_REPORT, 4, 7),
    ]  # fmt: skip


def test_depthwise_conv_stays_one_operation() -> None:
    rows = rows_of(conv("a", "data", "DepthwiseConv", group=4))
    assert [(row.op, row.channels, row.layer_id) for row in rows[1:]] == [(0x04, 4, 1), (OP_REPORT, 4, 2)]


def test_a_concat_that_must_copy_has_a_record() -> None:
    cat = Layer("cat", "Concat", ["a", "data"], ["cat"], {"axis": 1})
    rows = rows_of(conv("a", "data"), cat, conv("b", "cat", inputs=8))
    assert [row.op for row in rows] == [0x2C, 0x00, 0x25, 0x00, OP_REPORT]


def test_vectors_lie_in_one_row() -> None:
    product = Layer("fc", "InnerProduct", ["data"], ["fc"], {"num_output": 7, "bias_term": False},
                    [np.ones((7, 240), np.float32)])  # fmt: skip
    rows = rows_of(product)
    assert [(row.op, row.height, row.width, row.channels) for row in rows[1:]] == [
        (0x05, 1, 7, 1),
        (OP_REPORT, 1, 7, 1),
    ]


def test_z_is_in_128ths_of_an_octave_at_either_width() -> None:
    low, high = (rows_of(conv("a", "data"), conv("b", "a"), bits=bits) for bits in (8, 16))
    assert low[1].z % 8 == 0
    # 8 octaves below the top against 11.
    assert 0 <= high[1].z + 1407 - (low[1].z + 127 * 8) < 8


def test_operations_that_no_published_file_shows_get_a_code_of_nobody() -> None:
    power = Layer("p", "Power", ["data"], ["p"], {"power": 2.0})
    assert rows_of(power)[1].op == OP_UNKNOWN
