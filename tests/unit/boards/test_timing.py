"""The common form of what benchmark tools say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.boards.timing import Stats, Timing, quantile, stats_of
from facekiln.errors import KilnError

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)


@given(VALUES, st.floats(0, 1))
def test_quantiles_are_numpys(values: list[float], level: float) -> None:
    assert quantile(sorted(values), level) == pytest.approx(float(np.quantile(values, level)), abs=1e-6)


@given(VALUES)
def test_figures_of_samples_are_in_order(values: list[float]) -> None:
    stats = stats_of(values)
    assert stats.samples == tuple(values)
    assert stats.mean == pytest.approx(float(np.mean(values)))
    assert stats.median == pytest.approx(float(np.median(values)))
    assert set(stats.percentiles) == {
        name for name, needed in (("90", 10), ("95", 20), ("99", 100)) if len(values) >= needed
    }


def test_means_have_no_percentiles() -> None:
    assert stats_of([1.0] * 200, runs_per_sample=10).percentiles == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": float("nan")},
        {"mean": -1.0},
        {"mean": 3.0, "min": 4.0},
        {"mean": 3.0, "max": 2.0},
        {"mean": 3.0, "min": 1.0, "median": 0.5},
        {"mean": 3.0, "percentiles": {"90": 4.0, "99": 3.0}},
        {"mean": 3.0, "median": 3.0, "percentiles": {"90": 2.0}},
        {"mean": 3.0, "max": 5.0, "percentiles": {"99": 6.0}},
    ],
)
def test_figures_that_cannot_belong_together_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(KilnError):
        Stats(**wrong)  # type: ignore[arg-type]


def test_percentiles_are_in_the_order_of_numbers_not_of_words() -> None:
    assert Stats(mean=3.0, percentiles={"5": 1.0, "10": 2.0, "100": 9.0}).percentiles["10"] == 2.0


def test_another_unit_scales_every_figure() -> None:
    half = stats_of([float(value) for value in range(2, 24, 2)]).scaled(0.5)
    assert half == stats_of([float(value) for value in range(1, 12)])


def _timing(**more: object) -> Timing:
    values: dict[str, object] = {
        "tool": "bmrt_test",
        "measures": "compute",
        "latency": stats_of([2.0, 4.0, 3.0]),
        "batch": 4,
        "runs": 3,
        "parts": {"h2d": Stats(mean=1.0, percentiles={"90": 2.0})},
        "readings": {"power_w": Stats(mean=34.0)},
    }
    return Timing(**{**values, **more})  # type: ignore[arg-type]


def test_per_image_and_throughput() -> None:
    result = _timing()
    assert result.per_image_ms == 0.75
    assert result.images_per_second == pytest.approx(4 / 0.003)
    assert _timing(throughput=99.0).images_per_second == 99.0


def test_mean_only_is_told() -> None:
    assert not _timing().mean_only
    assert _timing(latency=Stats(mean=3.0, min=2.0, max=4.0)).mean_only


def test_a_latency_of_nought_and_a_batch_of_nought_are_refused() -> None:
    with pytest.raises(KilnError, match="nought"):
        _timing(latency=Stats(mean=0.0))
    with pytest.raises(KilnError, match="below 1"):
        _timing(batch=0)


@pytest.mark.parametrize(("throughput", "rate"), [(None, 4 / 0.003), (123.5, 123.5)])
def test_the_record_says_whose_throughput_it_is(throughput: float | None, rate: float) -> None:
    told = _timing(throughput=throughput, notes=("warm",), memory_mib={"npu": 3.0}).to_json()
    assert told["images_per_second"] == pytest.approx(rate)
    assert told["throughput_by_tool"] is (throughput is not None)
    assert (told["batch"], told["runs"], told["per_image_ms"], told["mean_only"]) == (4, 3, 0.75, False)
    assert told["latency_ms"]["samples"] == [2.0, 4.0, 3.0]
    assert told["parts_ms"]["h2d"]["percentiles"] == {"90": 2.0}
    assert (told["readings"]["power_w"]["mean"], told["memory_mib"], told["notes"]) == (
        34.0,
        {"npu": 3.0},
        ["warm"],
    )
