"""The child that runs one bmodel in the vendor's C model, or one quantised mlir, and answers requests.

Called by the environment's own Python 3.10 as `python -I runtime_child.py MODE FILE TOOL PARENT`, with
standard library and numpy only: MODE is `cmodel` or `twin`, FILE a bmodel or an mlir in the working folder,
TOOL the folder of the package tpu_mlir, PARENT the process to end with, or 0. `-I` matters: beside this file
lie modules of ours that have names of Python's own.

A frame is PREFIX (magic, bytes of header, bytes of body), a JSON header, and arrays one after the other as
the header's `arrays` lists them. The child sends one frame when it is ready, then one for each that it gets,
and ends with its input. What the libraries print goes to standard error: standard output is the frames'.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

PREFIX = struct.Struct("<4sIQ")
MAGIC = b"FKS1"
# Far more than any header is and any body can be; a larger number is not a frame.
MAX_HEADER, MAX_BODY = 1 << 26, 1 << 34
_PR_SET_PDEATHSIG = 1
_LINE_BUFFERED = 1


def pack(header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> list[bytes]:
    """Return a frame in pieces: its beginning, and each array's bytes."""
    wire = {name: np.asarray(value) for name, value in (arrays or {}).items()}
    described = [
        {"name": name, "dtype": value.dtype.str, "shape": list(value.shape)} for name, value in wire.items()
    ]
    text = json.dumps({**header, "arrays": described}).encode()
    bodies = [value.tobytes() for value in wire.values()]
    return [PREFIX.pack(MAGIC, len(text), sum(map(len, bodies))) + text, *bodies]


def sizes(prefix: bytes) -> tuple[int, int]:
    """Return the bytes of header and body that a prefix announces.

    Raises:
        ValueError: it is no prefix of a frame.
    """
    magic, header, body = PREFIX.unpack(prefix)
    if magic != MAGIC or header > MAX_HEADER or body > MAX_BODY:
        raise ValueError(f"not a frame: {prefix[:16]!r}")
    return header, body


