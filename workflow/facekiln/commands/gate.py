"""`facekiln gate`: judge an artifact's figures; exit status 3 where a gate failed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from facekiln.commands import add_config, add_verb
from facekiln.errors import KilnError

if TYPE_CHECKING:
    from facekiln.config import Config, Model
    from facekiln.evaluation.gates import Verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    accuracy = add_verb(
        verbs,
        "accuracy",
        _accuracy,
        "judge what a quantised artifact lost against its float parent, both measured by one protocol",
        "facekiln gate accuracy results/eval/port/nnie-emulator/nnie/retinaface_640.wk/wider_val.json"
        " results/eval/port/onnxruntime/onnx/retinaface_640.sim.onnx/wider_val.json --output gate.json",
    )
    accuracy.add_argument("child", type=Path, help="evaluation of the quantised artifact")
    accuracy.add_argument("parent", type=Path, help="evaluation of its float parent")
    for name, run, summary, example in (
        (
            "golden",
            _golden,
            "look for faces where faces are known to be, in seconds, before any long run",
            "results/nnie/retinaface_640.wk",
        ),
        (
            "batch",
            _batch,
            "compare a batch of pictures with the same pictures one by one",
            "results/checkpoints/retinaface.pth --model retinaface --size 640",
        ),
        (
            "board-decode",
            _board,
            "decode an emulated .wk's maps as the board does, in int32, and as the host does",
            "results/nnie/retinaface_640.wk",
        ),
    ):
        verb = add_verb(verbs, name, run, summary, f"facekiln gate {name} {example} --output gate.json")
        verb.add_argument("artifact", type=Path)
        verb.add_argument("--model", help="default: from the artifact's name")
        verb.add_argument("--size", help="default: from the artifact's name")
        if name == "golden":
            verb.add_argument("--mirror", help="where the model's golden picture may lie")
        _common(verb)
    pipelines = add_verb(
        verbs,
        "pipelines",
        _pipelines,
        "compare what two pipelines predicted with the same artifact, by faces",
        "facekiln gate pipelines results/predictions/nnie-emulator/nnie/retinaface_640.wk/procedural"
        " results/predictions/BOARD/nnie/retinaface_640.wk/procedural --output gate.json",
    )
    pipelines.add_argument("host", type=Path, help="folder of the reference's predictions")
    pipelines.add_argument("board", type=Path, help="folder of the other's")
    pipelines.add_argument("--score", type=float, default=0.5, help="a face counts from this score on")
    throughput = add_verb(
        verbs,
        "throughput",
        _throughput,
        "judge whether an artifact became slower on its board than a stored measurement says",
        "facekiln gate throughput results/bench/mlu/magicmind/retinaface_640_force_float16_1b.mm.json"
        " config/throughput/mlu/magicmind/retinaface_640_force_float16_1b.mm.json --output gate.json",
    )
    throughput.add_argument("new", type=Path, help="a record of `facekiln bench run`")
    throughput.add_argument("stored", type=Path, help="an earlier one, or a log of mm_run")
    throughput.add_argument("--method", choices=["intervals", "vendor"], help="default: as the config says")
    for verb in (accuracy, pipelines, throughput):
        _common(verb)
    listed = add_verb(
        verbs,
        "list",
        _list,
        "list all passed, warned, unproven and failed gates, parity's too; exit status 3 where one failed or"
        " is unproven",
        "facekiln gate list results",
    )
    listed.add_argument("folder", type=Path, nargs="?", default=Path("results"))
    listed.add_argument("--only", type=Path, nargs="+", help="these verdicts, not all below the folder")
    listed.add_argument("--output", type=Path, help="write the list as JSON, failed or not")
    listed.add_argument(
        "--keep-going", action="store_true", help="exit with 0 where a gate failed too; see `require`"
    )
    listed.add_argument("--page", type=Path, help="write it as a page for reading, too")
    require = add_verb(
        verbs,
        "require",
        _require,
        "exit with 3 unless every gate of a list passed; a warning is a pass, a missing or unproven verdict"
        " is none",
        "facekiln gate require results/gates/summary.json",
    )
    require.add_argument("summary", type=Path, help="what `facekiln gate list --output` wrote")
    require.add_argument("--output", type=Path, help="a JSON that is written only where all passed")


def _common(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--output", type=Path, required=True, help="the verdict; a failed one is X.failed.json")
    verb.add_argument(
        "--keep-going",
        action="store_true",
        help="exit with 0 and write X.json where the gate failed too; `facekiln gate require` stops then",
    )
    add_config(verb)


def _conclude(options: argparse.Namespace, verdict: Verdict) -> None:
    from dataclasses import asdict

    from facekiln.artifact import write_json
    from facekiln.evaluation.gates import failed_name, stop_if_failed, write_verdict
    from facekiln.progress import log

    log.info(verdict.line())
    if options.keep_going:
        write_json(options.output, asdict(verdict))
        failed_name(options.output).unlink(missing_ok=True)
        return
    stop_if_failed(verdict, write_verdict(options.output, verdict))


def _accuracy(options: argparse.Namespace) -> None:
    from facekiln.config import load_config
    from facekiln.evaluation.gates import judge_accuracy
    from facekiln.evaluation.stamp import read_evaluation

    limits = load_config(options.config).gates["accuracy"]
    _conclude(
        options, judge_accuracy(read_evaluation(options.child), read_evaluation(options.parent), limits)
    )


def _subject(options: argparse.Namespace) -> tuple[Model, str, Config, str]:
    from facekiln.config import load_config
    from facekiln.targets import model_and_size_of

    overrides = {"mirror": options.mirror} if getattr(options, "mirror", None) else {}
    config = load_config(options.config, overrides)
    model, size = options.model, options.size
    if options.artifact.suffix == ".pth":  # a checkpoint takes any size: its first stands for all
        model = model or options.artifact.stem
        size = size or next(iter(config.model(model).sizes))
    if model is None or size is None:
        named = model_and_size_of(options.artifact, config)
        model, size = model or named[0], size or named[1]
    return config.model(model), size, config, str(options.artifact)


def _golden(options: argparse.Namespace) -> None:
    from facekiln.evaluation.gates_run import gate_golden

    model, size, config, subject = _subject(options)
    _conclude(options, gate_golden(options.artifact, model, size, config, subject=subject))


def _batch(options: argparse.Namespace) -> None:
    from facekiln.evaluation.gates_run import gate_batch

    model, size, config, subject = _subject(options)
    _conclude(options, gate_batch(options.artifact, model, size, config, subject=subject))


def _board(options: argparse.Namespace) -> None:
    from facekiln.evaluation.gates_board import gate_board_decode

    model, size, config, subject = _subject(options)
    _conclude(options, gate_board_decode(options.artifact, model, size, config, subject=subject))


def _pipelines(options: argparse.Namespace) -> None:
    from facekiln.config import load_config
    from facekiln.evaluation.gates_run import gate_pipelines
    from facekiln.predictions.store import read_predictions

    limits = load_config(options.config).gates["pipelines"]
    host, board = read_predictions(options.host), read_predictions(options.board)
    _conclude(options, gate_pipelines(host, board, limits, options.score))


def _throughput(options: argparse.Namespace) -> None:
    from facekiln.boards.regression import judge_throughput, read_speed
    from facekiln.config import load_config

    limits = load_config(options.config).gates["throughput"]
    new = read_speed(options.new)
    _conclude(options, judge_throughput(new, read_speed(options.stored, new), limits, options.method))


def _list(options: argparse.Namespace) -> int:
    import sys

    from facekiln.artifact import write_json, write_text
    from facekiln.evaluation.gates import Verdict
    from facekiln.evaluation.gates_list import counted, read_verdict, read_verdicts, summary, summary_html
    from facekiln.progress import log

    found = [read_verdict(path) for path in options.only] if options.only else read_verdicts(options.folder)
    whole = summary(found)
    for value in whole["gates"]:
        sys.stdout.write(Verdict(**value).line() + "\n")
    sys.stdout.write(f"{len(found)} gates: {counted(whole)}\n")
    if options.output:
        write_json(options.output, whole)
    if options.page:
        write_text(options.page, summary_html(whole))
    if not whole["passed"]:
        log.error("%d gates failed, %d are unproven", whole["counts"]["failed"], whole["counts"]["unproven"])
        return 0 if options.keep_going else 3
    return 0


def _require(options: argparse.Namespace) -> None:
    from facekiln.artifact import read_json, write_json
    from facekiln.evaluation.gates_list import counted, require_passed

    whole = read_json(options.summary)
    try:
        require_passed(whole, options.summary)
    except KilnError:
        if options.output:
            options.output.unlink(missing_ok=True)
        raise
    if options.output:
        write_json(options.output, {"passed": True, "counts": whole["counts"]})
    sys.stdout.write(f"{options.summary}: {counted(whole)}\n")
