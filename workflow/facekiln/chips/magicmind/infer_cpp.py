"""Cambricon's sample program `infer` (infer_cpp): flags of both generations, progress, result files.

It writes `{output}/pred_txts/{event}/{picture}.txt` (name, count, rows `x y width height score`, x and y
rounded to whole pixels), which `facekiln eval wider` reads; where it is told to, pictures below `images/`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facekiln.chips.magicmind.settings import SdkSettings
from facekiln.chips.vendor_tool import run_tool
from facekiln.errors import KilnError
from facekiln.progress import log, progress_bar

# Releases from 2023 on, and those of 2022.
GENERATIONS = ("batch_size", "batch")
PREDICTIONS, PICTURES = "pred_txts", "images"
_TOTAL = re.compile(r"Total images: (\d+)")
_PICTURE = re.compile(r"Inference img: (.*\S)\s+(\d+)/(\d+)")


def generation_of(help_text: str) -> str:
    """Return which batch flag this `infer` knows, by its `--help`: "batch_size" or "batch".

    Raises:
        KilnError: it names neither.
    """
    for name in GENERATIONS:
        if re.search(rf"-{name}\b(?!_)", help_text):
            return name
    raise KilnError(
        "its --help names neither --batch_size nor --batch", file="infer", hint="is it the sample's program?"
    )


def command(
    model: Path,
    pictures: Path,
    output: Path,
    *,
    batch: int = 1,
    count: int = -1,
    device: int = 0,
    file_list: Path | None = None,
    generation: str = GENERATIONS[0],
) -> list[str]:
    """Return the program's arguments.

    Args:
        model: the .mm.
        pictures: the folder that has a folder per event.
        output: the folder of results, which exists.
        batch: what the model is run with.
        count: of pictures; -1 takes all (its own default is 10).
        device: number of the MLU.
        file_list: pictures by name, below `pictures`.
        generation: see `generation_of`.

    Raises:
        KilnError: a batch below 1, or a count that is neither -1 nor above 0.
    """
    if batch < 1 or (count < 1 and count != -1):
        raise KilnError("asks for no picture", file="infer", value=f"batch {batch}, {count} pictures")
    flags = {
        "device_id": device,
        "magicmind_model": model,
        "image_dir": pictures,
        "image_num": count,
        "output_dir": output,
        "save_img": "false",
        generation: batch,
    }
    if file_list is not None:
        flags["file_list"] = file_list
    return [f"--{name}={value}" for name, value in flags.items()]


class Watch:
    """The program's lines while it runs: `Inference img: NAME i/N` moves a bar, all else goes to the log."""

    def __init__(self) -> None:
        """Begin with no picture seen."""
        self.total = self.seen = 0
        self._bar: Any = None

    def __call__(self, line: str) -> None:
        """Take a line."""
        if found := _TOTAL.fullmatch(line.strip()):
            self.total = int(found[1])
            self._bar = progress_bar(self.total, "infer", "img")
        elif found := _PICTURE.fullmatch(line.strip()):
            self.seen = int(found[2])
            if self._bar is not None:
                self._bar.update(max(0, self.seen - self._bar.n))
        else:
            log.info("  | %s", line)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


def infer(program: Path, arguments: Sequence[str], output: Path, sdk: SdkSettings) -> tuple[Path, int]:
    """Run the program on this machine and check that each picture has its result file.

    Args:
        program: the sample's, built.
        arguments: see `command`.
        output: as in the arguments; must hold no results of an earlier run.
        sdk: whose `library_path` and `timeout_minutes` hold.

    Returns:
        The folder of result files, and how many pictures they are of.

    Raises:
        KilnError: the program failed, took too long, found no picture, or left result files out.
    """
    place = output / PREDICTIONS
    if place.exists():
        raise KilnError("holds results of an earlier run", file=place, hint="give another --output")
    output.mkdir(parents=True, exist_ok=True)
    watch = Watch()
    local = sdk.here()
    try:
        run_tool(local, [str(program)], arguments, output, key="--program", watch=watch)
    finally:
        watch.close()
    written = sum(1 for path in place.rglob("*.txt")) if place.is_dir() else 0
    if not watch.total or written != watch.total:
        raise KilnError(
            "left result files out" if watch.total else "found no picture",
            file=place,
            value=f"{written} files",
            limit=f"{watch.total} pictures",
            hint="its lines are above; --pictures must hold a folder per event, with .jpg files",
        )
    return place, written
