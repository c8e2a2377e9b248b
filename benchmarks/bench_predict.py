"""Pictures per second of `facekiln predict` per backend, against a bare onnxruntime loop.

    python benchmarks/bench_predict.py --results results --model retinaface --size 640 [--images FOLDER]

The bare loop is what one would write without us: cv2.imread, cv2.resize, subtract the mean, `session.run`
with two threads; it finds no faces. `bare` has default options, whose threads spin while they wait, `bare
quiet` does not spin, which is better on a machine that has other work. Ours reads, checks, resizes, runs,
decodes and suppresses at score 0.02, on the same files. Every turn runs all pictures through each loop in
turn, so that whatever else the machine does meets all of them; the ratio is the median over the turns.
Artifacts that are not below the results folder are left out; SOPHON's C model runs only where `--backends`
names it, as it takes seconds a picture.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

# As `facekiln predict` sets it: OpenMP's threads would spin against the thread that reads pictures.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np

from facekiln.ahead import ahead
from facekiln.config import Config, Model, load_config
from facekiln.data.pictures import picture_names, pictures
from facekiln.data.sample import Sample, sample_of
from facekiln.parity.executors import Stage
from facekiln.predictions.names import BACKENDS
from facekiln.predictions.one import OnePicture, prepare
from facekiln.predictions.run import open_for
from facekiln.predictions.settings import Inference, inference_of

THREADS = 2
ARTIFACTS = {
    "torch": "checkpoints/{model}.pth",
    "torchscript": "torchscript/{model}_{size}.pt",
    "onnxruntime": "onnx/{model}_{size}.onnx",
    "caffe-opencv": "caffe/{model}_{size}.caffemodel",
    "caffe-mnn": "caffe/{model}_{size}.caffemodel",
    "nnie-emulator": "nnie/{model}_{size}.wk",
    "nnie-emulator int16": "nnie/{model}_{size}_int16.wk",
    **{
        f"sophon-{how} {chip} {precision}": f"sophon/{chip}/{{model}}_{{size}}_{precision}_1b.bmodel"
        for how in ("twin", "cmodel")
        for chip in ("bm1684", "bm1684x", "bm1688", "cv186x")
        for precision in ("fp32", "fp16", "int8")
    },
}
# Seconds a picture: only where it is asked for.
SLOW = "sophon-cmodel"


def bare_loop(artifact: Path, model: Model, label: str, *, spin: bool) -> Callable[[list[Path]], None]:
    """Return a function that runs pictures through onnxruntime, one after the other."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
    height, width = model.size(label)
    mean, scale = np.float32(model.input.mean), np.float32(model.input.scale)
    name = session.get_inputs()[0].name

    def run(paths: list[Path]) -> None:
        for path in paths:
            picture = cv2.resize(cv2.imread(str(path)), (width, height))
            if model.input.colour == "rgb":
                picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            tensor = (picture.astype(np.float32) - mean) * scale
            session.run(None, {name: np.ascontiguousarray(tensor.transpose(2, 0, 1)[None])})

    return run


def our_loop(stage: Stage, model: Model, inference: Inference) -> Callable[[list[Path]], None]:
    """Return a function that runs pictures as `facekiln predict` does, short of writing."""
    one = OnePicture(stage, model, inference)

    def run(paths: list[Path]) -> None:
        samples: list[Sample] = [sample_of(path.name, path, np.zeros((0, 4))) for path in paths]
        for prepared in ahead(lambda sample: prepare(sample, model, inference), samples):
            one(prepared)

    return run


