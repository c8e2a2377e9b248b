"""The stand-ins: `python -m facekiln.boards.virtual.tools TOOL ARGUMENTS`, with the vendors' own arguments.

Each executes the artifact as often as it is told to (a warm-up run first) and prints its times in the
vendor's form: bmodels in SOPHON's C model, `.mm` in our emulator, tmfiles in our simulation, `.wk` in ours.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln import __version__
from facekiln.boards.virtual import forms
from facekiln.errors import KilnError
from facekiln.vision.preprocess import Unrounded

INFER = "infer"


def _timed(run: Callable[[], object], count: int) -> list[float]:
    """Return the milliseconds of each of so many runs, after one that is not counted."""
    run()
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        run()
        taken.append((time.perf_counter() - begun) * 1e3)
    return taken


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def bmrt_test(arguments: Sequence[str]) -> int:
    """Run a bmodel in the C model as `bmrt_test` would on its chip."""
    parser = argparse.ArgumentParser("bmrt_test", allow_abbrev=False)
    parser.add_argument("--bmodel", type=Path, required=True)
    parser.add_argument("--devid", type=int, default=0)
    parser.add_argument("--loopnum", type=int, default=1)
    parser.add_argument("--core_list", default="")
    options = parser.parse_args(list(arguments))
    from facekiln.chips.sophon.bmodel import read_bmodel
    from facekiln.chips.sophon.environment import environment_of
    from facekiln.chips.sophon.runtime import SophonRuntime
    from facekiln.chips.sophon.settings import load_settings
    from facekiln.config import load_config

    told = read_bmodel(options.bmodel)
    net = told.nets[0].name
    with SophonRuntime(options.bmodel, environment_of(load_settings(), load_config())) as runtime:
        listed = [(one.name, one.shape) for one in runtime.inputs]
        _say(
            forms.bmrt_head(
                net, listed, [(one.name, one.shape) for one in runtime.outputs], told.version, options.loopnum
            )
        )
        feed = {name: np.zeros(shape, np.float32) for name, shape in listed}
        for number in range(options.loopnum):
            begun = time.perf_counter()
            runtime.run(feed)
            _say(forms.bmrt_loop(net, number, max(1, round((time.perf_counter() - begun) * 1e6))))
    return 0


def mm_run(arguments: Sequence[str]) -> int:
    """Run an emulated `.mm` as `mm_run` would on its card."""
    parser = argparse.ArgumentParser("mm_run", allow_abbrev=False)
    parser.add_argument("--magicmind_model", type=Path, required=True)
    parser.add_argument("--batch_size", "--batch", type=int, default=1)
    parser.add_argument("--devices", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--duration", type=float, default=0, help="ms")
    parser.add_argument("--warmup", type=float, default=0, help="ms")
    parser.add_argument("--trace_time", default="host")
    options = parser.parse_args(list(arguments))
    from facekiln.chips.magicmind.runtime import MagicmindRuntime

    runtime = MagicmindRuntime(options.magicmind_model)
    height, width = runtime.told["size"]
    nhwc = runtime.told["input"] == "uint8_nhwc"
    dims = [options.batch_size, *((height, width, 3) if nhwc else (3, height, width))]
    feed = np.zeros(dims, np.uint8 if nhwc else np.float32)
    begun = time.perf_counter()
    taken = _timed(lambda: runtime.run(feed), options.iterations)
    wall = max(time.perf_counter() - begun, 1e-9)
    while (time.perf_counter() - begun) * 1e3 < options.duration:
        taken += _timed(lambda: runtime.run(feed), 1)
        wall = time.perf_counter() - begun
    path = str(options.magicmind_model)
    _say(forms.mm_run_report(path, dims, taken, wall, options.batch_size, options.threads))
    return 0


def tm_benchmark(arguments: Sequence[str]) -> int:
    """Run a tmfile in the simulation as `tm_benchmark` would; faults of a model end with status 0 there."""
    parser = argparse.ArgumentParser("tm_benchmark", allow_abbrev=False)
    parser.add_argument("-r", dest="loops", type=int, default=1)
    parser.add_argument("-t", dest="threads", type=int, default=1)
    parser.add_argument("-p", dest="cluster", type=int, default=0)
    parser.add_argument("-a", dest="mask", default="")
    parser.add_argument("-m", dest="model", type=Path, required=True)
    parser.add_argument("-i", dest="shape", required=True)
    parser.add_argument("-f", dest="kind", type=int, default=0)
    options = parser.parse_args(list(arguments))
    from facekiln.chips.tengine.simulate import Simulation

    _say(forms.tm_head(options.loops, options.threads))
    number, channels, width, height = map(int, options.shape.split(","))
    try:
        simulation = Simulation(options.model, threads=options.threads)
        wanted = simulation.graph.input_tensors()[0].dims or ()
        if wanted != (number, channels, height, width):
            raise KilnError("has another input", value=wanted, limit=(number, channels, height, width))
        feed = np.ones(wanted, np.float32)
        taken = _timed(lambda: simulation.run(feed), options.loops)
    except KilnError as error:
        sys.stderr.write(f"Tengine Benchmark: {error}\nALL TEST DONE.\n")
        return 0
    sys.stderr.write(forms.tm_result(options.model.stem[:20], taken))
    return 0


def nnie_forward(arguments: Sequence[str]) -> int:
    """Run an emulated `.wk`; print the driver's counters before, and after each forward pass."""
    parser = argparse.ArgumentParser("nnie_forward", allow_abbrev=False)
    parser.add_argument("model", type=Path)
    parser.add_argument("loops", type=int)
    options = parser.parse_args(list(arguments))
    from facekiln.chips.nnie.runtime import WkRuntime

    runtime = WkRuntime(options.model)
    picture = np.zeros((runtime.input.height, runtime.input.width, 3), np.uint8)
    _say(f"{forms.MARK}\n{forms.nnie_snapshot(0, 0, 0)}FACEKILN_END\n")
    longest = 0
    runtime.run(picture)
    for number in range(options.loops):
        begun = time.perf_counter()
        runtime.run(picture)
        taken = max(1, round((time.perf_counter() - begun) * 1e6))
        longest = max(longest, taken)
        _say(f"{forms.nnie_snapshot(taken, longest, number + 1)}FACEKILN_END\n")
    return 0


