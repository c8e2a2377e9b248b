"""`facekiln explain ARTIFACT`: the whole story of an artifact."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("artifact", type=Path, nargs="+", help="a file below results/")
    parser.epilog = "example:\n  facekiln explain results/nnie/retinaface_640.wk"
    parser.set_defaults(run=_explain)


def _explain(options: argparse.Namespace) -> None:
    from facekiln.story import story_of

    for artifact in options.artifact:
        for line in story_of(artifact):
            sys.stdout.write(line + "\n")
