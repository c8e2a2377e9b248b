"""`facekiln NOUN VERB ...`: the one command line; every rule of the workflow calls it.

Each noun is a module of `facekiln.commands`, imported only when asked for, so that `facekiln --help` and
every verb that needs no torch start without it.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from facekiln import __version__
from facekiln.errors import GateError, KilnError

NOUNS = {
    "checkpoint": "train, fetch and look into checkpoints",
    "torchscript": "trace a network",
    "onnx": "export, simplify and compare ONNX graphs",
    "caffe": "convert ONNX to Caffe, look into Caffe pairs",
    "dataset": "declare, list, check and measure datasets",
    "calibration": "make and check the image set that quantisation is calibrated on",
    "quant": "ranges of our own, int8 estimates and layer sensitivity",
    "nnie": "legalise, configure, map, run and inspect for HiSilicon NNIE",
    "tengine": "convert, quantise, run and inspect for Tengine",
    "ncnn": "convert, quantise, run, inspect and compare for ncnn",
    "sophon": "transform, calibrate, compile, inspect and compare for SOPHON chips; make its tools",
    "magicmind": "build, run and inspect for Cambricon's MLU cards",
    "virtual": "bring up virtual boards on this machine, to try the whole path without hardware",
    "parity": "run two stages side by side and compare them",
    "detect": "find faces in pictures with any stage",
    "predict": "run a stage over a dataset, resumable and in shards; merge and export predictions",
    "gallery": "pictures for the report: detections, misses, shifts of boxes, curves",
    "bench": "measure artifacts on boards, show records, read tools' logs",
    "gate": "judge artifacts: golden pictures, accuracy lost, batches, pipelines, throughput; list verdicts",
    "eval": "average precision and landmark errors of predictions",
    "table": "put figures of one protocol into tables",
    "explain": "tell the whole story of an artifact",
    "board": "declare boards, see who holds them, run commands and move files there",
    "models": "list the models that exist",
    "doctor": "show what is installed and what is missing",
}

_EPILOG = """examples:
  facekiln explain results/nnie/retinaface_640.wk
  facekiln nnie inspect results/nnie/retinaface_640.wk
  facekiln caffe convert --help
"""


def build_parser(noun: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; only the module of `noun` is imported."""
    parser = argparse.ArgumentParser(
        prog="facekiln",
        description="Face models to edge-chip artifacts, one step at a time. Each rule calls one of these.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"facekiln {__version__}")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write every message to this file as well")
    nouns = parser.add_subparsers(dest="noun", metavar="NOUN", required=True)
    for name, summary in NOUNS.items():
        sub = nouns.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name == noun:
            importlib.import_module(f"facekiln.commands.{name}").add_arguments(sub)
    return parser


def _interrupt(*_: object) -> None:
    """End as Ctrl-C does, so that what was begun is cleared away and helper processes end."""
    raise KeyboardInterrupt


def _refuse_overwriting(options: argparse.Namespace) -> None:
    """Refuse an output that is one of the inputs, under whatever name: it would be lost.

    Raises:
        KilnError: names the file.
    """
    values = {key: value if isinstance(value, list) else [value] for key, value in vars(options).items()}
    named = {key: [path for path in value if isinstance(path, Path)] for key, value in values.items()}
    written = {key for key in named if key.split("_")[-1] == "output"} | set(getattr(options, "writes", ()))
    outputs = [path for key in written for path in named[key]]
    inputs = [path for key, paths in named.items() if key not in written for path in paths]
    for output in outputs:
        if output.exists() and any(path.exists() and path.samefile(output) for path in inputs):
            raise KilnError("is the output and an input", file=output, hint="name another output")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 on success, 1 on a `KilnError`, 3 on a failed gate, 130 on an interruption; argparse ends with 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    noun = next((word for word in arguments if word in NOUNS), None)
    options = build_parser(noun).parse_args(arguments)
    from facekiln.progress import log, set_up_logging

    run: Callable[[argparse.Namespace], int | None] = options.run
    if argv is None:  # a process of its own: Snakemake and systems end it by SIGTERM
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        set_up_logging(options.log)
        _refuse_overwriting(options)
        return run(options) or 0
    except KilnError as error:
        log.error("facekiln: error: %s", error)
        return 3 if isinstance(error, GateError) else 1
    except MemoryError:
        log.error("facekiln: error: there is not enough memory for this; nothing half-written was left")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("facekiln: interrupted; nothing half-written was left\n")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:  # a name that no file system takes, a folder that nobody may look into
        from facekiln.artifact import no_room
        from facekiln.unreadable import hint_of

        # What a full disk cut off may be a hidden part of it, or have no name at all.
        told = no_room(error, getattr(options, "output", None) or error.filename2 or error.filename)
        if told is None:
            if error.filename is None:
                raise
            file = str(error.filename)
            told = KilnError(str(error.strerror), file=file, hint=hint_of(file, error))
        log.error("facekiln: error: %s", told)
        return 1


if __name__ == "__main__":
    sys.exit(main())
