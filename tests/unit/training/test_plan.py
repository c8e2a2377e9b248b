"""Plans: each sample once per pass, shares obeyed, nothing but the seed decides."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.training.plan import Plan


def taken(plan: Plan) -> list[int]:
    return [index for step in range(plan.steps) for index in plan.samples(step)]


@given(st.integers(0, 9), st.integers(1, 40), st.integers(1, 7), st.integers(1, 4))
def test_an_epoch_takes_each_sample_about_once(seed: int, count: int, pictures: int, epochs: int) -> None:
    plan = Plan(seed, [(pictures, 1.0)], [count], epochs=epochs)
    assert plan.steps == epochs * plan.epoch_steps and plan.epoch_steps == max(1, round(count / pictures))
    times = Counter(taken(plan)).values()
    assert max(times) - min(times) <= 1 or plan.steps * pictures < count


def test_kinds_come_by_their_shares_with_their_numbers() -> None:
    plan = Plan(1, [(12, 0.75), (3, 0.25)], [50], steps=800)
    sizes = [len(plan.samples(step)) for step in range(800)]
    assert all(size == (12, 3)[plan.kind(step)] for step, size in enumerate(sizes))
    assert sizes.count(12) / 800 == pytest.approx(0.75, abs=0.05)


def test_sources_give_their_shares_whatever_their_size() -> None:
    plan = Plan(1, [(10, 1.0)], [1000, 10], steps=200, shares=[0.5, 0.5])
    small = [index for index in taken(plan) if index >= 1000]
    assert len(small) / 2000 == pytest.approx(0.5, abs=0.05)
    assert max(Counter(small).values()) - min(Counter(small).values()) <= 1


def test_without_shares_their_size_decides() -> None:
    plan = Plan(1, [(10, 1.0)], [90, 10], steps=100)
    assert sum(index >= 90 for index in taken(plan)) == 100


@pytest.mark.parametrize("shares", [None, [0.5, 0.5]])
def test_weights_decide_how_often_a_sample_is_drawn(shares: list[float] | None) -> None:
    weights = np.array([1.0, 1.0, 0.0, 1.0, 3.0])
    times = Counter(taken(Plan(1, [(10, 1.0)], [3, 2], steps=400, shares=shares, weights=weights)))
    assert times[2] == 0
    assert times[4] / times[3] == pytest.approx(3, rel=0.2)


def test_seeds_decide() -> None:
    one, two = (taken(Plan(seed, [(4, 1.0)], [20], steps=10)) for seed in (1, 2))
    assert one != two and one == taken(Plan(1, [(4, 1.0)], [20], steps=10))
