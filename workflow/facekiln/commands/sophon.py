"""`facekiln sophon`: transform and compile for SOPHON chips."""

from __future__ import annotations

import argparse
from pathlib import Path

from facekiln.commands import add_config, add_verb
from facekiln.commands.sophon_inspect import add_inspect_verbs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    transform = add_verb(
        verbs,
        "transform",
        _transform,
        "convert a simplified ONNX file to top.mlir, for every chip and precision, proved against ONNX Runtime",
        "facekiln sophon transform results/onnx/retinaface_640.sim.onnx --model retinaface --size 640 --batch 1"
        " --calibration results/calibration/retinaface_640 --output results/sophon/mlir/retinaface_640_1b",
    )
    transform.add_argument("onnx", type=Path)
    transform.add_argument("--model", required=True)
    transform.add_argument("--size", required=True, help="a size label of the model")
    transform.add_argument("--batch", type=int, default=1, help="pictures per run")
    transform.add_argument(
        "--calibration", type=Path, required=True, metavar="FOLDER", help="whose pictures prove it"
    )
    transform.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    add_config(transform)
    add_inspect_verbs(verbs)


def _transform(options: argparse.Namespace) -> None:
    raise NotImplementedError
