"""`facekiln magicmind`: build, run and inspect for Cambricon's MLU cards."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facekiln.commands import add_config, add_verb
from facekiln.commands.magicmind_infer import add_infer_verb
from facekiln.commands.magicmind_table import add_table_verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    build = add_verb(
        verbs,
        "build",
        _build,
        "build a model by the emulator or the vendor's SDK, as config/chips/magicmind.yaml says;"
        " exit status 3 if an int8 one would find no faces",
        "facekiln magicmind build results/onnx/retinaface_640.sim.onnx --model retinaface --size 640"
        " --precision qint8_mixed_float16 --batch 1-8 --calibration results/calibration/retinaface_640"
        " --ranges results/calibration/retinaface_640/ranges.json --output retinaface.mm",
    )
    build.add_argument("onnx", type=Path, help="the simplified ONNX")
    build.add_argument(
        "--from",
        dest="others",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="TorchScript, or .caffemodel and .prototxt, where `source` says so",
    )
    build.add_argument("--model", required=True)
    build.add_argument("--size", required=True, help="a size label of the model")
    build.add_argument(
        "--precision",
        required=True,
        metavar="MODE",
        help="force_float32 and others",
    )
    build.add_argument("--batch", required=True, metavar="N", help="4: fixed; 1-8: mutable")
    build.add_argument("--calibration", type=Path, metavar="FOLDER", help="the set, for int8")
    build.add_argument("--ranges", type=Path, metavar="FILE", help="our ranges over it, for int8")
    build.add_argument(
        "--sensitivity", type=Path, metavar="JSON", help="of facekiln quant sensitivity, for keep_sensitive"
    )
    build.add_argument("--output", type=Path, required=True, metavar="MM")
    add_config(build)

    inspect = add_verb(
        verbs,
        "inspect",
        _inspect,
        "tell what an emulated file holds",
        "facekiln magicmind inspect results/magicmind/retinaface_640_force_float16_1b.mm",
    )
    inspect.add_argument("files", type=Path, nargs="+", metavar="MM")

    run = add_verb(
        verbs,
        "run",
        _run,
        "run an emulated file on a picture and tell its outputs",
        "facekiln magicmind run results/magicmind/retinaface_640_force_float16_1b.mm a.jpg --model retinaface"
        " --size 640",
    )
    run.add_argument("mm", type=Path)
    run.add_argument("picture", type=Path)
    run.add_argument("--model", required=True)
    run.add_argument("--size", required=True, help="a size label of the model")
    run.add_argument("--output", type=Path, metavar="FOLDER", help="write each output as .npy")
    add_config(run)
    add_infer_verb(verbs)
    add_table_verb(verbs)


def _build(options: argparse.Namespace) -> None:
    from facekiln.chips.magicmind.build_file import Calibration, Wanted, build_file
    from facekiln.chips.magicmind.names import batch_from
    from facekiln.chips.magicmind.settings import load_settings
    from facekiln.config import load_config
    from facekiln.errors import KilnError
    from facekiln.parity.sight import told_sight
    from facekiln.progress import log
    from facekiln.quant.run import pictures_of_set

    if (options.calibration is None) != (options.ranges is None):
        raise KilnError("--calibration and --ranges go together")
    model = load_config(options.config).model(options.model)
    calibration = None
    if options.calibration is not None:
        pictures = pictures_of_set(options.calibration, model)
        calibration = Calibration(pictures, options.ranges, options.sensitivity)
    settings = load_settings(options.config)
    wanted = Wanted(model, options.size, options.precision, batch_from(options.batch))
    facts = build_file([options.onnx, *options.others], wanted, settings, options.output, calibration)
    mark = "EMULATED, no card runs it" if settings.sdk.mode == "emulator" else f"by {settings.sdk.mode}"
    log.info(
        "%s: %s, batch %s, %d bytes; %s",
        options.output,
        options.precision,
        options.batch,
        facts["bytes"],
        mark,
    )
    if "gate" in facts:
        log.info("emulated     %s", told_sight(facts["gate"]))


def _inspect(options: argparse.Namespace) -> None:
    from facekiln.chips.magicmind.container import read_emulated
    from facekiln.commands.tensors import tell_json

    found = [(path, read_emulated(path)) for path in options.files]
    tell_json(
        [
            {"file": str(path), "emulated": True, "onnx_bytes": len(one.onnx), **one.told}
            for path, one in found
        ]
    )


def _run(options: argparse.Namespace) -> None:
    from facekiln.commands.tensors import tell_tensors
    from facekiln.config import load_config
    from facekiln.parity.magicmind_stage import MagicmindStage
    from facekiln.vision.image import read_image
    from facekiln.vision.preprocess import fit

    model = load_config(options.config).model(options.model)
    stage = MagicmindStage(options.mm, model)
    picture, _ = fit(read_image(options.picture), model.size(options.size), model.input.resize)
    sys.stdout.write("EMULATED\n")
    tell_tensors(stage.run(picture), options.output)
