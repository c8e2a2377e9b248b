"""What a checkpoint file is, in words, for `facekiln checkpoint inspect`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from facekiln.config import Config, Model
from facekiln.errors import KilnError
from facekiln.models.checkpoint import Checkpoint, StateDict, misfits, owners_of, read_checkpoint
from facekiln.models.registry import build_network

# Entries that batch norms keep beside their learned parameters.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def parameters_of(state: StateDict) -> int:
    """Return the number of learned parameters in a state dict; batch norm's running figures do not count."""
    return sum(tensor.numel() for key, tensor in state.items() if key.rpartition(".")[2] not in _BUFFERS)


def describe(path: Path | str, config: Config | None) -> Iterator[str]:
    """Yield the lines that say what a checkpoint is, whose it is and which models' networks it fits.

    Raises:
        KilnError: see `facekiln.models.checkpoint.read_checkpoint`.
    """
    checkpoint = read_checkpoint(path)
    yield f"{path}: {checkpoint.form} format, {Path(path).stat().st_size} bytes"
    yield f"  sha256      {checkpoint.sha256}"
    prefix = f"   (without the prefix '{checkpoint.prefix}')" if checkpoint.prefix else ""
    yield f"  keys        {len(checkpoint.state)}{prefix}"
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in checkpoint.state.values()})
    yield f"  parameters  {parameters_of(checkpoint.state):,}   ({', '.join(kinds)})"
    if checkpoint.meta is not None:
        for key in sorted(checkpoint.meta):
            yield f"  facekiln    {key}: {json.dumps(checkpoint.meta[key])}"
    if config is None:
        yield "  models      not looked up: no config folder here (--config FOLDER)"
        return
    yield from _whose(checkpoint, config)


def _whose(checkpoint: Checkpoint, config: Config) -> Iterator[str]:
    owners = owners_of(checkpoint.sha256, config)
    for model in owners:
        yield f"  published   as model '{model.name}': {json.dumps(model.declaration())}"
    if not owners and checkpoint.meta is None:
        yield "  published   of no model here: slope, priors, colour and mean cannot be told from the file"
    fitting = [model.name for model in config.models.values() if _fits(checkpoint, model)]
    yield f"  fits        {', '.join(fitting) or 'no model here'}"
    if len(fitting) > 1:
        yield "              fitting is not enough: models with equal keys and shapes load each other's files"


def _fits(checkpoint: Checkpoint, model: Model) -> bool:
    import torch

    try:
        with torch.device("meta"):  # names and shapes are enough
            return not misfits(checkpoint.state, build_network(model))
    except KilnError:
        return False
