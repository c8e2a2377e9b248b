"""The fast twin of a .bmodel: the quantised model that it was compiled from, run without the simulator.

It computes the same quantised numbers (BM1684 int8: boxes equal to the bit) in a tenth of the simulator's
time. model_deploy removes the quantised weights unless it is run with --debug, which changes the .bmodel's
bytes; so the same command is run once more as far as the quantised model only (`--not_gen_bmodel`, about a
second), and its text must have the hash that the compilation noted.
"""

from __future__ import annotations

from pathlib import Path

from facekiln.artifact import atomic_folder, check_folder, sha256_of
from facekiln.chips.sophon.artifacts import Artifact
from facekiln.chips.sophon.compile_file import deploy_arguments, lowered_name
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.settings import DeploySettings
from facekiln.chips.sophon.tables import Tables, stage_tables
from facekiln.chips.sophon.tool import job_folder, run_tool
from facekiln.chips.sophon.top_record import check_whole
from facekiln.chips.sophon.transform import TOP, WEIGHTS, copy_with_weights, stage
from facekiln.errors import KilnError
from facekiln.provenance import read_record, tool_versions, write_record

FINAL = "final.mlir"


def twin_file(
    bmodel: Path,
    top: Path,
    artifact: Artifact,
    tables: Tables,
    settings: DeploySettings,
    environment: Environment,
    output: Path,
) -> None:
    """Write the folder with a .bmodel's quantised model (`final.mlir`) and its `weights.npz`.

    Args:
        bmodel: made by `compile_file` from the same `top` and `tables`.
        top, artifact, tables, settings, environment: as given to `compile_file`.
        output: the folder; replaced whole.

    Raises:
        KilnError: the .bmodel has no record, or was compiled from something else.
    """
    check_folder(output, (FINAL, WEIGHTS))
    record = read_record(bmodel)
    noted = record.facts.get("lowered_sha256") if record else None
    if record is None or noted is None:
        raise KilnError("has no record of its compilation", file=bmodel, hint="compile it with facekiln")
    if record.sha256 != sha256_of(bmodel):
        raise KilnError("is not the file that its record tells of", file=bmodel, hint="compile it again")
    check_whole(top)
    with job_folder(output) as job:
        stage(top, job)
        stage_tables(tables, job, artifact.chip)
        arguments = deploy_arguments(artifact, tables, environment)
        run_tool(
            environment,
            "model_deploy",
            [*arguments, "--not_gen_bmodel"],
            folder=job,
            log=None,
            timeout_minutes=settings.timeout_minutes,
        )
        lowered = lowered_name(job)
        if sha256_of(lowered) != noted:
            raise KilnError(
                "was compiled from another model, table or release than this twin would be",
                file=bmodel,
                value=f"quantised model {sha256_of(lowered)[:12]}",
                limit=f"{noted[:12]}, as its record says",
                hint="compile it again",
            )
        with atomic_folder(output) as folder:
            copy_with_weights(lowered, folder / FINAL, "the quantised model")
    write_record(
        output / FINAL,
        verb="sophon twin",
        inputs=[bmodel, top / TOP, *tables.files()],
        settings={"arguments": arguments},
        tools=tool_versions() | environment.identity(),
        facts={"weights_sha256": sha256_of(output / WEIGHTS), "lowered_sha256": noted},
    )
