"""A checkpoint from a recipe: draw, train, judge on scenes never seen, and only then write."""

from __future__ import annotations

import io
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn

from facekiln.artifact import write_bytes
from facekiln.config import Model
from facekiln.errors import GateError, KilnError
from facekiln.models.checkpoint import META, META_FORMAT
from facekiln.models.registry import build_network
from facekiln.progress import log
from facekiln.training.batches import BatchMaker
from facekiln.training.held_out import evaluate
from facekiln.training.loop import deterministic, train
from facekiln.training.pool import draw_pool
from facekiln.training.recipe import make_recipe


def train_checkpoint(model: Model, raw_recipe: dict[str, Any], output: Path) -> dict[str, Any]:
    """Train a model from scratch by a recipe and write its checkpoint.

    The same model, recipe and torch release give the same bytes.

    Args:
        model: whose network, preprocessing and priors are trained for.
        raw_recipe: as `facekiln.config.load_recipe` returns it; it is stored in the checkpoint.
        output: the `.pth`; written only when the held-out gate is passed.

    Returns:
        The metrics on the held-out scenes (see `facekiln.training.held_out.evaluate`), and `loss`.

    Raises:
        KilnError: the model has no priors, or training diverged.
        GateError: the held-out AP is under the recipe's `minimum_ap`.
    """
    if model.priors is None:
        raise KilnError("has no priors: no detector to train", file=f"config/models/{model.name}.yaml")
    recipe = make_recipe(raw_recipe)
    clock = _Clock()
    scenes = draw_pool(recipe.scenes, "train", recipe.seed, recipe.threads)
    held_out = draw_pool(recipe.held_out, "held-out", recipe.seed, recipe.threads)
    clock.tell("drawn")
    # Crops are made by one thread beside torch's; OpenCV's own threads would push those off their cores.
    cv2.setNumThreads(1)
    with deterministic(recipe.seed, recipe.threads):
        network = build_network(model)
        loss = train(network, recipe, BatchMaker(recipe, scenes, model.input, model.priors))
        clock.tell("trained")
        metrics = {**evaluate(network, model, held_out, recipe.score_threshold), "loss": round(loss, 4)}
        clock.tell("judged")
    log.info(
        "held-out AP %.4f at IoU 0.5 on %d faces; by size: %s",
        metrics["ap"],
        metrics["faces"],
        _by_size(metrics),
    )
    if metrics["ap"] < recipe.minimum_ap:
        raise GateError(
            "the held-out AP is under the recipe's minimum; nothing was written",
            file=f"recipe '{raw_recipe['title']}'",
            where="minimum_ap",
            value=metrics["ap"],
            limit=recipe.minimum_ap,
            hint="train for more `steps`, or lower the minimum",
        )
    data = {
        "source": "procedural",
        "train_scenes": len(scenes),
        "train_faces": sum(len(scene.faces) for scene in scenes),
        "held_out_scenes": len(held_out),
    }
    write_bytes(output, checkpoint_bytes(network, model, raw_recipe, metrics, data))
    return metrics


def checkpoint_bytes(
    network: nn.Module,
    model: Model,
    raw_recipe: dict[str, Any],
    metrics: dict[str, Any],
    data: dict[str, Any],
) -> bytes:
    """Return a checkpoint that loads with `weights_only=True` and says what its weights do not.

    It is {"state_dict": ..., "facekiln": {format, model, declaration, recipe, metrics, data}}, plain
    values only.
    """
    state = OrderedDict((key, tensor.detach().contiguous()) for key, tensor in network.state_dict().items())
    meta = {
        "format": META_FORMAT,
        "model": model.name,
        "declaration": _plain(model.declaration()),
        "recipe": _plain(raw_recipe),
        "metrics": _plain(metrics),
        "data": _plain(data),
    }
    stream = io.BytesIO()  # a file's name would become part of the archive
    torch.save({"state_dict": state, META: meta}, stream)
    return stream.getvalue()


def _plain(value: Any) -> Any:
    """Tuples become lists, as in JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _by_size(metrics: dict[str, Any]) -> str:
    return ", ".join(
        f"{label} px {part['ap']:.3f} ({part['faces']})" for label, part in metrics["ap_by_size"].items()
    )


class _Clock:
    def __init__(self) -> None:
        self._since = time.monotonic()

    def tell(self, what: str) -> None:
        now = time.monotonic()
        log.info("%s in %.0f s", what, now - self._since)
        self._since = now
