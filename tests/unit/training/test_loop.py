"""The loop: schedule, settings put back, divergence told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from facekiln.errors import KilnError
from facekiln.training.batches import Arrays
from facekiln.training.loop import deterministic, rate_at, train
from facekiln.training.recipe import Schedule, make_recipe

SCHEDULE = Schedule(rate=0.01, warm_up=0.2, weight_decay=0.0, clip_norm=10.0)


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    rates = [rate_at(SCHEDULE, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.0001)
    assert max(rates) == rates[20] == pytest.approx(0.01)
    assert rates[:21] == sorted(rates[:21]) and rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] < 0.00001


def test_no_warm_up_starts_at_the_peak() -> None:
    assert rate_at(Schedule(0.01, 0.0, 0.0, 1.0), 0, 10) == pytest.approx(0.01)


def test_torch_is_left_as_it_was() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    with pytest.raises(RuntimeError), deterministic(5, 1):
        assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
        raise RuntimeError
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])


class Numbers(torch.nn.Module):
    """Learns one box offset, no picture needed."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = torch.nn.Parameter(torch.zeros(4))
        self.scores = torch.nn.Parameter(torch.zeros(2))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        b = len(images)
        return self.loc.expand(b, 6, 4), self.scores.expand(b, 6, 2), torch.zeros(b, 6, 10)


def batch(value: float) -> Arrays:
    loc = np.full((2, 6, 4), value, np.float32)
    return Arrays(
        np.zeros((2, 3, 8, 8), np.float32), np.ones((2, 6), np.int8), loc, np.zeros((2, 6, 10), np.float32)
    )


def test_it_learns_and_ends_in_evaluation_mode(raw_recipe: dict[str, Any]) -> None:
    raw_recipe |= {"steps": 120, "schedule": {**raw_recipe["schedule"], "rate": 0.05}}
    network = Numbers()
    train(network, make_recipe(raw_recipe), [batch(0.7)] * 120)
    assert network.loc.detach().numpy() == pytest.approx([0.7] * 4, abs=0.05)
    assert not network.training


def test_divergence_is_told_with_its_step(raw_recipe: dict[str, Any]) -> None:
    with pytest.raises(KilnError, match=r"step 1.*diverged"):
        train(Numbers(), make_recipe(raw_recipe), [batch(0.1), batch(float("nan"))])
