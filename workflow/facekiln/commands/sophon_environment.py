"""`facekiln sophon environment`: make, prove, remove or show the tools of tpu_mlir."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from facekiln.commands import add_config, add_verb


def add_environment(verbs: Any) -> None:
    """Add the verb `environment`."""
    parser = add_verb(
        verbs,
        "environment",
        _environment,
        "make, prove, remove or show the locked tpu_mlir that compiles and simulates for SOPHON",
        "facekiln sophon environment --make",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--make", action="store_true", help="make it unless it is made (1.7 GB, a minute)")
    what.add_argument("--check", action="store_true", help="convert, compile and simulate one layer with it")
    what.add_argument("--remove", action="store_true", help="remove it; a job that needs it makes it again")
    add_config(parser)


def _environment(options: argparse.Namespace) -> int:
    from facekiln.chips.sophon import make
    from facekiln.chips.sophon.environment import fault_of, wanted
    from facekiln.chips.sophon.settings import load_settings
    from facekiln.config import load_config

    settings, config = load_settings(options.config), load_config(options.config)
    if options.make:
        make.make_environment(settings, config)
    elif options.remove:
        sys.stdout.write(f"removed {make.remove_environment(settings, config).stamp.with_suffix('')}\n")
        return 0
    elif options.check:
        told = make.check_environment(settings, config)
        sys.stdout.write("".join(f"{key:9} {value}\n" for key, value in told.items()) + "its tools run\n")
        return 0
    environment = wanted(settings, config)
    fault = fault_of(environment)
    rows = {
        "folder": environment.folder,
        "tpu_mlir": environment.version,
        "lock": environment.lock,
        "state": fault or "made",
    }
    sys.stdout.write("".join(f"{key:9} {value}\n" for key, value in rows.items()))
    if fault:
        sys.stdout.write("next step: facekiln sophon environment --make\n")
    return 1 if fault else 0
