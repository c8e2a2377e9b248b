"""`facekiln tengine`: convert, quantise, run and inspect for Tengine."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from facekiln.commands import add_config, add_verb
from facekiln.quant.names import METHODS

if TYPE_CHECKING:
    from facekiln.chips.tengine.build_file import Built
    from facekiln.chips.tengine.settings import TengineSettings


def _common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True)
    parser.add_argument("--size", required=True, help="a size label of the model")
    parser.add_argument("--output", type=Path, required=True, metavar="TMFILE")
    parser.add_argument("--mode", choices=("builtin", "local", "docker", "ssh"), help="instead of tools.mode")
    add_config(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    convert = add_verb(
        verbs,
        "convert",
        _convert,
        "convert a simplified ONNX file to an fp32 tmfile, exactly or not at all",
        "facekiln tengine convert results/onnx/ulfd_rfb_320_320.sim.onnx --model ulfd_rfb_320 --size 320"
        " --consumer tm_ultraface --output rfb.tmfile",
    )
    convert.add_argument("onnx", type=Path)
    _common_arguments(convert)
    convert.add_argument("--consumer", help="who reads the file, instead of config/chips/tengine.yaml's")

    quantise = add_verb(
        verbs,
        "quantise",
        _quantise,
        "make a uint8 or int8 tmfile from the fp32 one; exit status 3 if it would find no faces any more",
        "facekiln tengine quantise results/tengine/retinaface_640.tmfile --precision int8 --model retinaface"
        " --size 640 --calibration results/calibration/retinaface_640 --output retinaface_640_int8.tmfile",
    )
    quantise.add_argument("tmfile", type=Path)
    quantise.add_argument("--precision", choices=("uint8", "int8"), required=True)
    quantise.add_argument("--calibration", type=Path, required=True, metavar="FOLDER", help="with list.txt")
    quantise.add_argument(
        "--scales",
        type=Path,
        metavar="TABLE",
        help="a scale table, ours or quant_tool's; else ranges are measured",
    )
    quantise.add_argument("--scales-output", type=Path, metavar="TABLE", help="write the scales as a table")
    algorithms = ("minmax", "kl", "aciq", "mse")
    quantise.add_argument("--algorithm", choices=algorithms, help="instead of the config's")
    quantise.add_argument("--style", choices=("exact", "tool"), help="instead of the config's")
    _common_arguments(quantise)

    scales = add_verb(
        verbs,
        "scales",
        _scales,
        "write our own ranges of the ONNX file as a scale table, for `quantise --scales` or quant_tool's -f."
        " They are of the network as it is: by default `quantise` evens weights out first (`equalise`), and a"
        " file by this table is another, worse in uint8; for the default table: quantise --scales-output",
        "facekiln tengine scales results/tengine/retinaface_640.tmfile --method kl --precision int8"
        " --ranges results/calibration/retinaface_640/ranges.json --output retinaface_640_int8.scale",
    )
    scales.add_argument("tmfile", type=Path, help="the fp32 file, made from the same ONNX file")
    scales.add_argument("--ranges", type=Path, required=True, help="of `facekiln quant ranges`")
    scales.add_argument("--method", choices=METHODS, default="mse")
    scales.add_argument("--precision", choices=("uint8", "int8"), required=True)
    scales.add_argument("--output", type=Path, required=True, metavar="TABLE")

    run = add_verb(
        verbs,
        "run",
        _run,
        "run a tmfile on a picture, simulated or in Tengine itself (TENGINE_LIB=libtengine-lite.so)",
        "facekiln tengine run results/tengine/retinaface_640.tmfile face.jpg --model retinaface --runtime",
    )
    run.add_argument("tmfile", type=Path)
    run.add_argument("image", type=Path)
    run.add_argument("--model", required=True, help="whose preprocessing is used")
    run.add_argument("--runtime", action="store_true", help="in the library that TENGINE_LIB names")
    run.add_argument("--output", type=Path, metavar="FOLDER", help="write each output as .npy")
    add_config(run)

    inspect = add_verb(
        verbs,
        "inspect",
        _inspect,
        "print what a tmfile says, ours or another's, and what Tengine would stumble over; 1 if it would",
        "facekiln tengine inspect results/tengine/retinaface_640_int8.tmfile --nodes",
    )
    inspect.add_argument("tmfile", type=Path, nargs="+")
    inspect.add_argument("--json", action="store_true")
    inspect.add_argument("--nodes", action="store_true", help="every node with parameters and tensors")


def _settings(options: argparse.Namespace) -> TengineSettings:
    from facekiln.chips.tengine.settings import load_settings
    from facekiln.config import known

    settings = load_settings(options.config)
    if options.mode:
        settings = replace(settings, tools=replace(settings.tools, mode=options.mode))
    if getattr(options, "consumer", None):
        settings = replace(settings, consumer=known(options.consumer, settings.consumers, "consumer"))
    for name in ("algorithm", "style"):
        if getattr(options, name, None):
            chosen = {name: getattr(options, name)}
            settings = replace(settings, quantise=replace(settings.quantise, **chosen))
    return settings


def _tell(path: Path, built: Built) -> None:
    from facekiln.chips.tengine.inspect import describe_graph, render
    from facekiln.progress import log

    for line in render({"file": str(path), **describe_graph(built.graph)}):
        log.info("%s", line)


def _convert(options: argparse.Namespace) -> None:
    from collections import Counter

    from facekiln.chips.tengine.build_file import convert_file
    from facekiln.config import load_config
    from facekiln.progress import log

    model = load_config(options.config).model(options.model)
    built = convert_file(options.onnx, model, options.size, _settings(options), options.output)
    _tell(options.output, built)
    rules = Counter(edit.rule for edit in built.edits)
    told = ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items()))
    log.info("rewrites     %s", told or "none")


def _quantise(options: argparse.Namespace) -> None:
    from facekiln.chips.tengine.quantise_file import Calibration, quantise_file
    from facekiln.config import load_config
    from facekiln.parity.sight import told_sight
    from facekiln.progress import log

    built = quantise_file(
        options.tmfile,
        options.precision,
        Calibration(options.calibration, options.scales),
        load_config(options.config).model(options.model),
        options.size,
        _settings(options),
        options.output,
        table_out=options.scales_output,
    )
    _tell(options.output, built)
    log.info("simulated    %s", told_sight(built.figures))


def _scales(options: argparse.Namespace) -> None:
    from facekiln.chips.tengine.quantise_file import scales_file
    from facekiln.progress import log

    count, pairs = scales_file(
        options.tmfile, options.ranges, options.method, options.precision, options.output
    )
    log.info("%s: scales of %d activations by %s", options.output, count, options.method)
    if pairs:
        log.info(
            "of the network as it is: `tengine quantise` without --scales evens %d pairs of convolutions out"
            " first, and --scales-output writes the table of that",
            pairs,
        )


def _run(options: argparse.Namespace) -> None:
    from facekiln.chips.tengine import runtime
    from facekiln.chips.tengine.simulate import Simulation
    from facekiln.commands.tensors import tell_tensors
    from facekiln.config import load_config
    from facekiln.progress import log
    from facekiln.vision.image import read_image
    from facekiln.vision.preprocess import fit, to_tensor

    declared = load_config(options.config).model(options.model).input
    simulation = Simulation(options.tmfile)
    _, _, height, width = simulation.graph.input_tensors()[0].dims or (0, 0, 0, 0)
    picture, _ = fit(read_image(options.image), (height, width), declared.resize)
    feed = to_tensor(picture, declared)
    if options.runtime:
        (outputs,), version = runtime.run(options.tmfile, [feed])
        log.info("Tengine-Lite %s", version)
    else:
        log.info("simulated in ONNX Runtime, not run by Tengine")
        outputs = simulation.run(feed)
    tell_tensors(outputs, options.output)


def _inspect(options: argparse.Namespace) -> int:
    from facekiln.chips.tengine.inspect import describe, dump, render
    from facekiln.chips.tengine.reader import read_tmfile
    from facekiln.commands.tensors import tell_json

    told = [describe(path) for path in options.tmfile]
    if options.json:
        tell_json(told)
    else:
        for path, said in zip(options.tmfile, told, strict=True):
            lines = [*render(said), *(dump(read_tmfile(path)) if options.nodes else [])]
            sys.stdout.write("\n".join(lines) + "\n\n")
    return int(any(f["level"] == "error" for said in told for f in said["findings"]))
