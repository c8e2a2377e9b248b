"""Calibration tables: what run_calibration of tpu_mlir 1.26 writes, and what it cannot."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.chips.sophon.mlir import parse_mlir
from facekiln.chips.sophon.table import (
    Row,
    Table,
    check_batch,
    check_table,
    parse_table,
    read_table,
    row_of,
    table_text,
    write_table,
)
from facekiln.errors import KilnError

# As run_calibration of tpu_mlir 1.26 wrote it (numbers are the tool's), its spelling included.
TOOLS = """\
# mlir version: v1.26-20251229 cali version 1.0
# mlir: {folder}top.mlir
# genetated time: {clock}
# quantization threshold calculation method: ['kl']
# histogram number: 2048
# sample number: 32
###
# tune number: 5
###
# op_name    threshold    min    max
input 1.0000000 -0.9921875 1.0000000
/base_net.0/base_net.0.2/Relu_output_0_Relu 2.9768622 -0.0000000 6.3726034
"""
NETWORK = parse_mlir(
    """\
module @m attributes {module.chip = "ALL", module.state = "TOP_F32"} {
    %0 = "top.Input"(%arg0) {x = 1} : (tensor<1x3x8x8xf32>) -> tensor<1x3x8x8xf32> loc(#loc1)
    %1 = "top.Weight"() : () -> tensor<8x3x3x3xf32> loc(#loc2)
    %2 = "top.Conv"(%0, %1) {x = 1} : (tensor<1x3x8x8xf32>, tensor<8x3x3x3xf32>) -> tensor<1x8x8x8xf32> loc(#loc3)
}
#loc1 = loc("input")
#loc2 = loc("weight")
#loc3 = loc("/base_net.0/base_net.0.2/Relu_output_0_Relu")
"""  # noqa: E501
)
NUMBERS = st.floats(1e-5, 1e6, allow_nan=False)
NAMES = st.text(st.characters(categories=("L", "N", "P", "S"), exclude_characters="#"), min_size=1)


def told(clock: str = "2026-11-21 10:22:02.557836", folder: str = "") -> str:
    return TOOLS.format(clock=clock, folder=folder)


def test_the_tools_own_table_is_read() -> None:
    table = parse_table(told())
    assert table.rows["input"] == Row(1.0, -0.9921875, 1.0)
    assert table.rows["/base_net.0/base_net.0.2/Relu_output_0_Relu"].threshold == 2.9768622
    check_table(table, NETWORK)


def test_clock_and_folder_do_not_reach_the_bytes() -> None:
    other = told("2031-01-02 03:04:05", "/home/someone/job 7/")
    assert table_text(parse_table(told())) == table_text(parse_table(other))
    assert "someone" not in table_text(parse_table(other))


@given(st.dictionaries(NAMES, st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1))
def test_what_is_written_is_read(values: dict[str, tuple[float, float, float]]) -> None:
    rows = {name: row_of(top, -low, high) for name, (top, low, high) in values.items()}
    table = Table(rows)
    again = parse_table(table_text(table))
    assert list(again.rows) == list(rows)
    for name, row in rows.items():
        found = again.rows[name]
        for one, other in (
            (row.threshold, found.threshold),
            (row.low, found.low),
            (row.high, found.high),
        ):
            assert math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-10)
    assert table_text(again) == table_text(table)


@given(st.floats(0, 1e3), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_rows_span_zero_within_the_threshold(top: float, low: float, high: float) -> None:
    row = row_of(top, low, high)
    assert row.threshold >= 1e-5 and -row.threshold <= row.low <= 0 <= row.high <= row.threshold


def test_nonnegative_stays_unsigned() -> None:
    """The tool takes u8 where no value is below zero: -0.0 and a tiny negative one must not say otherwise."""
    text = table_text(Table({"relu": row_of(2.0, -0.0, 3.0)}))
    assert "relu 2.0000000000 0.0000000000 2.0000000000" in text


def test_4_bit_and_asymmetric_sections_survive() -> None:
    text = told() + "\n#int4_th\ninput 1.0 -1.1428571 1.0\n\n#asym_op\ninput\n"
    table = parse_table(text)
    assert table.int4["input"].low == -1.1428571 and table.asymmetric == ("input",)
    assert parse_table(table_text(table)) == replace(table, comments=parse_table(table_text(table)).comments)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("input 1 0 1", "names 'input' twice"),
        ("a name 1 0 1", "name must hold none"),
        ("x nan 0 1", "not finite"),
        ("x inf 0 1", "not finite"),
        ("x 1e31 0 1", "not finite"),
        ("x 0 0 1", "not positive"),
        ("x 1 2 1", "above the largest"),
        ("x one 0 1", "number that is none"),
        ("x 1 0", "three numbers"),
    ],
)
def test_faulty_rows_are_named(line: str, said: str) -> None:
    with pytest.raises(KilnError, match=said) as error:
        parse_table(told() + line + "\n", "t.table")
    assert "t.table: line" in str(error.value)


def test_an_empty_table_is_none() -> None:
    with pytest.raises(KilnError, match="no thresholds"):
        parse_table("# only comments\n")


def test_unknown_and_missing_operators_are_named() -> None:
    table = parse_table(told())
    with pytest.raises(KilnError, match="did you mean 'input'"):
        check_table(Table({**table.rows, "inputs": table.rows["input"]}), NETWORK)
    with pytest.raises(KilnError, match=r"no row for operator .*Relu_output_0_Relu' \(Conv\)"):
        check_table(Table({"input": table.rows["input"]}), NETWORK)


def test_a_batch_has_the_ranges_of_single_pictures() -> None:
    single = parse_table(told())
    row = single.rows["input"]
    assert check_batch(single, single, "4b") == 0
    wider = Table({**single.rows, "input": replace(row, threshold=1.01)})
    with pytest.raises(KilnError, match="another range of 'input'"):
        check_batch(wider, single, "4b")
    assert check_batch(wider, single, "4b", None) == pytest.approx(0.01)
    other = Table({**single.rows, "input": replace(row, high=2.0)})
    with pytest.raises(KilnError, match="another range of 'input'"):
        check_batch(other, single, "4b", None)
    with pytest.raises(KilnError, match="names other operators"):
        check_batch(Table({"input": row}), single, "4b")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.table"
    write_table(path, parse_table(told()))
    assert list(read_table(path).rows) == list(parse_table(told()).rows)
    with pytest.raises(KilnError, match="cannot be read"):
        read_table(tmp_path / "none.table")
