"""The calibration table of a network for SOPHON's chips: from our ranges, or by the tool's own methods.

One table serves every chip. A result of top.mlir is named by its ONNX tensor and operator
(`/fpn/Add_output_0` made by Add is `/fpn/Add_output_0_Add`), which tells the range that is its own. Results
that the tool made by moving operators (a ReLU drawn ahead of a Concat: `..._move_ahead_relu`) are tensors
that the ONNX file has not: they are measured in top.mlir, run by the tool on the same pictures, with our
methods. That run proves the others too: what each reaches must be what our ranges say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.mlir import Mlir, read_mlir
from facekiln.chips.sophon.probe import help_of
from facekiln.chips.sophon.reach import Reach, measure_reach, write_pictures
from facekiln.chips.sophon.settings import CalibrateSettings
from facekiln.chips.sophon.table import (
    Row,
    Table,
    check_batch,
    check_table,
    read_table,
    row_of,
    write_table,
)
from facekiln.chips.sophon.tool import job_folder, run_tool
from facekiln.errors import GateError, KilnError
from facekiln.progress import progress_bar
from facekiln.provenance import tool_versions, write_record
from facekiln.quant.ranges import Ranges, TensorRange, ranges_of_onnx, read_ranges

OURS, TOOL = "ours", "tool"
# Largest difference of an extreme over the tensor's largest magnitude: other kernels round otherwise.
_SAME = 1e-3
_HELP_METHODS = re.compile(r"--cali_method\s+\{([^}]*)\}")


@dataclass(frozen=True)
class Calibrated:
    """A table and where it comes from.

    Attributes:
        table: the table.
        measured: results without an ONNX tensor, measured in top.mlir.
        worst: largest difference of an extreme between top.mlir and our ranges, over the tensor's magnitude;
            None where the tool calibrated.
        batch: largest difference of a threshold to the table of single pictures; None for single pictures.
    """

    table: Table
    measured: tuple[str, ...] = ()
    worst: float | None = None
    batch: float | None = None


def ranges_by_op(network: Mlir, ranges: Ranges) -> dict[str, TensorRange]:
    """Return our range of each result of a network that is an ONNX tensor, by the result's name."""
    named = {one.name if one.op == "Input" else f"{one.name}_{one.op}": one for one in ranges}
    return {name: named[name] for op in network.ops for name in op.names if name in named}


def prove_names(found: dict[str, TensorRange], reach: Reach, network: Mlir) -> float:
    """Check that each result reaches what our range of its ONNX tensor says.

    Returns:
        The largest difference of an extreme over the tensor's largest magnitude.

    Raises:
        GateError: one does not: it is another tensor, or these are other pictures.
    """
    worst = 0.0
    for name, one in found.items():
        low, high = reach.extremes[name]
        top = max(abs(one.min), abs(one.max), 1e-6)
        apart = max(abs(low - one.min), abs(high - one.max)) / top
        worst = max(worst, apart)
        if apart > _SAME:
            raise GateError(
                f"result '{name}' reaches something else than tensor '{one.name}' of the ranges",
                file=network.file,
                value=f"{low:g} to {high:g}",
                limit=f"{one.min:g} to {one.max:g}",
                hint="ranges, pictures and top.mlir must come from one ONNX file and one calibration set",
            )
    return worst


def shared_scales(network: Mlir) -> dict[str, str]:
    """Return the operators whose scale the next one keeps, by name: what a LeakyRelu alone is fed.

    tpu_mlir 1.26 gives a LeakyRelu's result the scale of its input, whatever the table says (read back from
    quantised networks for BM1684 and BM1684X). So the table's row of a convolution decides both, and what
    counts is the activation's result, whose negative side is far smaller.
    """
    users: dict[str, list[str]] = {}
    for op in network.ops:
        for name in op.operands:
            users.setdefault(name, []).append(op.name)
    return {
        op.operands[0]: op.name
        for op in network.ops
        if op.kind == "LeakyRelu" and len(users[op.operands[0]]) == 1
    }


