"""Runs pictures through a model on a board; needs numpy and the runtime and nothing else.

    python3 infer_child.py RUNTIME MODEL --declared input.json --pictures in.npy --output out.npz

The pictures are already at the network's size: uint8 (or float32) BGR [count, height, width, 3]. What is left
to do is what `input.json` declares: colour order ("bgr" or "rgb"), then (x - mean) * scale. The output holds
the network's own values by the runtime's names, [count, ...]; nothing is decoded here. Places of a batch that
no picture fills are black. It prints a line per picture and ends with "end N"; `infer_log` reads that.

A program of another runtime that takes the same arguments without RUNTIME, and prints the same lines, is as
good.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from typing import Any

# Before any runtime loads OpenMP: threads that spin while they wait make a busy machine unusable.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

_HALVES = (
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
)


def say(*words: object) -> None:
    """Print a line at once."""
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")
    sys.stdout.flush()


class OnnxRuntime:
    """An ONNX file in ONNX Runtime."""

    def __init__(self, model: str, threads: int, exact: bool) -> None:
        """Load it; `exact` changes nothing here."""
        del exact
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.version = onnxruntime.__version__
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        entry = self._session.get_inputs()[0]
        self._entry = entry.name
        self.batch = entry.shape[0] if isinstance(entry.shape[0], int) else 1
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, tensor: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """Return each output, [batch, ...]."""
        found: list[np.ndarray[Any, Any]] = self._session.run(self.outputs, {self._entry: tensor})
        return found


class Ncnn:
    """A `.param` with its `.bin` beside it in ncnn."""

    batch = 1

    def __init__(self, model: str, threads: int, exact: bool) -> None:
        """Load it; `exact` keeps ncnn from storing or computing floats as halves, which is its default."""
        import ncnn

        self._ncnn, self._net = ncnn, ncnn.Net()
        self._net.opt.num_threads = threads
        for name in _HALVES if exact else ():
            if hasattr(self._net.opt, name):
                setattr(self._net.opt, name, False)
        weights = model[: -len(".param")] + ".bin"
        if self._net.load_param(model) != 0 or self._net.load_model(weights) != 0:
            sys.exit("ncnn does not take " + model)
        self.version = getattr(ncnn, "__version__", "unknown")
        self._entry = self._net.input_names()[0]
        self.outputs = list(self._net.output_names())

    def run(self, tensor: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """Return each output, [1, ...]."""
        found = []
        with self._net.create_extractor() as extractor:
            # ncnn does not keep the array alive, so it gets a copy of its own
            if extractor.input(self._entry, self._ncnn.Mat(tensor[0]).clone()) != 0:
                sys.exit("ncnn does not take the input")
            for name in self.outputs:
                status, mat = extractor.extract(name)
                if status != 0:
                    sys.exit("ncnn cannot compute " + name)
                found.append(np.array(mat, np.float32)[None])
        return found


RUNTIMES: dict[str, Callable[[str, int, bool], Any]] = {"onnxruntime": OnnxRuntime, "ncnn": Ncnn}


def to_tensor(pictures: np.ndarray[Any, Any], declared: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return pictures as the network takes them: float32 [count, 3, height, width], (x - mean) * scale."""
    count, height, width, _ = pictures.shape
    tensor = np.empty((count, 3, height, width), np.float32)
    for plane in range(3):
        source = 2 - plane if declared["colour"] == "rgb" else plane
        out = tensor[:, plane]
        np.subtract(pictures[..., source], np.float32(declared["mean"][plane]), out=out, dtype=np.float32)
        np.multiply(out, np.float32(declared["scale"][plane]), out=out)
    return tensor


def infer(
    runtime: Any, pictures: np.ndarray[Any, Any], declared: dict[str, Any]
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the outputs of all pictures by name, [count, ...]."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    for start in range(0, len(pictures), runtime.batch):
        part = pictures[start : start + runtime.batch]
        several = len(part)
        if several < runtime.batch:
            black = np.zeros((runtime.batch - several, *part.shape[1:]), part.dtype)
            part = np.concatenate([part, black])
        # A board's Python may be 3.7, whose zip has no `strict`.
        for name, values in zip(runtime.outputs, runtime.run(to_tensor(part, declared))):  # noqa: B905
            if len(values) != runtime.batch:
                sys.exit(f"output {name} mixes the pictures of a batch: {values.shape}")
            if name not in found:
                kind = np.float16 if declared.get("half") else np.float32
                found[name] = np.empty((len(pictures), *values.shape[1:]), kind)
            found[name][start : start + several] = values[:several]
        for place in range(several):
            say("done", start + place + 1)
    return found


def main() -> None:
    """Run and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runtime", choices=sorted(RUNTIMES))
    parser.add_argument("model")
    parser.add_argument("--declared", required=True)
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    with open(given.declared, encoding="utf-8") as stream:  # noqa: PTH123 (no pathlib for one file)
        declared = json.load(stream)
    pictures = np.load(given.pictures, mmap_mode="r")
    runtime = RUNTIMES[given.runtime](given.model, given.threads, bool(declared.get("exact")))
    say("facekiln infer 1")
    say("runtime", given.runtime, runtime.version)
    say("python", platform.python_version())
    say("machine", platform.machine())
    say("threads", given.threads)
    say("batch", runtime.batch)
    found: dict[str, Any] = infer(runtime, pictures, declared)
    np.savez(given.output, **found)
    say("end", len(pictures))


if __name__ == "__main__":
    main()
