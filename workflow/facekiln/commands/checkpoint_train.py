"""`facekiln checkpoint train`: a model from scratch by its recipe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facekiln.commands import add_config, add_verb


def add_train(verbs: Any) -> None:
    """Add the verb `train`."""
    train = add_verb(
        verbs,
        "train",
        _train,
        "train a model from scratch by its recipe; go on where a killed training stopped; "
        "refuse to write one that misses its goal",
        "facekiln checkpoint train --model retinaface --output results/checkpoints/retinaface.pth",
    )
    train.add_argument("--model", required=True)
    train.add_argument(
        "--recipe", help="a file of config/training, without its ending (default: the model's)"
    )
    train.add_argument("--output", type=Path, required=True)
    train.add_argument(
        "--folder",
        type=Path,
        help="for the curves, the history and the state of a training that is not finished "
        "(default: results/training/MODEL)",
    )
    train.add_argument(
        "--reports", type=Path, default=Path("results/datasets"), help="audits of the datasets"
    )
    add_config(train)


def _train(options: argparse.Namespace) -> None:
    from facekiln.config import load_config, load_recipe
    from facekiln.errors import KilnError
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record

    config = load_config(options.config)
    model = config.model(options.model)
    name = options.recipe or model.recipe
    if name is None:
        raise KilnError(
            "has no recipe", file=f"config/models/{model.name}.yaml", hint="name one: --recipe NAME"
        )
    recipe = load_recipe(name, options.config)
    from facekiln.training.recipe import refuse_photographs
    from facekiln.training.sources import Places
    from facekiln.training.train import CURVES, HISTORY, Outputs, train_checkpoint

    if options.recipe is None and config.weights_of(model.name) == "synthetic":
        refuse_photographs(model.name, name, recipe)
    folder = options.folder or Path("results/training") / model.name
    figures = train_checkpoint(
        model, recipe, Outputs(options.output, folder), Places(options.config, options.reports)
    )
    write_record(
        [options.output, folder / CURVES, folder / HISTORY],
        verb="checkpoint train",
        inputs=[options.config / "training" / f"{name}.yaml"],
        settings={"model": model.name, "seed": recipe["seed"], "threads": recipe["threads"]},
        tools=tool_versions("torch", "numpy", "opencv-python-headless"),
        facts=figures,
    )
    log.info("%s: trained by recipe '%s'", options.output, name)
