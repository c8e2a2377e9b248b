"""Pictures for calibration and parity: drawn here, or chosen from a folder by rule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekiln.data.procedural import draw_scene, scene_seed
from facekiln.errors import KilnError
from facekiln.vision.image import read_image

Picture = tuple[str, NDArray[np.uint8]]

PROCEDURAL = "procedural"
_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}


def procedural_pictures(count: int, seed: int, size: tuple[int, int]) -> Iterator[Picture]:
    """Yield `count` named scenes with made-up faces, uint8 BGR [h,w,3].

    Args:
        count: how many.
        seed: decides which; pictures of two seeds share nothing.
        size: (height, width) in pixels.
    """
    for index in range(count):
        yield f"{PROCEDURAL}_{seed}_{index:04d}", draw_scene(scene_seed("pictures", seed, index), size).image


def picture_names(folder: Path) -> list[str]:
    """Return the sorted paths of the pictures below a folder; hidden files and folders are passed over."""
    below = (item.relative_to(folder) for item in folder.rglob("*") if item.suffix.lower() in _ENDINGS)
    return sorted(name.as_posix() for name in below if not any(part.startswith(".") for part in name.parts))


def folder_pictures(path: Path | str, count: int, seed: int) -> Iterator[Picture]:
    """Yield up to `count` pictures of a folder and its subfolders, as stored, uint8 BGR [h,w,3].

    The choice depends on the names, `count` and `seed` only; a picture's name is its path below the folder,
    and they come in the order of their names. Hidden files and folders are passed over.

    Raises:
        KilnError: no such folder, no picture in it, or one of the chosen cannot be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise KilnError(
            "is not a folder", file=folder, hint=f"name a folder of pictures, or '{PROCEDURAL}' to draw some"
        )
    names = picture_names(folder)
    if not names:
        raise KilnError(
            "holds no picture", file=folder, limit=", ".join(sorted(_ENDINGS)), hint=f"or use '{PROCEDURAL}'"
        )
    chosen = np.random.default_rng(seed).permutation(len(names))[:count]
    for index in sorted(chosen.tolist()):
        yield names[index], read_image(folder / names[index])


def pictures(source: str | Path, count: int, seed: int, size: tuple[int, int]) -> Iterator[Picture]:
    """Yield named pictures, uint8 BGR [h,w,3]: drawn ones at `size`, or a folder's as they are.

    Args:
        source: "procedural", or a folder.
        count: how many; a folder may hold fewer.
        seed: decides which.
        size: (height, width) of drawn pictures.

    Raises:
        KilnError: see `folder_pictures`.
    """
    if str(source) == PROCEDURAL:
        return procedural_pictures(count, seed, size)
    return folder_pictures(source, count, seed)
