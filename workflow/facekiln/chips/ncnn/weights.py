"""The `.bin` file: weights of the layers one after the other, without names.

Facts: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure and operators (the order of
weights of each layer). A weight blob begins with a tag of four bytes that says how it is stored, all else
(biases, scales) is bare float32. Little endian; a stored blob is padded to four bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import read_bytes
from facekiln.chips.ncnn.param import Graph, Layer
from facekiln.errors import KilnError

FP32, FP16, INT8 = 0, 0x01306B47, 0x000D4B38
# Float32 that a layer with int8 scales rounds when it is loaded.
FP32_SCALED = 0x0002C056
STORAGE = {FP32: "fp32", FP16: "fp16", INT8: "int8", FP32_SCALED: "fp32, scaled"}
_TYPE: dict[int, type[np.generic]] = {
    FP32: np.float32,
    FP16: np.float16,
    INT8: np.int8,
    FP32_SCALED: np.float32,
}
# No layer of these networks comes near; a mutated count would ask for gigabytes.
_COUNT_LIMIT = 1 << 28


@dataclass(frozen=True, eq=False)
class Blob:
    """One stored array.

    Attributes:
        role: "weight", "bias", "weight_scales", "bottom_scale", "top_scale", or the layer's own word.
        tag: how it is stored, None for bare float32.
        values: flat; float32, float16 or int8 as stored.
    """

    role: str
    tag: int | None
    values: NDArray[np.generic]


Weights = dict[str, list[Blob]]
Slot = tuple[str, int, bool]  # role, count, tagged


def int8_term(layer: Layer) -> int:
    """Return a layer's int8 parameter: 0 float, 1 or 2 int8, 100 more where its output is int8 too."""
    return layer.integer(8) if layer.type in ("Convolution", "ConvolutionDepthWise", "InnerProduct") else 0


def _scales(layer: Layer, channels: int) -> list[Slot]:
    term = int8_term(layer)
    if not term:
        return []
    if term not in (1, 2, 101, 102):
        raise KilnError(
            "its int8 parameter (8) is unknown", where=layer.name, value=term, limit="0 1 2 101 102"
        )
    one_scale = layer.type == "ConvolutionDepthWise" and term % 100 == 2
    slots: list[Slot] = [("weight_scales", 1 if one_scale else channels, False), ("bottom_scale", 1, False)]
    return [*slots, ("top_scale", 1, False)] if term > 100 else slots


def _windowed(layer: Layer) -> list[Slot]:
    outputs, grouped = layer.integer(0), layer.type.endswith("DepthWise")
    slots: list[Slot] = [("weight", layer.integer(6), True)]
    if layer.integer(5):
        slots.append(("bias", outputs, False))
    return slots + _scales(layer, layer.integer(7, 1) if grouped else outputs)


def _product(layer: Layer) -> list[Slot]:
    slots: list[Slot] = [("weight", layer.integer(2), True)]
    if layer.integer(1):
        slots.append(("bias", layer.integer(0), False))
    return slots + _scales(layer, layer.integer(0))


def _norm(layer: Layer) -> list[Slot]:
    return [(role, layer.integer(0), False) for role in ("slope", "mean", "variance", "bias")]


def _scale(layer: Layer) -> list[Slot]:
    count = layer.integer(0)
    if count == -233:  # the scale is a second input
        return []
    bias: list[Slot] = [("bias", count, False)] if layer.integer(1) else []
    return [("scale", count, False), *bias]


def _memory(layer: Layer) -> list[Slot]:
    sides = [layer.integer(key) for key in (0, 1, 11, 2)]
    return [("data", int(np.prod([side or 1 for side in sides])), False)]


_SLOTS: dict[str, Callable[[Layer], list[Slot]]] = {
    "Convolution": _windowed,
    "ConvolutionDepthWise": _windowed,
    "Deconvolution": _windowed,
    "DeconvolutionDepthWise": _windowed,
    "InnerProduct": _product,
    "BatchNorm": _norm,
    "Scale": _scale,
    "PReLU": lambda layer: [("slope", layer.integer(0), False)],
    "MemoryData": _memory,
}
# fmt: off
_BARE = frozenset({
    "AbsVal", "ArgMax", "BinaryOp", "Cast", "Clip", "Concat", "Crop", "Dropout", "ELU", "Eltwise",
    "Exp", "ExpandDims", "Flatten", "GELU", "HardSigmoid", "HardSwish", "Input", "Interp", "LRN", "Log",
    "Mish", "Noop", "Packing", "Padding", "Permute", "PixelShuffle", "Pooling", "Power", "ReLU",
    "Reduction", "Reorg", "Reshape", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "Swish", "TanH",
    "Threshold", "Tile", "UnaryOp",
})
# fmt: on


