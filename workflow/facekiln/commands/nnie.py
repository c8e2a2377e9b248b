"""`facekiln nnie`: legalise, configure, map, run and inspect for HiSilicon NNIE."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekiln.commands import add_config, add_verb

if TYPE_CHECKING:
    from facekiln.chips.nnie.mapper.map_file import Source
    from facekiln.chips.nnie.settings import NnieSettings


def _config_argument(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def _source_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prototxt", type=Path, required=True)
    parser.add_argument("--caffemodel", type=Path, required=True)
    parser.add_argument(
        "--heads", type=Path, metavar="JSON", help="what the outputs are, from `nnie legalise`"
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FOLDER", help="with list.txt, see `calibration make`"
    )
    parser.add_argument("--model", required=True, help="whose colour, mean and scale become the .cfg")
    parser.add_argument("--size", required=True, help="a size label of the model")
    parser.add_argument("--precision", type=int, choices=(8, 16), default=8, help="compile_mode 0 or 1")
    parser.add_argument("--from-cfg", type=Path, metavar="CFG", help="your own .cfg instead of the model's")
    parser.add_argument(
        "--mode", choices=("emulator", "local", "docker", "ssh"), help="instead of mapper.mode"
    )
    _config_argument(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    legalise = add_verb(
        verbs,
        "legalise",
        _legalise,
        "rewrite a Caffe pair so that the mapper takes it, and print every edit with its reason",
        "facekiln nnie legalise mnet.prototxt mnet.caffemodel --output-prefix mnet_nnie",
    )
    legalise.add_argument("prototxt", type=Path)
    legalise.add_argument("caffemodel", type=Path)
    legalise.add_argument("--heads", type=Path, metavar="JSON", help="decides the order of the outputs")
    legalise.add_argument("--model", help="with --size: refuse a pair of another input size")
    legalise.add_argument("--size")
    legalise.add_argument("--output-prefix", required=True, metavar="PREFIX")
    _config_argument(legalise)

    check = add_verb(
        verbs,
        "check",
        _check,
        "print where a Caffe pair breaks the NNIE's limits; exit status 1 if the mapper would refuse it",
        "facekiln nnie check mnet.prototxt mnet.caffemodel",
    )
    check.add_argument("prototxt", type=Path)
    check.add_argument("caffemodel", type=Path)
    _config_argument(check)

    cfg = add_verb(
        verbs,
        "cfg",
        _cfg,
        "write a job folder: the .cfg, mean file, network and pictures; run nnie_mapper inside it anywhere",
        "facekiln nnie cfg --prototxt n.prototxt --caffemodel n.caffemodel --model retinaface --size 640"
        " --calibration results/calibration/retinaface_640 --precision 8 --job job/",
    )
    _source_arguments(cfg)
    cfg.add_argument("--job", type=Path, required=True, metavar="FOLDER", help="replaced whole")

    mapping = add_verb(
        verbs,
        "map",
        _map,
        "make a .wk with nnie_mapper or its emulator, as mapper.mode of config/chips/nnie.yaml says",
        "facekiln nnie map --prototxt n.prototxt --caffemodel n.caffemodel --heads n.heads.json"
        " --calibration results/calibration/retinaface_640 --model retinaface --size 640 --precision 16"
        " --output results/nnie/retinaface_640_int16.wk",
    )
    _source_arguments(mapping)
    mapping.add_argument("--output", type=Path, required=True, metavar="WK")
    mapping.add_argument("--cfg", type=Path, metavar="CFG", help="write the .cfg as used here, too")

    run = add_verb(
        verbs,
        "run",
        _run,
        "run an emulated .wk on a picture, resized as its model declares, and print what its outputs hold",
        "facekiln nnie run results/nnie/retinaface_640.wk face.jpg",
    )
    run.add_argument("wk", type=Path)
    run.add_argument("image", type=Path)
    run.add_argument("--model", help="whose way of resizing is used (default: from the file's name)")
    run.add_argument("--output", type=Path, metavar="FOLDER", help="write each output as .npy")
    _config_argument(run)

    inspect = add_verb(
        verbs,
        "inspect",
        _inspect,
        "print what a .wk says: mapper, precision, inputs, outputs, CRC, report table; 1 if it is damaged",
        "facekiln nnie inspect results/nnie/retinaface_640.wk",
    )
    inspect.add_argument("wk", type=Path, nargs="+")
    inspect.add_argument("--json", action="store_true")


def _settings(options: argparse.Namespace) -> NnieSettings:
    from facekiln.chips.nnie.settings import load_settings

    settings = load_settings(options.config)
    if getattr(options, "mode", None):
        settings = replace(settings, mapper=replace(settings.mapper, mode=options.mode))
    return settings


def _source(options: argparse.Namespace) -> Source:
    from facekiln.chips.nnie.mapper.map_file import Source
    from facekiln.config import load_config

    return Source(
        prototxt=options.prototxt,
        caffemodel=options.caffemodel,
        heads=options.heads,
        calibration=options.calibration,
        model=load_config(options.config).model(options.model),
        size=options.size,
        precision=options.precision,
        cfg=options.from_cfg,
    )


def _legalise(options: argparse.Namespace) -> None:
    from facekiln.chips.nnie.legalise.file import legalise_files
    from facekiln.config import load_config
    from facekiln.progress import log

    result = legalise_files(
        options.prototxt,
        options.caffemodel,
        options.heads,
        Path(options.output_prefix),
        _settings(options),
        model=load_config(options.config).model(options.model) if options.model else None,
        size=options.size,
    )
    for edit in result.edits:
        log.info("%-22s %s: %s (%s)", edit.rule, edit.target, edit.change, edit.reason)
    for finding in result.warnings:
        log.warning("warning: %s", finding.sentence())
    log.info(
        "%s.prototxt: %d layers, %d edits, outputs %s",
        options.output_prefix,
        len(result.net.layers),
        len(result.edits),
        ", ".join(result.net.outputs),
    )


def _check(options: argparse.Namespace) -> None:
    from facekiln.caffe.reader import read_net
    from facekiln.chips.nnie.legalise.legalise import refuse
    from facekiln.chips.nnie.legalise.restrictions import check_net
    from facekiln.progress import log

    net = read_net(options.prototxt, options.caffemodel)
    findings = check_net(net, _settings(options).restrictions)
    for finding in findings:
        if finding.level == "warn":
            log.warning("warning: %s", finding.sentence())
    refuse(findings, f"{options.prototxt} breaks limits of the NNIE")
    log.info("%s: no known limit refuses it, %d warnings", options.prototxt, len(findings))


def _cfg(options: argparse.Namespace) -> None:
    from facekiln.artifact import atomic_folder
    from facekiln.chips.nnie.mapper.job import CFG
    from facekiln.chips.nnie.mapper.map_file import make_job
    from facekiln.progress import log

    with atomic_folder(options.job) as folder:
        make_job(folder, _source(options), _settings(options))
        text = (folder / CFG).read_text(encoding="utf-8")
    sys.stdout.write(text)
    log.info("%s: run `nnie_mapper_12 %s` in this folder", options.job, CFG)


def _map(options: argparse.Namespace) -> None:
    from facekiln.chips.nnie.mapper.map_file import map_files
    from facekiln.chips.nnie.wk.inspect import EMULATED_BANNER, precision_of
    from facekiln.progress import log

    mapped = map_files(_source(options), _settings(options), options.output, options.cfg)
    nodes = sum(len(segment.outputs) for segment in mapped.container.segments)
    log.info(
        "%s: %s, %d outputs, %s bytes, mapped in %.0f s",
        options.output,
        precision_of(mapped.container),
        nodes,
        f"{len(mapped.data):,}",
        mapped.seconds,
    )
    if mapped.container.emulated:
        log.warning("%s", EMULATED_BANNER)


def _run(options: argparse.Namespace) -> None:
    from facekiln.chips.nnie.runtime import WkRuntime
    from facekiln.commands.tensors import tell_tensors
    from facekiln.progress import log
    from facekiln.vision.image import read_image
    from facekiln.vision.preprocess import fit

    runtime = WkRuntime(options.wk)
    size = (runtime.input.height, runtime.input.width)
    picture, _ = fit(read_image(options.image), size, _resize_of(options))
    log.warning("EMULATED: %s runs in facekiln's NNIE emulator at %d bit", options.wk, runtime.bits)
    tell_tensors(runtime.run(picture), options.output)


def _resize_of(options: argparse.Namespace) -> str:
    """Return how the model of a .wk takes pictures; the file itself does not say it."""
    from facekiln.config import load_config
    from facekiln.errors import KilnError
    from facekiln.progress import log
    from facekiln.targets import model_and_size_of

    if options.model:
        return load_config(options.config).model(options.model).input.resize
    try:
        config = load_config(options.config)
        return config.model(model_and_size_of(options.wk, config)[0]).input.resize
    except KilnError:
        log.warning(
            "%s: its name says no model that is declared, so the picture is letterboxed; or say --model",
            options.wk,
        )
        return "letterbox"


def _inspect(options: argparse.Namespace) -> int:
    from facekiln.chips.nnie.wk.inspect import describe, render
    from facekiln.commands.tensors import tell_json

    told: list[dict[str, Any]] = [describe(path) for path in options.wk]
    if options.json:
        tell_json(told)
    else:
        sys.stdout.write("\n\n".join("\n".join(render(said)) for said in told) + "\n")
    return int(any(said["problems"] for said in told))
