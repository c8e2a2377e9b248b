"""What making tmfiles costs: converting, quantising, writing; file sizes; calibration pictures per second.

    python benchmarks/bench_tengine.py --onnx results/onnx [--cpus 0,1] [--turns 5] [--tools ~/tengine/tools]

Every `*.sim.onnx` below --onnx is taken whose name is a model and a size of the config. `convert_s` is ONNX
in memory to the bytes of an fp32 tmfile, `quantise_s` fp32 file and scales to the bytes of an int8 one with
evened-out weights, `command_s` the whole of `facekiln tengine convert` with its checks; medians over the
turns, and beside the first two the processor's time, which other work on the machine disturbs less.
Calibration is measured on noise, by `minmax` (one pass) and `mse` (two). With --tools, a folder of your
convert_tool, its own time on the same file is printed too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
# Goal: nothing slower than this per model.
MOST_SECONDS = 1.0


def seconds(work: Callable[[], object], turns: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the median time of some calls."""
    times = []
    for _ in range(turns):
        start = clock()
        work()
        times.append(clock() - start)
    return statistics.median(times)


def row(source: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one model."""
    from facekiln.chips.tengine.build_file import convert_file
    from facekiln.chips.tengine.convert import convert
    from facekiln.chips.tengine.equalise import equalise
    from facekiln.chips.tengine.format import INT8, UINT8
    from facekiln.chips.tengine.quantise import quantise
    from facekiln.chips.tengine.ranges import measure_ranges
    from facekiln.chips.tengine.scales import scales_of
    from facekiln.chips.tengine.settings import load_settings
    from facekiln.chips.tengine.writer import tmfile_bytes
    from facekiln.config import load_config
    from facekiln.graph.export import load_onnx
    from facekiln.targets import model_and_size_of

    config = load_config(ROOT / "config")
    name, label = model_and_size_of(source, config)
    model, proto = config.model(name), load_onnx(source)
    random = np.random.default_rng(0)
    feeds = [
        random.standard_normal((1, 3, *model.size(label))).astype(np.float32) for _ in range(options.pictures)
    ]
    graph = convert(proto).graph
    spent = {
        algorithm: seconds(
            lambda kind=kind: measure_ranges(graph, lambda: feeds, len(feeds), histograms=kind), 1
        )
        for algorithm, kind in (("minmax", None), ("mse", "ours"))
    }
    evened = equalise(graph)[0]
    ranges = measure_ranges(evened, lambda: feeds, len(feeds), histograms="ours")
    scales = {dtype: scales_of(evened, ranges, dtype, algorithm="mse") for dtype in (UINT8, INT8)}

    def quantised(dtype: int) -> bytes:
        return tmfile_bytes(quantise(equalise(graph)[0], scales[dtype], dtype))

    with tempfile.TemporaryDirectory() as folder:
        path, settings = Path(folder) / "net.tmfile", load_settings(ROOT / "config")
        figures: dict[str, Any] = {
            "convert_s": seconds(lambda: tmfile_bytes(convert(proto).graph), options.turns),
            "convert_cpu_s": seconds(
                lambda: tmfile_bytes(convert(proto).graph), options.turns, time.process_time
            ),
            "quantise_s": seconds(lambda: quantised(INT8), options.turns),
            "quantise_cpu_s": seconds(lambda: quantised(INT8), options.turns, time.process_time),
            "scales_s": seconds(lambda: scales_of(evened, ranges, INT8, algorithm="mse"), 1),
            "command_s": seconds(lambda: convert_file(source, model, label, settings, path), options.turns),
        }
        if options.tools:
            figures["their_tools_s"] = theirs(source, Path(folder), options)
        figures["bytes"] = {
            "onnx": source.stat().st_size,
            "fp32": path.stat().st_size,
            "uint8": len(quantised(UINT8)),
            "int8": len(quantised(INT8)),
        }
    figures["calibration_pictures_per_s"] = {key: len(feeds) / value for key, value in spent.items()}
    return figures


def theirs(source: Path, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return the seconds of the user's own convert_tool."""
    command = [options.tools / "convert_tool", "-f", "onnx", "-m", source.resolve(), "-o", "their.tmfile"]
    return {
        "convert_tool": seconds(
            lambda: subprocess.run(command, cwd=folder, check=True, capture_output=True), options.turns
        )
    }


def rounded(value: Any) -> Any:
    """Round every float of nested figures to three significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value


def main() -> None:
    """Print the figures as JSON; exit status 1 where writing is slower than the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--onnx", type=Path, default=Path("results/onnx"))
    parser.add_argument("--cpus", default="0,1")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--tools", type=Path, help="a folder with your own convert_tool")
    options = parser.parse_args()
    os.sched_setaffinity(0, {int(cpu) for cpu in options.cpus.split(",")})
    report: dict[str, Any] = {
        "cpus": options.cpus,
        "turns": options.turns,
        "load": os.getloadavg()[0],
        "models": {},
    }
    sources = sorted(options.onnx.glob("*.sim.onnx"))
    if not sources:
        parser.error(
            f"{options.onnx} holds no *.sim.onnx: build some, e.g. snakemake results/onnx/M_S.sim.onnx"
        )
    for source in sources:
        report["models"][source.name.removesuffix(".sim.onnx")] = rounded(row(source, options))
    kinds = ("convert_s", "quantise_s")
    report["slowest_s"] = {kind: max(one[kind] for one in report["models"].values()) for kind in kinds}
    print(json.dumps(report, indent=2))
    if max(report["slowest_s"].values()) > MOST_SECONDS:
        raise SystemExit(f"slower than {MOST_SECONDS:g} s")


if __name__ == "__main__":
    main()
