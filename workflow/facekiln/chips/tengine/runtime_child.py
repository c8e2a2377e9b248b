"""The child process that loads Tengine's library: a wrong file ends this process and no other.

Called as `python runtime_child.py LIBRARY TMFILE MODE THREADS FOLDER RUNS`. For run r, input i is read from
`FOLDER/in_{r}_{i}.npy` (the file's own codes) and output o is written to `out_{r}_{o}.npy`. Source of the
calls: c_api.h of OAID/Tengine, branch tengine-lite.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

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


def main(arguments: list[str]) -> None:
    """Run the file; see the module."""
    path, tmfile, mode, threads, name, runs = arguments
    folder = Path(name)
    library = _library(path)
    _check(library.init_tengine(), "init_tengine")
    sys.stdout.write(f"version {library.get_tengine_version().decode()}\n")
    made = library.create_graph(None, b"tengine", tmfile.encode())
    _check(made, "create_graph")
    graph = ctypes.c_void_p(made)
    count = library.get_graph_input_node_number(graph)
    buffers = []
    for place in range(count):
        first = np.load(folder / f"in_0_{place}.npy")
        handle = library.get_graph_input_tensor(graph, place, 0)
        _check(handle, "get_graph_input_tensor")
        tensor = ctypes.c_void_p(handle)
        dims = (ctypes.c_int * first.ndim)(*first.shape)
        _check(library.set_tensor_shape(tensor, dims, first.ndim), "set_tensor_shape")
        buffers.append(np.ascontiguousarray(first).copy())
        pointer = buffers[-1].ctypes.data_as(ctypes.c_void_p)
        _check(library.set_tensor_buffer(tensor, pointer, buffers[-1].nbytes), "set_tensor_buffer")
    # Left alone, the library would pin its threads to cores that this process was not given.
    cores = sum(1 << core for core in os.sched_getaffinity(0))
    options = _Options(int(threads), 0, int(mode), cores)
    _check(library.prerun_graph_multithread(graph, options), "prerun_graph_multithread")
    outputs = library.get_graph_output_node_number(graph)
    for run in range(int(runs)):
        for place, buffer in enumerate(buffers):
            buffer[...] = np.load(folder / f"in_{run}_{place}.npy")
        _check(library.run_graph(graph, 1), "run_graph")
        number = 0
        for node in range(outputs):
            handle = ctypes.c_void_p(library.get_graph_output_node(graph, node))
            for place in range(library.get_node_output_number(handle)):
                np.save(folder / f"out_{run}_{number}.npy", _output(library, graph, node, place))
                number += 1
    sys.stdout.write("finished\n")
    sys.stdout.flush()
    # Everything is written; what the library does when it is taken down is not asked for.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