def table_of_ranges(network: Mlir, ranges: Ranges, method: str, reach: Reach) -> Table:
    """Write our ranges as the tool's table.

    Thresholds are by one of our methods, extremes clipped at them. An operator whose scale an activation
    keeps (see `shared_scales`) has the activation's threshold, but with `minmax`, which clips nothing.
    """
    own = ranges_by_op(network, ranges)
    percentile = float(ranges.settings["percentile"])
    rows: dict[str, Row] = {}
    for op in network.ops:
        for name in op.names:
            if name in own:
                rows[name] = row_of(own[name].thresholds[method], own[name].min, own[name].max)
            else:
                rows[name] = row_of(reach.thresholds(name, percentile)[method], *reach.extremes[name])
    for name, after in shared_scales(network).items() if method != "minmax" else ():
        low, high = (own[name].min, own[name].max) if name in own else reach.extremes[name]
        rows[name] = row_of(rows[after].threshold, low, high)
    comments = (
        "# facekiln calibration table",
        f"# quantization threshold calculation method: {OURS}:{method}",
        f"# sample number: {ranges.pictures}",
    )
    return Table(rows, comments)


def unmeasured(network: Mlir, ranges: Ranges) -> list[str]:
    """Return the results that no ONNX tensor of the ranges is."""
    own = ranges_by_op(network, ranges)
    return [name for op in network.ops for name in op.names if name not in own]


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
) -> Calibrated:
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
            limit=", ".join(f"{TOOL}:{name}" for name in offered),
        )
    stage_network(top, folder)
    paths = write_pictures(folder / "pictures", pictures)
    arguments: list[str | Path] = [
        *("top.mlir", "--dataset", "pictures", "--input_num", str(len(paths))),
        *("--cali_method", method, "-o", "found.table"),
    ]
    if settings.search == "threshold":
        arguments += ["--search", "search_threshold", "--quantize_table", "searched.qtable"]
        arguments += ["--inference_num", str(min(len(paths), 30))]
    with progress_bar(len(paths), f"{TOOL}:{method}", "picture") as bar:

        def follow(_what: str, done: int, total: int) -> None:
            if total == len(paths):
                bar.update(max(0, done - bar.n))

        run_tool(
            environment,
            "run_calibration",
            arguments,
            folder=folder,
            log=logged,
            timeout_minutes=settings.timeout_minutes,
            progress=follow,
        )
    made = folder / "found.table"
    if settings.search == "threshold" and not made.is_file():
        made = next(iter(sorted(folder.glob("found.table*"))), made)
    return Calibrated(read_table(made))


def calibrate_file(
    environment: Environment,
    top: Path,
    ranges_file: Path,
    pictures: Sequence[NDArray[np.float32]],
    settings: CalibrateSettings,
    output: Path,
    *,
    single: Path | None = None,
    onnx: Path | None = None,
) -> Calibrated:
    """Make the calibration table of a top.mlir and write it with its record.

    Args:
        environment: whose tool is used.
        top: the top.mlir, its weights beside it.
        ranges_file: our ranges of the ONNX file.
        pictures: the calibration set's inputs, float32 [1, 3, H, W].
        settings: method, search and limit.
        output: the table.
        single: the table of single pictures, if this is a batch's: see `check_batch`.
        onnx: the ONNX file; its hash must be that of the ranges.

    Raises:
        KilnError: the ranges are of another file, or the tool failed.
        GateError: a result reaches something else than its ranges say.
    """
    ranges = read_ranges(ranges_file) if onnx is None else ranges_of_onnx(ranges_file, onnx)
    by, _, method = settings.method.partition(":")
    with job_folder(output) as folder:
        if by == OURS:
            made = calibrate_ours(environment, top, ranges, pictures, settings, method, folder)
        else:
            made = calibrate_tool(environment, top, pictures, settings, method, folder)
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
        inputs=[top, ranges_file, *(path for path in (single, onnx) if path is not None)],
        settings={"method": settings.method, "search": settings.search},
        tools=tool_versions() | environment.identity(),
        facts={
            "operators": len(network.ops),
            "pictures": len(pictures),
            "set_sha256": ranges.set_sha256,
            "measured_in_mlir": list(made.measured),
            "worst_extreme": made.worst,
            "batch_difference": batch,
        },
    )
    return made
