"""Tengine's file format, tmfile version 2: its numbers, and a file as Python holds it.

Source: the public headers of OAID/Tengine (source/serializer/tmfile/tm2_format.h, branch tengine-lite, and
the tags back to 1.3.2). Little endian; every offset is an unsigned 32-bit distance from the start of the
file, 0 where nothing is there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 2
MAX_NODES = 32767  # node indices are 16-bit in the runtime

# Tensor data types, and what numpy calls them.
FP32, FP16, INT8, UINT8, INT32, INT16 = range(6)
DTYPES: dict[int, tuple[str, np.dtype[Any]]] = {
    FP32: ("fp32", np.dtype("<f4")),
    FP16: ("fp16", np.dtype("<f2")),
    INT8: ("int8", np.dtype("i1")),
    UINT8: ("uint8", np.dtype("u1")),
    INT32: ("int32", np.dtype("<i4")),
    INT16: ("int16", np.dtype("<i2")),
}
# The run API's own numbering: a file's precision is that of its input.
PRECISION_MODES = {FP32: 0, FP16: 1, UINT8: 3, INT8: 4}

# Tensor kinds.
UNKNOWN, VAR, CONST, INPUT, DEP = range(5)
KINDS = ("unknown", "var", "const", "input", "dep")

NCHW, NHWC = 0, 1
ORIGINS = ("none", "tengine", "caffe", "onnx", "mxnet", "tensorflow", "tflite", "dla or darknet", "darknet")
ORIGIN_ONNX = 3
NO_BUFFER = 0xFFFFFFFF

HEADER = struct.Struct("<HHHxxI")
MODEL = struct.Struct("<iiII")
SUBGRAPH = struct.Struct("<IiiIIIIIII")
NODE = struct.Struct("<IIIIIIBxxx")
OPERATOR = struct.Struct("<III")
TENSOR = struct.Struct("<IIIIIiii")
QUANT = struct.Struct("<ifi")
BUFFER = struct.Struct("<II")
STRING = struct.Struct("<II")


@dataclass(frozen=True)
class Quant:
    """One quantisation record: real = (code - zero_point) * scale."""

    scale: float
    zero_point: int


@dataclass
class Tensor:
    """One tensor.

    Attributes:
        name: unique in files of ours; None where the file has none.
        kind: VAR, CONST, INPUT (or UNKNOWN, DEP).
        dtype: a key of DTYPES.
        dims: None where the file has none, which an activation may.
        quant: no record, one, or one for each output channel.
        data: a constant's bytes, little endian; None for activations, and where the file's weights are
            stripped, as in benchmark files.
        stored: how many bytes the file says that the constant has.
        layout: NCHW or NHWC.
        offset: where the bytes start in the file that was read.
    """

    name: str | None
    kind: int
    dtype: int
    dims: tuple[int, ...] | None
    quant: tuple[Quant, ...] = ()
    data: bytes | None = None
    stored: int = 0
    layout: int = NCHW
    offset: int = 0

    @property
    def elements(self) -> int:
        """How many values the dims say; a tensor without dims has none."""
        count = 1
        for dim in self.dims or (0,):
            count *= dim
        return count

    @property
    def array(self) -> NDArray[Any]:
        """A constant's values in its own type, read-only.

        Raises:
            ValueError: it has no data, or fewer bytes than its dims say.
        """
        if self.data is None or self.dims is None:
            raise ValueError(f"tensor '{self.name}' has no data")
        dtype = DTYPES[self.dtype][1]
        return np.frombuffer(self.data, dtype, self.elements).reshape(self.dims)

    @property
    def values(self) -> NDArray[np.float32]:
        """A constant's values as real numbers, float32, by its quantisation records.

        Channels of several records are those of the first axis.
        """
        array = self.array
        if self.dtype in (FP32, FP16) or not self.quant:
            return array.astype(np.float32)
        channels = self.dims[0] if self.dims and 1 < len(self.quant) == self.dims[0] else 1
        scale = np.array([record.scale for record in self.quant[:channels]], np.float32)
        zero = np.array([record.zero_point for record in self.quant[:channels]], np.float32)
        shape = (-1,) + (1,) * (array.ndim - 1)
        return (array.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)


def constant(name: str, values: NDArray[Any], quant: tuple[Quant, ...] = ()) -> Tensor:
    """Return a constant tensor; a scalar becomes one of dims [1], as kernels fail on no dims.

    Args:
        name: its name.
        values: float32, float16, int8, uint8 or int32.
        quant: its records.

    Raises:
        KeyError: tmfile has no such type.
    """
    array = np.ascontiguousarray(np.atleast_1d(values))
    dtype = next(number for number, (_, kind) in DTYPES.items() if kind == array.dtype.newbyteorder("<"))
    data = array.astype(DTYPES[dtype][1]).tobytes()
    return Tensor(name, CONST, dtype, array.shape, quant, data, len(data))


@dataclass
class Node:
    """One node; constants and inputs are nodes, too.

    Attributes:
        name: unique in files of ours; None where the file has none.
        op: operator id, see `facekiln.chips.tengine.ops`.
        inputs, outputs: places in the graph's list of tensors.
        params: the operator's fields by name; vectors as tuples.
        op_version: see `op_version` in config/chips/tengine.yaml.
        legacy: the parameters stand in an older record than today's.
    """

    name: str | None
    op: int
    inputs: list[int]
    outputs: list[int]
    params: dict[str, Any] = field(default_factory=dict)
    op_version: int = 2
    dynamic: bool = False
    legacy: bool = False


@dataclass
class TmGraph:
    """A tmfile with its one subgraph.

    Attributes:
        nodes: compute nodes stand in the order in which they are executed.
        inputs, outputs: places in `nodes`.
        name: the model's; None where the file has none.
        origin: the format that it was made from, an index of ORIGINS.
        version: (main, sub, compile).
        layouts: (graph, model).
        bytes: size of the file that it was read from.
    """

    nodes: list[Node]
    tensors: list[Tensor]
    inputs: list[int]
    outputs: list[int]
    name: str | None = None
    origin: int = ORIGIN_ONNX
    version: tuple[int, int, int] = (VERSION, 0, 0)
    layouts: tuple[int, int] = (NCHW, NCHW)
    bytes: int = 0

    def input_tensors(self) -> list[Tensor]:
        """Return what is fed, in order."""
        return [self.tensors[self.nodes[place].outputs[0]] for place in self.inputs]

    def output_tensors(self) -> list[Tensor]:
        """Return what is asked for, in order."""
        return [self.tensors[tensor] for place in self.outputs for tensor in self.nodes[place].outputs]

    @property
    def dtype(self) -> int:
        """The data type of the first input, which is the file's: its run mode must equal it."""
        return self.input_tensors()[0].dtype

    @property
    def precision(self) -> str:
        """Like `dtype`, by name: "fp32", "uint8", "int8" ..."""
        return DTYPES[self.dtype][0]
