"""Time of the ONNX -> Caffe converter as a ratio to loading and simplifying the same ONNX file.

    python benchmarks/bench_caffe_convert.py [--cpus 0,1] [--repeats 20] [--size 640] [--onnx FILE]

Converting is: read the ONNX bytes, legalise, convert, fold, check, and make the bytes of both Caffe files.
The yardsticks are `onnx.load_from_string` alone and the same followed by onnxsim, on the same bytes. Without
--onnx the network is RetinaFace mobilenet0.25 with fresh weights, exported and simplified as the workflow
does (needs torch); time depends on the graph, not the values. The four are timed in turn; medians count.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxsim

from facekiln.caffe.convert import convert
from facekiln.caffe.writer import caffemodel_bytes, prototxt_text

ROOT = Path(__file__).resolve().parent.parent


def untrained_onnx(size: int) -> bytes:
    """Return RetinaFace with fresh weights at size x size, exported and simplified."""
    import torch

    from facekiln.config import load_config
    from facekiln.graph.export import export_onnx
    from facekiln.graph.simplify import simplify
    from facekiln.models.registry import build_network

    torch.manual_seed(0)
    model = load_config(ROOT / "config").model("retinaface")
    model = dataclasses.replace(model, sizes={str(size): (size, size)})
    return simplify(export_onnx(build_network(model).eval(), model, str(size), 13)).SerializeToString()


def convert_whole(data: bytes) -> int:
    """Convert ONNX bytes to the bytes of both Caffe files; return how many those are."""
    net = convert(onnx.load_from_string(data), name="bench").net
    return len(caffemodel_bytes(net)) + len(prototxt_text(net))


def simplify_whole(data: bytes) -> None:
    """Load and simplify."""
    onnxsim.simplify(onnx.load_from_string(data))


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Time, and print medians and ratios as a table and as one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpus", default="0,1", help="pin to these cores; empty: do not pin")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--onnx", type=Path, help="a simplified ONNX file to convert instead")
    options = parser.parse_args()
    if options.cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(cpu) for cpu in options.cpus.split(",")})
    data = options.onnx.read_bytes() if options.onnx else untrained_onnx(options.size)
    works: dict[str, Callable[[], object]] = {
        "onnx.load": lambda: onnx.load_from_string(data),
        "onnx.load + onnxsim": lambda: simplify_whole(data),
        "convert": lambda: convert(onnx.load_from_string(data), name="bench"),
        "convert + both files' bytes": lambda: convert_whole(data),
    }
    for work in works.values():
        work()
    turns = [{name: seconds(work) for name, work in works.items()} for _ in range(options.repeats)]
    medians = {name: statistics.median(turn[name] for turn in turns) for name in works}
    whole, simplified = medians["convert + both files' bytes"], medians["onnx.load + onnxsim"]
    print(f"{len(data) / 1e6:.2f} MB of ONNX, {options.repeats} turns, cores {options.cpus or 'not pinned'}")
    for name, median in medians.items():
        print(f"{name:30} {median * 1e3:9.2f} ms   {median / whole:8.3f} x of converting")
    print(json.dumps({"bench": "caffe_convert", "ratio_to_onnxsim": round(whole / simplified, 4)}))


if __name__ == "__main__":
    main()
