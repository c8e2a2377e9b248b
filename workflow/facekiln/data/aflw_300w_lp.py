"""300W-LP and AFLW2000-3D: 68 landmarks and a head pose for the one face of each picture, in .mat files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facekiln.config import known
from facekiln.data.mat import load_mat, real_array
from facekiln.data.sample import Listing, Sample, landmarks_of, sample_of
from facekiln.data.wflw import around
from facekiln.errors import KilnError

# Which points: `pt2d` beside the picture, `pts_2d` of landmarks/<set>/<picture>_pts.mat (the ones that
# PFPLD is trained on), or the first two rows of `pt3d_68` (AFLW2000-3D, whose own pt2d has 21 columns).
POINTS = ("pt2d", "pts_2d", "pt3d_68")


def read_300w_lp(name: str, images: Path, *annotations: Path, points: str = "pt2d") -> Listing:
    """List the pictures of the sets' folders (AFW, HELEN, IBUG, LFPW or AFLW2000), each below `images`.

    `Pose_Para` holds pitch, yaw, roll in radians and four more numbers. A point (-1, -1) is not annotated.
    There is no box; the one around the landmarks stands for it.

    Raises:
        KilnError: `points` is none of `POINTS`, or a file of an annotation does not lie below `images`.
    """
    known(points, POINTS, "kind of 300W-LP points")
    files = [
        path
        for folder in annotations
        for path in sorted(folder.rglob("*.mat"))
        if not path.name.endswith("_pts.mat")
    ]
    for path in files:
        if not path.is_relative_to(images):
            raise KilnError(
                "lies outside the folder of pictures, which it is beside",
                file=path,
                limit=f"below {images}",
                hint="name the folder above all sets as `images`, and the sets below it as annotations",
            )
    sources = [path.relative_to(images).with_suffix("").as_posix() for path in files]
    return Listing(name, sources, lambda index: _read(files[index], sources[index], images, points), images)


def _read(path: Path, source: str, images: Path, points: str) -> Sample:
    placed = _points(path, source, images, points)
    placed[(placed == -1).all(axis=1)] = np.nan
    if np.isnan(placed).all():
        raise KilnError("has no landmark", file=path, where=points)
    pose = real_array(load_mat(path, "Pose_Para")["Pose_Para"], (1, 7), path, "Pose_Para")
    pitch, yaw, roll = pose[0, :3]
    return sample_of(
        source,
        path.with_suffix(".jpg"),
        around(placed[None]),
        landmarks=landmarks_of("68", placed),
        pose=np.array([[yaw, pitch, roll]]),
    )


def _points(path: Path, source: str, images: Path, points: str) -> np.ndarray:
    if points == "pts_2d":
        beside = images / "landmarks" / f"{source}_pts.mat"
        return real_array(load_mat(beside, points)[points], (68, 2), beside, points)
    value = load_mat(path, points)[points]
    if points == "pt2d" and np.shape(value) == (2, 21):
        raise KilnError(
            "has AFLW's 21 points", file=path, where=points, limit="68", hint="set `points: pt3d_68`"
        )
    return real_array(value, (3 if points == "pt3d_68" else 2, 68), path, points)[:2].T.copy()
