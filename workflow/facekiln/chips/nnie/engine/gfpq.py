"""GFPQ, the NNIE's logarithmic number format: zero points, codes and exact quantisation.

A tensor has one scale. With c its largest magnitude, S codes per octave and N + 1 magnitudes, where
(S, N) = (16, 127) for 8 bit and (128, 1407) for 16 bit (which thus is 11 octaves in steps of 1/128)::

    z = floor(S log2 c) - N                       c = 0 counts as 1e-6
    x >= 0:  0 if  x <  2^(z/S - 1),      else  2^((clip(floor(S log2( x) + 1/2) - z, 0, N) + z) / S)
    x <  0:  0 if -x <= 2^((z+1)/S - 1),  else -2^((clip(floor(S log2(-x) + 1/2) - z, 1, N) + z) / S)

Source: HiSilicon's libgfpq 1.1.5 (BSD-2-Clause, shipped with aovoc/nnieqat-pytorch), whose results the
formula gives without a difference; the 8-bit code layout is that of MQBench's NNIE notes (Apache-2.0). The
16-bit code layout is not public: ours has the same form with the sign in bit 15.

Floor instead of rounding in z means that the largest magnitude is at most c (255 becomes 245.1 at 8 bit).
Infinities saturate; NaN is refused; -0.0 is zero.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facekiln.errors import KilnError

ZERO_RANGE = 1e-6

# Of a float32's mantissa, how many bits index the table: 2048 buckets per octave, of which at most 128 hold a
# threshold (never two) and need a comparison.
_KEPT_BITS = 11
_SHIFT = 23 - _KEPT_BITS
_UNSURE = np.uint16(0x4000)
# Elements at a time: the scratch arrays of a block stay in the second-level cache.
_BLOCK = 1 << 16
_DEFAULT_THREADS = 2


@dataclass(frozen=True)
class Format:
    """One width of GFPQ.

    Attributes:
        bits: 8 or 16.
        steps: codes per octave (S).
        top: the largest magnitude code (N).
        z_limit: z lies in [-z_limit, z_limit].
        dtype: of codes.
        z_unit: 1/128 octaves per step of z, the unit of a `.wk`'s report table.
    """

    bits: int
    steps: int
    top: int
    z_limit: int
    dtype: Any
    z_unit: int

    @property
    def sign(self) -> int:
        """The sign bit; alone it is the code of zero."""
        return 1 << (self.bits - 1)


FORMATS = {
    8: Format(8, 16, 127, 511, np.uint8, 8),
    16: Format(16, 128, 1407, 4095, np.uint16, 1),
}


def format_of(bits: int) -> Format:
    """Return the format of a width.

    Raises:
        KilnError: not 8 or 16.
    """
    if bits not in FORMATS:
        raise KilnError("GFPQ has two widths", value=bits, limit="8 or 16")
    return FORMATS[bits]


def zero_point(absmax: float, bits: int) -> int:
    """Return z of a tensor from its largest magnitude.

    Args:
        absmax: max |x| over the calibration set, in the tensor's own unit; used as float32.
        bits: 8 or 16.

    Raises:
        KilnError: negative, infinite or NaN.
    """
    form = format_of(bits)
    largest = float(np.float32(absmax))
    if not 0 <= largest < np.inf:
        raise KilnError(
            "a range must be a finite magnitude", value=absmax, hint="look for NaN in the network"
        )
    z = int(np.floor(form.steps * np.log2(largest or ZERO_RANGE))) - form.top
    return min(max(z, -form.z_limit), form.z_limit)


def _up_to_float32(value: NDArray[np.float64], *, beyond: bool = False) -> NDArray[np.float32]:
    """Return the smallest float32 that is not below `value` (`beyond`: that is above it)."""
    rounded = value.astype(np.float32)
    short = rounded.astype(np.float64) <= value if beyond else rounded.astype(np.float64) < value
    return np.where(short, np.nextafter(rounded, np.float32(np.inf)), rounded)


@functools.lru_cache(maxsize=256)
def thresholds(z: int, bits: int, *, negative: bool = False) -> NDArray[np.float32]:
    """Return the smallest float32 magnitudes of each code, ascending.

    Entry 0 belongs to the first code that is not zero: code 0 for positive numbers, 1 for negative ones.
    """
    form = format_of(bits)
    first = int(negative)
    codes = np.arange(first + 1, form.top + 1)
    # A power of two where z is a multiple of S: only there can a float32 lie on a threshold.
    zero = _up_to_float32(np.exp2(np.array([(z + first) / form.steps - 1])), beyond=negative)
    return np.concatenate([zero, _up_to_float32(np.exp2((codes + z - 0.5) / form.steps))])


def magnitudes(z: int, bits: int, *, negative: bool = False) -> NDArray[np.float32]:
    """Return the magnitude that each entry of `thresholds` starts."""
    form = format_of(bits)
    return np.exp2((np.arange(int(negative), form.top + 1) + z) / form.steps).astype(np.float32)


@functools.lru_cache(maxsize=256)
def values(z: int, bits: int) -> NDArray[np.float32]:
    """Return what each code stands for, float32 [2^bits]; codes that GFPQ never makes stand for NaN."""
    form = format_of(bits)
    table = np.full(2 * form.sign, np.nan, np.float32)
    table[: form.top + 1] = magnitudes(z, bits)
    table[form.sign] = 0.0
    table[form.sign + 1 : form.sign + form.top + 1] = -magnitudes(z, bits, negative=True)
    return table


def _encode_by_search(x: NDArray[np.float32], z: int, bits: int) -> NDArray[np.uint16]:
    """Encode numbers by binary search among the thresholds: exact, but slow on large arrays."""
    sign = format_of(bits).sign
    magnitude = np.abs(x)
    positive = np.searchsorted(thresholds(z, bits), magnitude, side="right") - 1
    negative = np.searchsorted(thresholds(z, bits, negative=True), magnitude, side="right") | sign
    return np.where(x < 0, negative, np.where(positive < 0, sign, positive)).astype(np.uint16)


@functools.lru_cache(maxsize=8)
def _buckets(z: int, bits: int) -> NDArray[np.uint16]:
    """Return, by the high bits of a float32's pattern, the code of the smallest magnitude with these bits.

    `_UNSURE` is set where the largest magnitude with these bits has the next code, and where there is NaN.
    """
    patterns = np.arange(1 << (32 - _SHIFT), dtype=np.uint32) << np.uint32(_SHIFT)
    infinity = np.uint32(0x7F800000)
    codes = []
    for fill in (0, (1 << _SHIFT) - 1):
        magnitude = np.minimum((patterns | np.uint32(fill)) & np.uint32(0x7FFFFFFF), infinity)
        numbers = (magnitude | (patterns & np.uint32(0x80000000))).view(np.float32)
        codes.append(_encode_by_search(numbers, z, bits))
    sure = (codes[0] == codes[1]) & ((patterns & infinity) != infinity)
    return np.where(sure, codes[0], codes[0] | _UNSURE)


@functools.lru_cache(maxsize=8)
def _value_buckets(z: int, bits: int) -> NDArray[np.float32]:
    """Return the values of `_buckets`, NaN where it is unsure."""
    codes = _buckets(z, bits)
    unsure = (codes & _UNSURE) != 0
    found = values(z, bits).take(np.where(unsure, 0, codes))
    found[unsure] = np.nan
    return found


def _settle(x: NDArray[np.float32], low: NDArray[np.uint16], z: int, bits: int) -> NDArray[np.uint16]:
    """Return the codes of x, given those of the smallest magnitudes in its buckets, which may be one less."""
    if np.isnan(x).any():
        raise KilnError("GFPQ has no code for NaN", hint="look for NaN in the network or its input")
    form = format_of(bits)
    low = low & ~_UNSURE
    # 0 is also the magnitude of zero's code; positive numbers go from zero to code 0, negative ones to 1.
    magnitude = (low & (form.sign - 1)).astype(np.intp)
    after = np.minimum(magnitude + 1, form.top)
    above = np.where(low == form.sign, 0, after)
    up, down = thresholds(z, bits), thresholds(z, bits, negative=True)
    positive = np.where(x >= up[above], above, low)
    negative = np.where(-x >= down[after - 1], after | form.sign, low)
    return np.where(x < 0, negative, positive).astype(np.uint16)


def _in_parts(work: Callable[[slice], None], size: int, threads: int) -> None:
    """Call `work` on `threads` slices that make up `size` elements; numpy releases the lock inside."""
    if threads < 2 or size < 2 * _BLOCK:
        work(slice(0, size))
        return
    edges = np.linspace(0, size, threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, map(slice, edges[:-1], edges[1:])))


def _flat(x: ArrayLike) -> NDArray[np.float32]:
    return np.ascontiguousarray(x, np.float32).reshape(-1)


def _in_blocks(
    x: NDArray[np.float32], result: NDArray[Any], table: NDArray[Any], z: int, bits: int, threads: int
) -> None:
    """Look an array up in a table of codes (unsure: flagged) or values (unsure: NaN); settle the rest."""
    codes, decoded = _buckets(z, bits), values(z, bits)
    to_values = table.dtype == np.float32

    def work(part: slice) -> None:
        indices, scratch = np.empty(_BLOCK, np.intp), np.empty(_BLOCK, table.dtype)
        for start in range(part.start, part.stop, _BLOCK):
            block = x[start : min(start + _BLOCK, part.stop)]
            index, found = indices[: block.size], scratch[: block.size]
            np.right_shift(block.view(np.uint32), _SHIFT, out=index, casting="unsafe")
            # With `clip` numpy writes straight to `out`; no index is outside.
            table.take(index, out=found, mode="clip")
            unsure = np.flatnonzero(np.isnan(found) if to_values else (found & _UNSURE) != 0)
            if len(unsure):
                settled = _settle(block[unsure], codes[index[unsure]], z, bits)
                found[unsure] = decoded[settled] if to_values else settled
            result[start : start + block.size] = found

    _in_parts(work, x.size, threads)


def _small(x: NDArray[np.float32], z: int, bits: int) -> NDArray[np.uint16] | None:
    """Encode an array for which making a table would take longer than the work; None for others."""
    if x.size >= _BLOCK:
        return None
    if np.isnan(x).any():
        raise KilnError("GFPQ has no code for NaN", hint="look for NaN in the network or its input")
    return _encode_by_search(x, z, bits)


def encode(x: ArrayLike, z: int, bits: int, threads: int = _DEFAULT_THREADS) -> NDArray[Any]:
    """Return the codes of float32 values.

    Args:
        x: any shape; narrowed to float32.
        z: the tensor's zero point.
        bits: 8 or 16.
        threads: how many work on large arrays.

    Returns:
        uint8 or uint16 of x's shape. 8 bit: bit 7 is the sign, 0x80 zero, 0x00..0x7F positive, 0x81..0xFF
        negative; 16 bit: bit 15, 0x8000, 0x0000..0x057F and 0x8001..0x857F.

    Raises:
        KilnError: x holds NaN.
    """
    flat, dtype = _flat(x), format_of(bits).dtype
    codes = _small(flat, z, bits)
    if codes is None:
        codes = np.empty(flat.shape, np.uint16)
        _in_blocks(flat, codes, _buckets(z, bits), z, bits, threads)
    return codes.astype(dtype, copy=False).reshape(np.shape(x))


def decode(codes: NDArray[Any], z: int, bits: int) -> NDArray[np.float32]:
    """Return the float32 values of codes.

    Raises:
        KilnError: a code that GFPQ never makes.
    """
    form = format_of(bits)
    result = values(z, bits).take(np.asarray(codes, form.dtype))
    if np.isnan(result).any():
        raise KilnError(
            "is no GFPQ code",
            value=hex(int(np.asarray(codes)[np.isnan(result)][0])),
            limit=f"magnitude <= {form.top}",
            hint="the file is damaged",
        )
    return result


def quantise(x: ArrayLike, z: int, bits: int, threads: int = _DEFAULT_THREADS) -> NDArray[np.float32]:
    """Return the nearest representable values (in the logarithm): `decode(encode(x))`, in one pass.

    Args:
        x: any shape; narrowed to float32.
        z: the tensor's zero point.
        bits: 8 or 16.
        threads: how many work on large arrays.

    Raises:
        KilnError: x holds NaN.
    """
    flat = _flat(x)
    codes = _small(flat, z, bits)
    if codes is not None:
        return values(z, bits).take(codes).reshape(np.shape(x))
    result = np.empty(flat.shape, np.float32)
    _in_blocks(flat, result, _value_buckets(z, bits), z, bits, threads)
    return result.reshape(np.shape(x))
