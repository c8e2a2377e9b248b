"""Our MATLAB 5 reader beside SciPy's, and what it refuses."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from facekiln.data.mat import load_mat, real_array
from facekiln.errors import KilnError


def _same(ours: Any, theirs: np.ndarray) -> bool:
    if isinstance(ours, str):  # SciPy gives text as an array of one str, or of none
        return ours == (theirs.item() if theirs.size else "")
    if ours.dtype == object:
        pairs = zip(ours.ravel(), theirs.ravel(), strict=True)
        return ours.shape == theirs.shape and all(_same(one, two) for one, two in pairs)
    return ours.dtype == theirs.dtype and np.array_equal(ours, theirs)


@given(
    value=st.one_of(
        *(
            arrays.arrays(kind, arrays.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=5))
            for kind in ("<f8", "<f4", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8")
        )
    ),
    packed=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_type_and_shape_comes_back(
    tmp_path_factory: pytest.TempPathFactory, value: np.ndarray, packed: bool
) -> None:
    from scipy.io import savemat

    path = tmp_path_factory.mktemp("mat") / "a.mat"
    savemat(path, {"pt2d": value, "other": np.eye(2)}, do_compression=packed)
    read = load_mat(path, "pt2d")["pt2d"]
    assert read.dtype == value.dtype and read.shape == value.shape
    np.testing.assert_array_equal(read, value)


@pytest.mark.parametrize("setting", ["face", "easy", "medium", "hard"])
def test_the_official_files_are_read_as_scipy_reads_them(data: Callable[[str], Path], setting: str) -> None:
    from scipy.io import loadmat

    path = data(f"wider/ground_truth/wider_{setting}_val.mat")
    theirs = loadmat(path, mat_dtype=True)
    names = [name for name in theirs if not name.startswith("__")]
    ours = load_mat(path, *names)
    assert len(names) == (9 if setting == "face" else 10)
    for name in names:
        assert _same(ours[name], theirs[name]), name


def _element(kind: int, data: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def _matrix(name: str, body: bytes, shape: tuple[int, ...], kind: int = 6, order: str = "<") -> bytes:
    head = _element(6, struct.pack(f"{order}II", kind, 0), order)
    head += _element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return _element(14, head + _element(1, name.encode(), order) + body, order)


def _file(tmp_path: Path, *elements: bytes, order: str = "<", version: int = 0x0100) -> Path:
    mark = {"<": b"IM", ">": b"MI"}[order]
    path = tmp_path / "a.mat"
    path.write_bytes(bytes(124) + struct.pack(f"{order}H", version) + mark + b"".join(elements))
    return path


def test_big_endian_files(tmp_path: Path) -> None:
    body = _element(9, struct.pack(">2d", 1.5, -2), ">")
    path = _file(tmp_path, _matrix("x", body, (1, 2), order=">"), order=">")
    assert load_mat(path, "x")["x"].tolist() == [[1.5, -2]]


def test_doubles_that_are_stored_as_bytes_are_doubles(tmp_path: Path) -> None:
    path = _file(tmp_path, _matrix("x", _element(2, bytes([250, 10])), (1, 2)))
    assert load_mat(path, "x")["x"].sum() == 260


@pytest.mark.parametrize("kind", [17, 16, 4])
def test_text_in_each_encoding(tmp_path: Path, kind: int) -> None:
    text = "0--Parade é"
    coded = text.encode("utf-8" if kind == 16 else "utf-16-le")
    path = _file(tmp_path, _matrix("x", _element(kind, coded), (1, len(text)), 4))
    assert load_mat(path, "x")["x"] == text


DOUBLE = _element(9, struct.pack("<d", 1.0))


@pytest.mark.parametrize(
    ("element", "message"),
    [
        (_matrix("x", DOUBLE, (2, 2)), "dimensions do not fit its data"),
        (_matrix("x", DOUBLE, (-1, -1)), "has a matrix of"),
        (_matrix("x", DOUBLE, (2**31 - 1, 2**31 - 1)), "has a matrix of"),
        (_matrix("x", b"", (1, 400_000_000), 1), "cells that do not fit"),  # must not reserve 3 GB first
        (_matrix("x", DOUBLE, (1, 1), 2), "a variable of class 2"),  # a structure
        (_matrix("x", DOUBLE, (1, 1), 6 | 0x800), "complex numbers"),
        (_matrix("x", DOUBLE, (1,)), "without flags or dimensions"),
        (_matrix("x", _element(17, b"a\0b\0"), (2, 1), 4), "not one line"),
        (_matrix("x", _element(17, b"\0\xd8"), (1, 1), 4), "decode"),
        (_element(15, b"not packed"), "header check"),
        (_element(15, zlib.compress(_matrix("x", DOUBLE, (1, 1)))[:-5]), "cut or too large"),
        (_element(9, bytes(8)), "where a variable should be"),
        (_matrix("x", DOUBLE, (1, 1))[:-4], "ends inside"),
        (struct.pack("<II", 14, 0xFFFFFFFF), "ends inside an element"),
    ],
)
def test_damage_is_told_by_file(tmp_path: Path, element: bytes, message: str) -> None:
    with pytest.raises(KilnError, match=rf"a\.mat: is no whole MATLAB file: .*{message}"):
        load_mat(_file(tmp_path, element), "x")


def test_cells_in_cells_end_somewhere(tmp_path: Path) -> None:
    body = DOUBLE
    for _ in range(40):
        body = _matrix("", body, (1, 1), 1)
    with pytest.raises(KilnError, match="cells that do not fit"):
        load_mat(_file(tmp_path, _matrix("x", body, (1, 1), 1)), "x")


def test_other_versions_are_named(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match=r"is a MATLAB 7\.3 file(?s:.)*-v7"):
        load_mat(_file(tmp_path, version=0x0200), "x")
    (tmp_path / "b.mat").write_bytes(b"\0" * 400)  # MATLAB 4 begins so
    with pytest.raises(KilnError, match=r"b\.mat: is no MATLAB 5 file"):
        load_mat(tmp_path / "b.mat", "x")
    with pytest.raises(KilnError, match=r"c\.mat: cannot be read"):
        load_mat(tmp_path / "c.mat", "x")


def test_a_variable_that_is_not_there(tmp_path: Path) -> None:
    path = _file(tmp_path, _matrix("x", DOUBLE, (1, 1)))
    assert set(load_mat(path, optional=("x", "y"))) == {"x"}
    with pytest.raises(KilnError, match=r"a\.mat: y: lacks a variable"):
        load_mat(path, "y")


def test_real_array_widens_before_any_sum() -> None:
    widened = real_array(np.array([[250, 10]], np.uint8), (None, 2), Path("a.mat"), "x")
    assert widened.dtype == np.float64 and widened.sum() == 260
    for wrong in (np.zeros((2, 3)), np.zeros(2), "text", np.array([["a", "b"]]), np.array([[1, np.nan]])):
        with pytest.raises(KilnError, match=r"a\.mat: x: "):
            real_array(wrong, (None, 2), Path("a.mat"), "x")
