"""`facekiln quant`: ranges of our own, int8 estimates and layer sensitivity."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    parser.add_subparsers(dest="verb", metavar="VERB", required=True)
