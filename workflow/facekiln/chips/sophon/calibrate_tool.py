"""The tool's own calibration methods, run on our pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.probe import help_of
from facekiln.chips.sophon.reach import write_pictures
from facekiln.chips.sophon.settings import CalibrateSettings
from facekiln.chips.sophon.table import Table, read_table
from facekiln.chips.sophon.tool import run_program, run_tool, script_command
from facekiln.errors import KilnError
from facekiln.progress import progress_bar

SEARCH = Path(__file__).with_name("search_child.py")
_METHOD = re.compile(r"^# quantization threshold calculation method: \W*(\w+)", re.MULTILINE)
_HELP_METHODS = re.compile(r"--cali_method\s+\{([^}]*)\}")


def methods_of_tool(help_text: str) -> tuple[str, ...]:
    """Return the calibration methods that a release's `run_calibration -h` offers.

    Raises:
        KilnError: its help has another form.
    """
    found = _HELP_METHODS.search(" ".join(help_text.split()))
    if not found:
        raise KilnError(
            "run_calibration's help does not tell its methods",
            hint="use one of our methods: calibrate.method ours:mse in config/chips/sophon.yaml",
        )
    return tuple(found[1].replace(" ", "").split(","))


def method_of(table: Table) -> str:
    """Return the method that the tool says in a table of its own, e.g. "mse".

    Raises:
        KilnError: it says none.
    """
    found = _METHOD.search("\n".join(table.comments))
    if not found:
        raise KilnError("the tool's table does not tell the method of its thresholds")
    return found[1]


def run_search(environment: Environment, arguments: Sequence[str | Path], **rest: Any) -> str:
    """Run run_calibration where it is to search (see `search_child`); `rest`, the result: `run_program`."""
    command = script_command(environment, SEARCH, *arguments)
    return run_program(environment, command, title="run_calibration's search", **rest)


def stage_network(top: Path, folder: Path) -> None:
    """Link a top.mlir and its weights into a job's folder, so that the tool writes no path of ours."""
    for path in (*sorted(top.parent.glob("*.npz")), top):
        name = "top.mlir" if path == top else path.name
        (folder / name).symlink_to(path.resolve())


def calibrate_tool(
    environment: Environment,
    top: Path,
    pictures: Sequence[NDArray[np.float32]],
    settings: CalibrateSettings,
    method: str,
    folder: Path,
    logged: Path | None = None,
) -> Table:
    """Run the tool's own calibration on our pictures.

    Raises:
        KilnError: this release has no such method, or the tool failed.
    """
    said = help_of(environment, "run_calibration")
    offered = methods_of_tool(said)
    if method not in offered:
        raise KilnError(
            f"tpu_mlir {environment.version} has no calibration method '{method}'",
            file="config/chips/sophon.yaml",
            where="calibrate.method",
            limit=", ".join(f"tool:{name}" for name in offered),
        )
    stage_network(top, folder)
    paths = write_pictures(folder / "pictures", pictures)
    arguments: list[str | Path] = [
        *("top.mlir", "--dataset", "pictures", "--input_num", str(len(paths))),
        *("--cali_method", method, "-o", "found.table"),
    ]
    with progress_bar(len(paths), f"tool:{method}", "picture") as bar:

        def follow(_what: str, done: int, total: int) -> None:
            if total == len(paths):
                bar.update(max(0, done - bar.n))

        rest: dict[str, Any] = {
            "folder": folder,
            "log": logged,
            "timeout_minutes": settings.timeout_minutes,
            "progress": follow,
        }
        if settings.search == "threshold":
            searched = ["--search", "search_threshold", "--quantize_table", "searched.qtable"]
            count = ["--inference_num", str(len(paths))]
            run_search(environment, [*arguments, *searched, *count], **rest)
        else:
            run_tool(environment, "run_calibration", arguments, **rest)
    return read_table(folder / "found.table")
