"""Latency of our ncnn files against upstream's, int8 and fp16 against fp32, and what making them costs.

    python benchmarks/bench_ncnn.py --files results/ncnn [--onnx results/onnx] [--cpus 0,1] [--threads 2]
    [--turns 60]

Upstream's files are looked for by name in $FACEKILN_MIRROR: RFB-320 and slim_320
(Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB, ncnn/data), face
(biubug6/Face-Detector-1MB-with-landmark, Face_Detector_ncnn/model), retina and mnet-opt
(Charrin/RetinaFace-Cpp, Demo/ncnn/models and SpeedTest/ncnn), each .param with its .bin. All of a row's
files run in one process, in the same ncnn, on the same noise, one after the other in each turn; all outputs
are extracted. A ratio is the median over turns of one file's time over the other's, with its 95 % interval;
of processor time, which other work on the machine disturbs less, it is given too. `alike_to_upstream` takes
the one of ours that stores its weights as theirs does: mnet-opt has half floats. Making is timed as well:
pnnx alone and the whole `ncnn convert` with its proof, our writer, int8 from a table, and calibration
pictures per second of `quant ranges`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Threads that spin are what a board's own benchmark has; on a busy machine set it to PASSIVE.
os.environ.setdefault("OMP_WAIT_POLICY", "ACTIVE")

import numpy as np

# Ours -> upstream's files of the same network.
PAIRS = {
    "ulfd_rfb_320_320": ("RFB-320",),
    "ulfd_slim_320_320": ("slim_320",),
    "rfb_1mb_320": ("face",),
    "retinaface_640": ("retina", "mnet-opt"),
}
ROOT = Path(__file__).resolve().parent.parent


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def latency(
    paths: dict[str, Path], shape: tuple[int, ...], threads: int, turns: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the milliseconds of each file in each turn, on the clock and of processor time."""
    from facekiln.chips.ncnn.runtime import NcnnNet

    nets = {name: NcnnNet(path, threads=threads) for name, path in paths.items()}
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    runs = {name: (lambda net=net: net.run({net.inputs[0]: noise})) for name, net in nets.items()}
    for run in runs.values():
        for _ in range(3):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    spent: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(turns):
        # Who is first changes, so that what one leaves in the caches is not always the same one's gift.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begun = time.process_time()
            times[name].append(1000 * seconds(runs[name]))
            spent[name].append(1000 * (time.process_time() - begun))
    return times, spent


def median_of(values: list[float]) -> dict[str, Any]:
    """Return the median and its 95 % interval, by order statistics: no shape of the noise is supposed."""
    ranked, half = sorted(values), 0.98 * math.sqrt(len(values))
    low, high = (len(values) - 1) / 2 - half, (len(values) - 1) / 2 + half
    interval = [ranked[max(0, math.floor(low))], ranked[min(len(ranked) - 1, math.ceil(high))]]
    return {
        "median": round(statistics.median(values), 3),
        "interval": [round(value, 3) for value in interval],
    }


