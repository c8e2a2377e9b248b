"""The child process that loads Tengine's library: a wrong file ends this process and no other.

Called as `python runtime_child.py LIBRARY TMFILE MODE THREADS`. It answers on its standard output: the size
of a JSON text, in four bytes, and the text; first {"version"}, then for each run {"outputs": [{"shape",
"dtype", "bytes"}]} and behind it those bytes. A run is asked for on standard input by a line {"shape",
"bytes"} and the bytes of the input, in the file's own codes. It ends with its input. What the library prints
goes to standard error. Source of the calls: c_api.h of OAID/Tengine, branch tengine-lite.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

import numpy as np

# Numpy types by the run API's data type numbers, which are those of the file.
_TYPES = (np.float32, np.float16, np.int8, np.uint8, np.int32, np.int16)
_MAX_DIMS = 8


class _Options(ctypes.Structure):
    _fields_ = (
        ("num_thread", ctypes.c_int),
        ("cluster", ctypes.c_int),
        ("precision", ctypes.c_int),
        ("affinity", ctypes.c_uint64),
    )


def _library(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    pointers = ("create_graph", "get_graph_input_tensor", "get_graph_output_tensor", "get_tensor_buffer")
    for name in (*pointers, "get_graph_output_node"):
        getattr(library, name).restype = ctypes.c_void_p
    library.get_tengine_version.restype = ctypes.c_char_p
    library.prerun_graph_multithread.argtypes = (ctypes.c_void_p, _Options)
    return library


def _check(status: int | None, what: str) -> None:
    # Handles are null, and statuses negative, on failure.
    if status is None or status < 0:
        sys.exit(f"Tengine: {what} failed ({status})")


def _output(library: ctypes.CDLL, graph: ctypes.c_void_p, node: int, place: int) -> np.ndarray:
    tensor = library.get_graph_output_tensor(graph, node, place)
    _check(tensor, "get_graph_output_tensor")
    handle = ctypes.c_void_p(tensor)
    dims = (ctypes.c_int * _MAX_DIMS)()
    rank = library.get_tensor_shape(handle, dims, _MAX_DIMS)
    _check(rank, "get_tensor_shape")
    kind = np.dtype(_TYPES[library.get_tensor_data_type(handle)])
    size = library.get_tensor_buffer_size(handle)
    # The buffer lives as long as the graph is pre-run, so it is copied.
    raw = ctypes.string_at(library.get_tensor_buffer(handle), size)
    shape = tuple(dims[:rank])
    return np.frombuffer(raw, kind, int(np.prod(shape))).reshape(shape)


def _outputs(library: ctypes.CDLL, graph: ctypes.c_void_p) -> list[np.ndarray]:
    found = []
    for node in range(library.get_graph_output_node_number(graph)):
        handle = ctypes.c_void_p(library.get_graph_output_node(graph, node))
        for place in range(library.get_node_output_number(handle)):
            found.append(_output(library, graph, node, place))
    return found


def _prepare(
    library: ctypes.CDLL, graph: ctypes.c_void_p, buffer: Any, shape: list[int], mode: int, threads: int
) -> None:
    handle = library.get_graph_input_tensor(graph, 0, 0)
    _check(handle, "get_graph_input_tensor")
    tensor = ctypes.c_void_p(handle)
    _check(
        library.set_tensor_shape(tensor, (ctypes.c_int * len(shape))(*shape), len(shape)), "set_tensor_shape"
    )
    _check(library.set_tensor_buffer(tensor, buffer, ctypes.sizeof(buffer)), "set_tensor_buffer")
    # Left alone, the library would pin its threads to cores that this process was not given.
    cores = sum(1 << core for core in os.sched_getaffinity(0))
    options = _Options(threads, 0, mode, cores)
    _check(library.prerun_graph_multithread(graph, options), "prerun_graph_multithread")


def main(arguments: list[str]) -> None:
    """Answer until the input ends; see the module."""
    path, tmfile, mode, threads = arguments
    # The library prints to either stream as it likes; ours is out of its reach.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def answer(told: dict[str, Any], arrays: list[np.ndarray]) -> None:
        text = json.dumps(told).encode()
        answers.write(len(text).to_bytes(4, "little") + text + b"".join(array.tobytes() for array in arrays))
        answers.flush()

    library = _library(path)
    _check(library.init_tengine(), "init_tengine")
    made = library.create_graph(None, b"tengine", tmfile.encode())
    _check(made, "create_graph")
    graph = ctypes.c_void_p(made)
    answer({"version": library.get_tengine_version().decode()}, [])
    buffer: Any = None
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        data = sys.stdin.buffer.read(asked["bytes"])
        if buffer is None:
            buffer = (ctypes.c_char * len(data))()
            _prepare(library, graph, buffer, asked["shape"], int(mode), int(threads))
        ctypes.memmove(buffer, data, len(data))
        _check(library.run_graph(graph, 1), "run_graph")
        arrays = _outputs(library, graph)
        told = [{"shape": one.shape, "dtype": one.dtype.str, "bytes": one.nbytes} for one in arrays]
        answer({"outputs": told}, arrays)
    # Everything is told; what the library does when it is taken down is not asked for.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
