"""Mixed precision: which operators of an int8 file stay in float, and the proof that they did.

The plan names operators of top.mlir. `stem` is the first three weighted operators, `stem:7` the first seven,
`heads` the last before each output with all that follows them, `outputs` only what follows those (it frees
the concatenated maps of one shared scale). A weighted operator takes along the activation that alone follows
it, so that its result is rounded once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from facekiln.artifact import read_json
from facekiln.chips.sophon.mlir import Mlir, MlirOp, known_in, read_mlir
from facekiln.chips.sophon.qtable import FLOATS, Qtable, check_qtable, chip_floats, read_qtable
from facekiln.chips.sophon.settings import MixedSettings
from facekiln.errors import GateError, KilnError
from facekiln.quant.nodes import last_weighted, node_name

STEM, HEADS, OUTPUTS = "stem", "heads", "outputs"
_WORDS = (STEM, HEADS, OUTPUTS)
_STEM_LAYERS = 3
_STEM = re.compile(rf"{STEM}(?::(\d+))?")
WEIGHTED = ("Conv", "Deconv", "MatMul")
# The same in quantised networks.
_LOWERED = ("Conv2D", "Deconv", "MatMul")
_ACTIVATIONS = ("Relu", "LeakyRelu", "PRelu", "Sigmoid", "Clip", "HardSwish", "Swish")


@dataclass(frozen=True)
class Proved:
    """What the quantised network does.

    Attributes:
        kept: operators of the table that are computed as it says.
        counts: how many operators have which precision, casts left out.
    """

    kept: int
    counts: Mapping[str, int]


def _users(network: Mlir) -> dict[str, list[MlirOp]]:
    found: dict[str, list[MlirOp]] = {}
    for op in network.ops:
        for name in op.operands:
            found.setdefault(name, []).append(op)
    return found


def with_activation(network: Mlir, name: str) -> list[str]:
    """Return an operator and, if it has weights and one user, an activation, that too."""
    op = network.op(name)
    users = _users(network).get(op.name, [])
    if op.kind in WEIGHTED and len(users) == 1 and users[0].kind in _ACTIVATIONS:
        return [op.name, users[0].name]
    return [op.name]


def heads_of(network: Mlir) -> tuple[list[str], list[str]]:
    """Return (weighted operators behind which no other stands, all operators behind those), in order."""
    nodes = [(op.name, op.operands, (op.name,)) for op in network.ops]
    weighted = last_weighted(nodes, {op.name for op in network.ops if op.kind in WEIGHTED})
    behind: set[str] = set()
    for op in network.ops:
        if any(name in behind or name in weighted for name in op.operands) and op.name not in weighted:
            behind.add(op.name)
    return weighted, [op.name for op in network.ops if op.name in behind]


def aliases(network: Mlir, model: onnx.ModelProto) -> dict[str, str]:
    """Return the operator of top.mlir that computes each ONNX node and tensor, by their names.

    A node whose own tensor is not there was fused with the one that follows (Conv with Relu).
    """
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    names = list(network.by_name)

    def find(node: onnx.NodeProto, depth: int = 0) -> str | None:
        own = f"{node.output[0]}_{node.op_type}"
        if own in network.by_name:
            return own
        moved = [name for name in names if name.startswith(f"{own}_")]
        if moved:
            return moved[0]
        after = users.get(node.output[0], [])
        return find(after[0], depth + 1) if len(after) == 1 and depth < 4 else None

    found = {name: name for name in names}
    for node in model.graph.node:
        op = find(node)
        if op is not None:
            found.setdefault(node_name(node), op)
            found.setdefault(node.output[0], op)
    return found


def kept_in_float(
    network: Mlir, model: onnx.ModelProto, keep: Sequence[str], sensitive: Iterable[str] = ()
) -> list[str]:
    """Return the operators that stay in float, in the network's order.

    Args:
        network: top.mlir.
        model: the ONNX file that it was made from.
        keep: operators, ONNX tensors or nodes by name, or one of the words of the module.
        sensitive: ONNX tensors besides, most sensitive first.

    Raises:
        KilnError: an unknown name; the nearest are suggested.
    """
    named = aliases(network, model)
    kept: set[str] = set()
    weighted, behind = heads_of(network)
    for word in keep:
        if word == HEADS:
            kept.update(weighted, behind)
        elif word == OUTPUTS:
            kept.update(behind)
        elif found := _STEM.fullmatch(word):
            first = [op.name for op in network.ops if op.kind in WEIGHTED][: int(found[1] or _STEM_LAYERS)]
            kept.update(name for one in first for name in with_activation(network, one))
        else:
            kept.update(with_activation(network, named[known_in(network, word, [*named, *_WORDS])]))
    for tensor in sensitive:
        kept.update(with_activation(network, named[known_in(network, tensor, named, "tensor")]))
    return [op.name for op in network.ops if op.name in kept]


def most_sensitive(path: Path | str, most: int) -> list[str]:
    """Return the tensors of the most sensitive layers that `facekiln quant sensitivity` found, worst first.

    Raises:
        KilnError: it is no such file.
    """
    value = read_json(path)
    try:
        rows: list[Mapping[str, Any]] = [row for row in value["layers"] if row["op"]]
        return [str(row["tensor"]) for row in rows[:most]]
    except (KeyError, TypeError) as error:
        raise KilnError(
            "is no table of sensitivities", file=path, hint="facekiln quant sensitivity --help"
        ) from error


def plan(
    network: Mlir,
    model: onnx.ModelProto,
    chip: str,
    settings: MixedSettings,
    sensitive: Iterable[str] = (),
    model_name: str | None = None,
) -> Qtable:
    """Return our plan for a chip, by what the settings say of the model of that name; it may be empty.

    Raises:
        KilnError: an unknown name, or a float that the chip has not.
    """
    precision = settings.precision.get(chip, "F32")
    if precision not in chip_floats(chip):
        raise KilnError(
            f"{chip} has no {precision}",
            file="config/chips/sophon.yaml",
            where=f"mixed.precision.{chip}",
            limit=", ".join(chip_floats(chip)),
        )
    kept = kept_in_float(network, model, settings.kept(chip, model_name), sensitive)
    comments = ("# facekiln plan of mixed precision", f"# chip: {chip}", f"# total layers: {len(kept)}")
    table = Qtable(dict.fromkeys(kept, precision), comments)
    check_qtable(table, network, chip)
    return table


def prove_obeyed(lowered: Path, table: Qtable | Path | None, precision: str) -> Proved:
    """Read back from the quantised network that every operator is computed as was asked for.

    Args:
        lowered: the `*_tpu.mlir` that the .bmodel is compiled from, or a twin's `final.mlir`.
        table: of operators by name; None or without rows: nothing.
        precision: the file's own, "F32", "F16" or "INT8", of each weighted operator that the table does not
            name. Others have what the chip computes them in.

    Raises:
        GateError: an operator is not in the quantised network, or is computed otherwise; names it.
    """
    network = read_mlir(lowered)
    asked = read_qtable(table) if isinstance(table, Path) else table
    modes = dict(asked.modes) if asked else {}
    for name, mode in modes.items():
        op = network.by_name.get(name)
        if op is None:
            raise GateError(
                f"operator '{name}' is not in the quantised network, so that nothing proves its {mode}",
                file=lowered.name,
                hint="the tool fused it: name the operator that it became part of in mixed.keep_float",
            )
        if op.precision != mode and not (mode not in FLOATS and op.precision == mode[:4]):
            raise GateError(
                f"operator '{name}' ({op.kind}) is computed in {op.precision}",
                file=lowered.name,
                limit=mode,
                hint="this chip has no such operator in that precision: take it out of mixed.keep_float, or"
                " name another float in mixed.precision",
            )
    for op in network.ops:
        if op.kind in _LOWERED and op.precision != precision and not modes.keys() & set(op.names):
            raise GateError(
                f"operator '{op.name}' ({op.kind}) is computed in {op.precision}, which nothing asked for",
                file=lowered.name,
                limit=precision,
                hint="name it in mixed.keep_float if that is meant",
            )
    counts: dict[str, int] = {}
    for op in network.ops:
        if op.kind not in ("Cast", "Input"):
            counts[op.precision] = counts.get(op.precision, 0) + 1
    return Proved(len(modes), counts)
