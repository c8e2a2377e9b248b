"""Frames between parent and child: what is packed is unpacked, and anything else is an error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from facekiln.chips.sophon.runtime_child import PREFIX, pack, sizes, unpack

ARRAYS = st.dictionaries(
    st.text(min_size=1, max_size=12),
    arrays.arrays(
        st.sampled_from([np.float32, np.float16, np.int8, np.uint8, np.int32]),
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    max_size=4,
)


def read(frame: bytes) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    header, body = sizes(frame[: PREFIX.size])
    text = frame[PREFIX.size : PREFIX.size + header]
    rest = frame[PREFIX.size + header :]
    assert len(rest) == body
    return unpack(text, rest)


@given(ARRAYS, st.booleans())
def test_a_frame_comes_back(values: dict[str, np.ndarray], every: bool) -> None:
    header, found = read(b"".join(pack({"every": every}, values)))
    assert header["every"] is every
    assert list(found) == list(values)
    for name, value in values.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()


def test_a_view_is_packed_in_its_own_order() -> None:
    value = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    _, found = read(b"".join(pack({}, {"x": value})))
    np.testing.assert_array_equal(found["x"], value)


@given(st.binary(min_size=PREFIX.size, max_size=PREFIX.size))
def test_what_is_printed_in_between_is_no_frame(data: bytes) -> None:
    if data[:4] != b"FKS1":
        with pytest.raises(ValueError, match="not a frame"):
            sizes(data)


def test_sizes_beyond_reason_are_refused() -> None:
    with pytest.raises(ValueError, match="not a frame"):
        sizes(PREFIX.pack(b"FKS1", 10, 1 << 60))


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (b'{"arrays": [{"name": "x", "dtype": "<f4", "shape": [3]}]}', b"\0" * 8),
        (b'{"arrays": [{"name": "x", "dtype": "<f4", "shape": [1]}]}', b"\0" * 8),
        (b'{"arrays": [{"name": "x", "dtype": "<f4", "shape": [-1]}]}', b""),
        (b"[]", b""),
        (b"{", b""),
    ],
)
def test_header_and_body_have_to_fit(text: bytes, body: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(text, body)
