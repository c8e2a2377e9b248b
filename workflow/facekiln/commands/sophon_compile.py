"""`facekiln sophon transform|compile|twin`: from ONNX to files that SOPHON's chips run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekiln.commands import add_config, add_verb

if TYPE_CHECKING:
    from facekiln.chips.sophon.artifacts import Artifact
    from facekiln.chips.sophon.compile_file import Gate
    from facekiln.chips.sophon.environment import Environment
    from facekiln.chips.sophon.settings import SophonSettings
    from facekiln.chips.sophon.tables import Tables
    from facekiln.config import Config


def add_compile_verbs(verbs: Any) -> None:
    """Add these verbs to the noun `sophon`."""
    transform = add_verb(
        verbs,
        "transform",
        _transform,
        "convert a simplified ONNX file to top.mlir, for every chip and precision, proved on real pictures",
        "facekiln sophon transform results/onnx/retinaface_640.sim.onnx --model retinaface --size 640"
        " --batch 1 --calibration results/calibration/retinaface_640"
        " --output results/sophon/mlir/retinaface_640_1b",
    )
    transform.add_argument("onnx", type=Path)
    transform.add_argument("--model", required=True)
    transform.add_argument("--size", required=True, help="a size label of the model")
    transform.add_argument("--batch", type=int, default=1, help="pictures per run")
    transform.add_argument(
        "--calibration", type=Path, required=True, metavar="FOLDER", help="whose first pictures prove it"
    )
    transform.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    add_config(transform)

    compile_ = add_verb(
        verbs,
        "compile",
        _compile,
        "compile top.mlir to a .bmodel, checked in the chip's simulator; its name says what it is",
        "facekiln sophon compile results/sophon/mlir/retinaface_640_1b"
        " --output results/sophon/bm1684x/retinaface_640_fp16_1b.bmodel",
    )
    compile_.add_argument("top", type=Path, metavar="FOLDER", help="of `facekiln sophon transform`")
    _tables_arguments(compile_)
    compile_.add_argument(
        "--calibration", type=Path, metavar="FOLDER", help="int8: the set whose faces it must see"
    )
    compile_.add_argument("--output", type=Path, required=True, metavar="BMODEL")
    add_config(compile_)

    twin = add_verb(
        verbs,
        "twin",
        _twin,
        "write the quantised model that a .bmodel was compiled from, which runs fast without the simulator",
        "facekiln sophon twin results/sophon/bm1684x/retinaface_640_fp16_1b.bmodel"
        " results/sophon/mlir/retinaface_640_1b --output retinaface_640_fp16_1b.twin",
    )
    twin.add_argument("bmodel", type=Path)
    twin.add_argument("top", type=Path, metavar="FOLDER", help="that it was compiled from")
    _tables_arguments(twin)
    twin.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    add_config(twin)


def _tables_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", type=Path, metavar="FILE", help="int8: thresholds, see `sophon calibrate`")
    parser.add_argument("--qtable", type=Path, metavar="FILE", help="int8: operators that stay in float")


def _loaded(options: argparse.Namespace) -> tuple[Config, SophonSettings, Environment]:
    from facekiln.chips.sophon.environment import environment_of
    from facekiln.chips.sophon.settings import load_settings
    from facekiln.config import load_config

    config, settings = load_config(options.config), load_settings(options.config)
    return config, settings, environment_of(settings, config)


def _tables(options: argparse.Namespace) -> Tables:
    from facekiln.chips.sophon.tables import Tables

    return Tables(options.table, options.qtable)


def _transform(options: argparse.Namespace) -> None:
    from facekiln.chips.sophon.transform import transform_file
    from facekiln.progress import log

    config, settings, environment = _loaded(options)
    done = transform_file(
        options.onnx,
        options.calibration,
        config.model(options.model),
        options.size,
        options.batch,
        settings,
        environment,
        options.output,
    )
    for edit in done.edits:
        log.info("%-12s %s", edit.rule.removeprefix("SOPHON-").lower(), edit.change)
    told = ", ".join(f"{name} {error:.1e}" for name, error in done.errors.items())
    log.info("proved       on calibration pictures, against ONNX Runtime, largest error over scale: %s", told)
    log.info(
        "layers       %d compared by tpu_mlir %s, least cosine %.6f",
        done.layers,
        environment.version,
        done.least_cosine,
    )
    if options.batch > 1:
        log.info("batch        %d at once against one by one: %.1e", options.batch, done.batch_error)


def _compile(options: argparse.Namespace) -> None:
    from facekiln.chips.sophon.artifacts import artifact_of
    from facekiln.chips.sophon.compile_file import compile_file
    from facekiln.parity.sight import told_sight
    from facekiln.progress import log

    config, settings, environment = _loaded(options)
    artifact = artifact_of(options.output, config, settings)
    log.info("compiling    %s; ended after %g minutes", artifact.path, settings.deploy.timeout_minutes)
    done = compile_file(
        options.top,
        artifact,
        _tables(options),
        settings.deploy,
        environment,
        options.output,
        gate=_gate(artifact, options, config, settings, environment),
    )
    for what, one in (("quantised", done.quantised), ("simulated", done.simulated)):
        cosine, euclidean, sqnr = one.least or (float("nan"),) * 3
        log.info(
            "%-12s least cosine %.6f, euclidean %.4f, sqnr %.1f dB, of %d outputs",
            what,
            cosine,
            euclidean,
            sqnr,
            len(one.tensors),
        )
    if done.sight:
        log.info("sight        %s", told_sight(done.sight))
    log.info("size         %d bytes; on the device %d", done.bytes, done.memory["total"])
    if done.estimate:
        log.info(
            "estimate     %.3f ms a run of %d, %d cycles: the compiler's (%s), not measured",
            done.estimate.milliseconds,
            artifact.batch,
            done.estimate.cycles,
            done.estimate.release,
        )


def _gate(
    artifact: Artifact,
    options: argparse.Namespace,
    config: Config,
    settings: SophonSettings,
    environment: Environment,
) -> Gate | None:
    """Return the gate against blindness of an int8 file; there is none without one."""
    from facekiln.chips.sophon.sight import check_sight
    from facekiln.errors import KilnError
    from facekiln.quant.run import pictures_of_set

    if artifact.precision != "int8":
        return None
    if options.calibration is None:
        raise KilnError(
            "int8 is judged by the faces that it sees",
            file=artifact.path,
            hint="give --calibration FOLDER: facekiln calibration make --help",
        )
    model = config.model(artifact.model)
    pictures = pictures_of_set(options.calibration, model, settings.gate.pictures)
    return lambda job, lowered, arguments: check_sight(
        job,
        lowered,
        arguments,
        options.top,
        artifact,
        model,
        pictures,
        settings.gate,
        settings.deploy,
        environment,
    )


def _twin(options: argparse.Namespace) -> None:
    from facekiln.chips.sophon.artifacts import artifact_of
    from facekiln.chips.sophon.twin import twin_file
    from facekiln.progress import log

    config, settings, environment = _loaded(options)
    artifact = artifact_of(options.bmodel, config, settings)
    twin_file(
        options.bmodel,
        options.top,
        artifact,
        _tables(options),
        settings.deploy,
        environment,
        options.output,
    )
    log.info(
        "twin         %s, whose quantised model has the hash that the .bmodel's record notes", options.output
    )
