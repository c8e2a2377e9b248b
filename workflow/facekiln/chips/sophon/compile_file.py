"""top.mlir -> .bmodel: compiled, simulated on real pictures, its clock normalised, then put in place.

The simulator's check is part of it and cannot be left out: newer releases compiled files for BM1684 that are
silently wrong, and what failed a check must never lie where a good file would.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from facekiln.artifact import check_writable, sha256_of, write_bytes
from facekiln.chips.sophon.artifacts import QUANTIZE, Artifact
from facekiln.chips.sophon.clock import normalise
from facekiln.chips.sophon.compare_text import Comparison, check_passed, parse_comparisons
from facekiln.chips.sophon.environment import Environment, is_faulty_on_bm1684
from facekiln.chips.sophon.estimate import Estimate, read_estimate
from facekiln.chips.sophon.mixed import prove_obeyed
from facekiln.chips.sophon.probe import CHIP, flag
from facekiln.chips.sophon.qtable import read_qtable
from facekiln.chips.sophon.settings import DeploySettings
from facekiln.chips.sophon.tables import QTABLE, TABLE, Tables, stage_tables
from facekiln.chips.sophon.tool import job_folder, run_tool
from facekiln.chips.sophon.top_record import check_top
from facekiln.chips.sophon.transform import INPUT, REFERENCE, TOP, stage
from facekiln.errors import GateError, KilnError
from facekiln.progress import log
from facekiln.provenance import tool_versions, write_record

_BMODEL = "net.bmodel"
_MEMORY = re.compile(r"device mem size: (\d+) \(weight: (\d+), instruct: (\d+), runtime: (\d+)\)")
_MODEL_TOOL_MINUTES = 5.0

# Gets the job's folder, the quantised network in it, and the arguments that decided its bytes.
Gate = Callable[[Path, Path, list[str]], Mapping[str, Any]]


@dataclass(frozen=True)
class Compiled:
    """What a compilation did.

    Attributes:
        bytes: of the .bmodel.
        quantised: the quantised model against the float one, the tool's comparison.
        simulated: the .bmodel in the chip's simulator against the quantised model.
        estimate: the compiler's, of the time of one run.
        memory: on the device, bytes: total, weight, instruct, runtime; as model_tool tells.
        lowered: sha256 of the quantised model's text, by which its twin is known.
        operators: how many of its operators have which precision.
        sight: of the gate against blindness, where there was one.
    """

    bytes: int
    quantised: Comparison
    simulated: Comparison
    estimate: Estimate | None
    memory: dict[str, int]
    lowered: str
    operators: Mapping[str, int] = field(default_factory=dict)
    sight: Mapping[str, Any] | None = None


def deploy_arguments(artifact: Artifact, tables: Tables, environment: Environment) -> list[str]:
    """Return model_deploy's options that decide the bytes, with tables under their names in a job's folder.

    Raises:
        KilnError: int8 without a calibration table, a table without int8, or the tool names a chip in no way
            that is known.
    """
    int8 = artifact.precision == "int8"
    if int8 and tables.calibration is None:
        raise KilnError(
            "int8 needs a calibration table",
            file=artifact.path,
            hint="make one: facekiln sophon calibrate --help",
        )
    if not int8 and tables.files():
        raise KilnError(f"{artifact.precision} takes no tables", file=artifact.path, value=tables.files()[0])
    arguments = [
        f"--mlir={TOP}",
        f"{flag(environment, 'model_deploy', CHIP)}={artifact.chip}",
        f"--quantize={QUANTIZE[artifact.precision]}",
        f"--model={_BMODEL}",
    ]
    if artifact.cores > 1:
        arguments.append(f"--num_core={artifact.cores}")
    if tables.calibration:
        arguments.append(f"--calibration_table={TABLE}")
    if tables.mixed and read_qtable(tables.mixed).modes:
        arguments.append(f"--quantize_table={QTABLE}")
    return arguments


def lowered_name(job: Path) -> Path:
    """Return the quantised model's file that model_deploy leaves in its folder.

    Raises:
        KilnError: there is not exactly one.
    """
    found = sorted(job.glob("*_tpu.mlir"))
    if len(found) != 1:
        raise KilnError(
            "model_deploy left no quantised model",
            value=[path.name for path in found],
            limit="one *_tpu.mlir",
        )
    return found[0]


def compile_file(
    top: Path,
    artifact: Artifact,
    tables: Tables,
    settings: DeploySettings,
    environment: Environment,
    output: Path,
    *,
    gate: Gate | None = None,
) -> Compiled:
    """Compile a transformed model, check it in the chip's simulator, and write it with its record.

    Args:
        top: the folder that `transform_file` wrote.
        artifact: what is made; known to be possible (see `check_artifact`).
        tables: for int8.
        settings: tolerances and the time limit.
        environment: the tool.
        output: the .bmodel.
        gate: judges an int8 file by its quantised network (see `sight.check_sight`) and returns its figures.

    Raises:
        KilnError: `top` is of something else than the artifact's name says (see `check_top`), the tool fails,
            takes too long, or its file is not one that can be reproduced.
        GateError: a check failed or did not run. Nothing is written then.
    """
    check_writable(output)
    check_top(top, artifact)
    if artifact.chip == "bm1684" and is_faulty_on_bm1684(environment.version):
        log.warning(
            "tpu_mlir %s makes BM1684 files that are wrong or differ each time: use 1.26", environment.version
        )
    with job_folder(output) as job:
        stage(top, job)
        stage_tables(tables, job, artifact.chip)
        arguments = deploy_arguments(artifact, tables, environment)
        cosine, euclidean = settings.tolerance[artifact.precision]
        printed = run_tool(
            environment,
            "model_deploy",
            [
                *arguments,
                f"--test_input={INPUT}",
                f"--test_reference={REFERENCE}",
                f"--tolerance={cosine:g},{euclidean:g}",
            ],
            folder=job,
            log=None,
            timeout_minutes=settings.timeout_minutes,
        )
        quantised, simulated = _checks(printed, artifact)
        lowered = lowered_name(job)
        operators = prove_obeyed(lowered, tables.mixed, QUANTIZE[artifact.precision]).counts
        scratch = job / _BMODEL
        data = normalise(scratch.read_bytes())
        scratch.write_bytes(data)
        done = Compiled(
            len(data),
            quantised,
            simulated,
            read_estimate(job, f"tpu_mlir {environment.version}"),
            _memory(environment, job),
            sha256_of(lowered),
            operators,
        )
        if str(job).encode() in data:
            raise KilnError("holds the path of the folder that it was compiled in", file=output)
        if gate is not None:
            done = replace(done, sight=gate(job, lowered, arguments))
        write_bytes(output, data)
    _record(output, top, artifact, tables, arguments, settings, environment, done)
    return done


def _checks(printed: str, artifact: Artifact) -> tuple[Comparison, Comparison]:
    """Return the two comparisons; both must be there, and have passed."""
    found = parse_comparisons(printed)
    check_passed(found, artifact.path)
    simulated = [one for one in found if (one.target or "").endswith("_model_outputs.npz")]
    quantised = [one for one in found if (one.target or "").endswith("_tpu_outputs.npz")]
    if len(simulated) != 1 or len(quantised) != 1:
        raise GateError(
            "was not checked in the simulator",
            file=artifact.path,
            value=[one.target for one in found],
            limit="quantised against float, and simulated against quantised",
        )
    if not quantised[0].tensors or len(quantised[0].tensors) < len(simulated[0].tensors):
        raise GateError(
            "its outputs were not all compared with the float ones",
            file=artifact.path,
            value=f"{len(quantised[0].tensors)} outputs",
            limit=len(simulated[0].tensors) or "one at least",
            hint=f"is {REFERENCE} whole? Make the transform again: facekiln sophon transform --help",
        )
    return quantised[0], simulated[0]


def _memory(environment: Environment, job: Path) -> dict[str, int]:
    """Return the device's memory as model_tool reads it from the normalised file, which it must take."""
    told = run_tool(
        environment,
        "model_tool",
        ["--info", _BMODEL],
        folder=job,
        log=None,
        timeout_minutes=_MODEL_TOOL_MINUTES,
    )
    found = _MEMORY.search(told)
    if not found:
        raise KilnError("model_tool does not tell the device's memory of the compiled file")
    return dict(zip(("total", "weight", "instruct", "runtime"), map(int, found.groups()), strict=True))


