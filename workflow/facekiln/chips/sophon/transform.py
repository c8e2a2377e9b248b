"""ONNX -> top.mlir, once per model, size and batch; every chip and precision is compiled from the same one.

The folder that results holds four files: `top.mlir`, its `weights.npz` (which it names, so that the two lie
side by side in a job's folder), `input.npz` (calibration pictures as the network takes them) and
`reference.npz` (the float outputs on them, by the tool's names).
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from facekiln.artifact import atomic_folder, check_folder, sha256_of
from facekiln.chips.sophon.artifacts import check_batch
from facekiln.chips.sophon.batch import prove_batch, with_batch
from facekiln.chips.sophon.compare_text import check_passed, parse_comparisons
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.mlir import read_mlir
from facekiln.chips.sophon.outputs import meaning
from facekiln.chips.sophon.settings import SophonSettings
from facekiln.chips.sophon.tool import job_folder, run_tool
from facekiln.config import Input, Model
from facekiln.errors import GateError, KilnError
from facekiln.graph.export import load_onnx
from facekiln.parity.measure import measure
from facekiln.provenance import Edit, tool_versions, write_record
from facekiln.quant.run import Arrays, pictures_of_set

TOP, WEIGHTS, INPUT, REFERENCE = "top.mlir", "weights.npz", "input.npz", "reference.npz"
FILES = (TOP, WEIGHTS, INPUT, REFERENCE)
# Of the record: sha256 of the files beside top.mlir.
FILES_FACT = "files_sha256"
# Its onnx 1.14.1 and onnxruntime 1.16.3 read IR up to 9; a newer file ends in "local variable 'session'".
_IR_READ, _IR_WRITTEN = 9, 8
# Of the output's scale: the tool's float32 sums stay a hundred times below.
_MOST_ERROR = 1e-4
_WEIGHT_FILE = re.compile(r'(?<=module\.weight_file = ")[^"/]+(?=")')
_PIXEL_FORMATS = ("rgb", "bgr")


@dataclass(frozen=True)
class Transformed:
    """What a transform did.

    Attributes:
        edits: of the graph before the tool took it.
        batch_error: the batch at once against its pictures one by one, over scale.
        errors: by output, the tool's float32 against ONNX Runtime, over scale.
        least_cosine: of the tool's own comparison, layer by layer.
        layers: that it compared.
    """

    edits: list[Edit]
    batch_error: float
    errors: dict[str, float]
    least_cosine: float
    layers: int


def preprocess_arguments(declared: Input) -> list[str]:
    """Return model_transform's options for a model's one declaration: `(x - mean) * scale`, colour, padding.

    They are written into top.mlir, so that every chip and precision has the same. Padding is at the right and
    bottom with black (`--pad_type normal`), as `facekiln.vision.preprocess` does.

    Raises:
        KilnError: a colour order that the tool has no name for.
    """
    if declared.colour not in _PIXEL_FORMATS:
        raise KilnError("no colour order of tpu_mlir", value=declared.colour, limit=", ".join(_PIXEL_FORMATS))
    arguments = [
        f"--mean={','.join(map(repr, declared.mean))}",
        f"--scale={','.join(map(repr, declared.scale))}",
        f"--pixel_format={declared.colour}",
        "--channel_format=nchw",
    ]
    if declared.resize == "letterbox":
        arguments += [
            "--keep_aspect_ratio",
            "--keep_ratio_mode=letterbox",
            "--pad_value=0",
            "--pad_type=normal",
        ]
    return arguments


def net_name(model: Model, label: str) -> str:
    """Return the net's name inside the files: the same for every batch, so that they can be combined."""
    return f"{model.name}_{label}"


def transform_file(
    onnx_file: Path,
    calibration: Path,
    model: Model,
    label: str,
    batch: int,
    settings: SophonSettings,
    environment: Environment,
    output: Path,
) -> Transformed:
    """Convert a simplified ONNX file to top.mlir, prove it on real pictures, and write the folder.

    Args:
        onnx_file: for one picture, with the model's declared input and outputs.
        calibration: a set of `facekiln calibration make`; its first `batch` pictures prove the result.
        model, label: whose preprocessing is declared in the file, and whose size it must have.
        batch: pictures per run.
        settings: the time limit.
        environment: the tool.
        output: the folder; replaced whole.

    Raises:
        KilnError: the ONNX is not the model's, the set has too few pictures, or the tool fails.
        GateError: the tool computes something else than ONNX Runtime. Nothing is written then.
    """
    check_batch(batch, settings)
    check_folder(output, FILES)
    original = load_onnx(onnx_file)
    _check_interface(original, model, label, onnx_file)
    network, edits = with_batch(original, batch)
    if network.ir_version > _IR_READ:
        network.ir_version = _IR_WRITTEN
    pictures = _pictures(calibration, model, batch)
    expected, batch_error = prove_batch(original, network, pictures)
    height, width = model.size(label)
    with job_folder(output) as job:
        onnx.save(network, job / "net.onnx")
        _save(job / INPUT, {model.input.name: pictures})
        name = net_name(model, label)
        printed = run_tool(
            environment,
            "model_transform",
            [
                f"--model_name={name}",
                "--model_def=net.onnx",
                f"--input_shapes=[[{batch},3,{height},{width}]]",
                *preprocess_arguments(model.input),
                f"--test_input={INPUT}",
                "--test_result=top.npz",
                f"--mlir={TOP}",
            ],
            folder=job,
            log=None,
            timeout_minutes=settings.transform.timeout_minutes,
        )
        comparisons = parse_comparisons(printed)
        check_passed(comparisons, str(onnx_file))
        reference, errors = _reference(job, model, expected)
        with atomic_folder(output) as folder:
            _collect(job, folder, reference)
    least = min(one.least[0] for one in comparisons if one.least)
    done = Transformed(
        edits, batch_error, errors, least, sum(one.counts.get("compared", 0) for one in comparisons)
    )
    _record(output, onnx_file, calibration, model, label, batch, environment, done)
    return done


