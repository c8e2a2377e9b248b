"""A bmodel in the C model: by our runtime, against the tool's own model_runner.

    python benchmarks/bench_sophon_cmodel.py results/sophon/bm1684x/ulfd_slim_320_320_fp16_1b.bmodel
    [more.bmodel ...] [--turns 3] [--cpus 0,1] [--beside 2]

Both in turn, whole processes from start to outputs, on the same random input. Ours lets the threads of the C
model that only poll make way for the one that computes (`facekiln/chips/sophon/pollers.py`), which matters
where cores are few; model_deploy's own simulation is treated so as well. `--beside N` runs N programs beside
it, on the same cores, that do nothing but count. Outputs must be equal to the bit, or it stops. A ratio is
the median over turns of ours over the tool's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from facekiln.chips.sophon.environment import Environment, environment_of
from facekiln.chips.sophon.runtime import SophonRuntime
from facekiln.chips.sophon.settings import load_settings
from facekiln.chips.sophon.tool import job_folder
from facekiln.config import load_config

_MINUTES = 120.0


def ours(environment: Environment, bmodel: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run once by our runtime."""
    with SophonRuntime(bmodel, environment, timeout_minutes=_MINUTES) as runtime:
        return runtime.run(feeds)


def the_tools(environment: Environment, bmodel: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run once by model_runner, a plain child process in a folder of its own."""
    with job_folder() as folder:
        np.savez(folder / "input.npz", **feeds)
        command = [environment.python, environment.script("model_runner"), "--input=input.npz"]
        command += [f"--model={bmodel.resolve()}", "--output=output.npz"]
        done = subprocess.run(
            [str(part) for part in command],
            cwd=folder,
            env=environment.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"model_runner failed:\n{done.stdout[-2000:]}")
        with np.load(folder / "output.npz") as found:
            return dict(found)


def compare(environment: Environment, bmodel: Path, turns: int) -> dict[str, Any]:
    """Run both ways in turn."""
    with SophonRuntime(bmodel, environment) as runtime:
        shapes = {item.name: item.shape for item in runtime.inputs}
    random = np.random.default_rng(0)
    feeds = {name: random.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    seconds: list[tuple[float, float]] = []
    for turn in range(turns):
        row, found = [], []
        for way in (ours, the_tools):
            start = time.perf_counter()
            found.append(way(environment, bmodel, feeds))
            row.append(time.perf_counter() - start)
        for name, value in found[0].items():
            if not np.array_equal(value, found[1][name].reshape(value.shape)):
                raise SystemExit(f"{bmodel}: output {name} differs")
        seconds.append((row[0], row[1]))
        print(f"{bmodel.stem}, turn {turn}: ours {row[0]:.1f} s, the tool's {row[1]:.1f} s", file=sys.stderr)
    return {
        "ours_s": round(statistics.median(one for one, _ in seconds), 2),
        "tool_s": round(statistics.median(one for _, one in seconds), 2),
        "ratio": round(statistics.median(one / other for one, other in seconds), 3),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bmodel", type=Path, nargs="+")
    parser.add_argument("--config", type=Path, default=Path("config"))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cpus", help="cores to stay on, e.g. 0,1")
    parser.add_argument("--beside", type=int, default=0, help="busy programs on the same cores")
    options = parser.parse_args()
    if options.cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in options.cpus.split(",")})
    environment = environment_of(load_settings(options.config), load_config(options.config))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.beside)]
    try:
        rows = {
            f"{path.parent.name}/{path.stem}": compare(environment, path, options.turns)
            for path in options.bmodel
        }
    finally:
        for process in busy:
            process.kill()
    cores = len(os.sched_getaffinity(0))
    print(json.dumps({"cores": cores, "beside": options.beside, "files": rows}, indent=2))


if __name__ == "__main__":
    main()
