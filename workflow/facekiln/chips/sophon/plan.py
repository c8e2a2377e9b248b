"""The qtable of one chip's int8 files, written: our plan, or what a search of the tool's finds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.sophon.calibrate_tool import run_search, stage_network
from facekiln.chips.sophon.environment import Environment, environment_of
from facekiln.chips.sophon.mixed import most_sensitive, plan
from facekiln.chips.sophon.mlir import read_mlir
from facekiln.chips.sophon.probe import help_of
from facekiln.chips.sophon.qtable import Qtable, check_qtable, read_qtable, write_qtable
from facekiln.chips.sophon.reach import write_pictures
from facekiln.chips.sophon.settings import MixedSettings, SophonSettings
from facekiln.chips.sophon.tool import job_folder
from facekiln.config import Config
from facekiln.errors import KilnError
from facekiln.graph.export import load_onnx
from facekiln.provenance import tool_versions, write_record

_SEARCHES = re.compile(r"--search\s+\{([^}]*)\}")
_INFERENCES = 30
_BEGIN_WITH_TABLE = ("fast_search",)
# Its own words, of a success that leaves no file (1.26).
_NOTHING = "is higher than expected_cos"


def search_by_tool(
    environment: Environment,
    top: Path,
    chip: str,
    settings: MixedSettings,
    pictures: Sequence[NDArray[np.float32]],
    folder: Path,
    table: Path | None = None,
) -> Qtable:
    """Let run_calibration search for operators to keep in float.

    `search_qtable` calibrates anew while it searches, `fast_search` begins with a table; neither's is kept,
    ours is compiled with. Where int8 alone reaches `expected_cosine` it writes nothing: there is nothing to
    keep.

    Raises:
        KilnError: this release has no such search, or it failed.
    """
    search = settings.by.partition(":")[2]
    said = help_of(environment, "run_calibration")
    found = _SEARCHES.search(" ".join(said.split()))
    offered = found[1].replace(" ", "").split(",") if found else []
    if search not in offered:
        raise KilnError(
            f"tpu_mlir {environment.version} has no search '{search}'",
            file="config/chips/sophon.yaml",
            where="mixed.by",
            limit=", ".join(offered) or "its help tells none",
        )
    stage_network(top, folder)
    if table is not None:
        (folder / "searched.table").write_bytes(table.read_bytes())
    elif search in _BEGIN_WITH_TABLE:
        raise KilnError(f"the tool's {search} begins with a calibration table", hint="give --table FILE")
    count = len(write_pictures(folder / "pictures", pictures))
    told = run_search(
        environment,
        [
            *("top.mlir", "--dataset", "pictures", "--input_num", str(count), "--search", search),
            *("--inference_num", str(min(count, _INFERENCES)), "--chip", chip),
            *("--fp_type", settings.precision.get(chip, "F32")),
            *("--expected_cos", f"{settings.expected_cosine:g}"),
            *("--max_float_layers", str(max(settings.most_layers, 1))),
            *("--quantize_table", "found.qtable", "-o", "searched.table"),
        ],
        folder=folder,
        log=None,
        timeout_minutes=settings.timeout_minutes,
    )
    made = folder / "found.qtable"
    if not made.is_file() and _NOTHING in told:
        return Qtable({}, (f"# {search}: int8 alone reaches {settings.expected_cosine:g}",))
    return read_qtable(made)


def plan_file(
    top: Path,
    onnx_file: Path,
    chip: str,
    settings: SophonSettings,
    config: Config,
    output: Path,
    *,
    sensitivity: Path | None = None,
    pictures: Sequence[NDArray[np.float32]] | None = None,
    calibration_table: Path | None = None,
    model: str | None = None,
) -> Qtable:
    """Make a chip's qtable of a top.mlir and write it with its record.

    Args:
        top: the top.mlir.
        onnx_file: that it was made from.
        chip: as the tool names it.
        settings: its `mixed` section.
        config: tells where the tool is, for a search of its own.
        output: the qtable.
        sensitivity: of `facekiln quant sensitivity`, where `most_layers` asks for it.
        pictures: inputs of the calibration set, float32 [1, 3, H, W], where the tool searches.
        calibration_table: that a search begins with.
        model: whose own section of the settings counts, if it has one; None: the chip's.

    Raises:
        KilnError: a name is unknown, the chip has no such float, or what the settings need is not given.
    """
    mixed, network = settings.mixed, read_mlir(top)
    tools = tool_versions("onnx")
    if mixed.by == "ours":
        sensitive: list[str] = []
        if mixed.most_layers:
            if sensitivity is None:
                raise KilnError(
                    "mixed.most_layers wants the sensitivities of the layers",
                    hint="give --sensitivity FILE: facekiln quant sensitivity --help",
                )
            sensitive = most_sensitive(sensitivity, mixed.most_layers)
        table = plan(network, load_onnx(onnx_file), chip, mixed, sensitive, model)
    else:
        if pictures is None:
            raise KilnError("a search of the tool's wants pictures", hint="give --calibration and --model")
        environment = environment_of(settings, config)
        with job_folder(output) as folder:
            table = search_by_tool(environment, top, chip, mixed, pictures, folder, calibration_table)
        tools |= environment.identity()
    decided = (
        {"keep_float": list(mixed.kept(chip, model))}
        if mixed.by == "ours"
        else {"expected_cosine": mixed.expected_cosine, "pictures": len(pictures or ())}
    )
    check_qtable(table, network, chip, output)
    write_qtable(output, table)
    write_record(
        output,
        verb="sophon plan",
        inputs=[top, onnx_file, *(path for path in (sensitivity, calibration_table) if path)],
        settings={
            "chip": chip,
            "by": mixed.by,
            "most_layers": mixed.most_layers,
            **decided,
            "precision": mixed.precision.get(chip, "F32"),
        },
        tools=tools,
        facts={"operators": len(network.ops), "in_float": len(table.modes)},
    )
    return table
