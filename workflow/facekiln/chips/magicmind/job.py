"""The job folder that the driver works in: everything a build needs, and nothing that is not of it.

It can be carried to a machine with the SDK and built there with `python3 driver.py`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import read_json, write_json
from facekiln.chips.magicmind import driver
from facekiln.chips.vendor_tool import ToolError, ToolSettings, run_tool
from facekiln.errors import KilnError
from facekiln.progress import log, progress_bar

OUTPUT, SAMPLES, DRIVER = "model.mm", "samples.npy", "driver.py"
_STAGE = re.compile(r"facekiln: ((?:stage \d+/\d+|note): .*)")
_SAMPLE = re.compile(r"facekiln: sample (\d+)/(\d+)")
_FAILED = re.compile(r"^facekiln: failed: (\{.*\})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    """What a build is told.

    Attributes:
        name: the model's name in the file.
        kind: "onnx", "torchscript" or "caffe".
        files: of the network, in the order that the SDK's parser takes them (caffemodel, then prototxt).
        dims: the input is set to, [N, C, H, W], -1 where mutable; None: left as parsed.
        build_config: see `build_config`.
        samples: float32 [N, 3, H, W] to calibrate with; None where nothing is quantised.
        algorithm: "linear" or "eqnm".
        batch: samples that are calibrated with at once.
        device: number of the MLU that calibrates.
        remote: a machine that calibrates instead.
        precisions: node -> "FLOAT32" or "FLOAT16".
        places: node -> its number among the convolutions, where every form of the network has the same.
    """

    name: str
    kind: str
    files: Sequence[Path]
    dims: Sequence[int] | None
    build_config: dict[str, Any]
    samples: NDArray[np.float32] | None
    algorithm: str
    batch: int
    device: int
    remote: str | None
    precisions: dict[str, str]
    places: dict[str, int] = field(default_factory=dict)


def write_job(folder: Path, job: Job) -> None:
    """Write a job's folder, which exists and is empty.

    Raises:
        KilnError: a file of the network cannot be copied, or there are fewer samples than a batch takes.
    """
    names = []
    for file in job.files:
        try:
            shutil.copyfile(file, folder / f"network{file.suffix}")
        except OSError as error:
            raise KilnError(f"cannot be copied: {error.strerror}", file=file) from error
        names.append(f"network{file.suffix}")
    shutil.copyfile(driver.__file__, folder / DRIVER)
    calibration = None
    if job.samples is not None:
        if len(job.samples) < job.batch:
            raise KilnError(
                "the calibration set is smaller than a batch",
                file="config/chips/magicmind.yaml",
                where="calibration.batch",
                value=job.batch,
                limit=f"{len(job.samples)} pictures",
            )
        np.save(folder / SAMPLES, np.ascontiguousarray(job.samples, np.float32))
        calibration = {
            "samples": SAMPLES,
            "batch": job.batch,
            "algorithm": job.algorithm,
            "device": job.device,
            "remote": job.remote,
        }
    write_json(
        folder / driver.JOB,
        {
            "version": driver.VERSION,
            "name": job.name,
            "kind": job.kind,
            "files": names,
            "inputs": [{"dims": list(job.dims) if job.dims is not None else None, "dtype": "FLOAT32"}],
            "build_config": job.build_config,
            "calibration": calibration,
            "precisions": job.precisions,
            "places": job.places,
            "output": OUTPUT,
        },
    )


class _Progress:
    """The driver's lines while it runs: its stages and notes in the log, its samples as a bar."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, line: str) -> None:
        """Take a line; what is not the driver's is the SDK's own."""
        if found := _SAMPLE.fullmatch(line):
            done, total = int(found[1]), int(found[2])
            if self._bar is None:
                self._bar = progress_bar(total, "calibrating", "picture")
            self._bar.update(max(0, done - self._bar.n))
            return
        self.close()
        ours = _STAGE.fullmatch(line)
        if ours or not line.startswith("facekiln: "):
            log.info("MagicMind    %s" if ours else "  | %s", ours[1] if ours else line)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def run_job(
    folder: Path, tools: ToolSettings, python: Sequence[str], network: str = "none"
) -> dict[str, Any]:
    """Run the driver in a job folder by the SDK's interpreter; return what result.json says.

    Args:
        folder: see `write_job`.
        tools: where the SDK is.
        python: its interpreter.
        network: of a container.

    Raises:
        KilnError: the interpreter, the image or the host is not there; the SDK is not, or it refused, with
            its own words and the call; it took too long; it ended without a model.
    """
    progress = _Progress()
    try:
        printed = run_tool(
            tools, python, [DRIVER, "."], folder, key="sdk.python", watch=progress, network=network
        )
    except ToolError as error:
        told = _FAILED.search(error.printed)
        if not told:
            raise
        raise _failure(json.loads(told[1])) from error
    finally:
        progress.close()
    result = folder / driver.RESULT
    if not result.is_file() or not (folder / OUTPUT).is_file():
        last = [line for line in printed.splitlines() if line.strip()][-3:]
        raise KilnError(
            "the driver ended without a model",
            file=folder.name,
            value=" | ".join(last),
            hint="its whole output is in the rule's log",
        )
    found: dict[str, Any] = read_json(result)
    return found


def _failure(told: dict[str, str]) -> KilnError:
    answer = f" answers '{told['answer']}'" if told["answer"] else ""
    what = f"{told['call']}{answer}: {told['what']}" if told["call"] else told["what"]
    return KilnError(what, file="MagicMind", hint=told["hint"] or None)
