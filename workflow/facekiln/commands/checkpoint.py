"""`facekiln checkpoint`: train, fetch and look into checkpoints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from facekiln.commands import add_config, add_verb
from facekiln.commands.checkpoint_train import add_train

if TYPE_CHECKING:
    from facekiln.config import Config, Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add_train(verbs)
    fetch = add_verb(
        verbs,
        "fetch",
        _fetch,
        "put a model's published checkpoint, or your own, in place once it is proved to be that model's",
        "facekiln checkpoint fetch --model retinaface --mirror ~/weights --output retinaface.pth",
    )
    fetch.add_argument("--model", required=True)
    fetch.add_argument("--output", type=Path, required=True)
    fetch.add_argument(
        "--weights", choices=["published", "local"], help="default: as the config says, else published"
    )
    fetch.add_argument(
        "--mirror", type=Path, metavar="FOLDER", help="default: the config's, $FACEKILN_MIRROR"
    )
    add_config(fetch)
    inspect = add_verb(
        verbs,
        "inspect",
        _inspect,
        "print what a checkpoint file is, whose it is and which networks it fits; nothing in it is run",
        "facekiln checkpoint inspect mobilenet0.25_Final.pth",
    )
    inspect.add_argument("files", type=Path, nargs="+", metavar="FILE")
    add_config(inspect)


def _fetch(options: argparse.Namespace) -> None:
    from facekiln.artifact import sha256_of
    from facekiln.config import load_config
    from facekiln.progress import log
    from facekiln.provenance import write_record

    config = load_config(options.config)
    model = config.model(options.model)
    weights = options.weights or config.weights_of(model.name)
    if weights in ("synthetic", "trained"):
        weights = "published"
    inputs = []
    if weights == "local":
        inputs = [_fetch_local(options, model, config)]
        source = {"source": "the user's own file"}
    else:
        source = _fetch_published(options, model, config)
    write_record(
        options.output,
        verb="checkpoint fetch",
        inputs=inputs,
        settings={"model": model.name, "weights": weights, "declaration": model.declaration()},
        facts={**source, "licence": model.licence},
    )
    log.info(
        "%s: %s weights of '%s', sha256 %s", options.output, weights, model.name, sha256_of(options.output)
    )


def _fetch_published(options: argparse.Namespace, model: Model, config: Config) -> dict[str, str]:
    from facekiln.errors import KilnError
    from facekiln.models.checkpoint import network_from, parse_checkpoint
    from facekiln.models.fetch import fetch

    if model.published is None:
        raise KilnError("has no `published:`", file=options.config / "models" / f"{model.name}.yaml")
    fetch(
        model.published,
        options.output,
        options.mirror or config.mirror,
        accept=lambda data, name: network_from(parse_checkpoint(data, name), model, config),
    )
    return {"source": model.published.source, "url": model.published.url}


def _fetch_local(options: argparse.Namespace, model: Model, config: Config) -> Path:
    from facekiln.artifact import read_bytes, write_bytes
    from facekiln.errors import KilnError
    from facekiln.models.checkpoint import network_from, parse_checkpoint

    declared = options.config / "models" / f"{model.name}.yaml"
    if model.local is None:
        raise KilnError("has no `local:`", file=declared)
    path = Path(model.local.path).expanduser()
    data = read_bytes(path)
    checkpoint = parse_checkpoint(data, path)
    if model.local.sha256 not in (None, checkpoint.sha256):
        raise KilnError(
            "is not the file that the config pins",
            file=path,
            value=f"sha256 {checkpoint.sha256}",
            limit=f"sha256 {model.local.sha256}",
            hint=f"correct `local.sha256` in {declared}, or put the right file there",
        )
    network_from(checkpoint, model, config)
    write_bytes(options.output, data)
    return path


def _inspect(options: argparse.Namespace) -> None:
    from facekiln.config import load_config
    from facekiln.models.describe import describe

    config = load_config(options.config) if (options.config / "config.yaml").is_file() else None
    for path in options.files:
        for line in describe(path, config):
            sys.stdout.write(f"{line}\n")