def slots(layer: Layer) -> list[Slot]:
    """Return what a layer reads from the `.bin`: role, number of values, and whether a tag stands before
    them.

    Raises:
        KilnError: a layer that we do not know, or a count that cannot be.
    """
    if layer.type in _BARE:
        return []
    rule = _SLOTS.get(layer.type)
    if rule is None:
        raise KilnError(
            f"what a {layer.type} layer stores is not known here",
            where=layer.name,
            limit=", ".join(sorted(_SLOTS)),
            hint="its file can be run, but not read, changed or quantised by facekiln",
        )
    found = rule(layer)
    for role, count, _ in found:
        if not 0 < count <= _COUNT_LIMIT:
            raise KilnError(f"its {role} has an impossible size", where=layer.name, value=count)
    return found


def parse_bin(graph: Graph, data: bytes, file: Path | str = "bin") -> Weights:
    """Take a `.bin` file's bytes apart.

    Returns:
        Layer name -> its blobs in their order; layers without weights are left out.

    Raises:
        KilnError: cut short, too long for the graph, an unknown tag, or a value that is not finite.
    """
    weights: Weights = {}
    place = 0
    for layer in graph:
        blobs = []
        for role, count, tagged in slots(layer):
            where = f"layer '{layer.name}', {role}"
            tag = None
            if tagged:
                tag = int.from_bytes(_take(data, place, 4, file, where), "little")
                place += 4
                if tag not in STORAGE:
                    raise KilnError(
                        "has an unknown storage tag",
                        file=file,
                        where=f"{where}, byte {place - 4}",
                        value=f"0x{tag:08X}",
                        limit=", ".join(f"0x{one:08X} {name}" for one, name in STORAGE.items()),
                        hint="is this .bin the one of that .param?",
                    )
            kind = np.dtype(_TYPE[FP32 if tag is None else tag])
            size = count * kind.itemsize
            values = np.frombuffer(_take(data, place, size, file, where), kind.newbyteorder("<")).astype(kind)
            if kind != np.int8 and not np.isfinite(values).all():
                raise KilnError("holds a value that is not finite", file=file, where=where)
            place += -(-size // 4) * 4
            blobs.append(Blob(role, tag, values))
        if blobs:
            weights[layer.name] = blobs
    if place != len(data):
        raise KilnError(
            "is longer than its graph says" if place < len(data) else "was cut short",
            file=file,
            value=f"{len(data)} bytes",
            limit=f"{place} bytes",
            hint="is this .bin the one of that .param?",
        )
    return weights


def _take(data: bytes, place: int, size: int, file: Path | str, where: str) -> bytes:
    if place + size > len(data):
        raise KilnError(
            "was cut short, or is not the .bin of that .param",
            file=file,
            where=where,
            value=f"{len(data)} bytes",
            limit=f"at least {place + size} bytes",
        )
    return data[place : place + size]


def bin_bytes(graph: Graph, weights: Weights) -> bytes:
    """Return the `.bin` file of a graph.

    Raises:
        KilnError: a blob does not have the size that its layer says.
    """
    return b"".join(_pieces(graph, weights))


def _pieces(graph: Graph, weights: Weights) -> Iterator[bytes]:
    for layer in graph:
        expected, blobs = slots(layer), weights.get(layer.name, [])
        found = [(blob.role, blob.values.size, blob.tag is not None) for blob in blobs]
        if found != expected:
            raise KilnError(
                "its weights are not what it reads", where=layer.name, value=found, limit=expected
            )
        for blob in blobs:
            if blob.tag is not None:
                yield blob.tag.to_bytes(4, "little")
            kind = np.dtype(_TYPE[FP32 if blob.tag is None else blob.tag])
            stored = np.ascontiguousarray(blob.values, kind.newbyteorder("<")).tobytes()
            yield stored + bytes(-len(stored) % 4)


def as_fp16(weights: Weights) -> Weights:
    """Return weights with every float32 weight blob stored as float16; biases and scales stay float32.

    Raises:
        KilnError: a value beyond float16's range.
    """
    changed: Weights = {}
    for name, blobs in weights.items():
        changed[name] = []
        for blob in blobs:
            if blob.tag != FP32:
                changed[name].append(blob)
                continue
            top = float(np.abs(blob.values.astype(np.float32)).max())
            if top > float(np.finfo(np.float16).max):
                raise KilnError("its weight is beyond float16", where=name, value=top, limit=65504)
            changed[name].append(Blob(blob.role, FP16, blob.values.astype(np.float16)))
    return changed


def read_bin(path: Path | str, graph: Graph) -> Weights:
    """Read the `.bin` file of a graph (see `parse_bin`)."""
    return parse_bin(graph, read_bytes(path), path)
