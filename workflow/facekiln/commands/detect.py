"""`facekiln detect`: find faces in pictures with any stage that runs here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from facekiln.commands import add_config

if TYPE_CHECKING:
    from facekiln.config import Config, Decode, Model
    from facekiln.parity.executors import Stage
    from facekiln.vision.detect import Faces
    from facekiln.vision.image import Picture

# Only these take any picture size; every other stage is built for one.
_ANY_SIZE = (".pth", ".tar")
# Quantised softmax may leave 0..1 by a little; raw scores leave it by far.
_SCORE_SLACK = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.epilog = (
        "Prints per picture the count, then score and x1 y1 x2 y2 of each face in the picture's pixels.\n\n"
        "examples:\n"
        "  facekiln detect --model retinaface --stage results/onnx/retinaface_640.onnx x.jpg --draw drawn/\n"
        "  facekiln detect --model retinaface --stage results/checkpoints/retinaface.pth --original x.jpg"
    )
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--model", required=True)
    parser.add_argument("--stage", type=Path, required=True, metavar="FILE", help="the artifact that is run")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", help="a size label of the model; default: from the stage's name")
    size.add_argument(
        "--original",
        action="store_true",
        help="each picture at its own size (checkpoints only: others are built for one)",
    )
    parser.add_argument("--threshold", type=float, metavar="SCORE", help="default: the model's, 0..1")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="write the pictures with the faces drawn")
    add_config(parser)

    parser.set_defaults(run=_detect)


def _detect(options: argparse.Namespace) -> None:
    from facekiln.config import load_config
    from facekiln.parity.executors import open_stage
    from facekiln.progress import log
    from facekiln.vision.image import draw_faces, read_image, write_image

    config = load_config(options.config)
    model = config.model(options.model)
    size = _size(options, model, config)
    decode = _decode(options.threshold, model)
    stage = open_stage(options.stage, model, config)
    log.info(
        "%s: %s, %s%s", options.stage, stage.name, stage.precision, ", EMULATED" if stage.emulated else ""
    )
    for path, name in zip(options.images, _drawn_names(options.images), strict=True):
        image = read_image(path)
        faces = _faces_in(image, stage, model, size, decode, path)
        sys.stdout.write(f"{path}: {len(faces)} face{'' if len(faces) == 1 else 's'}\n")
        for score, (x1, y1, x2, y2) in zip(faces.scores, faces.boxes, strict=True):
            sys.stdout.write(f"  {score:.4f}  {x1:8.2f} {y1:8.2f} {x2:8.2f} {y2:8.2f}\n")
        if options.draw:
            write_image(options.draw / name, draw_faces(image, faces))


def _size(options: argparse.Namespace, model: Model, config: Config) -> tuple[int, int] | None:
    """Return the network's size, None for each picture's own."""
    from facekiln.errors import KilnError
    from facekiln.targets import model_and_size_of

    if options.original:
        if options.stage.suffix not in _ANY_SIZE:
            raise KilnError("is built for one size, so --original cannot be used", file=options.stage)
        return None
    if options.size:
        return model.size(options.size)
    if options.stage.suffix in _ANY_SIZE:
        raise KilnError(
            "a checkpoint runs at any size", file=options.stage, hint="say --size LABEL, or --original"
        )
    named, label = model_and_size_of(options.stage, config)
    if named != model.name:
        raise KilnError(f"is of model '{named}' by its name, not '{model.name}'", file=options.stage)
    return model.size(label)


def _decode(threshold: float | None, model: Model) -> Decode:
    from dataclasses import replace

    from facekiln.errors import KilnError

    if threshold is None:
        return model.decode
    if not 0 <= threshold <= 1:
        raise KilnError("not a score", where="--threshold", value=threshold, limit="0..1")
    return replace(model.decode, score_threshold=threshold)


def _faces_in(
    image: Picture, stage: Stage, model: Model, size: tuple[int, int] | None, decode: Decode, path: Path
) -> Faces:
    """Run one picture and return its faces in the picture's own pixels."""
    from facekiln.errors import KilnError
    from facekiln.progress import log
    from facekiln.vision.detect import faces_from_outputs
    from facekiln.vision.preprocess import fit

    fitted, how = fit(image, size or image.shape[:2], model.input.resize if size else "original")
    height, width = fitted.shape[:2]
    try:
        outputs = stage.run(fitted)
    except KilnError:
        raise
    except Exception as error:  # each runtime raises types of its own
        raise KilnError(
            f"cannot run a {height}x{width} picture: {(str(error) or type(error).__name__).splitlines()[0]}",
            file=path,
            where=stage.name,
            hint="is --size the one that the stage was built for?",
        ) from error
    for name in model.outputs:
        value = outputs.get(name)
        if value is not None and value.shape[-1] == 2 and value.size:
            low, high = float(value.min()), float(value.max())
            if low < -_SCORE_SLACK or high > 1 + _SCORE_SLACK:
                log.warning(
                    "%s: scores are %.3g to %.3g, not 0..1: is a softmax missing?", stage.name, low, high
                )
    return how.back(faces_from_outputs(outputs, model, (height, width), decode))


def _drawn_names(images: list[Path]) -> list[str]:
    """Name the drawn pictures after the given ones; numbered where two have one name."""
    names = [f"{path.stem}.png" for path in images]
    if len(set(names)) == len(names):
        return names
    return [f"{index:04d}_{name}" for index, name in enumerate(names)]
