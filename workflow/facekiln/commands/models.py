"""`facekiln models`: list the models that exist."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facekiln.config import Config, Model

_KINDS = {"synthetic": "recipe", "published": "published", "local": "local"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.epilog = "example:\n  facekiln models --count"
    parser.add_argument(
        "--count", action="store_true", help="build each network and count keys and parameters"
    )
    parser.add_argument("--config", type=Path, default=Path("config"), metavar="FOLDER")
    parser.set_defaults(run=_models)


def _models(options: argparse.Namespace) -> None:
    from facekiln.config import load_config

    config = load_config(options.config)
    heads = ["model", "network", *(["keys", "parameters"] if options.count else [])]
    heads += ["sizes (HxW)", "weights (*: chosen)", "licence", "source"]
    rows = [heads, *(_row(model, config, options.count) for model in config.models.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")


def _counts(model: Model) -> list[str]:
    from facekiln.models.registry import NETWORKS, build_network, count

    # A model that is born as an ONNX or Caffe file has no network of ours to count.
    if model.network not in NETWORKS:
        return ["-", "-"]
    keys, parameters = count(build_network(model))
    return [str(keys), f"{parameters:,}"]


def _row(model: Model, config: Config, count: bool) -> list[str]:
    counts = _counts(model) if count else []
    sizes = " ".join(
        label if (int(label), int(label)) == (height, width) else f"{label}={height}x{width}"
        for label, (height, width) in model.sizes.items()
    )
    chosen = model.weights or config.weights
    kinds = [kind + "*" * (kind == chosen) for kind, section in _KINDS.items() if getattr(model, section)]
    source = model.published.source if model.published else "-"
    return [model.name, model.network, *counts, sizes, " ".join(kinds) or "none", model.licence, source]
