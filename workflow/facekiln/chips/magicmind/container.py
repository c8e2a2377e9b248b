"""The emulator's own file: an ONNX that computes as the card is thought to, and what it was built for.

Layout, little-endian: the magic; u32 bytes of JSON; the JSON, its keys sorted; the ONNX. Nothing of it is
Cambricon's, and no card runs it. The vendor's files have another form, which is not published.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekiln.artifact import write_bytes
from facekiln.errors import KilnError
from facekiln.unreadable import unreadable

MAGIC = b"EMULATED MAGICMIND MODEL OF FACEKILN, NO MLU RUNS IT\n"
_LENGTH = struct.Struct("<I")
_KEYS = ("name", "precision", "batch", "size", "input", "outputs", "build_config", "mean", "scale")


@dataclass(frozen=True)
class EmulatedModel:
    """What a file holds.

    Attributes:
        told: name, precision, batch ([least, most]), size ([H, W]), input ("uint8_nhwc" or "float_nchw"),
            outputs (the model's, in its order), build_config, mean and scale of the input.
        onnx: the bytes of a network of batch 1.
    """

    told: Mapping[str, Any]
    onnx: bytes


def write_emulated(path: Path | str, model: EmulatedModel) -> None:
    """Write a file atomically; the same model gives the same bytes."""
    told = json.dumps(dict(model.told), sort_keys=True, allow_nan=False).encode()
    write_bytes(path, MAGIC + _LENGTH.pack(len(told)) + told + model.onnx)


def is_emulated(path: Path | str) -> bool:
    """Tell whether a file is the emulator's.

    Raises:
        KilnError: it cannot be read.
    """
    return _head(path).startswith(MAGIC)


def _head(path: Path | str) -> bytes:
    try:
        with Path(path).open("rb") as stream:
            return stream.read(len(MAGIC))
    except OSError as error:
        raise unreadable(path, error) from error


def read_emulated(path: Path | str) -> EmulatedModel:
    """Read a file of the emulator's.

    Raises:
        KilnError: it is the vendor's or something else, which only its own runtime reads; it is truncated or
            damaged.
    """
    if not is_emulated(path):
        raise KilnError(
            "is not a file of the emulator; the vendor's run on their cards only",
            file=path,
            hint="facekiln bench, or build it with sdk.mode emulator",
        )
    data = Path(path).read_bytes()[len(MAGIC) :]
    length = _LENGTH.unpack_from(data)[0] if len(data) >= _LENGTH.size else -1
    text, onnx = data[_LENGTH.size : _LENGTH.size + length], data[_LENGTH.size + length :]
    if length < 0 or len(text) < length or not onnx:
        raise KilnError(
            "is truncated", file=path, value=f"{len(data)} bytes", hint="rebuild it with its rule"
        )
    try:
        told = json.loads(text)
    except ValueError as error:
        raise KilnError(f"is damaged: {error}", file=path, hint="rebuild it with its rule") from error
    missing = [key for key in _KEYS if key not in told] if isinstance(told, dict) else list(_KEYS)
    if missing:
        raise KilnError(f"lacks '{missing[0]}'", file=path, hint="rebuild it with its rule")
    return EmulatedModel(told, onnx)
