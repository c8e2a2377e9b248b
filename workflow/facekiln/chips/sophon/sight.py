"""The gate against blindness for int8 files: the quantised network beside the float one, on real pictures.

A cosine of the tool's hides lost faces (0.9999 with a score 0.4 off). So before a .bmodel is put in place,
the quantised network that it is compiled from is run with the tool's interpreter, and must find the faces
that top.mlir finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import sha256_of
from facekiln.chips.sophon.artifacts import Artifact
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.outputs import meaning
from facekiln.chips.sophon.runtime import SophonRuntime
from facekiln.chips.sophon.settings import DeploySettings
from facekiln.chips.sophon.tool import run_tool
from facekiln.chips.sophon.transform import TOP, stage
from facekiln.config import Model
from facekiln.errors import GateError, KilnError
from facekiln.parity.sight import Run, judge_sight, measure_sight
from facekiln.parity.sight_limits import SightLimits

_HINT = (
    "set mixed.keep_float to [stem:7, heads], or calibrate.method to another, in config/chips/sophon.yaml, or"
    " calibrate on more pictures"
)


def runner(runtime: SophonRuntime, model: Model) -> Run:
    """Return a function that runs one picture, repeated to a full batch; outputs have the model's names."""
    means = meaning([one.name for one in runtime.outputs], model)
    source = runtime.inputs[0].name

    def run(feed: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        found = runtime.run({source: np.repeat(feed, runtime.batch, axis=0)})
        return {means[name]: value[:1] for name, value in found.items()}

    return run


def check_sight(
    job: Path,
    lowered: Path,
    arguments: Sequence[str],
    top: Path,
    artifact: Artifact,
    model: Model,
    pictures: Sequence[NDArray[np.float32]],
    limits: SightLimits,
    settings: DeploySettings,
    environment: Environment,
) -> dict[str, Any]:
    """Judge a freshly compiled int8 file by its quantised network, before it is put in place.

    Args:
        job: the folder that model_deploy ran in, with its tables.
        lowered: the quantised network that it left there (its weights are gone).
        arguments: model_deploy's that decided its bytes.
        top: the folder of top.mlir.
        artifact: what was compiled, for messages.
        model: whose faces are meant.
        pictures: inputs of the calibration set, float32 [1, 3, H, W]; the first are taken.
        limits: see `SightLimits`.
        settings: the time limit.
        environment: the tool.

    Returns:
        The figures of `measure_sight`.

    Raises:
        GateError: the file loses or invents faces.
        KilnError: there is no picture, or the tool quantised otherwise this time.
    """
    feeds = [pictures[place] for place in range(min(limits.pictures, len(pictures)))]
    if not feeds:
        raise KilnError("there is no picture to prove the file on", file=artifact.path)
    noted = sha256_of(lowered)
    # Once more as far as the quantised network, whose weights are kept only so; about a second.
    run_tool(
        environment,
        "model_deploy",
        [*arguments, "--not_gen_bmodel", "--debug"],
        folder=job,
        log=None,
        timeout_minutes=settings.timeout_minutes,
    )
    if sha256_of(lowered) != noted:
        raise GateError("the tool quantised otherwise the second time", file=artifact.path)
    twin, real = job / "twin", job / "real"
    for folder in (twin, real):
        folder.mkdir()
    stage(top, real)
    lowered.rename(twin / lowered.name)
    for weights in job.glob(f"{lowered.stem}*_weights.npz"):
        weights.rename(twin / weights.name)
    minutes = settings.timeout_minutes
    with (
        SophonRuntime(real / TOP, environment, "twin", timeout_minutes=minutes) as parent,
        SophonRuntime(twin / lowered.name, environment, "twin", timeout_minutes=minutes) as child,
    ):
        figures = measure_sight(
            runner(parent, model), runner(child, model), feeds, model, model.size(artifact.size)
        )
    judge_sight(figures, limits, artifact.path, _HINT)
    return figures
