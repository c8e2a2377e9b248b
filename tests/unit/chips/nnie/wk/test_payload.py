"""The payload of an emulated .wk: same tree, same bytes; damaged bytes end in an error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from facekiln.chips.nnie.wk import payload
from facekiln.errors import KilnError

_keys = st.text(max_size=6) | st.sampled_from(["$array", "$", "$$array"])
_arrays = st.sampled_from(["int8", "uint8", "int16", "int32", "int64", "float32", "float64", "bool"]).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
_plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
_trees = st.recursive(
    _plain | _arrays, lambda t: st.lists(t, max_size=4) | st.dictionaries(_keys, t, max_size=4), max_leaves=8
)


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.tobytes() == b.tobytes()
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(_same, a, b))
    return a == b


@given(_trees)
def test_round_trip(tree: object) -> None:
    assert _same(tree, payload.decode(payload.encode(tree)))


def test_the_order_of_keys_is_kept() -> None:
    assert list(payload.decode(payload.encode({"b": 1, "a": np.zeros(2, np.int8), "c": 3}))) == [
        "b",
        "a",
        "c",
    ]


def test_layout_of_arrays_does_not_change_the_bytes() -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert (
        payload.encode(array)
        == payload.encode(np.asfortranarray(array))
        == payload.encode(array.astype(">i2"))
    )


@pytest.mark.parametrize("value", [{1: 2}, {1, 2}, np.zeros(2, dtype=complex), b"raw"])
def test_what_has_no_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        payload.encode(value)


@given(st.binary(max_size=80), st.integers(0, 200))
def test_damaged_bytes_end_in_an_error(noise: bytes, length: int) -> None:
    whole = payload.encode({"x": np.arange(5, dtype=np.int32), "y": [1, "z"]})
    for data in (noise, payload.MAGIC + noise, whole[:length], whole[:20] + noise + whole[20:]):
        try:
            payload.decode(data)
        except KilnError:
            continue


@pytest.mark.parametrize("entry", ['["<f4",[1000000000000],0]', '["|O8",[1],0]', '["<f4",[-1],0]', "7"])
def test_no_huge_or_odd_arrays(entry: str) -> None:
    text = f'{{"x":{{"$array":{entry}}}}}'.encode()
    with pytest.raises(KilnError, match="damaged"):
        payload.decode(payload.MAGIC + len(text).to_bytes(4, "little") + text + bytes(32))