def _least(comparison: Comparison) -> dict[str, Any] | None:
    record = comparison.as_json()
    return {"tensors": record["counts"].get("compared"), **(record["least"] or {})}


def _record(
    output: Path,
    top: Path,
    artifact: Artifact,
    tables: Tables,
    arguments: list[str],
    settings: DeploySettings,
    environment: Environment,
    done: Compiled,
) -> None:
    write_record(
        output,
        verb="sophon compile",
        inputs=[top / TOP, top / "weights.npz", top / INPUT, *tables.files()],
        settings={
            "chip": artifact.chip,
            "model": artifact.model,
            "size": artifact.size,
            "precision": artifact.precision,
            "batch": artifact.batch,
            "cores": artifact.cores,
            "arguments": arguments,
            "tolerance": list(settings.tolerance[artifact.precision]),
        },
        tools=tool_versions() | environment.identity(),
        facts={
            "bytes": done.bytes,
            "quantised_against_float": _least(done.quantised),
            "simulated_against_quantised": _least(done.simulated),
            "compiler_estimate": done.estimate.record(artifact.batch) if done.estimate else None,
            "device_memory": done.memory,
            "lowered_sha256": done.lowered,
            "operators": dict(done.operators),
            "sight": dict(done.sight) if done.sight else None,
        },
    )
