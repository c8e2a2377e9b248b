"""`facekiln magicmind infer`: Cambricon's sample program over a folder of pictures, with its progress."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from typing import Any

from facekiln.commands import add_config, add_verb

_HELP_SECONDS = 60.0


def add_infer_verb(verbs: Any) -> None:
    """Add the verb that runs the sample's `infer` to the noun's subparsers."""
    infer = add_verb(
        verbs,
        "infer",
        _infer,
        "run the `infer` program that you built of Cambricon's sample, on a machine with a card;"
        " `facekiln eval wider` reads what it writes",
        "facekiln magicmind infer retinaface.mm --program infer_cpp/infer --pictures WIDER_val/images"
        " --output inferred && facekiln eval wider inferred --truth ground_truth",
    )
    infer.add_argument("mm", type=Path, help="built by the vendor's SDK")
    infer.add_argument("--program", type=Path, required=True, help="the sample's infer")
    infer.add_argument(
        "--pictures", type=Path, required=True, metavar="FOLDER", help="has a folder per event"
    )
    infer.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="gets pred_txts/")
    infer.add_argument("--batch", type=int, default=1, metavar="N")
    infer.add_argument("--count", type=int, default=-1, metavar="N", help="of pictures (default: all)")
    infer.add_argument("--device", type=int, default=0, help="number of the MLU")
    infer.add_argument("--file-list", type=Path, metavar="FILE", help="pictures by name, below --pictures")
    infer.add_argument("--generation", choices=["batch_size", "batch"], help="default: by its --help")
    add_config(infer)


def _infer(options: argparse.Namespace) -> None:
    from facekiln.chips.magicmind.container import is_emulated
    from facekiln.chips.magicmind.infer_cpp import command, generation_of, infer
    from facekiln.chips.magicmind.settings import load_settings
    from facekiln.errors import KilnError
    from facekiln.progress import log

    if is_emulated(options.mm):
        raise KilnError(
            "is the emulator's, which no card runs",
            file=options.mm,
            hint="facekiln predict run --backend magicmind-emulator",
        )
    generation = options.generation
    if generation is None:
        try:
            told = subprocess.run(
                [options.program.absolute(), "--help"],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_HELP_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KilnError(f"cannot be asked for its flags: {error}", file=options.program) from error
        generation = generation_of(told.stdout + told.stderr)
    output: Path = options.output.absolute()
    arguments = command(
        options.mm.absolute(),
        options.pictures.absolute(),
        output,
        batch=options.batch,
        count=options.count,
        device=options.device,
        file_list=options.file_list.absolute() if options.file_list else None,
        generation=generation,
    )
    place, count = infer(options.program, arguments, output, load_settings(options.config).sdk)
    log.info("%s: %d pictures; judge them: facekiln eval wider %s", place, count, options.output)
