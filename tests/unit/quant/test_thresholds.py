"""Thresholds on distributions whose best clipping is known, and what must hold on all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from facekiln.quant.thresholds import (
    BINS,
    METHODS,
    divergence,
    folded,
    kl,
    mse,
    percentile,
    signed_counts,
    thresholds,
    without_spikes,
)


def of(values: NDArray[np.floating], percent: float = 99.99) -> tuple[float, dict[str, float]]:
    values = np.asarray(values, np.float32)
    top = float(np.abs(values).max(initial=0))
    return top, thresholds(folded(signed_counts(values, top)), top, percent)


def int8_error(values: NDArray[np.floating], threshold: float) -> float:
    """The mean squared error of int8 itself, computed without a histogram."""
    step = threshold / 127
    return float(np.mean((values - np.clip(np.rint(values / step), -127, 127) * step) ** 2))


def test_all_zero_tensor_has_threshold_zero() -> None:
    assert of(np.zeros(100)) == (0.0, dict.fromkeys(METHODS, 0.0))


@pytest.mark.parametrize("value", [3.0, -3.0, 1e-30, 2e30])
def test_constant_tensor_is_kept_whole(value: float) -> None:
    top, found = of(np.full(1000, value))
    assert all(threshold == pytest.approx(top, rel=2e-3) for threshold in found.values())


def test_minmax_clips_nothing_and_percentile_keeps_its_share() -> None:
    values = np.random.default_rng(0).normal(size=200_000)
    top, found = of(values, 99.9)
    assert found["minmax"] == top
    assert np.mean(np.abs(values) <= found["percentile"]) >= 0.999
    # Three sigma of a Gaussian hold 99.73 %, 3.29 sigma 99.9 %.
    assert found["percentile"] == pytest.approx(3.29, rel=0.02)


def test_percentile_of_everything_is_the_top() -> None:
    counts = folded(signed_counts(np.linspace(-1, 1, 999, dtype=np.float32), 1.0))
    assert percentile(counts, 1.0, 100) == 1.0


def test_percentile_ends_with_the_bin_that_reaches_its_share() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[[3, 10]] = 99, 1
    assert percentile(counts, BINS, 99) == 4
    assert percentile(counts, BINS, 99.01) == 11


def test_of_equal_thresholds_the_widest_wins() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[0] = 9
    assert kl(counts, 2.0) == 2.0


def test_mse_of_a_gaussian_is_the_known_optimum() -> None:
    """An 8-bit uniform quantiser of a Gaussian clips at about 3.92 sigma (Banner et al. 2019, "Post training
    4-bit quantization", table of optimal clipping values: 3.92 at 8 bit)."""
    values = np.random.default_rng(0).normal(size=2_000_000)
    assert of(values)[1]["mse"] == pytest.approx(3.92, rel=0.06)


@pytest.mark.parametrize("draw", ["normal", "laplace", "standard_t"])
def test_mse_is_no_worse_than_any_other_threshold(draw: str) -> None:
    rng = np.random.default_rng(3)
    values = getattr(rng, draw)(*((4,) if draw == "standard_t" else ()), size=100_000)
    top, found = of(values)
    best = min(int8_error(values, top * share) for share in np.linspace(0.02, 1, 200))
    assert int8_error(values, found["mse"]) <= 1.03 * best


def test_one_outlier_is_clipped_by_percentile_and_kl() -> None:
    values = np.append(np.random.default_rng(0).normal(size=100_000), 100.0)
    top, found = of(values)
    assert top == found["minmax"] == 100
    # KL cannot clip below 128 of 2048 bins.
    assert all(3 < found[name] < 13 for name in ("percentile", "kl"))
    # Its squared error outweighs coarser steps for the 100,000 others: MSE rightly keeps most of it.
    assert int8_error(values, found["mse"]) < min(int8_error(values, 10), int8_error(values, 100))


def test_heavy_tail_is_clipped_and_a_uniform_is_not() -> None:
    rng = np.random.default_rng(0)
    top, found = of(rng.standard_t(2.5, size=300_000))
    assert found["kl"] < 0.5 * top and found["mse"] < 0.7 * top
    top, found = of(rng.uniform(-1, 1, 300_000))
    assert found["kl"] > 0.97 * top and found["mse"] > 0.97 * top


def test_relu_zeros_do_not_move_kl() -> None:
    values = np.maximum(np.random.default_rng(0).normal(size=200_000), 0)
    _, with_zeros = of(np.concatenate([values, np.zeros(10_000_000 // 5)]))
    _, without = of(values[values > 0])
    assert with_zeros["kl"] == pytest.approx(without["kl"], rel=0.03)


def test_constant_areas_do_not_move_kl() -> None:
    """The padding of a letterboxed picture gives one value over and over."""
    values = np.random.default_rng(0).normal(size=200_000)
    _, padded = of(np.concatenate([values, np.full(400_000, 0.7)]))
    _, plain = of(values)
    assert padded["kl"] == pytest.approx(plain["kl"], rel=0.1)
    levelled = without_spikes(np.array([5, 1, 9, 2, 0, 1, 0] + [0] * (BINS - 7)))
    assert levelled[:7].tolist() == [1, 1, 2, 2, 0, 1, 0]


def test_divergence_is_zero_where_nothing_is_lost() -> None:
    mass = np.zeros(BINS)
    mass[::16] = 1.0  # one filled bin per level of the whole range
    assert divergence(mass, BINS) == pytest.approx(0)
    assert divergence(mass, 1024) > 0.1


def test_divergence_of_a_hand_computed_case() -> None:
    """256 bins, two to a level: level 0 holds 3 and 1, which become 2 and 2."""
    mass = np.zeros(BINS)
    mass[:2] = (3, 1)
    expected = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert divergence(mass, 256) == pytest.approx(expected)


finite = st.floats(-1e6, 1e6, width=32)


@given(st.lists(finite, min_size=1, max_size=200), st.floats(50.5, 100))
@settings(max_examples=60)
def test_no_threshold_is_above_the_largest_magnitude(values: list[float], percent: float) -> None:
    top, found = of(np.array(values, np.float32), percent)
    assert all(0 <= threshold <= top for threshold in found.values())
    assert (top == 0) == (max(found.values()) == 0)


@given(st.integers(0, 10_000), st.integers(-40, 40))
@settings(max_examples=25)
def test_thresholds_scale_with_the_values(seed: int, power: int) -> None:
    values = np.random.default_rng(seed).standard_t(3, size=500).astype(np.float32)
    _, found = of(values)
    _, scaled = of(np.ldexp(values, power))
    assert scaled == {name: float(np.ldexp(threshold, power)) for name, threshold in found.items()}


@given(st.integers(0, 10_000))
def test_signs_do_not_matter(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=500).astype(np.float32)
    folds = [folded(signed_counts(sign * values, 10.0)) for sign in (1, -1)]
    assert int(folds[0].sum()) == 500
    # A value on an edge belongs to the bin above it, on either side of zero.
    assert np.abs(folds[0] - folds[1]).sum() <= 4


def test_counts_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    top = float(np.abs(values).max())
    expected, _ = np.histogram(values, bins=2 * BINS, range=(-top, top))
    found = signed_counts(values, top)
    assert found.sum() == expected.sum() == 50_000
    assert np.abs(found - expected).sum() <= 40  # float32 rounds a few across an edge


def test_empty_histogram_has_threshold_zero() -> None:
    none = np.zeros(BINS, np.int64)
    assert percentile(none, 1.0, 99) == kl(none, 1.0) == mse(none, 1.0) == 0
