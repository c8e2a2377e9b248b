"""CPU time of `facekiln eval wider` as a ratio to the well-known Python port, on the same files in one run.

    python benchmarks/bench_wider_ap.py --port FOLDER --truth FOLDER [--set NAME=FOLDER ...] [--cpus 0,1]

--port is a checkout of the port with its extension built as its README says:
wondervictor/WiderFace-Evaluation, or widerface_evaluate/ of biubug6/Pytorch_Retinaface. Its evaluation.py is
run as it is; `np.float` and the IPython import, which today's numpy and most machines lack, are lent to it.
--truth holds the four wider_*_val.mat. Sets: `small` is made here, 291,175 boxes as test_widerface.py writes
them (whole pixels and all digits of a float32 score); `large`, 500 to 1000 boxes a picture with one decimal,
is too; --set names folders of your own instead.

Ours runs before and after the port; medians count. Both are whole processes, so that start-up and reading are
in, and the printed figures must be the same to the last digit. `in memory` is the evaluation alone, of
detections that are already arrays.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from facekiln.errors import KilnError
from facekiln.evaluation.read_text import read_text
from facekiln.evaluation.wider import evaluate
from facekiln.evaluation.wider_truth import Truth, read_truth

_LEND = """
import runpy, sys, types
import numpy
numpy.float = float
sys.modules["IPython"] = types.SimpleNamespace(embed=None)
sys.path.insert(0, sys.argv[1])
sys.argv = ["evaluation.py", *sys.argv[2:]]
runpy.run_path(sys.path[0] + "/evaluation.py", run_name="__main__")
"""
SMALL_BOXES = 291_175


def make_set(truth: Truth, folder: Path, large: bool) -> int:
    """Write a seeded set of result files; return how many boxes it has.

    Each face is found up to three times with some error, larger faces more surely; the rest is false.
    """
    random = np.random.default_rng(20260101 if large else 7)
    pictures = len(truth.images)
    wanted = random.integers(500, 1001, pictures) if large else np.full(pictures, SMALL_BOXES // pictures)
    if not large:
        wanted[: SMALL_BOXES - int(wanted.sum())] += 1
    for at, name in enumerate(truth.images):
        faces = truth.boxes[:, truth.starts[at] : truth.starts[at + 1]].T
        side = np.sqrt(np.maximum(faces[:, 2] * faces[:, 3], 1))
        chance = 1 / (1 + np.exp(-(np.log2(side) - 3.6) * 1.8))
        index = np.repeat(np.arange(len(faces)), random.binomial(3, np.clip(chance, 0.02, 0.98)))
        index = index[: wanted[at]]
        error = random.normal(0, 0.11, (len(index), 4)) * np.maximum(side[index], 4)[:, None]
        false = int(wanted[at]) - len(index)
        places = np.stack([random.uniform(0, 1000, false), random.uniform(0, 700, false)], axis=1)
        boxes = np.concatenate(
            [
                faces[index] + error,
                np.concatenate([places, np.exp(random.uniform(1.5, 5.5, (false, 2)))], axis=1),
            ]
        )
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
        scores = np.concatenate(
            [random.beta(5, 2, len(index)) * chance[index], 0.02 + 0.6 * random.beta(0.6, 6, false)]
        ).clip(0.0201, 0.9999)
        order = np.argsort(-scores, kind="stable")
        if large:
            rows = [
                " ".join(f"{value:.1f}" for value in box) + f" {score:.6f}"
                for box, score in zip(boxes[order].tolist(), scores[order].tolist(), strict=True)
            ]
        else:
            rows = [
                " ".join(map(str, [*box, score]))
                for box, score in zip(
                    boxes[order].astype(int).tolist(), scores[order].astype(np.float32), strict=True
                )
            ]
        path = folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([path.stem, str(len(rows)), *rows]) + "\n")
    return int(wanted.sum())


def run(command: list[str]) -> tuple[float, float, str]:
    """Run a command; return CPU seconds, peak megabytes and the result block that it prints."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        process = subprocess.Popen(command, stdout=out, stderr=error)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        error.seek(0)
        text = out.read().decode()
        if process.returncode:
            sys.exit(f"{' '.join(command[:3])} ... failed:\n{error.read().decode()[-2000:]}")
    block = [line for line in text.splitlines() if "Val AP:" in line]
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, "\n".join(block)


def measure(name: str, folder: Path, truth: Path, port: Path, cache: Path, repeats: int) -> dict[str, object]:
    """Measure one set."""
    ours = [
        *(str(Path(sys.executable).with_name("facekiln")), "eval", "wider", str(folder)),
        *("--truth", str(truth), "--cache", str(cache)),
    ]
    reference = [sys.executable, "-W", "ignore", "-c", _LEND, str(port), "-p", str(folder), "-g", str(truth)]
    run(ours)  # reads the files once, so that neither side meets a cold disk
    before = [run(ours) for _ in range(repeats)]
    theirs = run(reference)
    after = [run(ours) for _ in range(repeats)]
    if any(result[2] != theirs[2] for result in before + after):
        sys.exit(f"{name}: figures differ:\n{theirs[2]}\n{before[0][2]}")
    cpu = statistics.median(result[0] for result in before + after)
    known = read_truth(truth, cache)
    detections = read_text(folder, known)
    seconds = []
    for _ in range(2 * repeats):
        start = time.process_time()
        evaluate(detections, known, "port")
        seconds.append(time.process_time() - start)
    inner = statistics.median(seconds)
    return {
        "set": name,
        "boxes": int(detections.table.shape[1]),
        "port_cpu_s": round(theirs[0], 2),
        "facekiln_cpu_s": round(cpu, 3),
        "ratio": round(theirs[0] / cpu, 1),
        "in_memory_cpu_s": round(inner, 3),
        "in_memory_ratio": round(theirs[0] / inner, 1),
        "port_peak_mb": round(theirs[1]),
        "facekiln_peak_mb": round(max(result[1] for result in before + after)),
        "figures": theirs[2].split("\n"),
    }


def main() -> None:
    """Measure, and print a line of JSON per set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--truth", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=FOLDER", dest="sets")
    parser.add_argument("--only", choices=["small", "large"], help="of the two sets that are made here")
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours before and after the port's")
    parser.add_argument("--cpus", default="0,1", help="pin to these cores; empty: do not pin")
    options = parser.parse_args()
    if not (options.port / "evaluation.py").is_file():
        parser.error(f"{options.port} has no evaluation.py")
    if options.cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(cpu) for cpu in options.cpus.split(",")})
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        try:
            truth = read_truth(options.truth, cache)
        except KilnError as error:
            parser.error(str(error))
        sets = dict(entry.split("=", 1) for entry in options.sets)
        if not sets:
            for kind in ["small", "large"] if options.only is None else [options.only]:
                make_set(truth, Path(scratch) / kind, kind == "large")
                sets[kind] = str(Path(scratch) / kind)
        for name, folder in sets.items():
            result = measure(name, Path(folder), options.truth, options.port, cache, options.repeats)
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
