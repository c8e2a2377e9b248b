"""Learning rates, optimisers, averages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facekiln.training.averaged import Averaged
from facekiln.training.recipe import Optimiser, Schedule
from facekiln.training.schedule import make_optimiser, rate_at

CYCLE = Schedule("one_cycle", rate=0.01, warm_up=0.2)


def test_one_cycle_rises_to_its_peak_and_falls_to_nothing() -> None:
    rates = [rate_at(CYCLE, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.0001)
    assert max(rates) == rates[20] == pytest.approx(0.01)
    assert rates[:21] == sorted(rates[:21]) and rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] < 0.00001


def test_no_warm_up_starts_at_the_peak() -> None:
    assert rate_at(Schedule("one_cycle", 0.01, 0.0), 0, 10) == pytest.approx(0.01)


def test_steps_fall_where_they_are_told_to() -> None:
    """Pytorch_Retinaface: 250 epochs, a tenth from 190 and from 220 on."""
    schedule = Schedule("steps", 1e-3, 0.0, (190 / 250, 220 / 250), 0.1)
    rates = [rate_at(schedule, epoch, 250) for epoch in range(250)]
    assert rates[189] == pytest.approx(1e-3) and rates[190] == pytest.approx(1e-4)
    assert rates[219] == pytest.approx(1e-4) and rates[220] == pytest.approx(1e-5)


def test_a_constant_rate_stays() -> None:
    schedule = Schedule("constant", 0.3, 0.1)
    assert {rate_at(schedule, step, 100) for step in range(10, 100)} == {0.3}
    assert rate_at(schedule, 0, 100) == pytest.approx(0.003)


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_only_matrices_and_convolutions_decay(kind: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimiser = make_optimiser(network, Optimiser(kind, 0.1, 0.9, 1.0), 0.01)
    decayed, others = optimiser.param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert [p.ndim for p in decayed["params"]] == [4] and len(others["params"]) == 3


def test_an_average_follows_slowly_and_leaves_the_network_alone() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    averaged = Averaged(network, 0.9)
    nn.init.ones_(network.weight)
    values = []
    for step in range(200):
        averaged.update(step)
        values.append(averaged.network.weight.item())
    assert values[0] == pytest.approx(0.9)  # the first steps count much: decay 1/10
    assert values == sorted(values) and values[-1] == pytest.approx(1, abs=1e-6)
    assert network.weight.item() == 1


def test_batch_statistics_are_the_networks_own() -> None:
    network = nn.BatchNorm2d(2)
    averaged = Averaged(network, 0.999)
    network(torch.randn(4, 2, 3, 3) + 5)
    averaged.update(500)
    assert torch.equal(averaged.network.running_mean, network.running_mean)
    assert averaged.network.num_batches_tracked == 1
