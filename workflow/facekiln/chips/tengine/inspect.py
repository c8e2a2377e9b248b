"""What a tmfile says, for people and as JSON; ours and others' alike."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from facekiln.chips.tengine.format import CONST, DTYPES, KINDS, ORIGINS, PRECISION_MODES, Tensor, TmGraph
from facekiln.chips.tengine.ops import ELTWISE, op_name
from facekiln.chips.tengine.reader import read_tmfile
from facekiln.chips.tengine.validate import validate

_MODE_NAMES = {
    0: "TENGINE_MODE_FP32",
    1: "TENGINE_MODE_FP16",
    3: "TENGINE_MODE_UINT8",
    4: "TENGINE_MODE_INT8",
}
_ELTWISE_NAMES = {number: name for name, number in ELTWISE.items()}


def _quant(tensor: Tensor) -> dict[str, Any] | None:
    if not tensor.quant:
        return None
    scales = [item.scale for item in tensor.quant]
    zeros = sorted({item.zero_point for item in tensor.quant})
    return {"records": len(scales), "scale": [min(scales), max(scales)], "zero_point": [zeros[0], zeros[-1]]}


def tensor_facts(tensor: Tensor) -> dict[str, Any]:
    """Return what a file says of one tensor, ready for JSON."""
    return {
        "name": tensor.name,
        "kind": KINDS[tensor.kind],
        "type": DTYPES[tensor.dtype][0],
        "dims": None if tensor.dims is None else list(tensor.dims),
        "quant": _quant(tensor),
    }


def describe_graph(graph: TmGraph) -> dict[str, Any]:
    """Return everything that a parsed file says, ready for JSON; broken rules stand under `findings`."""
    constants = [tensor for tensor in graph.tensors if tensor.kind == CONST]
    return {
        "bytes": graph.bytes,
        "format": ".".join(map(str, graph.version)),
        "model": graph.name,
        "origin": ORIGINS[graph.origin] if 0 <= graph.origin < len(ORIGINS) else str(graph.origin),
        "precision": graph.precision,
        "run_mode": PRECISION_MODES.get(graph.dtype),
        "op_versions": {
            str(v): n for v, n in sorted(Counter(node.op_version for node in graph.nodes).items())
        },
        "nodes": len(graph.nodes),
        "ops": dict(sorted(Counter(op_name(node.op) for node in graph.nodes).items())),
        "inputs": [tensor_facts(tensor) for tensor in graph.input_tensors()],
        "outputs": [tensor_facts(tensor) for tensor in graph.output_tensors()],
        "constants": {
            "count": len(constants),
            "bytes": sum(tensor.stored for tensor in constants),
            "stripped": sum(tensor.data is None for tensor in constants),
            "aligned_16": all(tensor.offset % 16 == 0 for tensor in constants),
        },
        "findings": [
            {"rule": f.rule, "level": f.level, "where": f.where, "what": f.what} for f in validate(graph)
        ],
    }


def describe(path: Path | str) -> dict[str, Any]:
    """Return what a file says, see `describe_graph`.

    Raises:
        KilnError: unreadable, truncated or no tmfile at all.
    """
    return {"file": str(path), **describe_graph(read_tmfile(path))}


def _tensor_line(side: str, place: int, tensor: dict[str, Any]) -> str:
    shape = "x".join(map(str, tensor["dims"])) if tensor["dims"] else "set when run"
    quant = tensor["quant"]
    codes = f"scale {quant['scale'][0]:.6g}, zero point {quant['zero_point'][0]}" if quant else ""
    return f"  {side:<6} {place:<2} {shape:<16} {tensor['type']:<6} {tensor['name']}  {codes}".rstrip()


def render(said: dict[str, Any]) -> list[str]:
    """Return `describe`'s result as lines for a person."""
    mode = said["run_mode"]
    held = said["constants"]
    origin = f"made from {said['origin']}" + (f", model '{said['model']}'" if said["model"] else "")
    versions = ", ".join(f"{version} ({count})" for version, count in said["op_versions"].items())
    lines = [
        f"{said['file']}: {said['bytes']:,} bytes, {said['precision']}",
        f"tmfile       {said['format']}, {origin}, op version {versions}",
        f"run it with  {_MODE_NAMES.get(mode, 'no known precision mode')}; another mode corrupts memory"
        if mode is not None
        else "run it with  no known precision mode",
        f"constants    {held['count']}, {held['bytes']:,} bytes"
        + (", aligned to 16" if held["aligned_16"] else ", not all aligned to 16")
        + (f", {held['stripped']} stripped" if held["stripped"] else ""),
        f"nodes        {said['nodes']}",
    ]
    lines += [f"  {count:>5}  {name}" for name, count in said["ops"].items()]
    for side in ("inputs", "outputs"):
        lines += [_tensor_line(side[:-1], place, tensor) for place, tensor in enumerate(said[side])]
    for finding in said["findings"]:
        word = "PROBLEM" if finding["level"] == "error" else "warning"
        lines.append(f"{word}: {finding['rule']} {finding['where']}: {finding['what']}")
    return lines


def _parameters(params: dict[str, Any], name: str) -> str:
    told = []
    for key, value in params.items():
        if name == "Eltwise" and key == "type":
            value = _ELTWISE_NAMES.get(value, value)
        told.append(f"{key}={value:.7g}" if isinstance(value, float) else f"{key}={value}".replace(" ", ""))
    return " ".join(told)


def dump(graph: TmGraph) -> list[str]:
    """Return one line for each node that computes, with its parameters, and one for each tensor of it."""
    lines = []
    for place, node in enumerate(graph.nodes):
        name = op_name(node.op)
        if name in ("Const", "InputOp"):
            continue
        lines.append(f"{place:>4} {name} '{node.name}'  {_parameters(node.params, name)}".rstrip())
        for word, places in (("<", node.inputs), (">", node.outputs)):
            for tensor in (graph.tensors[place] for place in places):
                facts = tensor_facts(tensor)
                dims = "x".join(map(str, facts["dims"])) if facts["dims"] else "-"
                quant = facts["quant"]
                codes = ""
                if quant:
                    low, high = quant["scale"]
                    codes = f"  scale {low:.6g}..{high:.6g} zero {quant['zero_point'][0]}"
                lines.append(f"      {word} {facts['type']:<6} {dims:<14} {tensor.name}{codes}")
    return lines
