"""Times a model in onnxruntime or ncnn; runs on a board, so it needs numpy and the runtime and nothing else.

    python3 latency_child.py RUNTIME MODEL --shape 1,3,640,640 --loops 50 --warm-up 10 --threads 2

It prints one line per run in milliseconds and ends with "end N"; `latency_log` reads that. The input is fixed
noise; the time covers the call with its input and all outputs. Options of the runtime are its defaults, but
for the threads.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

# Before any runtime loads OpenMP: threads that spin while they wait make a busy machine unusable.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

Shape = tuple  # of int; a board's Python may be 3.7


def say(*words: object) -> None:
    """Print a line."""
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")


def open_onnxruntime(model: str, shape: Shape, threads: int) -> tuple[str, Callable[[], object]]:
    """Return (version, function that runs once)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {item.name: noise(shape) for item in session.get_inputs()}
    return onnxruntime.__version__, lambda: session.run(None, feeds)


def open_ncnn(model: str, shape: Shape, threads: int) -> tuple[str, Callable[[], object]]:
    """Return (version, function that runs once)."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    if net.load_param(model) != 0 or net.load_model(model[: -len(".param")] + ".bin") != 0:
        sys.exit("ncnn does not take " + model)
    if shape[0] != 1:
        sys.exit(f"ncnn takes one image at a time, not a batch of {shape[0]}")
    values = noise(shape)[0]
    inputs, outputs = net.input_names(), net.output_names()

    def run() -> None:
        # ncnn does not keep the array alive, so it gets a copy of its own
        with net.create_extractor() as extractor:
            for name in inputs:
                extractor.input(name, ncnn.Mat(values).clone())
            for name in outputs:
                if extractor.extract(name)[0] != 0:
                    sys.exit("ncnn cannot compute " + name)

    return getattr(ncnn, "__version__", "unknown"), run


def noise(shape: Shape) -> np.ndarray[Any, Any]:
    """Return float32 in 0..1, the same on every machine."""
    return np.random.RandomState(0).rand(*shape).astype(np.float32)


def peak_memory_kib() -> int | None:
    """Return the largest resident size of this process, or None where the kernel does not tell."""
    try:
        with open("/proc/self/status") as stream:  # noqa: PTH123 (no pathlib for one file)
            for line in stream:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def main() -> None:
    """Time a model and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runtime", choices=["onnxruntime", "ncnn"])
    parser.add_argument("model")
    parser.add_argument("--shape", required=True)
    parser.add_argument("--loops", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    shape = tuple(int(side) for side in given.shape.split(","))
    opener = open_onnxruntime if given.runtime == "onnxruntime" else open_ncnn
    start = time.perf_counter()
    version, run = opener(given.model, shape, given.threads)
    loaded = time.perf_counter()
    say("facekiln latency 1")
    say("runtime", given.runtime, version)
    say("python", platform.python_version())
    say("machine", platform.machine())
    say("threads", given.threads)
    say("shape", given.shape)
    say(f"load_ms {1000 * (loaded - start):.3f}")
    for _ in range(given.warm_up):
        run()
    times = []
    for _ in range(given.loops):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    for index, seconds in enumerate(times):
        say(f"run {index} {1000 * seconds:.4f} ms")
    memory = peak_memory_kib()
    if memory is not None:
        say("peak_memory_kib", memory)
    say(f"mean {1000 * sum(times) / len(times):.4f} ms")
    say("end", len(times))


if __name__ == "__main__":
    main()
