"""Caffe files in: .prototxt text and .caffemodel binary, ours and other people's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message

from facekiln.artifact import read_bytes
from facekiln.caffe.net import Layer, Net
from facekiln.caffe.schema import PARAM_OF_TYPE, message_class
from facekiln.caffe.shapes import infer_shapes
from facekiln.caffe.weights import Stored, blob_shapes, fit_blobs, stored_blob
from facekiln.errors import KilnError

# Layer fields that only training reads.
_TRAINING = {"loss_weight", "param", "propagate_down", "include", "exclude", "phase", "transform_param"}
_OWN = {"name", "type", "bottom", "top", "blobs"}


def read_prototxt(path: Path | str) -> Net:
    """Read a network's structure; `layer.blobs` stay empty.

    `input:` with `input_shape {}` or `input_dim:`, and `Input` layers, all become `net.inputs`. Layers that a
    rule keeps out of the TEST phase are left out, and what only training reads (fillers apart) is dropped.

    Raises:
        KilnError: missing, no text, not a prototxt, an unknown field (with its line), V1 `layers`, an input
            without a shape, two layers of one name.
    """
    text = _read_text(Path(path))
    message = message_class("NetParameter")()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise _parse_error(path, text, error) from error
    return _net_of(message, path)


def read_net(prototxt: Path | str, caffemodel: Path | str) -> Net:
    """Read a network with its weights, matched by layer name.

    Weights are float32 in the shapes that the structure asks for; the shapes of old files, with their leading
    ones, are accepted, and double precision is narrowed.

    Raises:
        KilnError: as `read_prototxt`; also a truncated or foreign caffemodel, and missing, extra, misshapen
            or non-finite weights, by layer.
    """
    net = read_prototxt(prototxt)
    weights = _read_weights(Path(caffemodel))
    shapes = _in_file(prototxt, lambda: infer_shapes(net))
    for layer in net.layers:
        bottoms = [shapes[bottom] for bottom in layer.bottoms]
        wanted = _in_file(prototxt, lambda layer=layer, bottoms=bottoms: blob_shapes(layer, bottoms))
        layer.blobs = fit_blobs(layer, weights.pop(layer.name, []), wanted, caffemodel)
    extra = [name for name, blobs in weights.items() if blobs]
    if extra:
        raise KilnError(
            f"has weights for {len(extra)} layers that {prototxt} has not",
            file=caffemodel,
            where=f"layer '{extra[0]}'",
            hint="the two files are not a pair; layers are matched by name",
        )
    return net


def _in_file(path: Path | str, compute: Any) -> Any:
    try:
        return compute()
    except KilnError as error:
        raise KilnError(str(error), file=path) from error


def _read_bytes(path: Path) -> bytes:
    data = read_bytes(path)
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise KilnError(
            "is a web page, not a Caffe file", file=path, hint="download the raw file, check its sha256"
        )
    if start.startswith(b"version https://git-lfs"):
        raise KilnError(
            "is a Git LFS pointer, not the file itself", file=path, hint="run `git lfs pull` there"
        )
    if not data:
        raise KilnError("is empty", file=path)
    return data


def _read_text(path: Path) -> str:
    try:
        return _read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise KilnError(
            f"is not text: {error.reason} at byte {error.start}", file=path, hint="is this the .caffemodel?"
        ) from error


def _parse_error(path: Path | str, text: str, error: text_format.ParseError) -> KilnError:
    what = str(error)
    line = error.GetLine() if hasattr(error, "GetLine") else None
    if "V1LayerParameter" in what:
        return _v1_error(path, f"line {line}")
    before = "\n".join(text.splitlines()[: line or 0])
    names = re.findall(r"^\s*name\s*:\s*[\"']([^\"']*)", before, re.MULTILINE)
    where = (f"line {line}" if line else "") + (f", near layer '{names[-1]}'" if names and line else "")
    known = "no field named" in what or "no extension" in what
    return KilnError(
        f"is not a prototxt of a known form: {what}",
        file=path,
        where=where or None,
        hint="the field is of no inference layer known here: remove it, or the layer" if known else None,
    )


def _v1_error(path: Path | str, where: str | None = None) -> KilnError:
    return KilnError(
        "holds V1 `layers` blocks, of Caffe before 2015",
        file=path,
        where=where,
        hint="upgrade both files with Caffe's upgrade_net_proto_text and upgrade_net_proto_binary",
    )


def _value(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return _params(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def _params(message: Message) -> dict[str, Any]:
    """Turn a message into the form of `Layer.params`: only fields that are set."""
    result = {}
    for field, value in message.ListFields():
        many = not isinstance(value, (bool, int, float, str, bytes, Message))
        result[field.name] = [_value(field, item) for item in value] if many else _value(field, value)
    return result


def _in_test_phase(layer: Any) -> bool:
    if layer.HasField("phase") and layer.phase == 0:
        return False
    includes = [rule.phase for rule in layer.include if rule.HasField("phase")]
    excludes = [rule.phase for rule in layer.exclude if rule.HasField("phase")]
    return (not includes or 1 in includes) and 1 not in excludes


def _layer_of(message: Any, path: Path | str) -> Layer:
    where = f"layer '{message.name}' ({message.type})"
    if not message.name or not message.type:
        raise KilnError("has no name or no type", file=path, where=where)
    fields = {field.name for field, _ in message.ListFields()} - _OWN - _TRAINING
    own = PARAM_OF_TYPE.get(message.type)
    foreign = sorted(fields - {own})
    if foreign:
        raise KilnError(
            f"its type takes no '{foreign[0]}'", file=path, where=where, limit=own or "no parameters at all"
        )
    if any(spec.name for spec in message.param):
        raise KilnError(
            "shares weights with another layer, by a named `param`",
            file=path,
            where=where,
            hint="give each layer its own weights; chips' tools know no sharing",
        )
    params = _params(getattr(message, own)) if own and own in fields else {}
    return Layer(message.name, message.type, list(message.bottom), list(message.top), params)


def _inputs_of(message: Any, path: Path | str) -> dict[str, list[int]]:
    names = list(message.input)
    shapes = [[int(dim) for dim in shape.dim] for shape in message.input_shape]
    if message.input_dim:
        dims = [int(dim) for dim in message.input_dim]
        shapes += [dims[i : i + 4] for i in range(0, len(dims), 4)]
    if len(names) != len(shapes):
        raise KilnError(f"declares {len(names)} inputs and {len(shapes)} input shapes", file=path)
    return dict(zip(names, shapes, strict=True))


def _net_of(message: Any, path: Path | str) -> Net:
    if message.layers:
        raise _v1_error(path)
    net = Net(message.name, _inputs_of(message, path), [])
    for entry in message.layer:
        if not _in_test_phase(entry):
            continue
        layer = _layer_of(entry, path)
        if layer.type == "Input":
            shapes = [shape.get("dim", []) for shape in layer.params.get("shape", [])]
            if len(shapes) == 1:
                shapes *= len(layer.tops)
            if len(shapes) != len(layer.tops):
                raise KilnError("has no shape for each of its tops", file=path, where=f"layer '{layer.name}'")
            net.inputs.update(zip(layer.tops, shapes, strict=True))
            continue
        if any(known.name == layer.name for known in net.layers):
            raise KilnError(
                "two layers have this name, and weights are matched by name",
                file=path,
                where=f"layer '{layer.name}'",
                hint="rename one in the prototxt and in the caffemodel",
            )
        net.layers.append(layer)
    if not net.layers:
        raise KilnError("has no `layer` block", file=path)
    for name, shape in net.inputs.items():
        if not shape or min(shape) < 1:
            raise KilnError("an input has no fixed shape", file=path, where=f"input '{name}'", value=shape)
    return net


def _read_weights(path: Path) -> dict[str, list[Stored]]:
    message = message_class("NetParameter")()
    data = _read_bytes(path)
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise KilnError(
            "is not a caffemodel, or its end is missing",
            file=path,
            value=f"{len(data)} bytes",
            hint="fetch it again",
        ) from error
    if message.layers:
        raise _v1_error(path)
    weights: dict[str, list[Stored]] = {}
    for layer in message.layer:
        try:
            blobs = [stored_blob(blob) for blob in layer.blobs]
        except (ValueError, DecodeError) as error:
            raise KilnError(
                f"weights cannot be read: {error}", file=path, where=f"layer '{layer.name}'"
            ) from error
        if layer.name in weights and blobs:
            raise KilnError("weights appear twice", file=path, where=f"layer '{layer.name}'")
        weights[layer.name] = blobs
    return weights
