"""Intervals and drift against scipy and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from facekiln.boards.statistics import drift_of, mean_interval, median_interval, spread, t95
from facekiln.errors import KilnError


@pytest.mark.parametrize("degrees", [1, 2, 4, 9, 30, 31, 60, 500])
def test_students_t_is_scipys(degrees: int) -> None:
    assert t95(degrees) == pytest.approx(float(stats.t.ppf(0.975, degrees)), rel=3e-4)


def test_the_interval_of_the_mean_is_scipys() -> None:
    values = [10.0, 10.5, 9.8, 10.1, 10.2]
    interval = mean_interval(values)
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx(expected, rel=1e-3)
    assert interval.relative_half_width(10.12) == pytest.approx(
        (expected[1] - expected[0]) / 2 / 10.12, rel=1e-3
    )
    with pytest.raises(KilnError):
        mean_interval([1.0])


@pytest.mark.parametrize(("count", "low", "high"), [(6, 1, 6), (10, 2, 9), (20, 6, 15), (70, 27, 44)])
def test_the_interval_of_the_median_is_the_books(count: int, low: int, high: int) -> None:
    # Le Boudec, table A.1: ranks of the 95 % interval of the median.
    interval = median_interval([float(value) for value in range(1, count + 1)])
    assert interval is not None
    assert (interval.low, interval.high) == (low, high)


def test_the_interval_of_the_median_holds_it_in_95_of_100() -> None:
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(2000):
        interval = median_interval(list(random.lognormal(size=31)))
        assert interval is not None
        hits += interval.low <= 1.0 <= interval.high
    assert 0.945 <= hits / 2000 <= 0.985
    assert median_interval([1.0] * 5) is None
    many = median_interval(list(random.normal(size=3000)))
    assert many is not None
    assert many.low < 0 < many.high


def test_a_trend_is_found_and_scatter_is_not() -> None:
    random = np.random.default_rng(4)
    rising = drift_of(list(np.linspace(10, 12, 100) + random.normal(0, 0.2, 100)))
    assert rising is not None
    assert rising.certain
    assert rising.share == pytest.approx(0.18, abs=0.03)
    uncertain = 0
    for _ in range(200):
        flat = drift_of(list(random.normal(10, 0.2, 30)))
        assert flat is not None
        uncertain += not flat.certain
    assert uncertain >= 180
    assert drift_of([1.0, 2.0, 3.0]) is None
    same = drift_of([5.0] * 10)
    assert same is not None
    assert (same.share, same.z) == (0.0, 0.0)


def test_mann_and_kendall_agree_with_kendalls_tau() -> None:
    values = [3.0, 5.0, 4.0, 6.0, 8.0, 7.0, 9.0, 9.0]
    found = drift_of(values)
    assert found is not None
    tau = stats.kendalltau(range(8), values)
    assert found.certain == (tau.pvalue < 0.05)
    # By hand: 25 rises, 2 falls and a tie of two give (23 - 1) / sqrt((8 * 7 * 21 - 2 * 1 * 9) / 18).
    assert found.z == pytest.approx(2.7429, abs=1e-4)
    falling = drift_of(values[::-1])
    assert falling is not None
    assert falling.z == -found.z and falling.share == pytest.approx(-found.share)


def test_a_long_series_is_looked_at_to_its_end() -> None:
    late = drift_of([10.0] * 600 + [float(value) for value in range(11, 411)])
    assert late is not None
    assert late.certain and late.share > 0


def test_the_spread() -> None:
    assert spread([10.0, 12.0, 11.0]) == pytest.approx(0.2)