def unpack(text: bytes, body: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a frame's header and its arrays (copies).

    Raises:
        ValueError: the two do not fit each other.
    """
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError("a frame's header is no object")
    arrays, at = {}, 0
    for item in header.get("arrays", ()):
        dtype, shape = np.dtype(item["dtype"]), tuple(int(side) for side in item["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        if min(shape, default=0) < 0 or at + count * dtype.itemsize > len(body):
            raise ValueError(f"array {item['name']!r} reaches past the frame's end")
        arrays[str(item["name"])] = np.frombuffer(body, dtype, count, at).reshape(shape).copy()
        at += count * dtype.itemsize
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes of a frame belong to no array")
    return header, arrays


def _described(name: str, shape: Any, dtype: Any) -> dict[str, Any]:
    return {"name": name, "shape": [int(side) for side in shape], "dtype": str(dtype)}


def _real(tensor: Any) -> np.ndarray:
    """Return an output as real numbers: codes times their scale, bfloat16 widened."""
    data = np.array(tensor.data)
    if data.dtype in (np.int8, np.uint8) and tensor.qscale:
        return (data.astype(np.float32) - tensor.qzero_point) * np.float32(tensor.qscale)
    if tensor.dtype == "bf16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return data.astype(np.float32)


class _CModel:
    """A bmodel in the C model that LD_LIBRARY_PATH leads to."""

    def __init__(self, path: str) -> None:
        self._model = import_module("pyruntime_bm").Model(path, 0, "")
        if len(self._model.networks) != 1:
            raise ValueError(f"it has {len(self._model.networks)} nets: {', '.join(self._model.networks)}")
        self._net = self._model.Net(self._model.networks[0])
        self.inputs = [_described(t.name, t.data.shape, t.data.dtype) for t in self._net.inputs]
        self.outputs = [_described(t.name, t.data.shape, t.data.dtype) for t in self._net.outputs]

    def run(self, feeds: dict[str, np.ndarray], every: bool) -> dict[str, np.ndarray]:
        if every:
            raise ValueError("the C model shows outputs only")
        for tensor in self._net.inputs:
            if tensor.data.dtype != np.float32:
                raise ValueError(f"input {tensor.name!r} is {tensor.data.dtype}; only float32 is fed")
            tensor.data[:] = feeds[tensor.name]
        # As the tool runs it: where an operator's output has a shape of its own, this tells it.
        shapes = self._net.forward_dynamic([list(tensor.data.shape) for tensor in self._net.inputs])
        found = {}
        for tensor, shape in zip(self._net.outputs, shapes, strict=True):
            count = int(np.prod(shape))
            found[tensor.name] = _real(tensor).reshape(-1)[:count].reshape(shape)
        return found


class _Twin:
    """The quantised model as the compiler's own interpreter runs it: real numbers wherever it has scales."""

    def __init__(self, path: str) -> None:
        pymlir = import_module("pymlir")
        pymlir.set_mem_mode("value_mem")
        self._module = pymlir.module()
        self._module.load(path)
        self.inputs = [self._told(name) for name in self._module.input_names]
        self.outputs = [self._told(name) for name in self._module.output_names]

    def _told(self, name: str) -> dict[str, Any]:
        value = self._module.get_tensor(name)
        return _described(name, value.shape, value.dtype)

    def run(self, feeds: dict[str, np.ndarray], every: bool) -> dict[str, np.ndarray]:
        for name in self._module.input_names:
            self._module.set_tensor(name, feeds[name], feeds[name].shape)
        self._module.invoke(True)
        if every:
            return {name: np.array(value) for name, value in self._module.get_all_tensor().items()}
        return {name: np.array(self._module.get_tensor(name)) for name in self._module.output_names}


def _check(net: Any, feeds: dict[str, np.ndarray]) -> None:
    """Refuse what is not exactly the inputs: the libraries would read past a smaller one."""
    wanted = {item["name"]: (tuple(item["shape"]), "float32") for item in net.inputs}
    given = {name: (value.shape, str(value.dtype)) for name, value in feeds.items()}
    if wanted != given:
        raise ValueError(f"inputs are {given}, wanted {wanted}")


def _whole(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        os._exit(0)  # the parent has gone
    return data


def _send(stream: BinaryIO, header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
    for piece in pack(header, arrays):
        stream.write(piece)
    stream.flush()


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """Return the frames' streams; from now on 0 is empty and 1 leads to standard error."""
    requests, answers = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    libc = ctypes.CDLL(None)
    # Else the last words of an abort would be lost in a buffer.
    libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _LINE_BUFFERED, ctypes.c_size_t(0))
    return os.fdopen(requests, "rb"), os.fdopen(answers, "wb")


def _end_with(parent: int) -> None:
    if parent:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)


def main(arguments: list[str]) -> None:
    """Serve; see the module."""
    mode, path, tool, parent = arguments
    _end_with(int(parent))
    requests, answers = _own_streams()
    sys.path.append(str(Path(tool) / "python"))
    try:
        net: Any = _Twin(path) if mode == "twin" else _CModel(path)
    except Exception as error:
        _send(answers, {"error": f"{type(error).__name__}: {error}"})
        os._exit(1)
    _send(answers, {"inputs": net.inputs, "outputs": net.outputs})
    while True:
        # A closed input ends the child in `_whole`.
        header, body = sizes(_whole(requests, PREFIX.size))
        request, feeds = unpack(_whole(requests, header), _whole(requests, body))
        try:
            _check(net, feeds)
            result = net.run(feeds, bool(request.get("every")))
        except Exception as error:
            _send(answers, {"error": f"{type(error).__name__}: {error}"})
        else:
            _send(answers, {}, result)


if __name__ == "__main__":
    main(sys.argv[1:])
