"""The training list of PFPLD: crops with 98 landmarks, attributes, pose and a flag: which of them count."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facekiln.data.rows import below, labels, lines_of, numbers
from facekiln.data.sample import Listing, Sample, landmarks_of, sample_of
from facekiln.data.wflw import ATTRIBUTES
from facekiln.errors import KilnError

# The last column. All 98 points and no trusted pose; 68 of the 98 and a pose; a pose only.
ALL_98, SOME_68_AND_POSE, POSE_ONLY = -2, 0, -1


def read_pfld_list(name: str, images: Path, annotation: Path, *, side: int = 112) -> Listing:
    """Read rows of 207 columns: path, 196 coordinates, six attributes, yaw, pitch, roll in degrees, flag.

    Coordinates are shares of the crop's side; -256 stands for a point that 300W-LP does not have. Pose is
    kept only for the flags that PFPLD's loss takes it from (0 and -1): the angles beside flag -2 come from
    older estimates, which its authors found wrong. PFLD's own lists (206 columns) have pitch, yaw, roll
    instead, and are refused. Source: the article on PFPLD and hanson-young/nniefacelib
    `PFPLD/data/datasets.py`.

    Args:
        name: the dataset's.
        images: the folder of crops.
        annotation: the list.
        side: width and height of every crop, pixels.

    Raises:
        KilnError: a row is not of that form; names file and line.
    """
    samples = [
        _sample(line.split(), annotation, number, images, side)
        for number, line in enumerate(lines_of(annotation), 1)
        if line.strip()
    ]
    return Listing.of(name, samples, images)


def _sample(words: list[str], file: Path, line: int, images: Path, side: int) -> Sample:
    if len(words) != 207:
        raise KilnError(
            "is no row of a PFPLD list",
            file=file,
            where=f"line {line}",
            value=f"{len(words)} columns",
            limit=207,
            hint="add the type flag (-2: 98 points, 0: 68 of them and pose, -1: pose) as the last column"
            if len(words) == 206
            else "path, 196 coordinates, 6 attributes, 3 angles, flag",
        )
    source, values = words[0], np.array(numbers(words[1:], file, line))
    flag = int(values[205])
    if values[205] not in (ALL_98, SOME_68_AND_POSE, POSE_ONLY):
        raise KilnError(
            "is no type flag", file=file, where=f"line {line}", value=words[206], limit="-2, 0 or -1"
        )
    points = values[:196].reshape(98, 2)
    points[(points <= -256).any(axis=1) | (flag == POSE_ONLY)] = np.nan
    pose = np.deg2rad(values[202:205]) if flag != ALL_98 else np.full(3, np.nan)
    return sample_of(
        source,
        below(images, source, file=file, where=f"line {line}"),
        [[0, 0, side, side]],
        landmarks=landmarks_of("98", points * side),
        pose=pose[None],
        attributes={
            **labels(ATTRIBUTES, values[196:202], file, f"line {line}"),
            "type_flag": np.array([flag]),
        },
        size=(side, side),
    )
