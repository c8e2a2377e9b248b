"""`facekiln checkpoint train`: a model from scratch on procedural faces."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facekiln.commands import add_verb


def add_train(verbs: Any) -> None:
    """Add the verb `train`."""
    train = add_verb(
        verbs,
        "train",
        _train,
        "train a model from scratch by its recipe; refuse to write one that misses its minimum AP",
        "facekiln checkpoint train --model retinaface --output results/checkpoints/retinaface.pth",
    )
    train.add_argument("--model", required=True)
    train.add_argument(
        "--recipe", help="a file of config/training, without its ending (default: the model's)"
    )
    train.add_argument("--output", type=Path, required=True)
    train.add_argument("--config", type=Path, default=Path("config"), metavar="FOLDER")


def _train(options: argparse.Namespace) -> None:
    from facekiln.config import load_config, load_recipe
    from facekiln.errors import KilnError
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record

    model = load_config(options.config).model(options.model)
    name = options.recipe or model.recipe
    if name is None:
        raise KilnError(
            "has no recipe", file=f"config/models/{model.name}.yaml", hint="name one: --recipe NAME"
        )
    recipe = load_recipe(name, options.config)
    from facekiln.training.train import train_checkpoint

    metrics = train_checkpoint(model, recipe, options.output)
    write_record(
        options.output,
        verb="checkpoint train",
        inputs=[options.config / "training" / f"{name}.yaml"],
        settings={"model": model.name, "seed": recipe["seed"], "threads": recipe["threads"]},
        tools=tool_versions("torch", "numpy", "opencv-python-headless"),
        facts=metrics,
    )
    log.info("%s: AP %.4f on held-out procedural faces", options.output, metrics["ap"])
