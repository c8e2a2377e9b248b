"""`facekiln parity`: run two stages side by side and compare them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from facekiln.commands import add_config, add_verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    compare = add_verb(
        verbs,
        "compare",
        _compare,
        "run an artifact beside its parent on the same pictures; exit status 3 where a gate fails",
        "facekiln parity compare results/onnx/retinaface_640.sim.onnx results/caffe/retinaface_640.caffemodel"
        " --images photos/ --output parity.json",
    )
    compare.add_argument("parent", type=Path)
    compare.add_argument("child", type=Path)
    compare.add_argument("--model", help="default: from the child's name")
    compare.add_argument("--size", help="default: from the child's name")
    compare.add_argument(
        "--images", help="`procedural`, or a folder of pictures (default: config.yaml's parity.images)"
    )
    compare.add_argument("--count", type=int, help="how many pictures (default: config.yaml's parity.count)")
    compare.add_argument("--seed", type=int, help="default: config.yaml's parity.seed")
    compare.add_argument("--output", type=Path, required=True)
    add_config(compare)


def _compare(options: argparse.Namespace) -> None:
    from facekiln.artifact import write_json
    from facekiln.config import load_config
    from facekiln.errors import GateError
    from facekiln.parity.compare import compare
    from facekiln.targets import model_and_size_of

    config = load_config(options.config)
    model, size = options.model, options.size
    if model is None or size is None:
        named = model_and_size_of(options.child, config)
        model, size = model or named[0], size or named[1]
    report = compare(
        options.parent,
        options.child,
        config.model(model),
        size,
        config,
        source=options.images or config.parity["images"],
        count=options.count or config.parity["count"],
        seed=config.parity["seed"] if options.seed is None else options.seed,
    )
    _tell(report)
    # The report of a failure is kept for reading, but never under the name that says the edge is proved.
    failed = options.output.with_suffix(".failed.json")
    if report["passed"]:
        write_json(options.output, report)
        failed.unlink(missing_ok=True)
        return
    write_json(failed, report)
    options.output.unlink(missing_ok=True)
    gate = next(gate for gate in report["gates"] if gate["verdict"] == "failed")
    raise GateError(
        f"gate '{gate['name']}' failed",
        file=options.child,
        value=f"{gate['value']:.6g}",
        limit=f"{gate['limit']:.6g}",
        hint="; ".join([*report["diverges_at"].values(), f"whole report: {failed}"]),
    )


def _tell(report: dict[str, Any]) -> None:
    from facekiln.progress import log

    emulated = "   EMULATED" if report["emulated"] else ""
    log.info("%s against %s%s", report["child"]["path"], report["parent"]["path"], emulated)
    for reader, figures in report["outputs"].items():
        for name, value in figures.items():
            log.info(
                "  %s %s: cosine %.6f, max error %.2e of scale",
                reader,
                name,
                value["cosine"],
                value["max_rel"],
            )
    for reader, value in report["faces"].items():
        if not value["parent"]:
            told = (
                "  %s faces: none in the parent, which says nothing; %d here. Take other pictures: --images"
            )
            log.warning(told, reader, value["child"])
            continue
        log.info(
            "  %s faces: %d in the parent, %.1f %% of them found; %d here, %.1f %% invented; mean IoU %.4f",
            reader,
            value["parent"],
            100 * value["found"],
            value["child"],
            100 * value["invented"],
            value["mean_iou"],
        )
