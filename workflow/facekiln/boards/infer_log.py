"""Our own inference program for boards with Python: its command line, its log, its output."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import write_text
from facekiln.boards.log_lines import fail, read_lines
from facekiln.config import Model
from facekiln.errors import KilnError

TOOL = "facekiln infer"
PROGRAM = Path(__file__).with_name("infer_child.py")
FORM = "facekiln infer 1"
# Names in a run's folder.
DECLARED, PICTURES, OUTPUT = "input.json", "pictures.npy", "outputs.npz"
_FACT = re.compile(r"(python|machine|threads|batch|virtual) (\S+)")
_DONE = re.compile(r"done (\d+)")


@dataclass(frozen=True)
class Told:
    """What a run told.

    Attributes:
        version: of the runtime, e.g. "onnxruntime 1.24.1".
        batch: pictures that the artifact takes at once.
        count: pictures that were run.
        virtual: a stand-in ran the artifact.
        facts: python, machine, threads.
    """

    version: str
    batch: int
    count: int
    virtual: bool
    facts: dict[str, str]


def arguments(model: str, *, threads: int) -> list[str]:
    """Return what our program and any other that takes its place are called with, in a run's folder."""
    files = ["--declared", DECLARED, "--pictures", PICTURES, "--output", OUTPUT]
    return [model, *files, "--threads", str(threads)]


def write_declared(path: Path, model: Model, *, exact: bool, half: bool) -> None:
    """Write what the program has to know of a model: its input as declared, and its name and outputs.

    Args:
        path: a JSON file.
        model: any.
        exact: floats are to be computed as float32 where the runtime would take halves.
        half: outputs are to be written as float16.
    """
    value = {
        "model": model.name,
        "colour": model.input.colour,
        "mean": list(map(float, model.input.mean)),
        "scale": list(map(float, model.input.scale)),
        "outputs": list(model.outputs),
        "exact": exact,
        "half": half,
    }
    write_text(path, json.dumps(value, sort_keys=True) + "\n")


def progress_of(line: str) -> int | None:
    """Return the pictures that are done by a line of the log, None for any other line."""
    found = _DONE.fullmatch(line)
    return int(found[1]) if found else None


def parse(text: str, *, count: int) -> Told:
    """Return what a whole run of `count` pictures told.

    Raises:
        KilnError: the run did not end, or is of another number of pictures.
    """
    facts: dict[str, str] = {}
    version, ended, begun = None, None, False
    for line in read_lines(text):
        if line.text == FORM:
            begun = True
        elif match := re.fullmatch(r"runtime (\S+ \S.*)", line.text):
            version = match[1]
        elif match := re.fullmatch(r"end (\d+)", line.text):
            ended = int(match[1])
        elif match := _FACT.fullmatch(line.text):
            facts[match[1]] = match[2]
    if not begun or version is None or ended is None or not facts.get("batch", "").isdigit():
        said = [line.text for line in read_lines(text)[-1:]]
        raise fail(TOOL, "the program did not end", value=said[0] if said else "it printed nothing")
    if ended != count:
        raise fail(TOOL, "the run is of another number of pictures", value=f"{ended} of {count}")
    virtual = facts.pop("virtual", "no") == "yes"
    return Told(version, max(1, int(facts.pop("batch"))), ended, virtual, facts)


def read_outputs(path: Path, model: Model, artifact: Path, count: int) -> dict[str, NDArray[np.float32]]:
    """Read what a run wrote, by the model's output names.

    Args:
        path: the .npz from the board.
        model: whose outputs are wanted.
        artifact: that ran; a compiler's names are understood by its kind.
        count: pictures of the run.

    Returns:
        Output -> float32 [count, N, values], or [count, values].

    Raises:
        KilnError: no such file, other names than the model's outputs, or another number of pictures.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: np.asarray(stored[name]) for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise KilnError(f"is no file of outputs: {error}", file=path) from error
    named = _by_model(arrays, model, artifact)
    for name, value in named.items():
        if value.shape[:1] != (count,) or value.dtype.kind != "f":
            raise KilnError(
                f"output '{name}' is not of {count} pictures",
                file=artifact,
                value=f"{value.dtype} {list(value.shape)}",
                limit=f"float [{count}, ...]",
            )
    return {name: value.astype(np.float32, copy=False) for name, value in named.items()}


def _by_model(arrays: Mapping[str, Any], model: Model, artifact: Path) -> dict[str, NDArray[Any]]:
    if set(model.outputs) <= set(arrays):
        return {name: arrays[name] for name in model.outputs}
    if artifact.suffix == ".bmodel":
        from facekiln.chips.sophon.outputs import meaning

        return {meant: arrays[name] for name, meant in meaning(arrays, model).items()}
    raise KilnError(
        f"gives other outputs than model '{model.name}' has",
        file=artifact,
        value=", ".join(sorted(arrays)) or "none",
        limit=", ".join(model.outputs),
        hint="the program on the board has to name them as the model's declaration does",
    )


def stacked(pictures: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Put fitted pictures of one size into one array, uint8 or float32 [count, height, width, 3]."""
    return np.ascontiguousarray(np.stack([np.asarray(picture) for picture in pictures]))
