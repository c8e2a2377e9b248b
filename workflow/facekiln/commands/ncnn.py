"""`facekiln ncnn`: convert, quantise, run, inspect and compare for ncnn."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from facekiln.commands import add_config, add_verb
from facekiln.errors import in_file
from facekiln.quant.names import METHODS

if TYPE_CHECKING:
    from facekiln.chips.ncnn.settings import NcnnSettings


def _common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True)
    parser.add_argument("--size", required=True, help="a size label of the model")
    parser.add_argument("--output", type=Path, required=True, metavar="PARAM", help="the .bin goes beside it")
    add_config(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    convert = add_verb(
        verbs,
        "convert",
        _convert,
        "convert a simplified ONNX file to .param and .bin by pnnx, with declared names, proved in ncnn",
        "facekiln ncnn convert results/onnx/retinaface_640.sim.onnx --model retinaface --size 640"
        " --output results/ncnn/retinaface_640.param",
    )
    convert.add_argument("onnx", type=Path)
    _common_arguments(convert)

    halve = add_verb(
        verbs,
        "halve",
        _halve,
        "store the weights of an fp32 file as float16",
        "facekiln ncnn halve results/ncnn/retinaface_640.param"
        " --output results/ncnn/retinaface_640_fp16.param",
    )
    halve.add_argument("param", type=Path)
    halve.add_argument("--output", type=Path, required=True, metavar="PARAM")

    quantise = add_verb(
        verbs,
        "quantise",
        _quantise,
        "make an int8 file from the fp32 one, proved in ncnn; exit status 3 if it would find no faces",
        "facekiln ncnn quantise results/ncnn/retinaface_640.param --model retinaface --size 640"
        " --onnx results/onnx/retinaface_640.sim.onnx --calibration results/calibration/retinaface_640"
        " --ranges results/calibration/retinaface_640/ranges.json --output retinaface_640_int8.param",
    )
    quantise.add_argument("param", type=Path)
    quantise.add_argument(
        "--calibration", type=Path, required=True, metavar="FOLDER", help="the set that the file is proved on"
    )
    quantise.add_argument("--onnx", type=Path, metavar="FILE", help="the ONNX that the ranges are of")
    quantise.add_argument("--ranges", type=Path, metavar="FILE", help="see `facekiln quant ranges`")
    quantise.add_argument(
        "--table", type=Path, metavar="FILE", help="a table, ours or ncnn2table's, instead of ranges"
    )
    quantise.add_argument("--table-output", type=Path, metavar="FILE", help="default: PARAM's name, .table")
    quantise.add_argument("--method", choices=METHODS, help="instead of the config's")
    quantise.add_argument(
        "--keep-float", nargs="*", metavar="LAYER", help="layers, `stem` or `heads`, instead of the config's"
    )
    _common_arguments(quantise)

    run = add_verb(
        verbs,
        "run",
        _run,
        "run a file in ncnn on a picture and tell its outputs",
        "facekiln ncnn run results/ncnn/retinaface_640.param face.jpg --model retinaface --size 640",
    )
    run.add_argument("param", type=Path)
    run.add_argument("image", type=Path)
    run.add_argument("--model", required=True, help="whose preprocessing is used")
    run.add_argument("--size", required=True, help="a size label of the model")
    run.add_argument("--output", type=Path, metavar="FOLDER", help="write each output as .npy")
    add_config(run)

    inspect = add_verb(
        verbs,
        "inspect",
        _inspect,
        "print what a .param and its .bin say, ours or another's; 1 if something is wrong with them",
        "facekiln ncnn inspect results/ncnn/retinaface_640_int8.param --layers",
    )
    inspect.add_argument("param", type=Path, nargs="+")
    inspect.add_argument("--json", action="store_true")
    inspect.add_argument("--layers", action="store_true", help="every layer with parameters and blob indices")

    compare = add_verb(
        verbs,
        "compare",
        _compare,
        "tell how two models differ, layer by layer; 1 if they do",
        "facekiln ncnn compare results/ncnn/retinaface_640.param results/ncnn/retinaface_640_int8.param",
    )
    compare.add_argument("first", type=Path)
    compare.add_argument("second", type=Path)

    ids = add_verb(
        verbs,
        "ids",
        _ids,
        "write a C header with the indices of blobs and layers of a .param",
        "facekiln ncnn ids RFB-320.param --output RFB-320.id.h",
    )
    ids.add_argument("param", type=Path)
    ids.add_argument("--output", type=Path, metavar="FILE", help="else it is printed")


def _settings(options: argparse.Namespace) -> NcnnSettings:
    from facekiln.chips.ncnn.settings import load_settings

    settings = load_settings(options.config)
    quantise = settings.quantise
    if getattr(options, "method", None):
        quantise = replace(quantise, method=options.method)
    if getattr(options, "keep_float", None) is not None:
        quantise = replace(quantise, keep_float=tuple(options.keep_float))
    return replace(settings, quantise=quantise)


def _tell(path: Path) -> None:
    from facekiln.chips.ncnn.inspect import describe, render
    from facekiln.progress import log

    for line in render(describe(path)):
        log.info("%s", line)


def _convert(options: argparse.Namespace) -> None:
    from facekiln.chips.ncnn.build_file import convert_file
    from facekiln.config import load_config
    from facekiln.progress import log

    model = load_config(options.config).model(options.model)
    settings = _settings(options)
    with in_file(options.onnx):
        _, edits, proof = convert_file(options.onnx, model, options.size, settings, options.output)
    _tell(options.output)
    for edit in edits:
        log.info("%-12s %s", edit.rule.removeprefix("NCNN-").lower(), edit.change)
    told = ", ".join(f"{name} {figures.max_rel:.1e}" for name, figures in proof.items())
    log.info("proved       on noise, against ONNX Runtime, largest error over scale: %s", told)


def _halve(options: argparse.Namespace) -> None:
    from facekiln.chips.ncnn.build_file import store_fp16_file

    with in_file(options.param):
        store_fp16_file(options.param, options.output)
    _tell(options.output)


def _quantise(options: argparse.Namespace) -> None:
    from facekiln.chips.ncnn.quantise_file import Source, quantise_file
    from facekiln.config import load_config
    from facekiln.parity.sight import told_sight
    from facekiln.progress import log
    from facekiln.quant.run import pictures_of_set

    model = load_config(options.config).model(options.model)
    pictures, settings = pictures_of_set(options.calibration, model), _settings(options)
    with in_file(options.param):
        built = quantise_file(
            options.param,
            Source(options.onnx, options.ranges, options.table),
            pictures,
            model,
            options.size,
            settings,
            options.output,
            table_out=options.table_output,
        )
    _tell(options.output)
    steps = max((one.worst for one in built.proofs if one.requantised), default=0.0)
    error = max((one.worst for one in built.proofs if not one.requantised), default=0.0)
    log.info(
        "proved       %d int8 layers in ncnn against their own scales: %.3f steps more than rounding where"
        " int8 goes on, else %.1e of scale",
        len(built.proofs),
        steps,
        error,
    )
    log.info("in ncnn      %s", told_sight(built.sight))


def _run(options: argparse.Namespace) -> None:
    from facekiln.commands.tensors import tell_tensors
    from facekiln.config import load_config
    from facekiln.parity.ncnn_stage import NcnnStage
    from facekiln.progress import log
    from facekiln.vision.detect import faces_from_outputs
    from facekiln.vision.image import read_image
    from facekiln.vision.preprocess import fit

    model = load_config(options.config).model(options.model)
    with in_file(options.param):
        stage = NcnnStage(options.param, model)
    size = model.size(options.size)
    picture, _ = fit(read_image(options.image), size, model.input.resize)
    outputs = stage.run(picture)
    if model.priors:
        # ncnn runs a file at any size, with the rows of its own: only their number tells.
        log.info(
            "%d faces from score %g on",
            len(faces_from_outputs(outputs, model, size)),
            model.decode.score_threshold,
        )
    tell_tensors(outputs, options.output)


def _inspect(options: argparse.Namespace) -> int:
    from facekiln.chips.ncnn.inspect import describe, dump, render
    from facekiln.chips.ncnn.param import read_param
    from facekiln.commands.tensors import tell_json

    told = [describe(path) for path in options.param]
    if options.json:
        tell_json(told)
    else:
        for path, said in zip(options.param, told, strict=True):
            lines = [*render(said), *(dump(read_param(path)) if options.layers else [])]
            sys.stdout.write("\n".join(lines) + "\n\n")
    return int(any(said["findings"] for said in told))


def _compare(options: argparse.Namespace) -> int:
    from facekiln.chips.ncnn.inspect import compare_models

    lines = compare_models(options.first, options.second)
    sys.stdout.write("\n".join(lines or ["the same: graph, parameters and weights"]) + "\n")
    return int(bool(lines))


def _ids(options: argparse.Namespace) -> None:
    from facekiln.artifact import write_text
    from facekiln.chips.ncnn.inspect import ids_of

    text = ids_of(options.param)
    if options.output:
        write_text(options.output, text)
    else:
        sys.stdout.write(text)
