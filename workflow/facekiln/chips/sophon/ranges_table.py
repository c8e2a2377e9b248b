"""Our ranges as the tool's calibration table: which range is whose, and what tpu_mlir makes of scales."""

from __future__ import annotations

from facekiln.chips.sophon.mlir import Mlir
from facekiln.chips.sophon.reach import Reach
from facekiln.chips.sophon.table import Row, Table, row_of
from facekiln.errors import GateError
from facekiln.quant.ranges import Ranges, TensorRange

OURS = "ours"
# Largest difference of an extreme over the tensor's largest magnitude: other kernels round otherwise.
_SAME = 1e-3


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
