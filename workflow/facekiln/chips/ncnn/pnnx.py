"""pnnx, the converter of ncnn's authors: a program inside the wheel of that name, run in a folder of its
own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

from facekiln.chips.ncnn.model import NcnnModel, read_model
from facekiln.chips.ncnn.runtime import INSTALL
from facekiln.errors import KilnError
from facekiln.progress import log

TIMEOUT_SECONDS = 600.0


def program() -> Path:
    """Return pnnx's program; its Python module, which imports torch, is not touched.

    Raises:
        KilnError: the wheel is not installed.
    """
    found = importlib.util.find_spec("pnnx")
    if found is None or not found.submodule_search_locations:
        raise KilnError("pnnx is not installed", hint=INSTALL)
    path = Path(next(iter(found.submodule_search_locations))) / ("pnnx.exe" if os.name == "nt" else "pnnx")
    if not path.is_file():
        raise KilnError("the pnnx wheel holds no program", file=path, hint=f"{INSTALL} --force-reinstall")
    return path


def version() -> str:
    """Return pnnx's version, e.g. "20261020"."""
    return metadata.version("pnnx")


def convert(onnx: Path, timeout: float = TIMEOUT_SECONDS) -> NcnnModel:
    """Convert an ONNX file with fixed shapes; weights stay float32.

    The many files that pnnx leaves beside its input go with the temporary folder.

    Args:
        onnx: simplified, with fixed shapes.
        timeout: seconds after which pnnx and its children are killed.

    Raises:
        KilnError: pnnx is missing, fails, takes too long, or leaves operators that ncnn has no layer for.
    """
    tool = program()
    if not onnx.is_file():
        raise KilnError("does not exist", file=onnx, hint=f"build it: snakemake --cores 8 {onnx}")
    with tempfile.TemporaryDirectory(prefix="facekiln_pnnx_") as name:
        folder = Path(name)
        shutil.copyfile(onnx, folder / "net.onnx")
        text, status = _run([str(tool), "net.onnx", "fp16=0"], folder, timeout, onnx)
        made = folder / "net.ncnn.param"
        if status != 0 or not made.is_file() or not made.with_suffix(".bin").is_file():
            raise KilnError(
                "pnnx cannot convert it",
                file=onnx,
                value=f"status {status}",
                hint=f"it said last: {_tail(text)}",
            )
        try:
            return read_model(made)
        except KilnError as error:
            raise KilnError(
                f"pnnx left something that ncnn has no layer for: {error.what}",
                file=onnx,
                hint="simplify the ONNX first: facekiln onnx simplify",
            ) from error


def _run(command: list[str], folder: Path, timeout: float, onnx: Path) -> tuple[str, int]:
    # pnnx knows nothing of tensors' meaning: the same input gives the same files, on any number of threads.
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise KilnError(
                "pnnx did not end in time; it was killed",
                file=onnx,
                limit=f"{timeout:g} s",
                hint="raise `pnnx_timeout_minutes` in config/chips/ncnn.yaml",
            ) from error
        raise
    text = output.decode(errors="replace")
    log.debug("pnnx: %s", text)
    return text, process.returncode


def _tail(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "nothing"
