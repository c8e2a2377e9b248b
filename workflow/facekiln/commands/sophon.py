"""`facekiln sophon`: convert, calibrate, compile, run and inspect for SOPHON chips."""

from __future__ import annotations

import argparse

from facekiln.commands.sophon_compile import add_compile_verbs
from facekiln.commands.sophon_environment import add_environment
from facekiln.commands.sophon_inspect import add_inspect_verbs
from facekiln.commands.sophon_quant import add_quant_verbs
from facekiln.commands.sophon_table import add_table_verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add_compile_verbs(verbs)
    add_quant_verbs(verbs)
    add_inspect_verbs(verbs)
    add_environment(verbs)
    add_table_verb(verbs)
