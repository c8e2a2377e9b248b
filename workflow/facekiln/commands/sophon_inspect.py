"""`facekiln sophon inspect` and `compare`: what bmodels say, and what two of them differ in."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from facekiln.commands import add_verb


def add_inspect_verbs(verbs: Any) -> None:
    """Add the verbs that read bmodels to the noun's subparsers."""
    inspect = add_verb(
        verbs,
        "inspect",
        _inspect,
        "print what a bmodel says, ours or not: chip, release, nets, scales, memory; 1 if it is damaged",
        "facekiln sophon inspect results/sophon/bm1684x/retinaface_640_int8_1b.bmodel --sections",
    )
    inspect.add_argument("bmodel", type=Path, nargs="+")
    inspect.add_argument("--json", action="store_true")
    inspect.add_argument(
        "--sections", action="store_true", help="each binary with its place, bytes and sha256"
    )

    compare = add_verb(
        verbs,
        "compare",
        _compare,
        "print what two bmodels differ in; exit status 0 if in nothing but the build time, else 1",
        "facekiln sophon compare results/sophon/bm1684x/retinaface_640_int8_1b.bmodel theirs.bmodel",
    )
    compare.add_argument("first", type=Path)
    compare.add_argument("second", type=Path)
    compare.add_argument("--json", action="store_true")


def _inspect(options: argparse.Namespace) -> int:
    from facekiln.chips.sophon.bmodel import read_bmodel
    from facekiln.chips.sophon.inspect import describe, findings, render, section_lines
    from facekiln.commands.tensors import tell_json

    if options.json:
        told = [describe(path) for path in options.bmodel]
        tell_json(told)
        return int(any(finding["level"] == "error" for one in told for finding in one["findings"]))
    damaged = False
    for path in options.bmodel:
        model = read_bmodel(path)
        found = findings(model)
        lines = [*render(model, found), *(section_lines(model) if options.sections else [])]
        sys.stdout.write("\n".join(lines) + "\n\n")
        damaged |= any(finding.level == "error" for finding in found)
    return int(damaged)


def _compare(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from facekiln.chips.sophon.bmodel import read_bmodel
    from facekiln.chips.sophon.differ import compare, render_comparison
    from facekiln.commands.tensors import tell_json

    first, second = read_bmodel(options.first), read_bmodel(options.second)
    told = compare(first, second)
    if options.json:
        files = {"first": str(options.first), "second": str(options.second)}
        tell_json([{**files, "verdict": told.verdict, **asdict(told)}])
    else:
        sys.stdout.write("\n".join(render_comparison(first, second, told)) + "\n")
    return int(bool(told.differences))
