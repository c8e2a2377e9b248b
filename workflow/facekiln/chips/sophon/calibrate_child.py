"""Runs in tpu_mlir's own Python (3.10, its numpy): what the tensors of a .mlir reach over pictures.

    python calibrate_child.py JOB.json

JOB: {"mlir", "pictures": [.npz, ...], "histograms": [names], "bins", "output"}. Writes an .npz of `names`,
`lows` and `highs` (float64, one per tensor) and `counts` (int64 [histograms, 2 * bins]), values in equal bins
over [-top, top] of each. Each picture is read once per pass; a batch is filled with following pictures, and
what fills up the last is not counted. Standard library and numpy only, besides the tool.
"""

import json
import os
import sys

_AGAIN = "FACEKILN_CALIBRATE_CHILD"


def _tell(done, total):
    print("facekiln %d/%d" % (done, total), flush=True)


def _batches(pictures, size):
    import numpy as np

    for start in range(0, len(pictures), size):
        some = []
        for path in pictures[start : start + size]:
            with np.load(path) as held:
                some.append(held[held.files[0]])
        real = len(some)
        some += [some[-1]] * (size - real)
        yield real, np.ascontiguousarray(np.concatenate(some, axis=0), dtype=np.float32)


def main(job):
    import numpy as np
    import pymlir

    pymlir.set_mem_mode("value_mem")
    os.chdir(os.path.dirname(os.path.abspath(job["mlir"])))
    module = pymlir.module()
    module.load(os.path.basename(job["mlir"]))
    (source,) = module.input_names
    names = list(module.all_tensor_names)
    size = module.get_tensor(source).shape[0]
    pictures = job["pictures"]
    total = 2 * len(pictures) if job["histograms"] else len(pictures)

    def values(name, real):
        found = module.get_tensor(name)
        return found[:real] if found.ndim and found.shape[0] == size else found

    lows = np.full(len(names), np.inf)
    highs = np.full(len(names), -np.inf)
    done = 0
    for real, batch in _batches(pictures, size):
        module.set_tensor(source, batch, batch.shape)
        module.invoke(True)
        for at, name in enumerate(names):
            found = values(name, real)
            lows[at], highs[at] = min(lows[at], found.min()), max(highs[at], found.max())
            if not np.isfinite(found).all():
                lows[at] = highs[at] = np.nan
        done += real
        _tell(done, total)
    bins = job["bins"]
    counts = np.zeros((len(job["histograms"]), 2 * bins), np.int64)
    tops = [max(abs(lows[names.index(name)]), abs(highs[names.index(name)])) for name in job["histograms"]]
    if job["histograms"]:
        edge = float(np.nextafter(np.float32(1), np.float32(2)))
        for real, batch in _batches(pictures, size):
            module.set_tensor(source, batch, batch.shape)
            module.invoke(True)
            for at, (name, top) in enumerate(zip(job["histograms"], tops)):
                if top > 0 and np.isfinite(top):
                    flat = np.clip(values(name, real).ravel() / np.float32(top), -1, 1)
                    counts[at] += np.histogram(flat, 2 * bins, (-1.0, edge))[0]
            done += real
            _tell(done, total)
    np.savez(job["output"], names=np.array(names), lows=lows, highs=highs, counts=counts)


if __name__ == "__main__":
    # Importing the package sets the library path, which the loader reads when a process begins.
    import tpu_mlir  # noqa: F401

    if _AGAIN not in os.environ:
        os.environ[_AGAIN] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    with open(sys.argv[1], encoding="utf-8") as stream:
        main(json.load(stream))
