"""Runs in tpu_mlir's own Python (3.10, its numpy): what the tensors of a .mlir reach over pictures.

    calibrate_child.py JOB.json            (by `tool.script_command`)

JOB: {"mlir", "pictures": [.npz, ...], "histograms": [names], "bins", "output"}. Writes an .npz of `names`,
`lows` and `highs` (float64, one per tensor) and `counts` (int64 [histograms, 2 * bins]), values in equal bins
over [-top, top] of each. Each picture is read once per pass; a batch is filled with copies of the last, which
are not counted. Standard library and numpy only, besides the tool.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


def batches(pictures: Sequence[str], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (pictures that count, float32 [size, ...]) over files of one array each, [1, ...]."""
    for start in range(0, len(pictures), size):
        some = []
        for path in pictures[start : start + size]:
            with np.load(path) as held:
                some.append(held[held.files[0]])
        real = len(some)
        some += [some[-1]] * (size - real)
        yield real, np.ascontiguousarray(np.concatenate(some, axis=0), dtype=np.float32)


def histogram(values: np.ndarray, top: float, bins: int) -> np.ndarray:
    """Return int64 [2 * bins] counts of values in equal bins over [-top, top]; all zero where top is 0."""
    if not (0 < top < np.inf):
        return np.zeros(2 * bins, np.int64)
    edge = float(np.nextafter(np.float32(1), np.float32(2)))
    return np.histogram(np.clip(values.ravel() / np.float32(top), -1, 1), 2 * bins, (-1.0, edge))[0]


def run(job: dict[str, Any], module: Any) -> dict[str, np.ndarray]:
    """Run a loaded module over a job's pictures, once or twice, and return what is written."""
    (source,) = module.input_names
    names = list(module.all_tensor_names)
    size = module.get_tensor(source).shape[0]
    wanted = list(job["histograms"])
    total = len(job["pictures"]) * (2 if wanted else 1)
    done = 0

    def values(name: str, real: int) -> np.ndarray:
        found = module.get_tensor(name)
        return found[:real] if found.ndim and found.shape[0] == size else found

    def through() -> Iterator[int]:
        nonlocal done
        for real, batch in batches(job["pictures"], size):
            module.set_tensor(source, batch, batch.shape)
            module.invoke(True)
            yield real
            done += real
            sys.stdout.write(f"facekiln {done}/{total}\n")
            sys.stdout.flush()

    lows, highs = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for real in through():
        for at, name in enumerate(names):
            found = values(name, real)
            # NaN stays: minimum and maximum hand it on.
            lows[at] = np.minimum(lows[at], found.min())
            highs[at] = np.maximum(highs[at], found.max())
    counts = np.zeros((len(wanted), 2 * job["bins"]), np.int64)
    if wanted:
        tops = {name: max(abs(low), abs(high)) for name, low, high in zip(names, lows, highs)}  # noqa: B905
        for real in through():
            for at, name in enumerate(wanted):
                counts[at] += histogram(values(name, real), tops[name], job["bins"])
    return {"names": np.array(names), "lows": lows, "highs": highs, "counts": counts}


def main(path: str) -> None:
    """Load the .mlir of a job in its folder, which its weights are named in, and write the result."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    pymlir = import_module("pymlir")
    pymlir.set_mem_mode("value_mem")
    network = Path(job["mlir"])
    os.chdir(network.parent)
    module = pymlir.module()
    module.load(network.name)
    found: Any = run(job, module)
    np.savez(job["output"], **found)


if __name__ == "__main__":
    main(sys.argv[1])
