"""A checkpoint from a recipe: samples, training, judgement, and only then a file."""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn

from facekiln.artifact import check_writable, sha256_of_text, write_bytes, write_json
from facekiln.config import Model
from facekiln.errors import GateError
from facekiln.fingerprint import fingerprint
from facekiln.models.checkpoint import META, META_FORMAT
from facekiln.models.registry import build_network
from facekiln.progress import log
from facekiln.provenance import tool_versions
from facekiln.training.detection import DetectionTask
from facekiln.training.device import Device, choose_device, deterministic
from facekiln.training.landmark_task import LandmarkTask
from facekiln.training.loop import Trainer
from facekiln.training.recipe import Recipe, make_recipe, without_limit
from facekiln.training.sources import Places, Pool, open_pools
from facekiln.training.state import StateFile
from facekiln.training.task import Task

CURVES, HISTORY = "curves.png", "history.json"


@dataclass(frozen=True)
class Outputs:
    """Where a training writes: the checkpoint, and a folder for its curves, history and state."""

    checkpoint: Path
    folder: Path


def train_checkpoint(
    model: Model, raw_recipe: dict[str, Any], outputs: Outputs, places: Places | None = None
) -> dict[str, Any]:
    """Train a model from scratch by a recipe and write its checkpoint.

    The same model, recipe, data, torch release and device give the same bytes. A training that was killed
    goes on from the state in the folder, and gives those bytes too.

    Args:
        model: whose network, preprocessing and priors are trained for.
        raw_recipe: as `facekiln.config.load_recipe` returns it; it is stored in the checkpoint.
        outputs: the checkpoint is written only when the goal is reached; where it is missed, curves and
            history are written as `.failed`.
        places: where datasets are declared and audited.

    Returns:
        The figures on the held-out samples, with `loss`, `steps` and `stopped_early`.

    Raises:
        KilnError: the recipe does not fit the model, a dataset is missing, or training diverged.
        GateError: the goal is missed.
    """
    recipe = make_recipe(raw_recipe)
    where = choose_device(recipe)
    check_writable(outputs.checkpoint)
    train, held_out = open_pools(recipe, places or Places())
    data = {"train": train.records, "held_out": held_out.records}
    # Batches are made beside torch's threads; OpenCV's own would push those off their cores.
    cv2.setNumThreads(1)
    with deterministic(recipe.seed, recipe.threads):
        network = build_network(model)
        task = make_task(model, recipe, train, held_out)
        task.start(network)
        trainer = Trainer(network, task, recipe, where)
        state = StateFile(outputs.folder, _key(model, raw_recipe, data, where))
        figures = trainer.run(state)
    reached = recipe.goal.reached(figures[recipe.goal.metric])
    _write_course(outputs.folder, model, recipe, trainer, "" if reached else ".failed")
    log.info("%s", _told(figures))
    if not reached:
        raise GateError(
            "the goal on the held-out samples is missed; no checkpoint was written",
            file=f"recipe '{recipe.title}'",
            where=f"goal.{recipe.goal.metric}",
            value=figures[recipe.goal.metric],
            limit=recipe.goal.limit(),
            hint="train for longer, or set another goal, which costs no new training",
        )
    meta = {
        "format": META_FORMAT,
        "model": model.name,
        "declaration": model.declaration(),
        "recipe": raw_recipe,
        "metrics": figures,
        "data": {**data, "sha256": _digest(data)},
        **_run_by(where),
    }
    write_bytes(outputs.checkpoint, checkpoint_bytes(network, meta))
    state.remove()
    return figures


def _write_course(folder: Path, model: Model, recipe: Recipe, trainer: Trainer, ending: str) -> None:
    """Write the curves and the history; with another ending where no rule expects them."""
    history = trainer.history
    write_json(_ended(folder / HISTORY, ending), {"title": recipe.title, **history.record()})
    picture = history.picture(f"{model.name}: {recipe.title}", recipe.goal.metric)
    write_bytes(_ended(folder / CURVES, ending), picture)


def _ended(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.stem}{ending}{path.suffix}")


def _key(model: Model, raw_recipe: Mapping[str, Any], data: Mapping[str, Any], where: Device) -> str:
    """Return a hash of all that decides what is trained."""
    whole = {
        "recipe": without_limit(raw_recipe),
        "model": model.declaration(),
        "data": data,
        "code": fingerprint("facekiln.training.train"),
        "releases": tool_versions("numpy", "opencv-python-headless"),
        **_run_by(where),
    }
    return _digest(whole)


def make_task(model: Model, recipe: Recipe, train: Pool, held_out: Pool) -> Task:
    """Return the task that a recipe's section names.

    Raises:
        KilnError: the model is none for it, or the samples hold nothing to learn.
    """
    kind = LandmarkTask if recipe.task == "landmarks" else DetectionTask
    return kind(model, recipe, train, held_out)


def _run_by(where: Device) -> dict[str, str]:
    return {"torch": str(torch.__version__), "device": where.name()}


def _digest(value: Mapping[str, Any]) -> str:
    return sha256_of_text(json.dumps(_plain(value), sort_keys=True))


def checkpoint_bytes(network: nn.Module, meta: Mapping[str, Any]) -> bytes:
    """Return a checkpoint that loads with `weights_only=True` and says what its weights do not.

    It is {"state_dict": ..., "facekiln": meta}, plain values only.
    """
    state = OrderedDict((key, tensor.detach().contiguous()) for key, tensor in network.state_dict().items())
    stream = io.BytesIO()  # a file's name would become part of the archive
    torch.save({"state_dict": state, META: _plain(meta)}, stream)
    return stream.getvalue()


def _plain(value: Any) -> Any:
    """Tuples become lists, as in JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _told(figures: Mapping[str, Any]) -> str:
    """Return the figures that are single numbers, in a line."""
    numbers = [
        f"{name} {value:.4g}"
        for name, value in figures.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    return ", ".join(numbers)
