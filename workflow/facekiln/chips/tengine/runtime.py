"""The real Tengine runtime, if the user has one: `TENGINE_LIB` names its shared library.

It runs in a child process, because a file that it does not like ends in a crash or in damaged memory.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.tengine import runtime_child
from facekiln.chips.tengine.codes import decode, encode
from facekiln.chips.tengine.format import PRECISION_MODES
from facekiln.chips.tengine.reader import read_tmfile
from facekiln.chips.tengine.validate import validate
from facekiln.errors import KilnError

VARIABLE = "TENGINE_LIB"
_TIMEOUT = 600.0
Arrays = dict[str, NDArray[np.float32]]


def library() -> Path | None:
    """Return the library that `TENGINE_LIB` names, or None where it names none.

    Raises:
        KilnError: it names a file that is not there.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    path = Path(named).resolve()
    if not path.is_file():
        raise KilnError(
            f"does not exist, though {VARIABLE} names it",
            file=path,
            hint=f"name libtengine-lite.so or unset {VARIABLE}",
        )
    return path


def run(
    tmfile: Path | str,
    feeds: Sequence[NDArray[np.float32]],
    *,
    mode: int | None = None,
    threads: int = 2,
) -> tuple[list[Arrays], str]:
    """Run a file in the real runtime, once for each input.

    Args:
        tmfile: fp32, uint8 or int8, of one input.
        feeds: real numbers, one array for each run; they are quantised with the input's own scale.
        mode: the run API's precision mode; None: the file's, as any other corrupts memory.
        threads: at most.

    Returns:
        For each run the outputs by name, real numbers, in the file's order; and the library's version.

    Raises:
        KilnError: no library, a file that breaks Tengine's rules, a mode that is not the file's, or a child
            that failed, crashed or took longer than ten minutes.
    """
    path = library()
    if path is None:
        raise KilnError(
            "no Tengine runtime is known", hint=f"build libtengine-lite.so and name it in {VARIABLE}"
        )
    graph = read_tmfile(tmfile)
    if broken := [finding for finding in validate(graph) if finding.level == "error"]:
        raise KilnError("would crash the runtime: " + broken[0].sentence(), file=tmfile)
    own = PRECISION_MODES[graph.dtype]
    if mode is not None and mode != own:
        raise KilnError(
            f"is of {graph.precision}; another precision mode reads and writes past its buffers",
            file=tmfile,
            where="precision mode",
            value=mode,
            limit=own,
        )
    (entry,) = graph.input_tensors()
    outputs = graph.output_tensors()
    with tempfile.TemporaryDirectory(prefix="facekiln-tengine-") as name:
        folder = Path(name)
        for number, values in enumerate(feeds):
            np.save(folder / f"in_{number}_0.npy", encode(entry, values))
        arguments = [str(path), str(Path(tmfile).resolve()), str(own), str(threads), name, str(len(feeds))]
        printed = _child(arguments, Path(tmfile))
        results = [
            {
                tensor.name or "": decode(tensor, np.load(folder / f"out_{number}_{place}.npy"))
                for place, tensor in enumerate(outputs)
            }
            for number in range(len(feeds))
        ]
    version = next((line[8:] for line in printed.splitlines() if line.startswith("version ")), "unknown")
    return results, version


def _child(arguments: list[str], tmfile: Path) -> str:
    # -P: the script's folder holds an `inspect` of ours, which is not Python's.
    command = [sys.executable, "-P", str(Path(runtime_child.__file__).resolve()), *arguments]
    # Passive: threads that spin while they wait stand still for minutes on a busy machine.
    environment = {**os.environ, "OMP_NUM_THREADS": arguments[3], "OMP_WAIT_POLICY": "passive"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KilnError("Tengine took too long", file=tmfile, limit=f"{_TIMEOUT:.0f} s") from None
    last = [line for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()][-3:]
    if done.returncode < 0:
        sign = signal.Signals(-done.returncode).name
        raise KilnError(f"crashed Tengine ({sign}): {' | '.join(last)}", file=tmfile)
    if done.returncode or "finished" not in done.stdout:
        raise KilnError(f"Tengine refused it: {' | '.join(last)}", file=tmfile, value=done.returncode)
    return done.stdout
