"""The instruction section of an emulated `.wk`: a tree of plain values and arrays, the same bytes every time.

Layout, little-endian: 8 bytes "KILNPAY1", u32 length of a JSON text, the text (UTF-8, keys in the order
given), zero bytes up to a multiple of 16, then the arrays one after another, each padded to 16. In the JSON
an array stands as {"$array": [dtype, shape, offset]} with the offset counted from the first array; keys of
the tree that start with $ get another one. Neither pickle nor zip: a pickle runs code on reading, and a zip
carries a clock.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.errors import KilnError

MAGIC = b"KILNPAY1"
_LENGTH = struct.Struct("<I")
_ALIGN = 16
_ARRAY = "$array"
_DTYPES = ("|i1", "|u1", "|b1", "<i2", "<u2", "<i4", "<u4", "<i8", "<f4", "<f8")


def _padding(length: int) -> bytes:
    return bytes(-length % _ALIGN)


def _escaped(key: str) -> str:
    """Keep text keys apart from the key that marks an array."""
    return f"${key}" if key.startswith("$") else key


def encode(tree: Any) -> bytes:
    """Encode dicts with text keys, lists, tuples, text, numbers, None and numpy arrays.

    Raises:
        TypeError: a value of another kind, or an array of another dtype.
    """
    arrays: list[bytes] = []
    end = 0

    def plain(value: Any) -> Any:
        nonlocal end
        if isinstance(value, np.ndarray):
            dtype = value.dtype.newbyteorder("<").str
            if dtype not in _DTYPES:
                raise TypeError(f"no form for arrays of {value.dtype}")
            raw = np.ascontiguousarray(value.astype(dtype, copy=False)).tobytes()
            place, end = end, end + len(raw) + len(_padding(len(raw)))
            arrays.append(raw + _padding(len(raw)))
            return {_ARRAY: [dtype, list(value.shape), place]}
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, dict):
            if any(not isinstance(key, str) for key in value):
                raise TypeError("keys are text")
            return {_escaped(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if value is None or isinstance(value, (str, int, float)):
            return value
        raise TypeError(f"no form for {type(value).__name__}")

    text = json.dumps(plain(tree), separators=(",", ":"), allow_nan=False).encode()
    head = MAGIC + _LENGTH.pack(len(text)) + text
    return head + _padding(len(head)) + b"".join(arrays)


def _array(value: Any, body: memoryview) -> NDArray[Any]:
    dtype, shape, place = value
    if dtype not in _DTYPES or not all(isinstance(side, int) and side >= 0 for side in [*shape, place]):
        raise ValueError("array entry")
    count = math.prod(shape)
    size = count * np.dtype(dtype).itemsize
    if place + size > len(body):
        raise ValueError(f"array of {size} bytes at {place} reaches past the end")
    return np.frombuffer(body[place : place + size], dtype=dtype).reshape(shape)


def decode(data: bytes) -> Any:
    """Decode what `encode` wrote; lists and tuples come back as lists, arrays are read-only views of `data`.

    Raises:
        KilnError: truncated or not a payload.
    """
    start = len(MAGIC) + _LENGTH.size
    if data[: len(MAGIC)] != MAGIC or len(data) < start:
        raise KilnError("the instruction section is not a facekiln payload", where="offset 0", value=data[:8])
    (length,) = _LENGTH.unpack_from(data, len(MAGIC))
    text = data[start : start + length]
    body = memoryview(data)[start + length + len(_padding(start + length)) :]

    def full(value: Any) -> Any:
        if isinstance(value, dict):
            if set(value) == {_ARRAY}:
                return _array(value[_ARRAY], body)
            return {key.removeprefix("$"): full(item) for key, item in value.items()}
        return [full(item) for item in value] if isinstance(value, list) else value

    try:
        return full(json.loads(text))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise KilnError(f"the payload is damaged: {error}", where=f"offset {start}") from error
