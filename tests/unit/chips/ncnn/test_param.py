from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.chips.ncnn.param import Graph, Layer, parse_param, read_param, write_param
from facekiln.errors import KilnError

# The form that https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure describes.
TEXT = """7767517
4 5
Input      data   0 1 data 0=4 1=4 2=3
Convolution conv  1 1 data conv 0=4 1=3 4=1 5=1 6=108 9=2 -23310=1,1.000000e-01
Split      split  1 2 conv a b
Concat     cat    2 1 a b out 0=0
"""

_names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_/.]{0,12}", fullmatch=True)
_values = st.one_of(
    st.integers(-1000, 1000).map(str), st.floats(-9, 9, allow_nan=False).map(lambda value: f"{value:e}")
)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    layers: list[Layer] = []
    free: list[str] = []
    for place in range(draw(st.integers(1, 8))):
        count = draw(st.integers(0, min(2, len(free))))
        bottoms = tuple(free.pop() for _ in range(count))
        tops = tuple(f"b{place}_{top}" for top in range(draw(st.integers(1, 2))))
        free += tops
        params = draw(st.dictionaries(st.integers(0, 31), _values, max_size=4))
        arrays = draw(st.dictionaries(st.integers(0, 31), st.lists(_values, max_size=3), max_size=2))
        params = {**params, **{key: ",".join(items) for key, items in arrays.items()}}
        layers.append(Layer(draw(_names), draw(_names), bottoms, tops, params, frozenset(arrays)))
    return Graph(tuple(layers))


@given(graphs())
def test_a_graph_comes_back_from_its_text(graph: Graph) -> None:
    assert parse_param(graph.text()) == graph


@given(st.data())
def test_a_mutated_text_is_read_or_refused_with_a_line(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(TEXT) - 1))
    piece = data.draw(st.text(st.characters(codec="utf-8"), max_size=4))
    text = TEXT[:place] + piece + TEXT[place + data.draw(st.integers(0, 6)) :]
    try:
        graph = parse_param(text)
    except KilnError as error:
        assert "line" in str(error)
    else:
        assert parse_param(graph.text()) == graph


def test_every_truncation_of_lines_is_refused() -> None:
    lines = TEXT.splitlines(keepends=True)
    for count in range(len(lines)):
        with pytest.raises(KilnError):
            parse_param("".join(lines[:count]))


def test_what_a_real_line_says() -> None:
    graph = parse_param(TEXT)
    conv = graph.layers[1]
    assert (conv.integer(0), conv.integer(11, 3), conv.floats(10)) == (4, 3, [0.1])
    assert graph.blobs() == ["data", "conv", "a", "b", "out"]
    assert (graph.inputs(), graph.outputs()) == (["data"], ["out"])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("7767517", "7767516", "no ncnn .param"),
        ("4 5", "5 5", "number of layers"),
        ("4 5", "4 6", "number of blobs"),
        ("4 5", "4", "no numbers of layers"),
        ("4 5", "4 99999999", "no numbers"),
        ("4 5", "0 5", "impossible numbers"),
        ("1 1 data conv 0=4", "1 1 dat conv 0=4", "no layer before it makes"),
        ("2 1 a b", "2 1 a a", "another layer has read"),
        ("a b out", "a b conv", "a second time"),
        ("0=4 1=3", "0=4 0=3", "twice"),
        ("0=4 1=3", "32=4 1=3", "no `id=value`"),
        ("0=4 1=3", "0= 1=3", "no `id=value`"),
        ("-23310=1,", "-23310=2,", "another number of values"),
        ("2 1 a b out 0=0", "9 1 a b out 0=0", "names fewer blobs"),
        ("conv  1 1", "conv  x 1", "is no `type name"),
        ("Split      split", "Split      " + "s" * 256, "too long"),
    ],
)
def test_a_wrong_file_is_refused_with_its_reason(old: str, new: str, told: str) -> None:
    assert old in TEXT
    with pytest.raises(KilnError, match=re.escape(told)):
        parse_param(TEXT.replace(old, new, 1), "x.param")


@pytest.mark.parametrize(("key", "value"), [(10, "nan"), (10, "inf"), (10, "x")])
def test_a_parameter_that_is_no_number_is_refused(key: int, value: str) -> None:
    layer = Layer("Convolution", "c", (), ("c",), {key: value, 0: value})
    with pytest.raises(KilnError, match="c: parameter"):
        layer.floats(key)
    with pytest.raises(KilnError, match="no integer"):
        layer.integer(0)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "x.param"
    write_param(path, parse_param(TEXT))
    assert read_param(path) == parse_param(TEXT)
    with pytest.raises(KilnError, match="cannot be read"):
        read_param(tmp_path / "none.param")
    # What `ncnn2mem` writes begins with the same magic as four bytes.
    path.write_bytes((7767517).to_bytes(4, "little") + b"\xff" * 20)
    with pytest.raises(KilnError, match="binary"):
        read_param(path)


@pytest.mark.published
@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        # Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB, ncnn/data
        ("RFB-320.param", ["boxes", "scores"]),
        ("slim_320.param", ["boxes", "scores"]),
        # biubug6/Face-Detector-1MB-with-landmark, Face_Detector_ncnn/model
        ("face.param", ["output0", "529", "530"]),
    ],
)
def test_upstream_files(mirror: Callable[[str], Path], name: str, outputs: list[str]) -> None:
    graph = read_param(mirror(name))
    assert graph.outputs() == outputs
    assert parse_param(graph.text()) == graph
