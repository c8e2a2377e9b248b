"""Forward time of the quantised NNIE engine as a ratio to onnxruntime's float32 on the same network.

    python benchmarks/bench_nnie_engine.py [--cpus 0,1] [--repeats 30] [--network published|synthetic|wide]

The network is the published RetinaFace mnet.25 at 640 x 640 where $FACEKILN_MIRROR has it, else one of the
same kind (MobileNet 0.25 with three heads) with random weights; `wide` is that with ranges of hundreds, which
need larger tables. onnxruntime gets the same fused float network
with all its optimisations, on as many threads. The three are timed in turn, so that whatever else the machine
does meets all of them; the ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from facekiln.caffe.net import Layer, Net
from facekiln.caffe.reader import read_net
from facekiln.chips.nnie.engine.engine import Engine
from facekiln.chips.nnie.engine.graph import PlanGraph, input_name
from facekiln.chips.nnie.engine.plan import make_plan
from facekiln.chips.nnie.engine.ranges import measure_ranges

SIDE = 640
PAUSE_SECONDS = 0.02  # between turns


def synthetic_net(stem_scale: float) -> Net:
    """A MobileNet 0.25 trunk and three heads of box, landmark and score, with random weights.

    A stem scaled by 1/128 gives ranges like those of trained networks with BatchNorm (below 16); an unscaled
    one carries the pixels' 255 through the whole network.
    """
    rng = np.random.default_rng(0)
    layers: list[Layer] = []
    channels = {"data": 3}

    def conv(
        name: str, bottom: str, outputs: int, kernel: int, stride: int = 1, *, depthwise: bool = False
    ) -> str:
        inputs = 1 if depthwise else channels[bottom]
        scale = (2 / (inputs * kernel * kernel)) ** 0.5
        weights = rng.normal(0, scale, (outputs, inputs, kernel, kernel)).astype(np.float32)
        params = {
            "num_output": outputs,
            "kernel_size": [kernel],
            "stride": [stride],
            "pad": [kernel // 2],
            "group": outputs if depthwise else 1,
        }
        blobs = [weights, np.zeros(outputs, np.float32)]
        layers.append(Layer(name, "Convolution", [bottom], [name], params, blobs))
        channels[name] = outputs
        return name

    def relu(blob: str) -> str:
        layers.append(Layer(f"{blob}_relu", "ReLU", [blob], [blob]))
        return blob

    blob = relu(conv("stem", "data", 8, 3, 2))
    layers[0].blobs[0] *= np.float32(stem_scale)
    widths = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)]
    taken = []
    for place, (outputs, stride) in enumerate(widths):
        if stride == 2 and place > 3:
            taken.append(blob)
        blob = relu(conv(f"depth{place}", blob, channels[blob], 3, stride, depthwise=True))
        blob = relu(conv(f"point{place}", blob, outputs, 1))
    for level, source in enumerate([*taken, blob]):
        lateral = relu(conv(f"lateral{level}", source, 64, 1))
        joint = relu(conv(f"joint{level}", lateral, 64, 3))
        for kind, outputs in (("box", 8), ("landmark", 20), ("score", 4)):
            conv(f"{kind}{level}", joint, outputs, 1)
        layers.append(
            Layer(
                f"split{level}",
                "Reshape",
                [f"score{level}"],
                [f"split{level}"],
                {"shape": {"dim": [0, 2, -1, 0]}},
            )
        )
        layers.append(Layer(f"prob{level}", "Softmax", [f"split{level}"], [f"prob{level}"]))
    return Net("synthetic", {"data": [1, 3, SIDE, SIDE]}, layers)


def published_net() -> Net | None:
    """RetinaFace mnet.25 of nniefacelib, or None where there is no mirror."""
    root = Path(__file__).resolve().parent.parent
    folder = Path(os.environ.get("FACEKILN_MIRROR") or root.parent / "shared" / "mirror")
    pair = folder / "mnet25_nnie.prototxt", folder / "mnet25_nnie.caffemodel"
    return read_net(*pair) if all(path.is_file() for path in pair) else None


def float_runner(net: Net, data: np.ndarray, threads: int) -> Callable[[], object]:
    """Return onnxruntime's own forward of the fused float network."""
    import onnxruntime as ort

    graph = PlanGraph(make_plan(net, {}, 32), threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Its waiting threads spin during a run, which helps it, but not on into the others' turns.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    model = graph.graph.model(graph.outputs())
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {input_name("data", "float"): data})


def measure(net: Net, threads: int, repeats: int) -> dict[str, object]:
    """Time the three in turn and return medians in milliseconds and ratios."""
    pixels = np.random.default_rng(1).integers(0, 256, (1, 3, SIDE, SIDE)).astype(np.float32)
    data = {"data": pixels}
    ranges = measure_ranges(net, [data], threads=threads)
    runners = {"fp32": float_runner(net, pixels, threads)}
    build = {}
    for bits in (8, 16):
        start = time.perf_counter()
        engine = Engine(net, ranges, bits, threads)
        build[bits] = time.perf_counter() - start
        runners[f"{bits} bit"] = lambda engine=engine: engine.run(data)
    times: dict[str, list[float]] = {name: [] for name in runners}
    for run in runners.values():
        run()
    for _ in range(repeats):
        for name, run in runners.items():
            time.sleep(PAUSE_SECONDS)
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    return {
        "network": net.name,
        "threads": threads,
        "repeats": repeats,
        "milliseconds": {name: round(statistics.median(values), 2) for name, values in times.items()},
        "fastest": {name: round(min(values), 2) for name, values in times.items()},
        "ratio": {
            name: round(statistics.median(a / b for a, b in zip(values, times["fp32"], strict=True)), 2)
            for name, values in times.items()
        },
        "build_seconds": {f"{bits} bit": round(seconds, 2) for bits, seconds in build.items()},
    }


def main() -> None:
    """Parse arguments, pin the process, measure and print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpus", default="0,1", help="processors to run on; as many threads (default 0,1)")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument(
        "--network", choices=["published", "synthetic", "wide"], help="default: published if it is here"
    )
    options = parser.parse_args()
    cpus = {int(cpu) for cpu in options.cpus.split(",")}
    os.sched_setaffinity(0, cpus)
    net = published_net() if options.network in (None, "published") else None
    if net is None and options.network == "published":
        parser.error("the published network is not here: set FACEKILN_MIRROR")
    if net is None:
        net = synthetic_net(1.0 if options.network == "wide" else 1 / 128)
    print(json.dumps(measure(net, len(cpus), options.repeats), indent=2))


if __name__ == "__main__":
    main()
