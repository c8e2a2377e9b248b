"""`facekiln gallery`: pictures of what an evaluation found, for the report."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from facekiln.commands import add_config, add_verb

if TYPE_CHECKING:
    from facekiln.data.sample import Dataset
    from facekiln.evaluation.gallery_sheet import Picture
    from facekiln.predictions.store import Predictions

_FOLDER = "results/predictions/nnie-emulator/nnie/retinaface_640.wk/procedural"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, run, summary, example, count in (
        ("samples", _samples, "draw detections on pictures taken evenly over the dataset", _FOLDER, 9),
        ("misses", _misses, "crops around the largest faces that were not found", _FOLDER, 24),
        (
            "shifts",
            _shifts,
            "crops around the faces whose boxes differ most between two stages",
            f"{_FOLDER} results/predictions/onnxruntime/onnx/retinaface_640.sim.onnx/procedural",
            24,
        ),
    ):
        verb = add_verb(verbs, name, run, summary, f"facekiln gallery {name} {example} --output {name}.png")
        verb.add_argument("predictions", type=Path, help="a folder of predictions of ours")
        if name == "shifts":
            verb.add_argument("parent", type=Path, help="the other stage's, of the same dataset")
        verb.add_argument("--dataset", metavar="NAME", help="of datasets.yaml (default: the predictions')")
        verb.add_argument("--count", type=int, default=count, help=f"how many (default: {count})")
        verb.add_argument(
            "--score", type=float, default=0.5, help="detections count from this score on (default: 0.5)"
        )
        verb.add_argument("--output", type=Path, required=True, metavar="PNG")
        add_config(verb)
    curves = add_verb(
        verbs,
        "curves",
        _curves,
        "curves of evaluations of one protocol in one picture: precision over recall, or landmark errors",
        "facekiln gallery curves results/eval/voc/*/*/retinaface_640*/procedural.json --output curves.png",
    )
    curves.add_argument("evaluations", type=Path, nargs="+", help="files of results/eval/, curves beside")
    curves.add_argument("--output", type=Path, required=True, metavar="PNG")


def _open(options: argparse.Namespace, folder: Path) -> tuple[Predictions, Dataset]:
    from facekiln.data.declared import declared_set, open_dataset
    from facekiln.predictions.store import read_predictions

    predictions = read_predictions(folder)
    name = (options.dataset or str(predictions.meta["dataset"])).partition("@")[0]
    return predictions, open_dataset(declared_set(name, options.config))


def _write(options: argparse.Namespace, picture: Picture, folders: Iterable[Path], *, emulated: bool) -> None:
    from facekiln.predictions.store import ARRAYS_FILE
    from facekiln.progress import log
    from facekiln.provenance import write_record
    from facekiln.vision.image import write_image

    write_image(options.output, picture)
    write_record(
        options.output,
        verb=f"gallery {options.verb}",
        inputs=[folder / ARRAYS_FILE for folder in folders],
        settings={"count": options.count, "score": options.score},
        emulated=emulated,
    )
    log.info("%s: %d x %d pixels", options.output, picture.shape[1], picture.shape[0])


def _samples(options: argparse.Namespace) -> None:
    from facekiln.evaluation.gallery import draw_samples

    predictions, dataset = _open(options, options.predictions)
    picture = draw_samples(predictions, dataset, options.count, options.score)
    _write(options, picture, [options.predictions], emulated=bool(predictions.meta["emulated"]))


def _misses(options: argparse.Namespace) -> None:
    from facekiln.evaluation.gallery import draw_misses

    predictions, dataset = _open(options, options.predictions)
    picture = draw_misses(predictions, dataset, options.count, options.score)
    _write(options, picture, [options.predictions], emulated=bool(predictions.meta["emulated"]))


def _shifts(options: argparse.Namespace) -> None:
    from facekiln.evaluation.gallery import draw_shifts
    from facekiln.predictions.store import read_predictions

    child, dataset = _open(options, options.predictions)
    parent = read_predictions(options.parent)
    picture = draw_shifts(child, parent, dataset, options.count, options.score)
    emulated = bool(child.meta["emulated"] or parent.meta["emulated"])
    _write(options, picture, [options.predictions, options.parent], emulated=emulated)


def _curves(options: argparse.Namespace) -> None:
    from facekiln.evaluation.curves import curves_of, draw_curves
    from facekiln.evaluation.stamp import read_evaluation
    from facekiln.progress import log
    from facekiln.provenance import write_record

    evaluations = [read_evaluation(path) for path in options.evaluations]
    draw_curves(evaluations, options.output)
    write_record(
        options.output,
        verb="gallery curves",
        inputs=[*options.evaluations, *map(curves_of, evaluations)],
        emulated=any(item.subject["emulated"] for item in evaluations),
    )
    log.info("%s: %d curves", options.output, len(evaluations))
