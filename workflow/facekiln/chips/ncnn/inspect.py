"""What a `.param` and its `.bin` say, and how two of them differ."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from facekiln.chips.ncnn.header import header_of
from facekiln.chips.ncnn.model import NcnnModel, bin_of, read_model
from facekiln.chips.ncnn.param import Graph, read_param
from facekiln.chips.ncnn.weights import STORAGE, int8_term
from facekiln.errors import KilnError


def describe(param: Path) -> dict[str, Any]:
    """Return what the files say, and what is wrong with them.

    Returns:
        file, inputs, outputs, layers by type, blobs, storage by number of values, int8 layers, bytes of the
        `.bin`, and findings: sentences of what is wrong; an unreadable `.bin` is one of them.

    Raises:
        KilnError: the `.param` is missing or damaged.
    """
    graph = read_param(param)
    told: dict[str, Any] = {
        "file": str(param),
        "inputs": graph.inputs(),
        "outputs": graph.outputs(),
        "blobs": len(graph.blobs()),
        "layers": dict(sorted(Counter(layer.type for layer in graph).items())),
        "int8_layers": sum(1 for layer in graph if int8_term(layer)),
        "requantised_layers": sum(1 for layer in graph if int8_term(layer) > 100),
        "findings": [],
    }
    try:
        weights = read_model(param).weights
    except KilnError as error:
        told["findings"].append(str(error))
        return told
    stored: Counter[str] = Counter()
    for blobs in weights.values():
        for blob in blobs:
            stored["bare fp32" if blob.tag is None else STORAGE[blob.tag]] += blob.values.size
    told["values"] = dict(sorted(stored.items()))
    told["storage"] = NcnnModel(graph, weights).storage()
    told["bin_bytes"] = bin_of(param).stat().st_size
    return told


def render(told: dict[str, Any]) -> list[str]:
    """Return a description as lines for a person."""
    layers = ", ".join(f"{name} {count}" for name, count in told["layers"].items())
    lines = [
        told["file"],
        f"inputs       {', '.join(told['inputs'])}",
        f"outputs      {', '.join(told['outputs'])} (by index)",
        f"layers       {sum(told['layers'].values())}: {layers}",
        f"blobs        {told['blobs']}",
    ]
    if "values" in told:
        values = ", ".join(f"{name} {count}" for name, count in told["values"].items())
        lines.append(f"weights      {told['storage']}; values: {values}; {told['bin_bytes']} bytes")
    if told["int8_layers"]:
        lines.append(f"int8         {told['int8_layers']} layers, {told['requantised_layers']} hand on int8")
    return lines + [f"WRONG        {finding}" for finding in told["findings"]]


def dump(graph: Graph) -> list[str]:
    """Return the layers as lines, with the index of each blob."""
    index = {blob: place for place, blob in enumerate(graph.blobs())}

    def named(blobs: tuple[str, ...]) -> str:
        return " ".join(f"{blob}[{index[blob]}]" for blob in blobs) or "-"

    return [
        f"{place:4} {layer.type:<22} {layer.name:<18} {named(layer.bottoms)} -> {named(layer.tops)}"
        f"  {' '.join(f'{key}={value}' for key, value in sorted(layer.params.items()))}"
        for place, layer in enumerate(graph)
    ]


def compare_models(first: Path, second: Path) -> list[str]:
    """Return how the second model differs from the first, a line per difference; none where they are the
    same.

    Layers are matched by name, weights by layer and role and in real units: int8 is divided by its scales.

    Raises:
        KilnError: a file is missing or damaged.
    """
    one, other = read_model(first), read_model(second)
    lines = []
    for what in ("inputs", "outputs"):
        a, b = getattr(one.graph, what)(), getattr(other.graph, what)()
        if a != b:
            lines.append(f"{what}: {', '.join(a)} | {', '.join(b)}")
    layers = {layer.name: layer for layer in one.graph}
    others = {layer.name: layer for layer in other.graph}
    lines += [
        f"{name}: only in the first ({layer.type})" for name, layer in layers.items() if name not in others
    ]
    lines += [
        f"{name}: only in the second ({layer.type})" for name, layer in others.items() if name not in layers
    ]
    for name in [name for name in layers if name in others]:
        a_layer, b_layer = layers[name], others[name]
        for what in ("type", "bottoms", "tops"):
            a_value, b_value = getattr(a_layer, what), getattr(b_layer, what)
            if a_value != b_value:
                lines.append(f"{name}: {what} {a_value} | {b_value}")
        for key in sorted(a_layer.params.keys() | b_layer.params.keys()):
            a_text, b_text = a_layer.params.get(key, "-"), b_layer.params.get(key, "-")
            if a_text != b_text:
                lines.append(f"{name}: parameter {key} {a_text} | {b_text}")
        lines += _weight_differences(one, other, name)
    return lines


def _real(model: NcnnModel, layer: str, role: str) -> tuple[str, np.ndarray[Any, Any]] | None:
    blob = model.blob(layer, role)
    if blob is None:
        return None
    values = blob.values.astype(np.float64)
    scales = model.blob(layer, "weight_scales")
    if role == "weight" and scales is not None and blob.values.dtype == np.int8:
        values = (values.reshape(scales.values.size, -1) / scales.values.astype(np.float64)[:, None]).ravel()
    return STORAGE[blob.tag] if blob.tag is not None else "bare fp32", values


def _weight_differences(one: NcnnModel, other: NcnnModel, layer: str) -> list[str]:
    lines = []
    for role in ("weight", "bias"):
        a, b = _real(one, layer, role), _real(other, layer, role)
        if a is None or b is None or a[1].shape != b[1].shape:
            if (a is None) != (b is None) or (a and b):
                lines.append(f"{layer}: {role} of another size")
            continue
        most = float(np.abs(a[1] - b[1]).max())
        if a[0] != b[0] or most:
            kind = a[0] if a[0] == b[0] else f"{a[0]} | {b[0]}"
            lines.append(f"{layer}: {role} {kind}, largest difference {most:.3g}")
    return lines


def ids_of(param: Path) -> str:
    """Return the header of ids of any `.param`, ours or another's (see `facekiln.chips.ncnn.header`).

    Raises:
        KilnError: the file is missing or damaged.
    """
    return header_of(read_param(param), param)
