"""The fast parser beside Python's float: the same bits, or a refusal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekiln.evaluation.read_numbers import MARGIN, numpy_rows, regular_rows, rows_by_line


def parse(text: str) -> np.ndarray | None:
    raw = text.encode()
    buffer = np.frombuffer(b"\n" * MARGIN + raw + b"9.-5" * (MARGIN // 4), np.uint8)
    found = regular_rows(buffer, MARGIN, MARGIN + len(raw))
    if found is None:
        return None
    table, lines = found
    assert [raw[at - MARGIN] for at in lines] == [10] * table.shape[1]
    return table


def expected(text: str) -> np.ndarray:
    return np.array([[float(word) for word in line.split()] for line in text.splitlines()]).T


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a.view(np.uint64), np.ascontiguousarray(b).view(np.uint64))


def text_of(rows: list[list[str]], end: str = "\n") -> str:
    return "".join(" ".join(row) + end for row in rows)


INTEGER = st.integers(-99999, 999999).map(str)


def fixed(decimals: int) -> st.SearchStrategy[str]:
    return st.integers(-(10**9), 10**9).map(lambda n: f"{n / 10**decimals:.{decimals}f}")


UNIT = st.integers(0, 10**14 - 1).flatmap(
    lambda n: st.integers(1, 14).map(lambda digits: f"{n % 2}.{f'{n:014d}'[:digits]}")
)
# As Python and numpy print floats: as many decimals as it takes.
PRINTED = st.floats(-5000, 5000, width=32).map(lambda value: f"{value:.9g}").filter(lambda t: "e" not in t)
SHORT = st.floats(-2000, 2000, width=16).map(str).filter(lambda text: "e" not in text)
COLUMN = st.one_of(
    *(st.just(column) for column in (INTEGER, UNIT, PRINTED, SHORT)),
    *(st.just(fixed(k)) for k in (1, 2, 3, 6, 9)),
)


@given(st.data())
@settings(max_examples=200)
def test_regular_columns_are_parsed_to_the_bit(data: st.DataObject) -> None:
    columns = [data.draw(COLUMN) for _ in range(5)]
    rows = data.draw(st.lists(st.tuples(*columns).map(list), min_size=1, max_size=12))
    text = text_of(rows, data.draw(st.sampled_from(["\n", " \n"])))
    table = parse(text)
    assert table is None or same_bits(table, expected(text))
    found = numpy_rows(text.encode())
    assert found is not None and same_bits(found[0], expected(text))


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3 4 0.5\n",
        "1 2 3 4 0.5 \n10 20 30 40 0.25 \n",
        "699.9 104.3 10.1 57.9 0.394191\n712.6 554.9 5.7 81.7 0.383089\n",
        "-3 -20 12345678 4 0.99878246\n0 -0 1 7 0.0200123\n",
        "-3.5 -20.0 1.5 4.0 1.0\n0.0 -0.0 1.5 7.5 0.02\n",
        "1 2 3 4 0.12345678901234\n1 2 3 4 0.1\n",
        "123.456789 2.000000 3.000000 4.125000 0.978519141674\n" * 3,
        "1023.456 1.500 -20.250 9.001 0.9\n" * 2,
        ".5 .5 .5 .5 .5\n",
        "123456789012345 1 1 1 1\n",
        "206.286376953 318.123901367 -4.910645000 7.162475586 0.978519141674\n" * 2,
        "699.93457 3.5 -12.25 1024.0 0.99878246\n1.5 300.125 12.0 4.0625 1.0\n",
        "89.99999999999999 1 1 1 1\n1.5 1 1 1 1\n",
        "0 0 0 0 0\n",
    ],
)
def test_common_habits_go_the_fast_way(text: str) -> None:
    table = parse(text)
    assert table is not None and same_bits(table, expected(text))


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3 4\n",
        "1 2 3 4 5 6\n",
        "1 2 3 4 5 6 7 8 9 10\n",
        "1 2 3\n4 5\n",
        "1  2 3 4 0.5\n",
        "1 2 3 4 0.5\n\n1 2 3 4 0.5\n",
        " 1 2 3 4 0.5\n",
        "1 2 3 4 1e-3\n",
        "1 2 3 4 nan\n",
        "1 2 3 4 0x1\n",
        "1 2 3 4 0.1.2\n",
        "1 2 3 4 --1\n",
        "1 2 3 4 -\n",
        "1 2 3 4 +1\n",
        "1 2 3 4 5.\n",
        "1 2 3 4 .\n",
        "1.5 2 3 4 1\n2 2 3 4 1\n",
        "21.5 2 3 4 1\n22.25.1 2 3 4 1\n",
        "1 2 3 4 0.5\n1 2 3 4 1\n",
        "1.5 2 3 4 1\n2 2.5 3 4 1\n",
        "99.12345678901234 2 3 4 1\n",
        "123456789.5 2 3 4 1\n1.25 2 3 4 1\n",
        "1 2 3 4 0.12345678x\n",
        "1 2 3 4 0.123456789x\n",
        "1 2 3 4 0.1234567890123456\n",
        "1 2 3 4 0.5a\n",
        "1 2 3 4 0,5\n",
        "1234567890123456 2 3 4 1\n",
        "\n",
        "a b c d e\n",
    ],
)
def test_any_other_look_is_left_to_the_slow_ways(text: str) -> None:
    assert parse(text) is None


@given(st.text(alphabet="0123456789.- \ne+", max_size=60))
@settings(max_examples=400)
def test_nothing_is_parsed_wrongly(text: str) -> None:
    text = text.strip("\n") + "\n"
    table = parse(text)
    if table is not None:
        assert same_bits(table, expected(text))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=5, max_size=5))
def test_numpy_reads_what_python_writes(values: list[float]) -> None:
    text = "\n" + " ".join(map(repr, values)) + "\n\n"
    found = numpy_rows(text.encode())
    assert found is not None
    assert same_bits(found[0], np.array(values)[:, None]) and found[1].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "text", ["1 2 3 4\n", "1 2 3 4 x\n", "1 2 3 4 nan\n", "1 2 3 4 inf\n", "1 2 3 4 5 6\n"]
)
def test_numpy_leaves_the_rest_to_python(text: str) -> None:
    assert numpy_rows(text.encode()) is None


def test_rows_by_line() -> None:
    assert rows_by_line("1 2 3 4 5 face\n\n 6 7 8 9 1e-2\n") == ([[1, 2, 3, 4, 5], [6, 7, 8, 9, 0.01]], None)
    assert rows_by_line("1 2 3 4 5\n1 2 3 4\n")[1][0] == 2  # type: ignore[index]
    for word in ("nan", "inf", "1_0", "x", "0x10"):
        wrong = rows_by_line(f"1 2 3 4 5\n1 2 3 4 {word}\n")[1]
        assert wrong == (2, "is no finite number", word)
