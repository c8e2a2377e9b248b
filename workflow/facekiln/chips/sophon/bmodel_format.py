"""The bmodel format: constants, and what a file says of its chip, nets, tensors and memory.

Field numbers and types are those of the schema that the compiler's package carries (bmodel.fbs of
sophgo/tpu-mlir, whose rule is that no number ever changes its meaning).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

MAGIC = 0xFF55AAEE
# magic, bytes of the header, of the flatbuffer, of the binaries; 44 reserved bytes follow.
HEADER = struct.Struct("<IIIQ")
HEADER_BYTES = 64
BINARY = struct.Struct("<QQ")
# The largest flatbuffers hold one location per weight; a megabyte is much.
MAX_FLAT_BYTES = 1 << 28
DTYPES = (
    "float32",
    "float16",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "bfloat16",
    "int4",
    "uint4",
)
# BM1684's commands have a fixed size; newer chips state the bytes (libsophon, tpu-bmodel).
COMMAND_BYTES = {"BM1682": 256, "BM1684": 128}
CPU_SUBNET = 1


# What a binary is, by the field that points to it.
_KINDS = {
    "kernel_module.binary": "kernel module",
    "cpuop_module.binary": "host module",
    "binary_coeff": "weights",
    "binary_bdc": "TPU commands",
    "binary_gdma": "DMA commands",
    "sdma_commands": "DMA commands",
    "hau_commands": "sort commands",
    "cdma_commands": "DMA commands",
    "binary_ir": "dynamic commands",
    "binary_param": "host operators",
    "const_data": "host weights",
    "net_profile": "profile",
    "net_stat": "statistics",
    "tensor_loc": "debug names",
    "lib_backend": "host backend",
}


@dataclass(frozen=True)
class Section:
    """A binary in the file: the field that points to it, its first byte in the file, and its bytes."""

    where: str
    start: int
    size: int

    @property
    def kind(self) -> str:
        """What it is, in words."""
        bare = re.sub(r"\[\d+\]$", "", self.where)
        return next(word for field, word in _KINDS.items() if bare.endswith(field))


@dataclass(frozen=True)
class BmodelTensor:
    """An input or output of a stage.

    Attributes:
        name: the compiler's, e.g. "scores_Softmax_f32".
        dtype: "float32", "int8", ...; "type 17" where the number is unknown.
        shapes: (n, c, h, w) or of another rank; a static net has one.
        scale: where codes are integers, an input's code is its value times the scale, an output's value is
            its code times the scale; 1 where values are real.
        zero_point: the code of 0.
        bytes: on the device.
        address: on the device, as compiled.
    """

    name: str
    dtype: str
    shapes: tuple[tuple[int, ...], ...]
    scale: float
    zero_point: int
    bytes: int
    address: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Its first shape, the greatest of a dynamic net."""
        return self.shapes[0] if self.shapes else ()


@dataclass(frozen=True)
class Weights:
    """The weights of a stage: where they lie, the sha256 that the file states, and the operators' names."""

    section: Section
    stated: bytes
    encrypted: bool
    locations: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Stage:
    """A net compiled for one set of shapes.

    Attributes:
        inputs, outputs: in the file's order, which is that of the runtime.
        dynamic: shapes may change at run time.
        cores: how many cores share the work.
        subnets: parts that run on the TPU or the CPU.
        cpu_subnets: those of them on the CPU.
        weights: None where it has none.
        instructions: bytes of its commands on the device.
        context: bytes of its activations on the device.
        host_weights, host_context: bytes on the host, for layers that run on the CPU.
    """

    inputs: tuple[BmodelTensor, ...]
    outputs: tuple[BmodelTensor, ...]
    dynamic: bool
    cores: int
    subnets: int
    cpu_subnets: int
    weights: Weights | None
    instructions: int
    context: int
    io: int
    host_weights: int
    host_context: int

    @property
    def batch(self) -> int:
        """The first dimension of its first input, 0 where it has none."""
        return next((tensor.shape[0] for tensor in self.inputs if tensor.shape), 0)


