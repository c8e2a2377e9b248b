"""`facekiln doctor`: what is installed and what is missing."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.epilog = "example:\n  facekiln doctor"
    parser.set_defaults(run=_doctor)


def _doctor(_options: argparse.Namespace) -> int:
    from facekiln.environment import findings

    rows = findings()
    width = max(len(row.what) for row in rows)
    for row in rows:
        sys.stdout.write(f"{row.verdict:8} {row.what:{width}}  {row.detail}\n")
    return 1 if any(row.verdict == "missing" for row in rows) else 0
