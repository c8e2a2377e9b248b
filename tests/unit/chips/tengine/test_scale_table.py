"""Scale tables in and out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.chips.tengine.format import Quant
from facekiln.chips.tengine.scale_table import read_table, table_text, write_table
from facekiln.errors import KilnError


def test_the_tools_form() -> None:
    # printf("%s %f %d\n") has six decimals; what has more in float32 keeps them.
    assert (
        table_text({"input": Quant(0.0078125, 127), "x": Quant(0.25, 1), "y": Quant(1e-7, 0)})
        == "input 0.0078125 127\nx 0.250000 1\ny 0.0000001 0\n"
    )
    assert table_text({"z": Quant(0.007812, 0)}) == "z 0.007812 0\n"


@given(st.floats(0, 1e6, width=32))
def test_no_digit_of_a_scale_is_lost(scale: float) -> None:
    assert float(np.float32(float(table_text({"a": Quant(scale, 0)}).split()[1]))) == scale


def test_there_and_back(tmp_path: Path) -> None:
    scales = {"input": Quant(0.25, 3), "/base/Relu_output_0": Quant(0.5, 0)}
    write_table(tmp_path / "t.scale", scales)
    assert read_table(tmp_path / "t.scale", scales) == scales
    assert read_table(tmp_path / "t.scale", ["input"]) == {"input": scales["input"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b 0.1 0\n", "a name with a space"),
        ("a 0.1\n", "not `name scale zero_point`"),
        ("a x 0\n", "no number"),
        ("a 0.1 0.5\n", "no number"),
        ("a -0.1 0\n", "negative or not finite"),
        ("a nan 0\n", "negative or not finite"),
        ("a inf 0\n", "negative or not finite"),
        ("a 0.1 0\na 0.2 0\n", "stands twice"),
        ("b 0.1 0\n", "no line for 'a'"),
        ("", "no line for 'a'"),
    ],
)
def test_bad_tables_are_refused_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.scale"
    path.write_text(text)
    with pytest.raises(KilnError, match=message):
        read_table(path, ["a"])


def test_names_with_spaces_are_not_written() -> None:
    for name in ("a b", "a\tb", ""):
        with pytest.raises(KilnError, match="holds a space"):
            table_text({name: Quant(0.1, 0)})


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="cannot be read"):
        read_table(tmp_path / "none", ["a"])
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KilnError, match="cannot be read"):
        read_table(tmp_path / "b", ["a"])


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("t") / "t.scale"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        read_table(path, ["a"])
    except KilnError as error:
        assert str(error)