def infer(arguments: Sequence[str]) -> int:
    """Run pictures through an artifact, called as `facekiln.boards.infer_child` is, and told as it tells."""
    parser = argparse.ArgumentParser(INFER, allow_abbrev=False)
    parser.add_argument("model", type=Path)
    parser.add_argument("--declared", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(list(arguments))
    from facekiln.artifact import read_json
    from facekiln.boards.infer_log import FORM
    from facekiln.config import load_config
    from facekiln.parity.executors import BatchStage, open_stage, run_each

    declared, config = read_json(options.declared), load_config()
    stage = open_stage(options.model, config.model(declared["model"]), config)
    _say(f"{forms.MARK}\n{FORM}\nruntime {stage.name} {__version__}\npython {platform.python_version()}\n")
    batch = stage.batch if isinstance(stage, BatchStage) else 1
    _say(f"machine {platform.machine()}\nthreads {options.threads}\nbatch {batch}\nvirtual yes\n")
    pictures = np.load(options.pictures)
    # Floats that were resampled without rounding have a class of their own here.
    given = pictures if pictures.dtype == np.uint8 else pictures.view(Unrounded)
    found: dict[str, list[NDArray[np.float32]]] = {}
    for number, outputs in enumerate(run_each(stage, list(given)), start=1):
        for name, value in outputs.items():
            found.setdefault(name, []).append(value)
        _say(f"done {number}\n")
    kind = np.float16 if declared["half"] else np.float32
    # What does not exist yet is not made absolute by the script that starts us.
    output = Path(os.environ.get("FACEKILN_HERE", "."), options.output)
    arrays: dict[str, Any] = {name: np.concatenate(each).astype(kind) for name, each in found.items()}
    np.savez(output, **arrays)
    _say(f"end {len(pictures)}\n")
    return 0


TOOLS = {function.__name__: function for function in (bmrt_test, mm_run, tm_benchmark, nnie_forward, infer)}


def main(arguments: Sequence[str]) -> int:
    """Run a stand-in; an error of ours is printed as the vendor's tools print theirs, with a status of 1."""
    if not arguments or arguments[0] not in TOOLS:
        sys.stderr.write(f"usage: python -m facekiln.boards.virtual.tools {{{','.join(TOOLS)}}} ...\n")
        return 2
    try:
        return TOOLS[arguments[0]](arguments[1:])
    except KilnError as error:
        text = re.sub(r"\s+", " ", str(error))
        sys.stderr.write(f"{arguments[0]} (virtual): {text}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
