"""Small bmodels made with Google's flatbuffers package, to prove a reader that shares no code with it.

Field numbers are those of bmodel.fbs (sophgo/tpu-mlir).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from typing import Any

import flatbuffers

TIME = "Sat Nov 21 10:18:28 2026\n"


@dataclass(frozen=True)
class T:
    """An input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: int = 0
    scale: float = 1.0
    zero: int = 0


@dataclass(frozen=True)
class S:
    """A stage; weights and commands are bytes that end up among the binaries."""

    inputs: tuple[T, ...] = (T("input", (1, 3, 8, 8)),)
    outputs: tuple[T, ...] = (T("scores_Softmax", (1, 4, 2)), T("boxes_Concat", (1, 4, 4)))
    weights: bytes = b"w" * 4096
    stated: bytes | None = None
    commands: tuple[bytes, bytes] = (b"t" * 256, b"d" * 128)
    counts: tuple[int, int] = (2, 1)
    context: int = 8192
    cores: int = 1
    dynamic: int = 0
    on_cpu: int = 0
    encrypted: int = 0
    contexts: tuple[int, ...] = ()
    host_words: int = 0
    subnets: bool = True


@dataclass(frozen=True)
class M:
    """A file."""

    chip: str = "BM1684X"
    version: str = "2.2+v1.26-20251229"
    time: str = TIME
    nets: tuple[tuple[str, tuple[S, ...]], ...] = (("net", (S(),)),)
    kernel: bytes | None = b"k" * 100
    kernel_start: int | None = None


class _Maker:
    def __init__(self, model: M) -> None:
        self.model, self.builder, self.blob = model, flatbuffers.Builder(1024), bytearray()

    def binary(self, data: bytes) -> tuple[int, int]:
        start = len(self.blob)
        self.blob += data + bytes(-len(data) % 4096)
        return start, len(data)

    def table(self, **fields: Any) -> int:
        """Write a table; names are like `u4_device` : kind and number, then anything."""
        self.builder.StartObject(1 + max(int(name.split("_")[0][1:]) for name in fields))
        for name, value in fields.items():
            kind, number = name[0], int(name.split("_")[0][1:])
            if value is None:
                continue
            if kind == "o":
                self.builder.PrependUOffsetTRelativeSlot(number, value, 0)
            elif kind == "b":
                self.builder.Prep(8, 16)
                self.builder.PrependUint64(value[1])
                self.builder.PrependUint64(value[0])
                self.builder.PrependStructSlot(number, self.builder.Offset(), 0)
            else:
                slots = {
                    "u": (self.builder.PrependUint32Slot, 0),
                    "i": (self.builder.PrependInt32Slot, 0),
                    "q": (self.builder.PrependUint64Slot, 0),
                    "f": (self.builder.PrependFloat32Slot, 1.0),
                }
                slots[kind][0](number, value, slots[kind][1])
        return int(self.builder.EndObject())

    def offsets(self, items: list[int]) -> int:
        self.builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            self.builder.PrependUOffsetTRelative(item)
        return int(self.builder.EndVector())

    def numbers(self, values: Any, size: int) -> int:
        self.builder.StartVector(size, len(values), size)
        for value in reversed(list(values)):
            (self.builder.PrependUint64 if size == 8 else self.builder.PrependUint8)(value)
        return int(self.builder.EndVector())

    def tensor(self, tensor: T) -> int:
        shape = self.table(o0=self.numbers(tensor.shape, 8))
        return self.table(
            o0=self.builder.CreateString(tensor.name),
            u1=tensor.dtype,
            q3=0x1000,
            q4=4 * 7,
            o5=self.offsets([shape]),
            f7=tensor.scale,
            i10=tensor.zero,
        )

    def stage(self, stage: S) -> int:
        weights = self.binary(stage.weights)
        stated = hashlib.sha256(stage.weights).digest() if stage.stated is None else stage.stated
        half = len(stage.weights) // 2
        places = self.offsets(
            [
                self.table(o0=self.builder.CreateString(name), q1=start, q2=half)
                for name, start in (("tpu.Conv2D.weight", 0), ("tpu.Lut.1", half))
            ]
        )
        coeff = self.table(o1=self.numbers(stated, 1), b2=weights, o3=places, i4=stage.encrypted)
        tpu, dma = (self.binary(data) for data in stage.commands)
        group = self.table(u0=stage.counts[0], u1=stage.counts[1], b2=tpu, b3=dma)
        groups = self.offsets([group])
        if stage.on_cpu:
            constant = self.table(o0=self.builder.CreateString("c"), b1=self.binary(b"h" * 64))
            parameter = self.table(i0=1, o2=self.offsets([constant]))
            subs = [self.table(i0=0, o1=groups), self.table(i0=1, o2=self.offsets([parameter]))]
        elif stage.cores > 1:
            core = self.table(o0=groups)
            subs = [self.table(i0=0, o14=self.offsets([core] * stage.cores))]
        else:
            subs = [self.table(i0=0, o1=groups, i5=stage.dynamic, u7=10 if stage.dynamic else 0)]
        return self.table(
            o0=self.offsets([self.tensor(tensor) for tensor in stage.inputs]),
            o1=self.offsets([self.tensor(tensor) for tensor in stage.outputs]),
            q3=stage.context,
            o4=coeff,
            i5=stage.dynamic,
            o8=groups,
            o12=self.offsets(subs) if stage.subnets else None,
            u13=stage.host_words,
            o14=self.numbers(stage.contexts, 8) if stage.contexts else None,
            u16=stage.cores,
        )

    def make(self) -> bytes:
        model = self.model
        modules = None
        if model.kernel is not None:
            start, size = self.binary(model.kernel)
            start = start if model.kernel_start is None else model.kernel_start
            modules = self.table(o0=self.builder.CreateString("libkernel.so"), b1=(start, size))
        nets = [
            self.table(
                o0=self.builder.CreateString(name), o3=self.offsets([self.stage(stage) for stage in stages])
            )
            for name, stages in model.nets
        ]
        root = self.table(
            o0=self.builder.CreateString("B"),
            o1=self.builder.CreateString(model.version),
            o2=self.builder.CreateString(model.time),
            o3=self.builder.CreateString(model.chip),
            o4=self.offsets(nets),
            o6=modules,
            u7=1,
        )
        self.builder.Finish(root)
        flat = bytes(self.builder.Output())
        flat += bytes(-(64 + len(flat)) % 4096)
        header = struct.pack("<IIIQ", 0xFF55AAEE, 64, len(flat), len(self.blob)) + bytes(44)
        return header + flat + bytes(self.blob)


def bmodel_bytes(**changes: Any) -> bytes:
    """Return the bytes of a small bmodel; the arguments are fields of `M`."""
    return _Maker(replace(M(), **changes)).make()