def row(
    stem: str, upstream: tuple[str, ...], options: argparse.Namespace, mirror: Path
) -> dict[str, Any] | None:
    """Return the figures of one model, None where a file is missing."""
    from facekiln.chips.ncnn.model import read_model
    from facekiln.config import load_config
    from facekiln.targets import model_and_size_of

    ours = {
        kind: options.files / f"{stem}{ending}.param"
        for kind, ending in (("fp32", ""), ("fp16", "_fp16"), ("int8", "_int8"))
    }
    paths = {kind: path for kind, path in ours.items() if path.is_file()}
    theirs = {name: mirror / f"{name}.param" for name in upstream if (mirror / f"{name}.param").is_file()}
    if "fp32" not in paths:
        return None
    config = load_config(ROOT / "config")
    name, label = model_and_size_of(paths["fp32"], config)
    shape = (1, 3, *config.model(name).size(label))
    times, spent = latency({**paths, **theirs}, shape, options.threads, options.turns)
    medians = {key: round(statistics.median(value), 2) for key, value in times.items()}

    def ratio(one: str, other: str, of: dict[str, list[float]] = times) -> dict[str, Any]:
        return median_of([a / b for a, b in zip(of[one], of[other], strict=True)])

    # A file that stores half floats is set against ours that does: memory is read at another pace.
    alike = {key: "fp16" if read_model(path).storage() == "fp16" else "fp32" for key, path in theirs.items()}
    pairs = {key: kind for key, kind in alike.items() if kind in paths}
    return {
        "milliseconds": medians,
        "stored_alike": alike,
        "alike_to_upstream": {key: ratio(kind, key) for key, kind in pairs.items()},
        "alike_to_upstream_processor_time": {key: ratio(kind, key, spent) for key, kind in pairs.items()},
        "fp32_to_upstream": {key: ratio("fp32", key) for key in theirs},
        "fp32_to_upstream_processor_time": {key: ratio("fp32", key, spent) for key in theirs},
        "to_fp32": {kind: ratio(kind, "fp32") for kind in paths if kind != "fp32"},
        "bytes": {key: path.with_suffix(".bin").stat().st_size for key, path in {**paths, **theirs}.items()},
    }


def making(stem: str, options: argparse.Namespace) -> dict[str, float] | None:
    """Return the seconds of making one model's files, and calibration pictures per second."""
    from facekiln.chips.ncnn import pnnx
    from facekiln.chips.ncnn.build_file import convert_file
    from facekiln.chips.ncnn.model import read_model, write_model
    from facekiln.chips.ncnn.quantise import quantise
    from facekiln.chips.ncnn.settings import load_settings
    from facekiln.chips.ncnn.table import make_table
    from facekiln.config import load_config
    from facekiln.graph.export import load_onnx
    from facekiln.quant.ranges import measure_ranges
    from facekiln.targets import model_and_size_of

    source = options.onnx / f"{stem}.sim.onnx"
    if not source.is_file():
        return None
    config = load_config(ROOT / "config")
    name, label = model_and_size_of(source, config)
    model = config.model(name)
    random = np.random.default_rng(0)
    pictures = [random.standard_normal((1, 3, *model.size(label))).astype(np.float32) for _ in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{stem}.param"
        settings = load_settings(ROOT / "config")
        figures = {
            "pnnx_s": seconds(lambda: pnnx.convert(source)),
            "convert_s": seconds(lambda: convert_file(source, model, label, settings, path)),
        }
        made = read_model(path)
        figures["write_s"] = seconds(lambda: write_model(path, made))
        thresholds = {layer.name: 1.0 for layer in made.graph}
        figures["quantise_and_write_s"] = seconds(
            lambda: write_model(path, quantise(made, make_table(made, thresholds)).model)
        )
    spent = seconds(lambda: measure_ranges(load_onnx(source), pictures, percentile=99.99))
    figures["calibration_pictures_per_s"] = len(pictures) / spent
    return {key: round(value, 4) for key, value in figures.items()}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, default=Path("results/ncnn"))
    parser.add_argument("--onnx", type=Path, default=Path("results/onnx"))
    parser.add_argument("--cpus", default="0,1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--models", nargs="*", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--no-making", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {int(cpu) for cpu in options.cpus.split(",")})
    mirror = Path(os.environ.get("FACEKILN_MIRROR", "."))
    from importlib import metadata

    report: dict[str, Any] = {
        "ncnn": metadata.version("ncnn"),
        "pnnx": metadata.version("pnnx"),
        "threads": options.threads,
        "cpus": options.cpus,
        "turns": options.turns,
        "wait_policy": os.environ["OMP_WAIT_POLICY"],
        "load": os.getloadavg()[0],
        "models": {},
    }
    for stem in options.models:
        figures = row(stem, PAIRS[stem], options, mirror)
        if figures is None:
            report["models"][stem] = f"{options.files / stem}.param is missing"
            continue
        if not options.no_making:
            figures["making"] = making(stem, options)
        report["models"][stem] = figures
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
