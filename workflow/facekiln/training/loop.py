"""The training loop: steps of AdamW over one cycle, the same to the bit for the same recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from facekiln.errors import KilnError
from facekiln.progress import progress_bar
from facekiln.training.batches import Arrays
from facekiln.training.losses import MultiBoxLoss
from facekiln.training.recipe import Recipe, Schedule


@contextmanager
def deterministic(seed: int, threads: int) -> Iterator[None]:
    """Seed torch, fix its threads and have it refuse what is not deterministic; put all back afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic  # its attribute is a property that stubs do not show
    filled = memory.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        # Filling every new tensor takes a seventh of the time; nothing here reads what it did not write.
        memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1])
            memory.fill_uninitialized_memory = filled


def rate_at(schedule: Schedule, step: int, steps: int) -> float:
    """Return the learning rate of a step: a line from a hundredth of the peak up, a cosine down to 0."""
    warm = schedule.warm_up * steps
    if step < warm:
        return schedule.rate * (0.01 + 0.99 * step / warm)
    return schedule.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, steps - warm)))


def _optimiser(network: nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW that does not decay norms and biases."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": schedule.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.rate, fused=True)


def train(network: nn.Module, recipe: Recipe, batches: Iterable[Arrays]) -> float:
    """Train a network in place and leave it in evaluation mode.

    Returns:
        The mean loss of the last tenth of the steps.

    Raises:
        KilnError: the loss is no longer a number.
    """
    loss_of = MultiBoxLoss(recipe.loss)
    optimiser = _optimiser(network, recipe.schedule)
    network.train()
    recent: list[float] = []
    smooth: float | None = None
    with progress_bar(recipe.steps, "train", "step") as bar:
        for step, batch in enumerate(batches):
            for group in optimiser.param_groups:
                group["lr"] = rate_at(recipe.schedule, step, recipe.steps)
            images = torch.from_numpy(batch.images).to(memory_format=torch.channels_last)
            labels = torch.from_numpy(batch.labels).long()
            targets = labels, torch.from_numpy(batch.loc), torch.from_numpy(batch.landms)
            loss = loss_of(network(images), targets)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), recipe.schedule.clip_norm)
            optimiser.step()
            value = loss.item()
            if not math.isfinite(value):
                raise KilnError(
                    "training diverged: the loss is no longer a number",
                    where=f"step {step}",
                    hint="lower `schedule.rate` in the recipe",
                )
            smooth = value if smooth is None else 0.95 * smooth + 0.05 * value
            if step >= 0.9 * recipe.steps:
                recent.append(value)
            bar.set_postfix(loss=f"{smooth:.2f}", refresh=False)
            bar.update(1)
    network.eval()
    return sum(recent) / max(1, len(recent))
