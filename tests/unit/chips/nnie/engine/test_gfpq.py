"""GFPQ against HiSilicon's library (golden cases), the written-out formula, and itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekiln.chips.nnie.engine import gfpq
from facekiln.errors import KilnError

STEPS, TOP = {8: 16, 16: 128}, {8: 127, 16: 1407}


def direct(x: np.ndarray, z: int, bits: int) -> np.ndarray:
    """The formula of libgfpq 1.1.5 in float64, with no table."""
    s, n = STEPS[bits], TOP[bits]
    wide = x.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = np.floor(s * np.log2(np.abs(wide)) + 0.5) - z
    positive = np.exp2((np.clip(exponent, 0, n) + z) / s)
    negative = -np.exp2((np.clip(exponent, 1, n) + z) / s)
    y = np.where(
        wide >= 0,
        np.where(wide < 2 ** (z / s - 1), 0.0, positive),
        np.where(-wide <= 2 ** ((z + 1) / s - 1), 0.0, negative),
    )
    return y.astype(np.float32)


def test_golden_cases_of_the_library(data: Callable[[str], Path]) -> None:
    arrays = np.load(data("gfpq_golden.npz"))
    cases = json.loads(data("gfpq_golden.json").read_text())
    assert len(cases) == 12
    for case in cases:
        name, bits = case["name"], case["bits"]
        z = gfpq.zero_point(case["absmax"], bits)
        assert z == case["z"], name
        np.testing.assert_array_equal(gfpq.quantise(arrays[f"{name}_x"], z, bits), arrays[f"{name}_y"], name)


@pytest.mark.parametrize(
    ("absmax", "bits", "z"),
    [
        # Published .wk files: 0..255 input has z 0 (8 bit) and -384 (16 bit).
        (255.0, 8, 0),
        (255.0, 16, -384),
        # x / 256 and (x - 127.5) / 127.5 inputs: -128 and -127 (times 8 in the report table).
        (255 / 256, 8, -128),
        (1.0, 8, -127),
        (1.0, 16, -1407),
        # The mapper sets an all-zero tensor's maximum to 1e-6.
        (0.0, 8, -446),
        (0.0, 16, -3959),
        (1e-30, 8, -511),
        (1e30, 8, 511),
        (1e-30, 16, -4095),
        (1e30, 16, 4095),
    ],
)
def test_zero_points(absmax: float, bits: int, z: int) -> None:
    assert gfpq.zero_point(absmax, bits) == z


@pytest.mark.parametrize("absmax", [-1.0, float("nan"), float("inf")])
def test_a_range_must_be_a_finite_magnitude(absmax: float) -> None:
    with pytest.raises(KilnError, match="finite magnitude"):
        gfpq.zero_point(absmax, 8)


def test_other_widths_are_refused() -> None:
    with pytest.raises(KilnError, match="8 or 16"):
        gfpq.zero_point(1.0, 4)


def edges(z: int, bits: int) -> np.ndarray:
    """Every threshold of both signs with its neighbours."""
    both = [gfpq.thresholds(z, bits), -gfpq.thresholds(z, bits, negative=True)]
    t = np.concatenate(both)
    return np.concatenate([t, np.nextafter(t, np.float32(np.inf)), np.nextafter(t, np.float32(-np.inf))])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("c", [255.0, 1.0, 5.12, 0.0, 3e-5, 30000.0, 20.54566])
def test_the_table_equals_the_formula_at_every_threshold_and_on_any_bits(bits: int, c: float) -> None:
    z = gfpq.zero_point(c, bits)
    rng = np.random.default_rng(7)
    patterns = rng.integers(0, 1 << 32, 150_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    tiny = np.array([0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, -1.1754942e-38], np.float32)
    scale = np.float32(c or 1e-6)
    x = np.concatenate(
        [
            edges(z, bits),
            patterns[np.isfinite(patterns)],
            tiny,
            rng.normal(0, scale, 100_000).astype(np.float32),
            (scale * np.exp(rng.uniform(-12, 0.5, 100_000))).astype(np.float32),
            np.array([np.inf, -np.inf], np.float32),
        ]
    )
    expected = direct(np.clip(x, -3e38, 3e38), z, bits)
    np.testing.assert_array_equal(gfpq.quantise(x, z, bits), expected)
    np.testing.assert_array_equal(gfpq.decode(gfpq.encode(x, z, bits), z, bits), expected)


@pytest.mark.parametrize("bits", [8, 16])
def test_two_million_values_of_each_width(bits: int) -> None:
    rng = np.random.default_rng(bits)
    x = (rng.normal(0, 60, 2_000_000) * np.exp2(rng.integers(-9, 3, 2_000_000))).astype(np.float32)
    z = gfpq.zero_point(float(np.abs(x[:1_000_000]).max()), bits)
    np.testing.assert_array_equal(gfpq.quantise(x, z, bits), direct(x, z, bits))


def test_thresholds_are_where_the_formula_changes() -> None:
    z = gfpq.zero_point(255.0, 16)
    for negative in (False, True):
        t = gfpq.thresholds(z, 16, negative=negative) * np.float32(-1 if negative else 1)
        below = np.nextafter(t, np.float32(0))
        assert (np.abs(direct(t, z, 16)) > np.abs(direct(below, z, 16))).all()


def test_negative_zero_and_zero_have_the_zero_code() -> None:
    np.testing.assert_array_equal(gfpq.encode(np.array([0.0, -0.0], np.float32), -127, 8), [0x80, 0x80])
    np.testing.assert_array_equal(gfpq.encode(np.zeros(2, np.float32), -1407, 16), [0x8000, 0x8000])
    quantised = gfpq.quantise(np.array([-0.0], np.float32), -127, 8)
    assert not np.signbit(quantised).any()


def test_thresholds_that_are_powers_of_two() -> None:
    # x < 2^(z/S - 1) is zero, and -x <= 2^((z+1)/S - 1) is zero: the edge itself differs by sign.
    below, above = np.nextafter(np.float32(0.5), np.float32([0, 1]))
    assert gfpq.quantise(np.array([below, 0.5], np.float32), 0, 8).tolist() == [0.0, 1.0]
    negative = gfpq.quantise(np.array([-0.5, -above], np.float32), -1, 8)
    assert negative.tolist() == [0.0, -1.0]


def test_code_layout() -> None:
    # MQBench's NNIE notes: bit 7 sign, 0x80 zero, 0x7F largest, 0xFF most negative; no negative code 0.
    z = gfpq.zero_point(1.0, 8)
    x = np.array(
        [1.0, -1.0, 2.0 ** (z / 16), -(2.0 ** ((z + 1) / 16)), -(2.0 ** (z / 16)), np.inf], np.float32
    )
    assert gfpq.encode(x, z, 8).tolist() == [0x7F, 0xFF, 0x00, 0x81, 0x81, 0x7F]
    z = gfpq.zero_point(1.0, 16)
    codes = gfpq.encode(np.array([1.0, -1.0, -np.inf], np.float32), z, 16)
    assert codes.dtype == np.uint16
    assert codes.tolist() == [1407, 0x8000 + 1407, 0x8000 + 1407]


@pytest.mark.parametrize("bits", [8, 16])
def test_every_code_survives_decoding_and_encoding(bits: int) -> None:
    top, sign = TOP[bits], 1 << (bits - 1)
    codes = np.array([*range(top + 1), sign, *range(sign + 1, sign + top + 1)])
    z = gfpq.zero_point(3.7, bits)
    np.testing.assert_array_equal(gfpq.encode(gfpq.decode(codes, z, bits), z, bits), codes)


def test_nan_and_foreign_codes_are_refused() -> None:
    with pytest.raises(KilnError, match="NaN"):
        gfpq.quantise(np.array([1.0, np.nan], np.float32), 0, 8)
    with pytest.raises(KilnError, match="no GFPQ code"):
        gfpq.decode(np.array([1408], np.uint16), 0, 16)


@pytest.mark.parametrize("convert", [gfpq.encode, gfpq.quantise])
def test_nan_in_a_large_array_is_refused_and_infinity_saturates(convert: Callable[..., np.ndarray]) -> None:
    x = np.full(300_000, 0.5, np.float32)
    x[[77_777, 200_000]] = np.inf, -np.inf
    found = convert(x, gfpq.zero_point(1.0, 16), 16)
    np.testing.assert_array_equal(found[[77_777, 200_000]], convert(np.float32([9, -9]), -1407, 16))
    x[123_456] = np.float32(np.nan)
    with pytest.raises(KilnError, match="NaN"):
        convert(x, -1407, 16)


def test_threads_and_blocks_do_not_change_the_result() -> None:
    x = np.random.default_rng(3).normal(0, 90, (3, 331, 337)).astype(np.float32)
    one, four = (gfpq.quantise(x, -384, 16, threads=n) for n in (1, 4))
    np.testing.assert_array_equal(one, four)
    np.testing.assert_array_equal(one, direct(x, -384, 16))
    np.testing.assert_array_equal(gfpq.quantise(x[:, ::3, ::2], -384, 16), one[:, ::3, ::2])


def test_empty_and_scalar_shapes() -> None:
    assert gfpq.quantise(np.zeros((0, 3), np.float32), 0, 8).shape == (0, 3)
    assert gfpq.encode(np.float32(255.0), 0, 8).shape == ()


@settings(deadline=None, max_examples=60)
@given(
    c=st.floats(2.0**-20, 2.0**17, width=32),
    bits=st.sampled_from([8, 16]),
    x=st.lists(st.floats(-(2.0**17), 2.0**17, width=32), min_size=1, max_size=40),
)
def test_properties(c: float, bits: int, x: list[float]) -> None:
    z = gfpq.zero_point(c, bits)
    values = np.array([*x, c, -c], np.float32)
    y = gfpq.quantise(values, z, bits)
    np.testing.assert_array_equal(y, direct(values, z, bits))
    np.testing.assert_array_equal(gfpq.quantise(y, z, bits), y)  # idempotent
    assert (np.abs(y) <= np.float32(c)).all()  # z is floored, so nothing exceeds the range
    order = np.argsort(values, kind="stable")
    assert (np.diff(y[order]) >= 0).all()
    inside = (np.abs(values) <= c) & (np.abs(values) > 2.0 ** ((z + 1) / STEPS[bits]))
    # Half a step to the nearest code, a whole one at the top, which lies below c.
    assert (np.abs(np.log2(np.abs(y[inside]) / np.abs(values[inside]))) * STEPS[bits] <= 1 + 1e-3).all()
