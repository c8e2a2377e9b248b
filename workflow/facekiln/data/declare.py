"""A declaration of a dataset that is here, counted and hashed, to be put into config/datasets.yaml."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from facekiln.config import known
from facekiln.data.declared import KINDS, hash_of
from facekiln.errors import KilnError


def declare(
    name: str, kind: str, folder: Path, images: str, annotations: list[str], licence: str
) -> dict[str, Any]:
    """Count and hash a dataset as it lies there.

    What it gives is what was found, not what should be: compare it with what the dataset's source states.

    Args:
        name: the dataset's.
        kind: its layout, a key of `facekiln.data.declared.KINDS`.
        folder: where it lies.
        images: the folder of pictures, below `folder`.
        annotations: files or folders, below `folder`, as the kind wants them.
        licence: what may be done with it, in a line.

    Raises:
        KilnError: unknown kind, no picture, an annotation that is missing or does not parse.
    """
    layout = KINDS[known(kind, KINDS, "kind of dataset")]
    paths = [folder / annotation for annotation in annotations]
    for path in paths:
        if not path.exists():
            raise KilnError("does not exist", file=path, hint="name annotations relative to --folder")
    dataset = layout.reader()(name, folder / images, *paths)
    if not len(dataset):
        raise KilnError(
            "holds no picture of such a dataset",
            file=paths[0] if paths else folder,
            limit=f"kind {kind}" + (f", files {layout.ending}" if layout.ending else ""),
            hint="is the kind right, and the annotation whole? See docs/datasets.md",
        )
    samples = [dataset[index] for index in range(len(dataset))]
    faces, counted = sum(map(len, samples)), sum(int((~sample.ignore).sum()) for sample in samples)
    expected = {"images": len(samples), "faces": faces}
    expected |= {"counted": counted} if counted < faces else {}
    folders = len({PurePosixPath(source).parent for source in dataset.sources})
    expected |= {"folders": folders} if folders > 1 else {}
    return {
        "kind": kind,
        "licence": licence,
        "folder": str(folder),
        "images": images,
        "annotations": [
            {"path": annotation, "sha256": hash_of(path, layout.ending)}
            for annotation, path in zip(annotations, paths, strict=True)
        ],
        "expected": expected,
    }


def as_yaml(name: str, entry: dict[str, Any]) -> str:
    """Return an entry as it stands below `datasets:`."""
    text = yaml.safe_dump({name: entry}, sort_keys=False, allow_unicode=True, width=110)
    return "".join(f"  {line}\n" for line in text.splitlines())
