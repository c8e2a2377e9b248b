"""ONNX -> int8 .bmodel by our commands against the tool's own run by hand; a matrix against its parts.

    python benchmarks/bench_sophon.py --onnx results/onnx/retinaface_640.sim.onnx --model retinaface
    --size 640 --calibration results/calibration/retinaface_640 [--chips bm1684,bm1684x,bm1688,cv186x]
    [--main bm1684] [--method kl] [--turns 3] [--cpus 0,1] [--skip-matrix]

By hand: model_transform, run_calibration with the same method on the same pictures, and model_deploy with its
check in the simulator, each once, in one folder, with the environment's own variables. Ours: `facekiln sophon
transform`, `calibrate --method tool:...` and `compile`, which run these and, besides, prove the result
against ONNX Runtime, have the int8 file find the calibration pictures' faces, normalise and inspect it, and
write records. Both in turn, whole processes. A ratio is the median over turns of ours over by hand, on the
clock and of processor time with all children, which other work on the machine disturbs less. Both files must
have the same bytes after the clock is set, or it stops.

The matrix: every chip in every precision that it has, batch 1, from one transform and one table, as the
workflow's rules have it. Each command is timed once; the sum of separate builds is added up from the same
times, a transform for each and a calibration for each int8 file, not run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from facekiln.chips.sophon.artifacts import QUANTIZE
from facekiln.chips.sophon.clock import normalise
from facekiln.chips.sophon.environment import Environment, environment_of
from facekiln.chips.sophon.settings import SophonSettings, load_settings
from facekiln.chips.sophon.transform import net_name, preprocess_arguments
from facekiln.config import Model, load_config
from facekiln.quant.run import pictures_of_set

Spent = tuple[float, float]


def spent(work: Callable[[], object]) -> Spent:
    """Return seconds on the clock and of processor time, children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    work()
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def run(command: list[str], folder: Path, variables: dict[str, str], log: Path) -> None:
    """Run a command; its output goes to a file, and a failure ends the benchmark."""
    with log.open("ab") as stream:
        done = subprocess.run(command, cwd=folder, env=variables, stdout=stream, stderr=stream, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n" + log.read_text(errors="replace")[-2000:])


class Bench:
    """One model, its pictures, and both ways to build it."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.settings: SophonSettings = load_settings(options.config)
        config = load_config(options.config)
        self.model: Model = config.model(options.model)
        self.environment: Environment = environment_of(self.settings, config)
        self.log = folder / "bench.log"
        self.pictures = folder / "pictures"
        self.pictures.mkdir()
        for number, picture in enumerate(pictures_of_set(options.calibration, self.model)):
            np.savez(self.pictures / f"{number:04}.npz", **{self.model.input.name: picture})

    def ours(self, verb: str, *arguments: str | Path) -> Spent:
        """Time one of our commands."""
        command = [sys.executable, "-m", "facekiln", "--log", str(self.folder / "ours.log"), "sophon", verb]
        config = ["--config", str(self.options.config)]
        whole = [*command, *map(str, arguments), *config]
        return spent(lambda: run(whole, Path.cwd(), dict(os.environ), self.log))

    def transform(self, top: Path) -> Spent:
        """Time `sophon transform` to a folder."""
        named = ["--model", self.options.model, "--size", self.options.size, "--batch", "1"]
        calibration = ["--calibration", self.options.calibration, "--output", top]
        return self.ours("transform", self.options.onnx, *named, *calibration)

    def calibrate(self, top: Path, table: Path) -> Spent:
        """Time `sophon calibrate` with the tool's method."""
        named = ["--model", self.options.model, "--size", self.options.size]
        method = ["--method", f"tool:{self.options.method}", "--calibration", self.options.calibration]
        return self.ours("calibrate", top / "top.mlir", *named, *method, "--output", table)

    def compile(self, top: Path, chip: str, precision: str, table: Path) -> tuple[Spent, Path]:
        """Time `sophon compile`; return the file as well."""
        name = f"{self.options.model}_{self.options.size}_{precision}_1b.bmodel"
        output = self.folder / "built" / chip / name
        tables = ["--table", table, "--calibration", self.options.calibration] if precision == "int8" else []
        return self.ours("compile", top, *tables, "--output", output), output

    def by_hand(self, folder: Path, top: Path, chip: str) -> tuple[list[Spent], Path]:
        """Time the tool's three commands; the input is the picture that our transform takes."""
        height, width = self.model.size(self.options.size)
        shutil.copyfile(self.options.onnx, folder / "net.onnx")
        shutil.copyfile(top / "input.npz", folder / "input.npz")
        count = str(len(list(self.pictures.iterdir())))
        cosine, euclidean = self.settings.deploy.tolerance["int8"]
        name = net_name(self.model, self.options.size)
        shape = f"--input_shapes=[[1,3,{height},{width}]]"
        transform = ["model_transform", f"--model_name={name}", "--model_def=net.onnx", shape]
        transform += [*preprocess_arguments(self.model.input), "--test_input=input.npz"]
        transform += ["--test_result=reference.npz", "--mlir=top.mlir"]
        calibrate = ["run_calibration", "top.mlir", "--dataset", str(self.pictures), "--input_num", count]
        calibrate += ["--cali_method", self.options.method, "-o", "a.table"]
        deploy = ["model_deploy", "--mlir=top.mlir", f"--processor={chip}", f"--quantize={QUANTIZE['int8']}"]
        deploy += ["--model=net.bmodel", "--calibration_table=a.table", "--test_input=input.npz"]
        deploy += ["--test_reference=reference.npz", f"--tolerance={cosine:g},{euclidean:g}"]
        times = []
        for script, *arguments in (transform, calibrate, deploy):
            whole = [str(self.environment.python), str(self.environment.script(script)), *arguments]
            times.append(spent(lambda: run(whole, folder, self.environment.variables(), self.log)))  # noqa: B023
        return times, folder / "net.bmodel"


def whole(bench: Bench, turns: int, chip: str) -> dict[str, Any]:
    """Compare ONNX -> int8, ours and by hand, in turn."""
    rows = []
    for turn in range(turns):
        top, table = bench.folder / f"top{turn}", bench.folder / f"turn{turn}.table"
        ours = [bench.transform(top), bench.calibrate(top, table)]
        compiled, built = bench.compile(top, chip, "int8", table)
        ours.append(compiled)
        folder = bench.folder / f"hand{turn}"
        folder.mkdir()
        hand, raw = bench.by_hand(folder, top, chip)
        if normalise(raw.read_bytes()) != built.read_bytes():
            raise SystemExit("the file made by hand has other bytes than ours")
        rows.append((ours, hand))
        print(f"turn {turn}: ours {told(ours)}; by hand {told(hand)}", file=sys.stderr)
    steps = ("transform", "calibrate", "compile")
    result: dict[str, Any] = {"chip": chip, "turns": turns, "same_bytes": True}
    for at, kind in enumerate(("wall", "cpu")):
        sums = [(sum(one[at] for one in ours), sum(one[at] for one in hand)) for ours, hand in rows]
        result[kind] = {
            "ours_s": round(statistics.median(ours for ours, _ in sums), 2),
            "by_hand_s": round(statistics.median(hand for _, hand in sums), 2),
            "ratio": round(statistics.median(ours / hand for ours, hand in sums), 3),
            "steps_s": {
                step: [
                    round(statistics.median(ours[number][at] for ours, _ in rows), 2),
                    round(statistics.median(hand[number][at] for _, hand in rows), 2),
                ]
                for number, step in enumerate(steps)
            },
        }
    return result


def told(times: list[Spent]) -> str:
    """Return seconds of each step on the clock, and of processor time."""
    return " + ".join(f"{wall:.1f} ({cpu:.1f} cpu)" for wall, cpu in times) + " s"


def matrix(bench: Bench, chips: list[str]) -> dict[str, Any]:
    """Time every chip and precision from one transform and one table; add up what apart would take."""
    top, table = bench.folder / "matrix_top", bench.folder / "matrix.table"
    shared = {"transform": bench.transform(top), "calibrate": bench.calibrate(top, table)}
    files = {}
    for chip in chips:
        for precision in bench.settings.chips[chip].precisions:
            files[f"{chip}_{precision}"], _ = bench.compile(top, chip, precision, table)
            print(f"{chip} {precision}: {told([files[f'{chip}_{precision}']])}", file=sys.stderr)
    result: dict[str, Any] = {"files": len(files)}
    for at, kind in enumerate(("wall", "cpu")):
        together = shared["transform"][at] + shared["calibrate"][at] + sum(one[at] for one in files.values())
        apart = sum(
            one[at] + shared["transform"][at] + (shared["calibrate"][at] if name.endswith("int8") else 0)
            for name, one in files.items()
        )
        result[kind] = {
            "together_s": round(together, 1),
            "apart_s": round(apart, 1),
            "ratio": round(together / apart, 3),
            "transform_s": round(shared["transform"][at], 1),
            "calibrate_s": round(shared["calibrate"][at], 1),
            "compile_s": {name: round(one[at], 1) for name, one in files.items()},
        }
    return result


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--size", required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("config"))
    parser.add_argument("--chips", default="bm1684,bm1684x,bm1688,cv186x")
    parser.add_argument("--main", default="bm1684", help="the chip of the comparison by hand")
    parser.add_argument("--method", default="kl", help="of run_calibration")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cpus", help="cores to stay on, e.g. 0,1")
    parser.add_argument("--skip-matrix", action="store_true")
    options = parser.parse_args()
    if options.cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in options.cpus.split(",")})
    with tempfile.TemporaryDirectory(prefix="bench_sophon_") as name:
        bench = Bench(options, Path(name))
        told_of: dict[str, Any] = {"model": options.model, "size": options.size, "method": options.method}
        told_of["onnx_to_int8"] = whole(bench, options.turns, options.main)
        if not options.skip_matrix:
            told_of["matrix"] = matrix(bench, options.chips.split(","))
        print(json.dumps(told_of, indent=2))


if __name__ == "__main__":
    main()
