"""`facekiln predict`: run a stage over a dataset, merge shards, export predictions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from facekiln.commands import add_config, add_verb, end_on_sigterm, seconds

if TYPE_CHECKING:
    from facekiln.predictions.store import Predictions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    run = add_verb(
        verbs,
        "run",
        _run,
        "run an artifact over every picture of a dataset; after a kill the same command goes on",
        "facekiln predict run --stage results/onnx/retinaface_640.onnx --dataset wider_val",
    )
    run.add_argument("--stage", type=Path, required=True, metavar="FILE", help="the artifact that is run")
    run.add_argument("--model", help="default: from the artifact's name")
    run.add_argument(
        "--size", metavar="LABEL", help="that the artifact is built for (default: from its name)"
    )
    run.add_argument("--dataset", required=True, help="a name of config/datasets.yaml, or NAME@INFERENCE")
    run.add_argument(
        "--inference", metavar="NAME", help="an entry of config.yaml's `inference` (default: `default`)"
    )
    run.add_argument("--backend", metavar="NAME", help="default: the first that runs such files")
    run.add_argument(
        "--golden", type=Path, metavar="FILE", help="a verdict of `facekiln gate golden`: a failed one stops"
    )
    run.add_argument("--shard", default="1/1", metavar="I/N", help="part I of N of the dataset")
    run.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="default: results/predictions/BACKEND/ARTIFACT/DATASET[@INFERENCE]",
    )
    add_config(run)

    board = add_verb(
        verbs,
        "board",
        _board,
        "run an artifact over a dataset on a board; after a kill or a cut the same command goes on",
        "facekiln predict board --stage results/onnx/retinaface_640.onnx --dataset wider_val --board se7",
    )
    board.add_argument("--stage", type=Path, required=True, metavar="FILE", help="the artifact that is run")
    board.add_argument("--board", required=True, help="a name of config/boards.yaml")
    board.add_argument("--dataset", required=True, help="a name of config/datasets.yaml, or NAME@INFERENCE")
    board.add_argument("--model", help="default: from the artifact's name")
    board.add_argument(
        "--size", metavar="LABEL", help="that the artifact is built for (default: from its name)"
    )
    board.add_argument(
        "--shard-pictures",
        type=int,
        default=32,
        metavar="N",
        help="sent, run and brought home at once (default: %(default)s)",
    )
    board.add_argument(
        "--threads", type=int, default=2, help="of a processor's runtime (default: %(default)s)"
    )
    board.add_argument(
        "--wait", type=seconds, default=0.0, metavar="SECONDS", help="for another user of the board"
    )
    board.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="of one shard (default: the board's run_seconds)"
    )
    board.add_argument(
        "--exact",
        action="store_true",
        help="float32 where the runtime's default is half precision (ncnn on many boards)",
    )
    board.add_argument("--half", action="store_true", help="bring outputs home as float16: half the bytes")
    board.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="default: results/predictions/board-BOARD/ARTIFACT/DATASET[@INFERENCE]",
    )
    add_config(board)

    merge = add_verb(
        verbs,
        "merge",
        _merge,
        "put the shards of one run together: the same bytes as a run without shards",
        "facekiln predict merge shard1/ shard2/ --output merged/",
    )
    merge.add_argument("shards", type=Path, nargs="+", metavar="FOLDER")
    merge.add_argument("--output", type=Path, required=True, metavar="FOLDER")

    export = add_verb(
        verbs,
        "export",
        _export,
        "write predictions as WIDER FACE result files, JSON or Parquet",
        "facekiln predict export results/predictions/onnxruntime/onnx/retinaface_640.onnx/wider_val"
        " --format text --boxes truncate --output wider_results/",
    )
    export.add_argument("predictions", type=Path, metavar="FOLDER")
    export.add_argument("--format", choices=("text", "json", "parquet"), default="text")
    export.add_argument(
        "--boxes",
        choices=("float", "truncate", "floor_ceil"),
        default="float",
        help="how corners become x, y, width, height: as they are; cut to whole pixels (Pytorch_Retinaface); "
        "corner rounded down and sides up (Ultra-Light detector)",
    )
    export.add_argument(
        "--digits", type=int, metavar="N", help="of scores behind the point (default: all of float32)"
    )
    export.add_argument(
        "--header",
        choices=("name", "path"),
        default="name",
        help="first line of a text file: the picture's name without ending, or `event/name.jpg`",
    )
    export.add_argument(
        "--output", type=Path, required=True, metavar="PATH", help="a folder for text, else a file"
    )


def _stop_where_failed(golden: Path) -> None:
    from facekiln.artifact import read_json
    from facekiln.errors import GateError

    verdict = read_json(golden)
    if verdict.get("verdict") == "failed":
        raise GateError(
            f"the golden picture says that this artifact does not work: {verdict.get('reason', '')}",
            file=golden,
            hint="mend the artifact, or correct the model's `golden:`",
        )


def _run(options: argparse.Namespace) -> None:
    from facekiln.config import load_config
    from facekiln.data.declared import declared_set
    from facekiln.errors import KilnError
    from facekiln.predictions.names import backend_for, model_of, split_dataset
    from facekiln.predictions.run import predict
    from facekiln.predictions.settings import DEFAULT, inference_of
    from facekiln.predictions.shards import parse_shard

    config = load_config(options.config)
    shard = parse_shard(options.shard)
    if options.golden:
        _stop_where_failed(options.golden)
    name, entry = split_dataset(options.dataset)
    if options.inference and entry not in (DEFAULT, options.inference):
        raise KilnError("two inference entries are named", value=f"{entry}, {options.inference}")
    entry = options.inference or entry
    declared = declared_set(name, options.config)
    backend = backend_for(options.stage, options.backend)
    model, label = model_of(options.stage, backend, config, options.model, options.size)
    inference = inference_of(entry, model, config, label=label, artifact=str(options.stage))
    output = _output(options, backend, name, entry)
    predictions = predict(
        options.stage,
        model,
        config,
        backend=backend,
        inference=inference,
        declared=declared,
        shard=shard,
        output=output,
    )
    _record(output, "predict run", [options.stage], predictions)
    _tell(output, predictions)


def _output(options: argparse.Namespace, backend: str, name: str, entry: str) -> Path:
    """Return where predictions go: `--output`, or the place that the workflow has for them."""
    from facekiln.predictions.run import below_results
    from facekiln.predictions.settings import DEFAULT

    given: Path | None = options.output
    segment = name if entry == DEFAULT else f"{name}@{entry}"
    return given or Path("results/predictions") / backend / below_results(options.stage) / segment


def _board(options: argparse.Namespace) -> None:
    from facekiln.boards.settings import load_board
    from facekiln.config import load_config
    from facekiln.data.declared import declared_set
    from facekiln.errors import KilnError
    from facekiln.predictions.names import backend_for, backend_on, model_of, split_dataset
    from facekiln.predictions.on_board import BoardRun, predict_on_board
    from facekiln.predictions.settings import inference_of

    if options.shard_pictures < 1 or options.threads < 1:
        raise KilnError("needs a picture and a thread at least", where="--shard-pictures, --threads")
    config = load_config(options.config)
    name, entry = split_dataset(options.dataset)
    declared = declared_set(name, options.config)
    model, label = model_of(options.stage, backend_for(options.stage), config, options.model, options.size)
    if label is None:
        raise KilnError("is a checkpoint, which no board runs", file=options.stage)
    inference = inference_of(entry, model, config, label=label, artifact=str(options.stage))
    output = _output(options, backend_on(options.board), name, entry)
    end_on_sigterm()
    predictions = predict_on_board(
        options.stage,
        model,
        how=BoardRun(
            load_board(options.board, options.config),
            shard=options.shard_pictures,
            threads=options.threads,
            wait=options.wait,
            timeout=options.timeout,
            exact=options.exact,
            half=options.half,
        ),
        inference=inference,
        declared=declared,
        output=output,
    )
    _record(output, "predict board", [options.stage], predictions)
    _tell(output, predictions)


def _merge(options: argparse.Namespace) -> None:
    from facekiln.predictions.shards import merge

    predictions = merge(options.shards, options.output)
    # The shards are the workflow's temporary files: the story goes on with what they were made from.
    artifact = Path("results") / predictions.meta["artifact"]
    made_from = (
        [artifact] if artifact.is_file() else [folder / "predictions.npz" for folder in options.shards]
    )
    _record(options.output, "predict merge", made_from, predictions)
    _tell(options.output, predictions)


def _export(options: argparse.Namespace) -> None:
    from facekiln.predictions.export import export
    from facekiln.predictions.store import read_predictions
    from facekiln.progress import log

    predictions = read_predictions(options.predictions)
    export(
        predictions,
        options.output,
        form=options.format,
        boxes=options.boxes,
        digits=options.digits,
        header=options.header,
    )
    log.info("%s: %d detections in %d pictures", options.output, len(predictions.scores), len(predictions))


def _record(folder: Path, verb: str, inputs: list[Path], predictions: Predictions) -> None:
    from facekiln.predictions.store import ARRAYS_FILE
    from facekiln.provenance import write_record

    meta = predictions.meta
    write_record(
        folder / ARRAYS_FILE,
        verb=verb,
        inputs=inputs,
        settings=meta,
        facts={"pictures": len(predictions), "detections": len(predictions.scores)},
        emulated=meta["emulated"],
    )


def _tell(folder: Path, predictions: Predictions) -> None:
    from facekiln.progress import log

    meta = predictions.meta
    log.info(
        "%s: %d detections in %d pictures; %s, %s%s",
        folder,
        len(predictions.scores),
        len(predictions),
        meta["backend"],
        meta["precision"],
        ", VIRTUAL" if meta.get("virtual") else ", EMULATED" if meta["emulated"] else "",
    )