def _check_interface(network: onnx.ModelProto, model: Model, label: str, file: Path) -> None:
    stored = {tensor.name for tensor in network.graph.initializer}
    inputs = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in network.graph.input
        if value.name not in stored
    }
    wanted = {model.input.name: [1, 3, *model.size(label)]}
    if inputs != wanted:
        raise KilnError("has another input than the model declares", file=file, value=inputs, limit=wanted)
    outputs = sorted(value.name for value in network.graph.output)
    if outputs != sorted(model.outputs):
        raise KilnError(
            "has other outputs than the model declares", file=file, value=outputs, limit=list(model.outputs)
        )


def _pictures(calibration: Path, model: Model, batch: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    pictures = pictures_of_set(calibration, model, batch)
    if len(pictures) < batch:
        raise KilnError(
            f"has too few pictures to prove a batch of {batch} with different ones",
            file=calibration,
            value=len(pictures),
            limit=batch,
            hint="raise calibration.count in config/config.yaml",
        )
    return np.concatenate(list(pictures))


def _reference(job: Path, model: Model, expected: Arrays) -> tuple[Arrays, dict[str, float]]:
    """Return the tool's float outputs by its names, and their errors against ONNX Runtime by the model's."""
    meant = meaning(read_mlir(job / TOP).outputs, model)
    with np.load(job / "top.npz") as results:
        outputs = {name: np.ascontiguousarray(results[name]) for name in meant}
    errors = {}
    for name, output in meant.items():
        values, wanted = outputs[name], expected[output]
        if values.shape != wanted.shape:
            raise GateError(
                "the tool gives another shape than ONNX Runtime",
                where=f"output {output}",
                value=list(values.shape),
                limit=list(wanted.shape),
            )
        errors[output] = measure(wanted, values).max_rel
        if errors[output] > _MOST_ERROR:
            raise GateError(
                "the tool computes something else than ONNX Runtime",
                where=f"output {output}",
                value=f"{errors[output]:.1e} of scale",
                limit=_MOST_ERROR,
            )
    return outputs, errors


def _save(path: Path, arrays: Arrays) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


def copy_with_weights(network: Path, target: Path, what: str) -> None:
    """Copy a network's text, and its weights beside the copy as `WEIGHTS`, which the copy names.

    Args:
        network: the .mlir; the weights that it names lie beside it.
        target: the copy.
        what: what `network` is, for the error.

    Raises:
        KilnError: it names no file of weights that is there.
    """
    text = network.read_text(encoding="utf-8")
    found = _WEIGHT_FILE.search(text)
    if not found or not (network.parent / found[0]).is_file():
        raise KilnError(f"{what} names no file of weights", value=found and found[0])
    shutil.copyfile(network.parent / found[0], target.with_name(WEIGHTS))
    target.write_text(_WEIGHT_FILE.sub(WEIGHTS, text), encoding="utf-8")


def _collect(job: Path, folder: Path, reference: Arrays) -> None:
    copy_with_weights(job / TOP, folder / TOP, "the tool's mlir")
    shutil.copyfile(job / INPUT, folder / INPUT)
    _save(folder / REFERENCE, reference)


def _record(
    output: Path,
    onnx_file: Path,
    calibration: Path,
    model: Model,
    label: str,
    batch: int,
    environment: Environment,
    done: Transformed,
) -> None:
    write_record(
        output / TOP,
        verb="sophon transform",
        inputs=[onnx_file, calibration / "calibration.json"],
        settings={
            "model": model.name,
            "size": label,
            "batch": batch,
            "preprocess": preprocess_arguments(model.input),
        },
        tools=tool_versions("onnx", "onnxruntime") | environment.identity(),
        edits=done.edits,
        facts={
            "layers_compared": done.layers,
            "least_cosine": done.least_cosine,
            "error_over_scale": done.errors,
            "batch_error_over_scale": done.batch_error,
            FILES_FACT: {name: sha256_of(output / name) for name in FILES if name != TOP},
        },
    )


def stage(top: Path, job: Path) -> None:
    """Put a transform's files into a job's folder, under the names that they know each other by.

    Args:
        top: the folder that `transform_file` wrote.
        job: a folder that a tool may litter.

    Raises:
        KilnError: a file is missing.
    """
    for name in FILES:
        if not (top / name).is_file():
            raise KilnError(
                "does not exist", file=top / name, hint="make it: facekiln sophon transform --help"
            )
        shutil.copyfile(top / name, job / name)
