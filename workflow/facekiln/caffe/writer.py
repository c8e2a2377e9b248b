"""Caffe files out: the same network gives the same bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message_factory import GetMessageClass

from facekiln.artifact import atomic_path
from facekiln.caffe.net import Layer, Net
from facekiln.caffe.schema import PARAM_OF_TYPE, message_class, param_class
from facekiln.errors import KilnError


def write_net(net: Net, prototxt_path: Path | str, caffemodel_path: Path | str) -> None:
    """Write both files, or neither.

    Raises:
        KilnError: a parameter that Caffe has not or that must not be written, or the disk is full.
    """
    text, model = prototxt_text(net), caffemodel_bytes(net)
    with atomic_path(caffemodel_path) as weights, atomic_path(prototxt_path) as layers:
        weights.write_bytes(model)
        layers.write_bytes(text.encode())


def prototxt_text(net: Net) -> str:
    """Return the .prototxt: `input:` and `input_shape {}` header, then `layer` blocks in order.

    Raises:
        KilnError: a parameter that the layer's type has not, or of the wrong kind, or NaN; a pooling that
            rounds down.
    """
    lines = [f"name: {_quoted(net.name)}"]
    for name, shape in net.inputs.items():
        lines += [f"input: {_quoted(name)}", "input_shape {", *(f"  dim: {dim}" for dim in shape), "}"]
    for layer in net.layers:
        _checked_params(layer)
        lines += ["layer {", f"  name: {_quoted(layer.name)}", f"  type: {_quoted(layer.type)}"]
        lines += [f"  bottom: {_quoted(bottom)}" for bottom in layer.bottoms]
        lines += [f"  top: {_quoted(top)}" for top in layer.tops]
        if params := _writable(layer):
            lines += [
                f"  {PARAM_OF_TYPE[layer.type]} {{",
                *_fields(params, param_class(layer.type), 2),
                "  }",
            ]
        lines.append("}")
    return "\n".join(lines) + "\n"


def caffemodel_bytes(net: Net) -> bytes:
    """Return the .caffemodel: every layer with its parameters and its weights as float32.

    Raises:
        KilnError: as `prototxt_text`; also weights that are not finite.
    """
    message = message_class("NetParameter")(name=net.name)
    for name, shape in net.inputs.items():
        message.input.append(name)
        message.input_shape.add(dim=shape)
    for layer in net.layers:
        params = _checked_params(layer)
        entry = message.layer.add(name=layer.name, type=layer.type, bottom=layer.bottoms, top=layer.tops)
        if params is not None and params.ListFields():
            getattr(entry, PARAM_OF_TYPE[layer.type]).CopyFrom(params)
        for place, blob in enumerate(layer.blobs):
            if not np.isfinite(blob).all():
                raise KilnError(f"weight blob {place} holds NaN or infinity", where=f"layer '{layer.name}'")
            stored = entry.blobs.add()
            if blob.ndim:
                stored.shape.dim.extend(blob.shape)
            else:
                # One shared PReLU slope: Caffe wants no axes, OpenCV cannot read none; both take old dims.
                stored.num = stored.channels = stored.height = stored.width = 1
            stored.data.append(blob.astype("<f4").tobytes())
    return bytes(message.SerializeToString(deterministic=True))


def _writable(layer: Layer) -> dict[str, Any]:
    """Return the parameters without a pooling's rounding, which forks read in opposite ways."""
    if layer.params.get("round_mode") == "FLOOR" or layer.params.get("ceil_mode") is False:
        raise KilnError(
            "asks for pooling that rounds down, which plain Caffe and chips' tools do not do",
            where=f"layer '{layer.name}' ({layer.type})",
            hint="change kernel, pad or input size so that rounding makes no difference, then drop the field",
        )
    return {name: value for name, value in layer.params.items() if name not in ("round_mode", "ceil_mode")}


def _checked_params(layer: Layer) -> Any:
    """Return the parameters as a message, which is also how their names and kinds are checked."""
    cls = param_class(layer.type)
    params = _writable(layer)
    if cls is None:
        if params:
            raise KilnError(
                f"a {layer.type} layer takes no parameters",
                where=f"layer '{layer.name}'",
                value=sorted(params),
            )
        return None
    try:
        return cls(**params)
    except (ValueError, TypeError, OverflowError) as error:
        raise KilnError(
            f"its parameters do not fit a {layer.type} layer: {error}",
            where=f"layer '{layer.name}'",
            value=params,
        ) from error


def _fields(params: dict[str, Any], cls: Any, depth: int) -> list[str]:
    """Print fields in the order of their numbers."""
    lines = []
    indent = "  " * depth
    for field in sorted(cls.DESCRIPTOR.fields, key=lambda field: field.number):
        if field.name not in params:
            continue
        value = params[field.name]
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                inner = _fields(item, GetMessageClass(field.message_type), depth + 1)
                lines += [f"{indent}{field.name} {{", *inner, f"{indent}}}"]
            else:
                lines.append(f"{indent}{field.name}: {_scalar(item, field)}")
    return lines


def _scalar(value: Any, field: Any) -> str:
    if field.enum_type is not None:
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if field.cpp_type == field.CPPTYPE_FLOAT:
        number = np.float32(value)
        if not math.isfinite(number):
            raise KilnError(f"'{field.name}' is not finite", value=value)
        # The shortest text that reads back as the same float32.
        return str(number)
    return str(int(value))


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else "".join(f"\\{byte:03o}" for byte in char.encode())


def _quoted(text: str) -> str:
    return f'"{"".join(map(_escaped, text))}"'
