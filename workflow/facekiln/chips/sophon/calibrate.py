"""The calibration table of a network for SOPHON's chips: from our ranges, or by the tool's own methods.

One table serves every chip. A result of top.mlir is named by its ONNX tensor and operator
(`/fpn/Add_output_0` made by Add is `/fpn/Add_output_0_Add`), which tells the range that is its own. Results
that the tool made by moving operators (a ReLU drawn ahead of a Concat: `..._move_ahead_relu`) are tensors
that the ONNX file has not: they are measured in top.mlir, run by the tool on the same pictures, with our
methods. That run proves the others too: what each reaches must be what our ranges say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.sophon.calibrate_tool import calibrate_tool, method_of
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.mlir import read_mlir
from facekiln.chips.sophon.ranges_table import OURS, prove_names, ranges_by_op, table_of_ranges, unmeasured
from facekiln.chips.sophon.reach import measure_reach, write_pictures
from facekiln.chips.sophon.settings import CalibrateSettings, check_search
from facekiln.chips.sophon.table import Table, check_batch, check_table, read_table, write_table
from facekiln.chips.sophon.tool import job_folder
from facekiln.chips.sophon.top_record import check_whole
from facekiln.errors import KilnError
from facekiln.provenance import tool_versions, write_record
from facekiln.quant.names import METHODS
from facekiln.quant.ranges import Ranges, ranges_of_onnx, read_ranges


@dataclass(frozen=True)
class Calibrated:
    """A table and where it comes from.

    Attributes:
        table: the table.
        measured: results without an ONNX tensor, measured in top.mlir.
        worst: largest difference of an extreme between top.mlir and our ranges, over the tensor's magnitude;
            None where the tool calibrated.
        batch: largest difference of a threshold to the table of single pictures; None for single pictures.
        method: as asked for, or the one that a search of the tool's chose.
    """

    table: Table
    measured: tuple[str, ...] = ()
    worst: float | None = None
    batch: float | None = None
    method: str = ""


def calibrate_ours(
    environment: Environment,
    top: Path,
    ranges: Ranges,
    pictures: Sequence[NDArray[np.float32]],
    settings: CalibrateSettings,
    method: str,
    folder: Path,
) -> Calibrated:
    """Make a table from our ranges (see the module).

    Raises:
        KilnError: the tool cannot run top.mlir.
        GateError: see `prove_names`.
    """
    network = read_mlir(top)
    others = unmeasured(network, ranges)
    if len(others) == len(network.ops):
        raise KilnError(
            "no operator is a tensor of the ranges",
            file=top,
            value=others[0],
            limit=next(iter(ranges.tensors), "none"),
            hint="make top.mlir and the ranges from the same simplified ONNX file",
        )
    reach = measure_reach(
        environment,
        top,
        write_pictures(folder / "pictures", pictures),
        others,
        folder=folder,
        timeout_minutes=settings.timeout_minutes,
    )
    worst = prove_names(ranges_by_op(network, ranges), reach, network)
    return Calibrated(table_of_ranges(network, ranges, method, reach), tuple(others), worst)


def calibrate_file(
    environment: Environment,
    top: Path,
    ranges_file: Path | None,
    pictures: Sequence[NDArray[np.float32]],
    settings: CalibrateSettings,
    output: Path,
    *,
    single: Path | None = None,
    onnx: Path | None = None,
    set_sha256: str | None = None,
) -> Calibrated:
    """Make the calibration table of a top.mlir and write it with its record.

    Args:
        environment: whose tool is used.
        top: the top.mlir, its weights beside it.
        ranges_file: our ranges of the ONNX file; the tool's own methods need and read none.
        pictures: the calibration set's inputs, float32 [1, 3, H, W].
        settings: method, search and limit.
        output: the table.
        single: the table of single pictures, if this is a batch's: see `check_batch`.
        onnx: the ONNX file; its hash must be that of the ranges.
        set_sha256: of the calibration set; the ranges' must be the same.

    Raises:
        KilnError: the ranges are missing, or of another file or set, the tool failed, or cannot search so.
        GateError: a result reaches something else than its ranges say.
    """
    check_search(settings)
    by, method = _method(settings.method)
    check_whole(top.parent)
    used = [path for path in (single,) if path is not None]
    with job_folder(output) as folder:
        if by == OURS:
            ranges = _ranges(ranges_file, onnx, set_sha256, settings.method)
            set_sha256 = ranges.set_sha256
            used += [path for path in (ranges_file, onnx) if path is not None]
            made = calibrate_ours(environment, top, ranges, pictures, settings, method, folder)
            made = replace(made, method=settings.method)
        else:
            table = calibrate_tool(environment, top, pictures, settings, method, folder)
            chosen = method if settings.search == "none" else method_of(table)
            made = Calibrated(table, method=f"{by}:{chosen}")
    network = read_mlir(top)
    check_table(made.table, network, output)
    batch = None
    if single is not None:
        batch = check_batch(made.table, read_table(single), output, 1e-3 if by == OURS else None)
    made = replace(made, batch=batch)
    write_table(output, made.table)
    write_record(
        output,
        verb="sophon calibrate",
        inputs=[top, *used],
        settings={"method": settings.method, "search": settings.search},
        tools=tool_versions() | environment.identity(),
        facts={
            "method": made.method,
            "operators": len(network.ops),
            "pictures": len(pictures),
            "set_sha256": set_sha256,
            "measured_in_mlir": list(made.measured),
            "worst_extreme": made.worst,
            "batch_difference": batch,
        },
    )
    return made


def _method(wanted: str) -> tuple[str, str]:
    by, _, method = wanted.partition(":")
    if by not in (OURS, "tool") or (by == OURS and method not in METHODS):
        raise KilnError(
            "is no method of calibration",
            where="calibrate.method, or --method",
            value=wanted,
            limit=", ".join(f"{OURS}:{name}" for name in METHODS) + ", tool:...",
            hint="facekiln sophon calibrate --help",
        )
    return by, method


def _ranges(path: Path | None, onnx: Path | None, set_sha256: str | None, method: str) -> Ranges:
    if path is None:
        raise KilnError(f"'{method}' needs ranges", hint="make them: facekiln quant ranges --help")
    ranges = read_ranges(path) if onnx is None else ranges_of_onnx(path, onnx)
    if set_sha256 is not None and ranges.set_sha256 != set_sha256:
        raise KilnError(
            "was measured on another calibration set",
            file=path,
            value=ranges.set_sha256 or "no set",
            limit=set_sha256,
            hint="measure again on this set: facekiln quant ranges --help",
        )
    return ranges
