"""A mapper's job folder: everything that a .cfg names, in one place, under names without blanks or parents.

nnie_mapper resolves relative paths against the current directory and drops its side files there, so each
job has a folder of its own. The folder is complete: it can be carried to a licensed machine and mapped
there with `nnie_mapper_12 mapper.cfg`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from facekiln.artifact import write_text
from facekiln.chips.nnie.mapper.cfg import USES_MEAN, InputGroup, MapperConfig, write_cfg
from facekiln.errors import KilnError
from facekiln.provenance import sidecar_of

CFG = "mapper.cfg"
PROTOTXT, CAFFEMODEL, HEADS = "net.prototxt", "net.caffemodel", "net.heads.json"
INSTRUCTION = "inst"
_IMAGES = "images"


def read_list(path: Path, base: Path | None = None) -> list[Path]:
    """Return the pictures that a list names, one per line; relative ones are below `base`.

    Raises:
        KilnError: the list cannot be read or is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise KilnError(
            f"the image list cannot be read: {error.strerror}",
            file=path,
            hint="`facekiln calibration make --source FOLDER ...` makes a set of a folder of pictures",
        ) from error
    except UnicodeDecodeError as error:
        raise KilnError("the image list is not UTF-8 text", file=path) from error
    if any("\0" in line for line in lines):
        raise KilnError("the image list is no text: it holds NUL bytes", file=path)
    found = [(base or Path()) / line.strip() for line in lines if line.strip()]
    if not found:
        raise KilnError(
            "the image list is empty", file=path, hint="name 20 to 50 typical pictures, one per line"
        )
    return found


def _copy(source: Path | str, target: Path, what: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise KilnError(f"{what} cannot be copied: {error.strerror}", file=source) from error


def _copy_pictures(pictures: Sequence[Path], folder: Path, number: int) -> str:
    """Copy pictures in order under short names and write their list; return the list's name."""
    names = []
    for place, picture in enumerate(pictures):
        name = f"{_IMAGES}/{number}_{place:05d}{picture.suffix.lower()}"
        _copy(picture, folder / name, "a calibration picture")
        names.append(name)
    write_text(folder / f"list{number}.txt", "".join(f"{name}\n" for name in names))
    return f"list{number}.txt"


def _relocated(
    group: InputGroup, folder: Path, number: int, pictures: Sequence[Path] | None, mean: str | None
) -> InputGroup:
    if group.image_type == 0:
        _copy(group.image_list, folder / f"list{number}.txt", "the feature map list")
        image_list = f"list{number}.txt"
    else:
        image_list = _copy_pictures(pictures or read_list(Path(group.image_list)), folder, number)
    mean_file = "null"
    if group.norm_type in USES_MEAN:
        mean_file = f"mean{number}{Path(group.mean_file).suffix}"
        if mean is None:
            _copy(group.mean_file, folder / mean_file, "the mean file")
        else:
            write_text(folder / mean_file, mean)
    return replace(group, image_list=image_list, mean_file=mean_file)


def write_job(
    folder: Path,
    config: MapperConfig,
    *,
    heads: Path | None = None,
    pictures: Sequence[Path] | None = None,
    mean: str | None = None,
) -> MapperConfig:
    """Copy everything that a .cfg names into a folder and write mapper.cfg there.

    Args:
        folder: exists, and is empty.
        config: its relative paths are relative to the current directory.
        heads: the .heads.json of the network; the vendor's tool ignores it, the emulator embeds it.
        pictures: calibration pictures of the first input, instead of its image_list.
        mean: the text of the first input's mean file, instead of its mean_file.

    Returns:
        The .cfg as written, its paths relative to the folder.

    Raises:
        KilnError: a file is missing or unreadable.
    """
    _copy(config.prototxt_file, folder / PROTOTXT, "the prototxt")
    _copy(config.caffemodel_file, folder / CAFFEMODEL, "the caffemodel")
    if heads:
        _copy(heads, folder / HEADS, "the heads file")
    record = sidecar_of(config.prototxt_file)
    if record.is_file():
        _copy(record, sidecar_of(folder / PROTOTXT), "the prototxt's record")
    rois = []
    for number, roi in enumerate(config.roi_coordinate_file):
        _copy(roi, folder / f"roi{number}.txt", "a roi_coordinate_file")
        rois.append(f"roi{number}.txt")
    gfpq = None
    if config.gfpq_param_file:
        gfpq = "gfpq_param.txt"
        _copy(config.gfpq_param_file, folder / gfpq, "the gfpq_param_file")
    inputs = tuple(
        _relocated(group, folder, number, *((pictures, mean) if number == 0 else (None, None)))
        for number, group in enumerate(config.inputs)
    )
    written = replace(
        config,
        prototxt_file=PROTOTXT,
        caffemodel_file=CAFFEMODEL,
        inputs=inputs,
        instruction_name=INSTRUCTION,
        roi_coordinate_file=tuple(rois),
        gfpq_param_file=gfpq,
    )
    write_text(folder / CFG, write_cfg(written))
    return written
