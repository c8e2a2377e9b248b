"""What the training loop needs of a task: batches by step, a loss in named parts, and a judgement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

Arrays = dict[str, NDArray[Any]]
IMAGES = "images"


class Task(Protocol):
    """One kind of training: `facekiln.training.detection` or `facekiln.training.landmark_task`."""

    steps: int
    epoch_steps: int  # steps that take each sample about once
    goals: tuple[str, ...]  # figures of `judge` that are always numbers

    def start(self, network: nn.Module) -> None:
        """Give a fresh network first weights that fit the data, where the task knows better ones."""

    def batch(self, step: int) -> Arrays:
        """Return a step's batch: "images" float32 [B,3,h,w] and what the loss needs.

        A pure function of the step, safe to be called from several threads.
        """

    def loss(self, outputs: tuple[Tensor, ...], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parts of the loss by name, each a weighted scalar; their sum is minimised.

        Args:
            outputs: of the network in training mode, in the order of the model's `outputs`.
            batch: the step's arrays as tensors on the network's device, floats as float32.
        """

    def judge(self, network: nn.Module) -> dict[str, Any]:
        """Return figures of a network in evaluation mode on the held-out samples, ready for JSON."""


def stack(rows: list[Arrays]) -> Arrays:
    """Join the arrays of single samples to a batch's."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
