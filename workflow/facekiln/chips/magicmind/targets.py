"""What the rule of MagicMind files asks: which files one is made from, and whether its name makes sense."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Protocol

from facekiln.chips.magicmind.names import QUANTISED, batch_from, check_precision
from facekiln.chips.magicmind.settings import settings_from
from facekiln.config import Config
from facekiln.targets import RESULTS, Targets


class Wildcards(Protocol):
    """What Snakemake hands to input functions."""

    model: str
    size: str
    precision: str
    batch: str


class MagicmindTargets:
    """Input files of the rule, with names checked."""

    def __init__(self, config: Config) -> None:
        self._targets, self._settings = Targets(config), settings_from(config.chips["magicmind"])

    def files(self, wildcards: Wildcards) -> dict[str, str | list[str]]:
        """Return the files that one is made from: `onnx`, `others` by the source,
        `calibration`, `ranges`, `sensitivity`.

        Raises:
            KilnError: an unknown model, size, precision or batch.
        """
        check_precision(wildcards.precision)
        batch_from(wildcards.batch)
        self._targets.check_size_for_chip("magicmind", wildcards.model, wildcards.size)
        name = f"{wildcards.model}_{wildcards.size}"
        found: dict[str, str | list[str]] = {"onnx": f"{RESULTS}/onnx/{name}.sim.onnx"}
        if self._settings.sdk.mode != "emulator":
            others = {
                "torchscript": [f"{RESULTS}/torchscript/{name}.pt"],
                "caffe": [f"{RESULTS}/caffe/{name}.caffemodel", f"{RESULTS}/caffe/{name}.prototxt"],
            }
            found["others"] = others.get(self._settings.source, [])
        if wildcards.precision in QUANTISED:
            found["calibration"] = f"{RESULTS}/calibration/{name}/calibration.json"
            found["ranges"] = f"{RESULTS}/calibration/{name}/ranges.json"
            if self._settings.keep_sensitive:
                found["sensitivity"] = f"{RESULTS}/quant/{name}/sensitivity.json"
        return found


def options_of(files: Any) -> list[str]:
    """Return the command's options for a rule's inputs (see `MagicmindTargets.files`)."""
    options: list[str] = []
    if others := files.get("others"):
        options += ["--from", *([others] if isinstance(others, str) else others)]
    if calibration := files.get("calibration"):
        options += [
            "--calibration",
            str(PurePosixPath(str(calibration)).parent),
            "--ranges",
            str(files.ranges),
        ]
    if sensitivity := files.get("sensitivity"):
        options += ["--sensitivity", str(sensitivity)]
    return options