@dataclass(frozen=True)
class Net:
    """One net of a file, with its stages."""

    name: str
    stages: tuple[Stage, ...]
    address_mode: int
    cascade: str | None

    @property
    def dynamic(self) -> bool:
        """Whether shapes may change at run time."""
        return any(stage.dynamic for stage in self.stages)


@dataclass(frozen=True)
class Module:
    """Code that a file carries along for the chip or its host."""

    name: str
    section: Section


@dataclass(frozen=True)
class Memory:
    """Bytes that loading and running a file takes: weights, commands and activations, on device and host."""

    weight: int
    instruct: int
    runtime: int
    host_weight: int
    host_runtime: int

    @property
    def device(self) -> int:
        """Bytes on the device."""
        return self.weight + self.instruct + self.runtime

    @property
    def host(self) -> int:
        """Bytes on the host."""
        return self.host_weight + self.host_runtime


@dataclass(frozen=True)
class Bmodel:
    """What a bmodel says.

    Attributes:
        file: where it was read from.
        bytes: of the whole file.
        chip: as written in it, e.g. "BM1684X".
        kind: the letter before the version, "B".
        version: of format and compiler, e.g. "2.2+v1.26-20251229".
        time: when it was built, local time of that machine, without the line's end.
        time_at: (first byte in the file, bytes) of that text.
        devices: how many it was compiled for.
        combined_weights: stages share one block of weights.
        nets: in file order.
        kernel: the chip's kernels, None where the file has none.
        cpu_module: operators for the host, None where the file has none.
        sections: every binary of more than 0 bytes once, in order of their place in the file.
        sections_start: bytes of header and flatbuffer, where the binaries start.
        stated_bytes: of the file, as its header states them.
    """

    file: Path
    bytes: int
    chip: str
    kind: str
    version: str
    time: str
    time_at: tuple[int, int]
    devices: int
    combined_weights: bool
    nets: tuple[Net, ...]
    kernel: Module | None
    cpu_module: Module | None
    sections: tuple[Section, ...]
    sections_start: int
    stated_bytes: int

    @property
    def tool(self) -> str:
        """The compiler's release, "v1.26-20251229", empty where the version does not tell."""
        return self.version.partition("+")[2]

    @property
    def stages(self) -> list[tuple[Net, Stage]]:
        """Every stage with its net, in file order."""
        return [(net, stage) for net in self.nets for stage in net.stages]

    @property
    def memory(self) -> Memory:
        """What it takes of memory, every stage counted."""
        return memory_of(self.nets, self.chip)

    @property
    def tool_memory(self) -> Memory:
        """What `model_tool --info` of 1.26 says: it counts each net's first stage for all of them."""
        first = [replace(net, stages=(net.stages[0],) * len(net.stages)) for net in self.nets]
        return memory_of(first, self.chip)


def _middle_bytes(stage: Stage) -> int:
    """Return the buffer that BM1684's runtime keeps for the largest input or output, 1 or 4 bytes a value."""
    sizes = [
        math.prod(tensor.shape) * (1 if tensor.dtype in ("int8", "uint8") else 4)
        for tensor in (*stage.inputs, *stage.outputs)
    ]
    return max(sizes, default=0)


def memory_of(nets: Sequence[Net], chip: str) -> Memory:
    """Return what nets take of memory on a chip.

    Equal weights lie there once; nets share one block of activations, except those of several subnets.
    """
    weights: dict[bytes, int] = {}
    stages = [stage for net in nets for stage in net.stages]
    for place, stage in enumerate(stages):
        if stage.weights:
            weights[stage.weights.stated or b"%d" % place] = stage.weights.section.size
    shared, own = 0, 0
    for net in nets:
        context = max(stage.context for stage in net.stages)
        if any(stage.subnets > 1 for stage in net.stages):
            own += context
        else:
            shared = max(shared, context)
    middle = max(map(_middle_bytes, stages), default=0) if chip in COMMAND_BYTES else 0
    return Memory(
        weight=sum(weights.values()),
        instruct=sum(stage.instructions for stage in stages),
        runtime=shared + own + middle,
        host_weight=sum(stage.host_weights for stage in stages),
        host_runtime=sum(stage.host_context for stage in stages),
    )
