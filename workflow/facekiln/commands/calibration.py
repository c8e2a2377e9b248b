"""`facekiln calibration`: the pictures that quantisation is calibrated on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekiln.commands import add_config, add_verb

if TYPE_CHECKING:
    from facekiln.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    make = add_verb(
        verbs,
        "make",
        _make,
        "choose pictures by rule and write them at the network's size, with their list, strata and hashes",
        "facekiln calibration make --model retinaface --size 640 --source dataset:wider_train --count 64"
        " --exclude wider_val --output results/calibration/retinaface_640",
    )
    add_choice(make)
    make.add_argument("--output", type=Path, required=True, metavar="FOLDER")

    check = add_verb(
        verbs,
        "check",
        _check,
        "verify a set's hashes and list, and that it touches no evaluation set; exit status 1 where it does",
        "facekiln calibration check results/calibration/retinaface_640 --exclude wider_val",
    )
    check.add_argument("folder", type=Path)
    check.add_argument(
        "--exclude",
        nargs="*",
        metavar="SET",
        help="evaluation sets: dataset names or folders (default: those that it was made against)",
    )
    add_config(check)

    sheet = add_verb(
        verbs,
        "sheet",
        _sheet,
        "draw a contact sheet of a set, each picture with its stratum",
        "facekiln calibration sheet results/calibration/retinaface_640 --output sheet.png",
    )
    sheet.add_argument("folder", type=Path)
    sheet.add_argument("--output", type=Path, required=True, metavar="FILE")

    stability = add_verb(
        verbs,
        "stability",
        _stability,
        "compare the thresholds of two disjoint draws, and of 8, 16, 32 and 64 pictures",
        "facekiln calibration stability results/onnx/retinaface_640.sim.onnx --model retinaface --size 640"
        " --output results/quant/retinaface_640/stability.json",
    )
    stability.add_argument("onnx", type=Path)
    add_choice(stability)
    stability.add_argument(
        "--sizes", type=int, nargs="+", default=[8, 16, 32, 64], help="sizes of the size study"
    )
    stability.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="JSON; a .png goes beside it"
    )


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is chosen; config.yaml's `calibration` decides what is not given."""
    parser.add_argument("--model", required=True)
    parser.add_argument("--size", required=True, help="a size label of the model")
    parser.add_argument(
        "--source", help="`procedural`, `dataset:NAME` (of datasets.yaml) or a folder of pictures"
    )
    parser.add_argument("--count", type=int, help="how many pictures (vendors advise 20 to 50)")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--strata", nargs="*", metavar="FACTOR", help="draw evenly over these: face_size, pose, light"
    )
    parser.add_argument(
        "--exclude", nargs="*", metavar="SET", help="evaluation sets: dataset names or folders of pictures"
    )
    add_config(parser)


def _choice(options: argparse.Namespace, config: Config) -> dict[str, Any]:
    from facekiln.data.calibration_rule import with_evaluation_sets
    from facekiln.errors import KilnError

    chosen = {}
    for key in ("source", "count", "seed", "strata", "exclude"):
        given = getattr(options, key)
        chosen[key] = config.calibration[key] if given is None else given
    chosen = with_evaluation_sets(chosen, config.tables, options.config)
    if chosen["count"] < 1:
        raise KilnError("is less than 1", where="--count", value=chosen["count"])
    return chosen


def _make(options: argparse.Namespace) -> None:
    from facekiln.config import load_config
    from facekiln.data.calibration import FACTS, make_calibration
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record

    config = load_config(options.config)
    choice = _choice(options, config)
    facts = make_calibration(
        options.output, config.model(options.model), options.size, config=options.config, **choice
    )
    write_record(
        options.output / FACTS,
        verb="calibration make",
        inputs=[],
        settings={**choice, "size": options.size},
        tools=tool_versions("numpy", "opencv-python-headless"),
        facts={key: facts[key] for key in ("name", "count", "set_sha256", "bins", "excluded")},
    )
    for label, counts in facts["bins"].items():
        log.info("  %-44s %4d of %d", label, counts["chosen"], counts["available"])
    refused = facts["excluded"]
    log.info(
        "%s: %s, %d pictures of %d looked at; refused: %d evaluated on, %d near one, %d repeated; set %s",
        options.output,
        facts["name"],
        facts["count"],
        facts["looked_at"],
        refused["same"],
        refused["near"],
        refused["repeat"],
        facts["set_sha256"][:12],
    )
    if not refused["against"]:
        log.info("  compared with no evaluation set: name yours in config.yaml's calibration.exclude")
    for one in refused["against"]:
        log.info("  disjoint from %s: %d pictures, %d missing", one["set"], one["pictures"], one["missing"])


def _check(options: argparse.Namespace) -> None:
    from facekiln.data.calibration import check_calibration, read_calibration
    from facekiln.errors import KilnError
    from facekiln.progress import log

    faults = check_calibration(options.folder, options.exclude, options.config)
    for fault in faults:
        log.error("  %s", fault)
    if faults:
        raise KilnError(
            f"{len(faults)} faults in the calibration set",
            file=options.folder,
            value=faults[0],
            hint="make the set again: facekiln calibration make --help",
        )
    facts = read_calibration(options.folder, ("count",))
    log.info(
        "%s: %d pictures are as chosen, set %s", options.folder, facts["count"], facts["set_sha256"][:12]
    )


def _sheet(options: argparse.Namespace) -> None:
    from facekiln.data.calibration import FACTS
    from facekiln.data.calibration_sheet import draw_sheet
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record
    from facekiln.vision.image import write_image

    sheet = draw_sheet(options.folder)
    write_image(options.output, sheet)
    write_record(
        options.output,
        verb="calibration sheet",
        inputs=[options.folder / FACTS],
        tools=tool_versions("opencv-python-headless"),
    )
    log.info("%s: %d x %d pixels", options.output, sheet.shape[1], sheet.shape[0])


def _stability(options: argparse.Namespace) -> None:
    from facekiln.artifact import write_json
    from facekiln.config import load_config
    from facekiln.progress import log
    from facekiln.provenance import tool_versions, write_record
    from facekiln.quant.stability import draw_stability, stability, stability_text

    config = load_config(options.config)
    choice = _choice(options, config)
    report = stability(
        options.onnx,
        config.model(options.model),
        options.size,
        sizes=options.sizes,
        percentile=config.calibration["percentile"],
        config=options.config,
        **choice,
    )
    write_json(options.output, report)
    picture = options.output.with_suffix(".png")
    draw_stability(report, picture)
    write_record(
        [options.output, picture],
        verb="calibration stability",
        inputs=[options.onnx],
        settings={**choice, "size": options.size, "sizes": options.sizes},
        tools=tool_versions("numpy", "onnxruntime", "matplotlib"),
    )
    log.info("%s", stability_text(report))
