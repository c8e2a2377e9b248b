"""Where a training runs and in which precision, and what makes it deterministic there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from facekiln.errors import KilnError
from facekiln.training.recipe import Recipe

_PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Device:
    """The device, and the type of mixed precision there (None: float32 throughout)."""

    device: torch.device
    half: torch.dtype | None

    def name(self) -> str:
        """Return what decides the outcome, e.g. "cpu float32"."""
        half = str(self.half).removeprefix("torch.") if self.half else "float32"
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)} {half}"
        return f"{self.device.type} {half}"


def choose_device(recipe: Recipe) -> Device:
    """Return the device that a recipe asks for.

    Raises:
        KilnError: a GPU is asked for and there is none, or float16 on a CPU, which has no fast float16.
    """
    there = torch.cuda.is_available()
    if recipe.device == "cuda" and not there:
        raise KilnError(
            "torch finds no GPU",
            file=f"recipe '{recipe.title}'",
            where="device",
            value="cuda",
            hint="say `device: auto`, or install a CUDA build of torch",
        )
    device = torch.device("cuda" if there and recipe.device != "cpu" else "cpu")
    amp = recipe.amp
    if amp == "auto":
        amp = "float16" if device.type == "cuda" else "none"
    if amp == "float16" and device.type == "cpu":
        raise KilnError(
            "float16 needs a GPU",
            file=f"recipe '{recipe.title}'",
            where="amp",
            value=amp,
            hint="say `bfloat16`, `none` or `auto`",
        )
    return Device(device, _PRECISIONS.get(amp))


@contextmanager
def deterministic(seed: int, threads: int) -> Iterator[None]:
    """Seed torch, fix its threads and have it refuse what is not deterministic; put all back afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic  # its attribute is a property that stubs do not show
    filled = memory.fill_uninitialized_memory
    # cuBLAS is deterministic only with a fixed workspace (CUDA manual, "Results reproducibility").
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng():
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
