"""The training loop: the same for every task, and the same to the bit for the same recipe, killed or not."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from facekiln.errors import KilnError
from facekiln.progress import log, progress_bar
from facekiln.training.averaged import Averaged
from facekiln.training.device import Device
from facekiln.training.history import History
from facekiln.training.prefetch import loaders, prefetched
from facekiln.training.recipe import Recipe
from facekiln.training.schedule import make_optimiser, rate_at
from facekiln.training.state import StateFile
from facekiln.training.task import IMAGES, Arrays, Task


@dataclass
class Best:
    """The best judgement so far: its figures and weights, and how many have not been better since."""

    figures: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    since: int = 0


class Trainer:
    """One training from its first step to its last."""

    def __init__(self, network: nn.Module, task: Task, recipe: Recipe, where: Device) -> None:
        """Prepare a training.

        Args:
            network: trained in place, on the device.
            task: gives batches, losses and judgements.
            recipe: everything else.
            where: the device and the precision.

        Raises:
            KilnError: the recipe's goal is no figure of the task.
        """
        if recipe.goal.metric not in task.goals:
            raise KilnError(
                "is no figure that decides",
                file=f"recipe '{recipe.title}'",
                where="goal.metric",
                value=recipe.goal.metric,
                limit=", ".join(task.goals),
            )
        self.network = network.to(where.device)
        self.task, self.recipe, self.where = task, recipe, where
        self.optimiser = make_optimiser(network, recipe.optimiser, recipe.schedule.rate)
        self.averaged = Averaged(network, recipe.ema) if recipe.ema else None
        self.scaler = torch.amp.GradScaler(where.device.type, enabled=where.half is torch.float16)
        self.history = History(task.steps)
        self.best = Best()
        self.step = 0
        # None: the network is not in training mode.
        self._frozen: bool | None = None
        self._freeze_at = round((1 - recipe.freeze_norms) * task.steps)
        self._every = recipe.validate.every * (task.epoch_steps if recipe.epochs else 1)

    def run(self, saved: StateFile | None = None) -> dict[str, Any]:
        """Train, and leave the best weights in the network, in evaluation mode.

        Args:
            saved: where the state is kept; a training that was killed goes on from there.

        Returns:
            The figures of those weights, with `loss`, `steps` and `stopped_early`.

        Raises:
            KilnError: the loss is no longer a number, or the state is damaged.
        """
        if saved and (state := saved.load()):
            self._restore(state)
            log.info("going on from step %d of %d", self.step, self.task.steps)
        stopped = False
        batches = prefetched(self.task, self.step, self.task.steps, loaders(self.recipe.threads))
        with progress_bar(self.task.steps, "train", "step", initial=self.step) as bar:
            try:
                for batch in batches:
                    self.take_step(batch)
                    bar.set_postfix(loss=f"{self._loss_now():.3g}", refresh=False)
                    bar.update(1)
                    if self._every and self.step % self._every == 0 and self.step < self.task.steps:
                        stopped = self._judge()
                    if stopped:
                        break
                    # Between two steps only, so that what is saved is whole.
                    if saved and saved.is_due():
                        saved.save(self._state())
            finally:
                batches.close()
        self.history.close(self.step)
        if not stopped:
            # A goal that is missed may be lowered; the training is not done again for that.
            if saved:
                saved.save(self._state())
            self._judge()
        self.network.load_state_dict(self.best.weights)
        self.network.to("cpu").eval()
        return {
            **self.best.figures,
            "loss": round(self.history.last_loss(), 4),
            "steps": self.step,
            "stopped_early": stopped,
        }

    def take_step(self, batch: Arrays) -> None:
        """Take one step with its batch.

        Raises:
            KilnError: the loss is no longer a number.
        """
        recipe, step = self.recipe, self.step
        frozen = step >= self._freeze_at
        if self._frozen is not frozen:
            self.network.train()
            if frozen:
                _freeze_norms(self.network)
            self._frozen = frozen
        rate = rate_at(recipe.schedule, step, self.task.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        tensors = _on_device(batch, self.where.device)
        images = tensors.pop(IMAGES).to(memory_format=torch.channels_last)
        with torch.autocast(self.where.device.type, self.where.half, enabled=self.where.half is not None):
            outputs = self.network(images)
        parts = self.task.loss(tuple(value.float() for value in outputs), tensors)
        loss = torch.stack(list(parts.values())).sum()
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.network.parameters(), recipe.optimiser.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        values = {name: float(value.detach()) for name, value in parts.items()}
        if not math.isfinite(sum(values.values())):
            raise KilnError(
                "training diverged: the loss is no longer a number",
                file=f"recipe '{recipe.title}'",
                where=f"step {step}",
                value=values,
                hint="lower `schedule.rate` in the recipe",
            )
        if self.averaged:
            self.averaged.update(step)
        self.history.add(step, rate, values)
        self.step += 1

    def _loss_now(self) -> float:
        return self.history.curve[-1]["loss"] if self.history.curve else float("nan")

    def _judge(self) -> bool:
        """Judge the weights, keep them if they are the best; tell whether to stop."""
        judged = self.averaged.network if self.averaged else self.network
        judged.eval()
        self._frozen = None
        since = time.monotonic()
        figures = self.task.judge(judged)
        goal = self.recipe.goal
        value = figures[goal.metric]
        self.history.judge(self.step, figures)
        better = not self.best.weights or goal.better(value, self.best.figures[goal.metric])
        log.info(
            "step %d: %s %.4f%s (%.0f s)",
            self.step,
            goal.metric,
            value,
            ", the best so far" if better and self._every else "",
            time.monotonic() - since,
        )
        if better:
            weights = {key: tensor.detach().cpu().clone() for key, tensor in judged.state_dict().items()}
            self.best = Best(dict(figures), weights)
        else:
            self.best.since += 1
        patience = self.recipe.validate.patience
        if patience and self.best.since >= patience:
            log.info("stopping early: %d judgements without a better %s", self.best.since, goal.metric)
            return True
        return False

    def _state(self) -> dict[str, Any]:
        """Return all that the next step depends on, plain values and tensors only."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "averaged": self.averaged.network.state_dict() if self.averaged else None,
            "scaler": self.scaler.state_dict(),
            "history": copy.deepcopy(self.history.state()),
            "best": vars(self.best),
            "random": torch.get_rng_state(),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.averaged:
            self.averaged.network.load_state_dict(state["averaged"])
        self.scaler.load_state_dict(state["scaler"])
        self.history = History(**state["history"])
        self.best = Best(**state["best"])
        torch.set_rng_state(state["random"])


def _on_device(batch: Arrays, device: torch.device) -> dict[str, Tensor]:
    pinned = device.type == "cuda"
    tensors = {name: torch.from_numpy(value) for name, value in batch.items()}
    if pinned:
        tensors = {name: value.pin_memory().to(device, non_blocking=True) for name, value in tensors.items()}
    return tensors


def _freeze_norms(network: nn.Module) -> None:
    """Let batch norms use the statistics that they have, as when the network is used.

    Small crops around faces have other statistics than whole pictures; a network that saw only its batches'
    own finds faces in bare backgrounds.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