def decode_ms(stage: Stage, model: Model, inference: Inference, paths: list[Path]) -> dict[str, float]:
    """Return milliseconds of decoding and suppressing one picture's outputs, and how many boxes that left."""

    class Kept:
        name, precision, emulated = stage.name, stage.precision, stage.emulated

        def __init__(self, outputs: dict[str, Any]) -> None:
            self.outputs = outputs

        def run(self, _: Any) -> dict[str, Any]:
            return self.outputs

    times, boxes = [], []
    for path in paths:
        prepared = prepare(sample_of(path.name, path, np.zeros((0, 4))), model, inference)
        one = OnePicture(Kept(stage.run(prepared.inputs[0])), model, inference)  # type: ignore[arg-type]
        one(prepared)
        start = time.perf_counter()
        found = one(prepared)
        times.append(1000 * (time.perf_counter() - start))
        boxes.append(len(found.scores))
    return {
        "median_ms": round(statistics.median(times), 2),
        "worst_ms": round(max(times), 2),
        "median_boxes": statistics.median(boxes),
    }


def measure(
    results: Path,
    model: Model,
    label: str,
    paths: list[Path],
    config: Config,
    turns: int,
    backends: list[str],
) -> Any:
    """Time all in turn."""
    files = {key: results / form.format(model=model.name, size=label) for key, form in ARTIFACTS.items()}
    bare = files["onnxruntime"]
    if not bare.is_file():
        sys.exit(f"{bare} is not here: snakemake --cores 2 {bare}")
    loops = {
        "bare": bare_loop(bare, model, label, spin=True),
        "bare quiet": bare_loop(bare, model, label, spin=False),
    }
    sized = replace(config, inference={"default": {"size": label}})
    decode = {}
    for key, path in files.items():
        backend = key.split(" ")[0]
        if not path.is_file() or backend not in backends:
            continue
        built_for = None if BACKENDS[backend].folder == "checkpoints" else label
        inference = inference_of("default", model, sized, label=built_for)
        stage = open_for(path, model, config, backend)
        loops[key] = our_loop(stage, model, inference)
        if key == "onnxruntime":
            decode = decode_ms(stage, model, inference, paths)
    for loop in loops.values():
        loop(paths[:2])
    seconds: dict[str, list[float]] = {key: [] for key in loops}
    for _ in range(turns):
        for key, loop in loops.items():
            start = time.perf_counter()
            loop(paths)
            seconds[key].append(time.perf_counter() - start)
    bares = seconds["bare"], seconds["bare quiet"]
    return {
        "model": model.name,
        "size": list(model.size(label)),
        "pictures": len(paths),
        "turns": turns,
        "decode_and_nms": decode,
        "images_per_second": {
            key: float(f"{len(paths) / statistics.median(values):.3g}") for key, values in seconds.items()
        },
        "time_over_faster_bare_loop": {
            key: round(statistics.median(a / min(b) for a, *b in zip(values, *bares, strict=True)), 2)
            for key, values in seconds.items()
        },
    }


def main() -> None:
    """Parse arguments, pin the process, measure and print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument("--model", default="retinaface")
    parser.add_argument("--size", default="640", metavar="LABEL")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="default: drawn scenes of 768x1024")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--cpus", default="0,1", help="processors to run on (default 0,1)")
    parser.add_argument("--backends", nargs="+", choices=list(BACKENDS), default=sorted({*BACKENDS} - {SLOW}))
    parser.add_argument("--config", type=Path, default=Path("config"), metavar="FOLDER")
    options = parser.parse_args()
    os.sched_setaffinity(0, {int(cpu) for cpu in options.cpus.split(",")})
    cv2.setNumThreads(THREADS)
    config = load_config(options.config)
    model = config.model(options.model)
    with tempfile.TemporaryDirectory() as folder:
        if options.images:
            names = picture_names(options.images)
            every = max(1, len(names) // options.count)
            paths = [options.images / name for name in names[::every][: options.count]]
        else:
            paths = []
            for name, image in pictures("procedural", options.count, 90, (768, 1024)):
                paths.append(Path(folder) / f"{name}.jpg")
                cv2.imwrite(str(paths[-1]), image)
        report = measure(options.results, model, options.size, paths, config, options.turns, options.backends)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
