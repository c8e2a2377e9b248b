"""`facekiln models`: the models that exist."""

from __future__ import annotations

import argparse
import sys

from facekiln.commands import add_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.epilog = "examples:\n  facekiln models --count\n  facekiln models ulfd_rfb_320"
    parser.add_argument("name", nargs="?", metavar="NAME", help="tell everything about this model")
    parser.add_argument(
        "--count", action="store_true", help="count keys, parameters and multiply-accumulates of each"
    )
    add_config(parser)
    parser.set_defaults(run=_models)


def _models(options: argparse.Namespace) -> None:
    from facekiln.config import load_config
    from facekiln.models.catalogue import table, tell

    config = load_config(options.config)
    if options.name:
        lines = list(tell(config.model(options.name), config))
    else:
        rows = list(table(config, count=options.count))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines))
