"""What an environment's tools say of themselves, asked once: option names change from release to release."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from facekiln.artifact import write_text
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.tool import job_folder, run_tool
from facekiln.errors import KilnError

# Releases differ in the option that names the chip; 1.26 has both.
CHIP = ("--processor", "--chip")
_MINUTES = 3.0
_RELEASE = re.compile(r"TPU-MLIR (v\S+)")
_OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")


def help_of(environment: Environment, name: str) -> str:
    """Return what `{name} -h` prints; it is asked once per environment and kept beside the stamp.

    Raises:
        KilnError: the tool does not run.
    """
    kept = _kept(environment, name)
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    with job_folder() as folder:
        text = run_tool(environment, name, ["-h"], folder=folder, log=None, timeout_minutes=_MINUTES)
    write_text(kept, text)
    return text


def _kept(environment: Environment, name: str) -> Path:
    return environment.stamp.with_suffix(".help") / f"{name}.txt"


def release_of(environment: Environment) -> str:
    """Return the compiler's own release string, e.g. "v1.26-20251229"; it also stands in its bmodels.

    Raises:
        KilnError: the tool does not run or does not say.
    """
    found = _RELEASE.search(help_of(environment, "model_deploy"))
    if not found:
        raise KilnError(
            "does not say its release",
            file=environment.script("model_deploy"),
            hint="expected 'TPU-MLIR v...' in the answer to -h; is this tpu_mlir?",
        )
    return found[1]


def flag(environment: Environment, name: str, candidates: Sequence[str]) -> str:
    """Return the first of an option's names that a tool knows, e.g. of `--processor` and `--chip`.

    Raises:
        KilnError: it knows none of them; the message has those that it knows.
    """
    known = sorted(set(_OPTION.findall(help_of(environment, name))))
    for candidate in candidates:
        if candidate in known:
            return candidate
    raise KilnError(
        f"{name} of tpu_mlir {environment.version} has none of {', '.join(candidates)}",
        file=environment.folder,
        where=name,
        limit=f"it knows {' '.join(known)}",
        hint="facekiln is made for the release of envs/sophon.txt; set environment.folder to null",
    )
