"""`facekiln eval`: figures of accuracy, each by a protocol that is told by name."""

from __future__ import annotations

import argparse

from facekiln.commands.eval_landmarks import add_landmarks
from facekiln.commands.eval_voc import add_voc
from facekiln.commands.eval_wider import add_wider


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun; each has a module of its own."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add_wider(verbs)
    add_voc(verbs)
    add_landmarks(verbs)
