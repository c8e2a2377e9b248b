"""`facekiln sophon calibrate|plan`: thresholds of int8, and which operators stay in float."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from facekiln.commands import add_config, add_verb


def add_quant_verbs(verbs: Any) -> None:
    """Add these verbs to the noun `sophon`."""
    calibrate = add_verb(
        verbs,
        "calibrate",
        _calibrate,
        "write the calibration table of a top.mlir, for every chip: by our ranges or the tool's methods",
        "facekiln sophon calibrate results/sophon/mlir/retinaface_640_1b/top.mlir --model retinaface"
        " --size 640 --calibration results/calibration/retinaface_640 --output retinaface_640_1b.table",
    )
    calibrate.add_argument("top", type=Path, metavar="MLIR")
    calibrate.add_argument("--model", required=True)
    calibrate.add_argument("--size", required=True, help="a size label of the model")
    calibrate.add_argument("--calibration", type=Path, required=True, metavar="FOLDER", help="the set")
    calibrate.add_argument(
        "--ranges", type=Path, metavar="FILE", help="for ours:...; default: the set's ranges.json"
    )
    calibrate.add_argument("--onnx", type=Path, metavar="FILE", help="that the ranges must be of")
    calibrate.add_argument(
        "--single", type=Path, metavar="TABLE", help="of a batch: the table of single pictures to agree with"
    )
    calibrate.add_argument("--method", help="ours:mse, tool:kl, ... instead of the config's")
    calibrate.add_argument(
        "--search",
        choices=("none", "threshold"),
        help="threshold: the tool chooses among its methods; instead of the config's",
    )
    calibrate.add_argument("--output", type=Path, required=True, metavar="TABLE")
    add_config(calibrate)

    plan = add_verb(
        verbs,
        "plan",
        _plan,
        "write which operators of a chip's int8 files stay in float; there may be none",
        "facekiln sophon plan results/sophon/mlir/retinaface_640_1b/top.mlir --chip bm1684x"
        " --onnx results/onnx/retinaface_640.sim.onnx --keep-float outputs stem --output mixed.qtable",
    )
    plan.add_argument("top", type=Path, metavar="MLIR")
    plan.add_argument("--chip", required=True)
    plan.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="that top.mlir was made from")
    plan.add_argument(
        "--sensitivity", type=Path, metavar="FILE", help="of `facekiln quant sensitivity`, for most_layers"
    )
    plan.add_argument(
        "--calibration", type=Path, metavar="FOLDER", help="for a search of the tool's: the set"
    )
    plan.add_argument("--table", type=Path, metavar="FILE", help="for a search of the tool's: thresholds")
    plan.add_argument(
        "--model", help="whose section in mixed.models counts, and whose preprocessing a search's set gets"
    )
    plan.add_argument(
        "--keep-float",
        nargs="*",
        metavar="NAME",
        help="`stem`, `heads`, `outputs` or names, not the config's",
    )
    plan.add_argument("--most-layers", type=int, metavar="N", help="instead of the config's")
    plan.add_argument("--output", type=Path, required=True, metavar="QTABLE")
    add_config(plan)


def _calibrate(options: argparse.Namespace) -> None:
    from facekiln.chips.sophon.calibrate import calibrate_file
    from facekiln.chips.sophon.environment import environment_of
    from facekiln.chips.sophon.settings import load_settings
    from facekiln.config import load_config
    from facekiln.data.calibration import read_calibration
    from facekiln.progress import log
    from facekiln.quant.run import pictures_of_set

    config, settings = load_config(options.config), load_settings(options.config)
    model = config.model(options.model)
    model.size(options.size)
    wanted = settings.calibrate
    if options.method:
        wanted = replace(wanted, method=options.method)
    if options.search:
        wanted = replace(wanted, search=options.search)
    made = calibrate_file(
        environment_of(settings, config),
        options.top,
        options.ranges or options.calibration / "ranges.json",
        pictures_of_set(options.calibration, model),
        wanted,
        options.output,
        single=options.single,
        onnx=options.onnx,
        set_sha256=read_calibration(options.calibration)["set_sha256"],
    )
    log.info("table        %d operators by %s", len(made.table.rows), made.method)
    if made.measured:
        log.info("measured     %d in top.mlir, as no ONNX tensor is theirs", len(made.measured))
    if made.worst is not None:
        log.info("proved       each reaches in top.mlir what the ranges say, within %.1e", made.worst)
    if made.batch is not None:
        log.info("batch        thresholds within %.1e of those of single pictures", made.batch)


def _plan(options: argparse.Namespace) -> None:
    from facekiln.chips.sophon.plan import plan_file
    from facekiln.chips.sophon.settings import check_models, load_settings
    from facekiln.config import known, load_config
    from facekiln.progress import log
    from facekiln.quant.run import pictures_of_set

    config, settings = load_config(options.config), load_settings(options.config)
    check_models(settings, config.models)
    if options.model is not None:
        config.model(options.model)
    mixed = settings.mixed
    if options.keep_float is not None:
        mixed = replace(mixed, by="ours", keep_float={options.chip: tuple(options.keep_float)}, models={})
    if options.most_layers is not None:
        mixed = replace(mixed, by="ours", most_layers=options.most_layers)
    pictures = None
    if options.calibration is not None and options.model is not None:
        pictures = pictures_of_set(options.calibration, config.model(options.model))
    table = plan_file(
        options.top,
        options.onnx,
        known(options.chip, settings.chips, "SOPHON chip"),
        replace(settings, mixed=mixed),
        config,
        options.output,
        sensitivity=options.sensitivity,
        pictures=pictures,
        calibration_table=options.table,
        model=options.model,
    )
    modes = sorted(set(table.modes.values()))
    log.info("%-12s %d operators stay in float %s", options.chip, len(table.modes), ", ".join(modes))
