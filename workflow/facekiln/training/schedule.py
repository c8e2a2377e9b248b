"""The learning rate of each step, and the optimiser that takes it."""

from __future__ import annotations

import math

import torch
from torch import nn

from facekiln.training.recipe import Optimiser, Schedule


def rate_at(schedule: Schedule, step: int, steps: int) -> float:
    """Return the learning rate of a step.

    Every kind rises by a line from a hundredth of the peak during `warm_up`. Then `one_cycle` falls to 0 by a
    cosine, `steps` is multiplied by `factor` at each share `at` of the training, `constant` stays.
    """
    warm = schedule.warm_up * steps
    if step < warm:
        return schedule.rate * (0.01 + 0.99 * step / warm)
    if schedule.kind == "one_cycle":
        return schedule.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, steps - warm)))
    if schedule.kind == "steps":
        return float(schedule.rate * schedule.factor ** sum(step >= share * steps for share in schedule.at))
    return schedule.rate


def make_optimiser(network: nn.Module, settings: Optimiser, rate: float) -> torch.optim.Optimizer:
    """Return an optimiser that does not decay norms and biases."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, fused=True)
    kind = torch.optim.AdamW if settings.kind == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, fused=True)
