"""What the tensors of a .mlir reach over pictures, run by tpu_mlir's own Python (see `calibrate_child`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.process import run_group
from facekiln.chips.sophon.tool import script_command
from facekiln.errors import KilnError
from facekiln.progress import progress_bar
from facekiln.quant.thresholds import BINS, folded, thresholds

CHILD = Path(__file__).with_name("calibrate_child.py")


@dataclass(frozen=True, eq=False)
class Reach:
    """What tensors reach.

    Attributes:
        extremes: (least, largest) by name.
        counts: int64 [2 * BINS] of values in equal bins over [-top, top], by name, where they were asked for.
    """

    extremes: dict[str, tuple[float, float]]
    counts: dict[str, NDArray[np.int64]]

    def thresholds(self, name: str, percentile: float) -> dict[str, float]:
        """Return the threshold of each of our methods (see `facekiln.quant.thresholds`)."""
        low, high = self.extremes[name]
        return thresholds(folded(self.counts[name]), max(abs(low), abs(high)), percentile)


def write_pictures(
    folder: Path, pictures: Sequence[NDArray[np.float32]], source: str = "input"
) -> list[Path]:
    """Write input tensors as .npz files, the form in which the tool takes a calibration set.

    Args:
        folder: made if it is not there.
        pictures: float32 [1, 3, H, W].
        source: the input's name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, picture in enumerate(pictures):
        paths.append(folder / f"{index:05}.npz")
        named: Mapping[str, Any] = {source: picture}
        np.savez(paths[-1], **named)
    return paths


def measure_reach(
    environment: Environment,
    network: Path,
    pictures: Sequence[Path],
    histograms: Sequence[str],
    *,
    folder: Path,
    timeout_minutes: float,
) -> Reach:
    """Run a .mlir over pictures.

    Args:
        environment: whose tool runs it.
        network: the .mlir, its weights beside it.
        pictures: .npz files of one tensor each, float32 [1, 3, H, W].
        histograms: tensors whose values are counted, in a second pass.
        folder: for the job's files.
        timeout_minutes: after which it is ended.

    Raises:
        KilnError: it failed, took too long, or a tensor is not finite (named).
    """
    job, result = folder / "reach.json", folder / "reach.npz"
    job.write_text(
        json.dumps(
            {
                "mlir": str(network.resolve()),
                "pictures": [str(path.resolve()) for path in pictures],
                "histograms": list(histograms),
                "bins": BINS,
                "output": str(result.resolve()),
            }
        ),
        encoding="utf-8",
    )
    said: list[str] = []
    with progress_bar(len(pictures) * (2 if histograms else 1), f"reach of {network.name}", "picture") as bar:

        def on_line(line: str, fleeting: bool) -> None:
            if line.startswith("facekiln "):
                bar.update(int(line.split()[1].partition("/")[0]) - bar.n)
            elif not fleeting:
                said.append(line)

        status = run_group(
            script_command(environment, CHILD, job),
            folder=folder,
            variables=environment.variables(folder),
            limit=timeout_minutes * 60,
            on_line=on_line,
        )
    if status:
        raise KilnError(
            f"cannot be run by tpu_mlir {environment.version}: {said[-1] if said else 'it said nothing'}",
            file=network,
            value=f"status {status}",
            hint="facekiln sophon environment --check; make the .mlir again",
        )
    with np.load(result) as held:
        names = [str(name) for name in held["names"]]
        extremes = dict(
            zip(names, zip(held["lows"].tolist(), held["highs"].tolist(), strict=True), strict=True)
        )
        counts = dict(zip(histograms, held["counts"], strict=True))
    for name, (low, _high) in extremes.items():
        if not np.isfinite(low):
            raise KilnError(
                f"tensor '{name}' is not finite on the calibration pictures",
                file=network,
                hint="check the weights and the preprocessing",
            )
    return Reach(extremes, counts)
