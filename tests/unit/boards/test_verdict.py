"""When a measurement is rejected, and which variants are dominated."""

from __future__ import annotations

import pytest

from facekiln.boards.timing import Stats, Timing, stats_of
from facekiln.boards.verdict import NOISY, STEADY, UNJUDGED, Limits, Variant, dominated, judge
from facekiln.errors import KilnError


def _mean(value: float, **more: object) -> Timing:
    fields: dict[str, object] = {"tool": "t", "measures": "m", "latency": Stats(mean=value), "batch": 1}
    return Timing(**{**fields, **more})  # type: ignore[arg-type]


def _samples(values: list[float]) -> Timing:
    return _mean(1.0, latency=stats_of(values))


def test_close_repeats_are_steady() -> None:
    found = judge([_mean(value) for value in (10.0, 10.1, 9.9, 10.0, 10.05)])
    assert found.verdict == STEADY
    assert found.latency_ms == pytest.approx(10.01)
    assert found.interval is not None
    assert found.interval.low < 10.01 < found.interval.high
    assert "Student" in found.interval.method


def test_scattered_repeats_are_rejected_with_reasons() -> None:
    found = judge([_mean(value) for value in (10.0, 13.0, 9.0, 12.0, 10.0)])
    assert found.verdict == NOISY
    assert any("interval" in reason for reason in found.reasons)
    assert any("differ by 44.4%" in reason for reason in found.reasons)


def test_heating_up_is_rejected_as_drift() -> None:
    found = judge([_mean(10.0 + 0.15 * step) for step in range(7)], Limits(half_width=0.5, spread=0.5))
    assert found.verdict == NOISY
    assert found.reasons == ("the latency drifted by +8.6% (limit 5.0%)",)


def test_cooling_down_is_drift_too() -> None:
    found = judge([_mean(11.0 - 0.15 * step) for step in range(7)], Limits(half_width=0.5, spread=0.5))
    assert found.reasons == ("the latency drifted by -8.5% (limit 5.0%)",)


def test_a_large_trend_that_may_be_chance_is_none() -> None:
    found = judge([_mean(value) for value in (10.0, 9.0, 12.0, 11.0)], Limits(half_width=0.5, spread=0.5))
    assert found.drift is not None and found.drift > 0.05
    assert found.verdict == STEADY


def test_the_median_of_a_repeat_counts_not_its_outliers() -> None:
    repeats = [_samples([10.0, 10.1, 9.9, 10.0, 10.0, 90.0 + index]) for index in range(3)]
    assert judge(repeats).verdict == STEADY


def test_one_repeat_with_samples_is_judged_by_them() -> None:
    assert judge([_samples([10.0, 10.1, 9.9, 10.0, 10.1, 9.9, 10.0])]).verdict == STEADY
    wide = judge([_samples([10.0, 20.0, 10.0, 20.0, 30.0, 10.0, 15.0])])
    assert wide.verdict == NOISY
    assert wide.interval is not None
    assert "order statistics" in wide.interval.method


def test_one_mean_is_unjudged_never_steady() -> None:
    found = judge([_mean(10.0)])
    assert found.verdict == UNJUDGED
    assert found.interval is None


def test_a_changed_governor_rejects() -> None:
    assert judge([_mean(10.0)] * 3, remarks=["the governor changed"]).verdict == NOISY
    assert judge([_mean(10.0)], remarks=["the governor changed"]).verdict == NOISY


def test_different_measurements_are_not_put_together() -> None:
    with pytest.raises(KilnError, match="different things"):
        judge([_mean(10.0), _mean(10.0, batch=4)])
    with pytest.raises(KilnError, match="no repeat"):
        judge([])


def test_slower_and_worse_is_dominated() -> None:
    # sophon-demo's table of RetinaFace on BM1684: int8_1b is slower than fp32_1b and less accurate
    variants = [
        Variant("fp32_1b", 6.30, 6.32, (89.1,), "easy"),
        Variant("int8_1b", 7.39, 7.41, (87.4,), "easy"),
        Variant("int8_4b", 4.74, 4.76, (87.4,), "easy"),
    ]
    assert dominated(variants) == {"int8_1b": "int8_4b"}
    assert dominated(variants[:2]) == {"int8_1b": "fp32_1b"}


def test_overlapping_times_and_other_protocols_dominate_nobody() -> None:
    assert dominated([Variant("a", 6.0, 6.5, (90,), "x"), Variant("b", 6.4, 6.9, (80,), "x")]) == {}
    assert dominated([Variant("a", 6.0, 6.4, (90,), "x"), Variant("b", 6.4, 6.9, (80,), "x")]) == {}
    assert dominated([Variant("a", 1.0, 1.1, (90,), "x"), Variant("b", 6.4, 6.9, (80,), "y")]) == {}
    assert dominated([Variant("a", 1.0, 1.1, (90, 70), "x"), Variant("b", 6.4, 6.9, (89, 71), "x")]) == {}
    assert dominated([Variant("a", 1.0, 1.1, (90, 71), "x"), Variant("b", 6.4, 6.9, (89, 71), "x")]) == {
        "b": "a"
    }
