"""`facekiln tengine`: convert, quantise, run and inspect for Tengine."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from facekiln.commands import add_verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    inspect = add_verb(
        verbs,
        "inspect",
        _inspect,
        "print what a tmfile says, ours or another's, and what Tengine would stumble over; 1 if it would",
        "facekiln tengine inspect results/tengine/retinaface_640_int8.tmfile --nodes",
    )
    inspect.add_argument("tmfile", type=Path, nargs="+")
    inspect.add_argument("--json", action="store_true")
    inspect.add_argument(
        "--nodes", action="store_true", help="every node with its parameters and tensors, too"
    )


def _inspect(options: argparse.Namespace) -> int:
    from facekiln.chips.tengine.inspect import describe, dump, render
    from facekiln.chips.tengine.reader import read_tmfile

    told = [describe(path) for path in options.tmfile]
    if options.json:
        sys.stdout.write(json.dumps(told[0] if len(told) == 1 else told, indent=2) + "\n")
    else:
        for path, said in zip(options.tmfile, told, strict=True):
            lines = [*render(said), *(dump(read_tmfile(path)) if options.nodes else [])]
            sys.stdout.write("\n".join(lines) + "\n\n")
    return int(any(f["level"] == "error" for said in told for f in said["findings"]))
