"""`facekiln eval wider`: WIDER FACE average precision of detections in any form."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekiln.commands import add_config, add_verb

if TYPE_CHECKING:
    from facekiln.evaluation.wider import Precision


def add_wider(verbs: Any) -> None:
    """Add the verb `wider`."""
    wider = add_verb(
        verbs,
        "wider",
        _wider,
        "WIDER FACE average precision (easy, medium, hard) of a folder of result files, predictions of ours, "
        "one JSON or one Parquet file",
        "facekiln eval wider widerface_txt/ --protocol port --truth eval_tools/ground_truth",
    )
    wider.add_argument("predictions", type=Path)
    wider.add_argument(
        "--protocol",
        choices=["port", "matlab", "octave"],
        default="port",
        help="whose rules: the Python port's (default), the official MATLAB tool's, or those of the same "
        "tool run by Octave; they differ by up to 0.12 points, see docs/evaluation.md",
    )
    truth = wider.add_mutually_exclusive_group()
    truth.add_argument("--truth", type=Path, metavar="FOLDER", help="the four wider_*_val.mat")
    truth.add_argument(
        "--dataset",
        metavar="NAME",
        help="take them from this dataset of datasets.yaml (default for predictions of ours: theirs)",
    )
    wider.add_argument(
        "--boxes",
        choices=["float", "truncate", "floor_ceil"],
        help="how corners of predictions of ours are written before they are judged (default: as "
        "config.yaml's box_rules say for the inference entry that made them)",
    )
    wider.add_argument("--per-event", action="store_true", help="print a line for each event as well")
    wider.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    wider.add_argument("--curves", type=Path, metavar="FILE", help="write recall and precision (.npz) here")
    wider.add_argument(
        "--output", type=Path, metavar="FILE", help="write an evaluation record (predictions of ours only)"
    )
    wider.add_argument(
        "--cache",
        type=Path,
        default=Path("results/cache"),
        metavar="FOLDER",
        help="keeps the parsed ground truth (default: results/cache)",
    )
    wider.add_argument("--no-cache", action="store_const", const=None, dest="cache", help="keep nothing")
    add_config(wider)


def _wider(options: argparse.Namespace) -> None:
    # No linear algebra happens here, and starting its threads costs more than reading the ground truth.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from facekiln.evaluation.read_any import is_predictions, read_any
    from facekiln.evaluation.wider import evaluate, evaluate_events, result_block
    from facekiln.evaluation.wider_truth import read_truth
    from facekiln.progress import log

    ours = is_predictions(options.predictions)
    boxes, why = options.boxes or "float", "as told"
    if ours and options.boxes is None:
        from facekiln.evaluation.wider_record import box_rule_of

        boxes, why = box_rule_of(options.predictions, options.config)
    folder = options.truth
    if options.output and options.truth:
        from facekiln.errors import KilnError

        raise KilnError(
            "a record names a declared dataset, so its ground truth cannot be a folder",
            where="--output with --truth",
            value=options.truth,
            hint="--dataset NAME of datasets.yaml instead, or --json FILE for plain figures",
        )
    if folder is None:
        from facekiln.evaluation.wider_record import declared_of, refuse_foreign, truth_folder

        declared = declared_of(options.dataset, options.predictions if ours else None, options.config)
        if options.output:
            refuse_foreign(options.predictions, declared)
        folder = truth_folder(declared)
    truth = read_truth(folder, options.cache)
    official = options.protocol != "port"
    detections = read_any(options.predictions, truth, official=official, boxes=boxes)
    if not detections.table.shape[1]:
        log.warning("facekiln: %s: not one detection in it", options.predictions)
    elif detections.table[4].min() == detections.table[4].max():
        log.warning(
            "facekiln: %s: all scores are equal, so normalising them divides by zero", options.predictions
        )
    precision = evaluate(detections, truth, options.protocol)
    if options.per_event:
        events = evaluate_events(detections, truth, options.protocol)
        _print_events(events)
    sys.stdout.write(f"{result_block(precision)}\n")
    sys.stdout.write(
        f"protocol: {options.protocol}; {precision.detections} detections, {len(truth.images)} pictures, "
        f"{', '.join(f'{n} {t}' for n, t in zip(precision.ap, precision.totals.tolist(), strict=True))} "
        f"faces; ground truth {truth.digest}{f'; boxes: {boxes}, {why}' if ours else ''}\n"
    )
    if options.json or options.curves or options.output:
        from facekiln.evaluation.wider_record import write_curves, write_figures, write_wider_evaluation

        if options.json:
            write_figures(options.json, precision, options.predictions, truth)
        if options.curves:
            write_curves(options.curves, precision)
        if options.output:
            write_wider_evaluation(options.output, precision, options.predictions, truth, boxes)


def _print_events(events: dict[str, Precision]) -> None:
    width = max(map(len, events), default=0)
    sys.stdout.write(f"{'event':<{width}}  detections    easy  medium    hard   faces that count\n")
    for event, figures in events.items():
        areas = "  ".join(f"{value:6.4f}" if value == value else "     -" for value in figures.ap.values())
        faces = " ".join(f"{total:5d}" for total in figures.totals.tolist())
        sys.stdout.write(f"{event:<{width}}  {figures.detections:10d}  {areas}  {faces}\n")
