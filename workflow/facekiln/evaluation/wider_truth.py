"""WIDER FACE ground truth for evaluation: four official .mat files, kept as arrays in a cache.

The cache is keyed by the files' sha256, so that another ground truth, a subset's for example, never meets
the wrong cache. Parsing the files takes seconds, reading the cache a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import atomic_path, sha256_of, sha256_of_text
from facekiln.errors import KilnError

SETTINGS = ("easy", "medium", "hard")
FILES = {name: f"wider_{name}_val.mat" for name in ("face", *SETTINGS)}
CACHE = Path("results/cache")
# Raised when the cache's content changes meaning.
_LAYOUT = 1


@dataclass(frozen=True, eq=False)
class Truth:
    """What the evaluation tool knows of the pictures.

    Attributes:
        images: "event/name" without ending, in the order of the official lists.
        counts: int64 [n], boxes per picture.
        boxes: float64 [4, g]: rows x, y, width, height in whole pixels; pictures in order.
        kept: bool [3, g]: the faces that count in easy, medium, hard; all others are ignored.
        source: where it was read from, for messages.
        digest: hash of the four files, see `truth_digest`.
    """

    images: tuple[str, ...]
    counts: NDArray[np.int64]
    boxes: NDArray[np.float64]
    kept: NDArray[np.bool_]
    source: str
    digest: str = ""

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """int64 [n + 1]: picture i has the boxes `starts[i]` to `starts[i + 1]`."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    @cached_property
    def events(self) -> dict[str, range]:
        """The pictures of each event, by index; events in the order of the official list."""
        found: dict[str, list[int]] = {}
        for index, image in enumerate(self.images):
            found.setdefault(image.partition("/")[0], []).append(index)
        return {event: range(at[0], at[-1] + 1) for event, at in found.items()}

    @cached_property
    def totals(self) -> NDArray[np.int64]:
        """int64 [3]: the faces that count in each setting."""
        return self.kept.sum(axis=1).astype(np.int64)


def _paths_in(folder: Path | str) -> dict[str, Path]:
    paths = {name: Path(folder) / file for name, file in FILES.items()}
    for path in paths.values():
        if not path.is_file():
            raise KilnError(
                "is not here",
                file=path,
                hint="--truth names the folder with wider_face_val.mat, wider_easy_val.mat, "
                "wider_medium_val.mat and wider_hard_val.mat of the official evaluation tools",
            )
    return paths


def truth_digest(folder: Path | str) -> str:
    """Return 16 hexadecimal digits that change with any of the four files.

    A declared dataset pins one of them; but it is the other three that say which faces count.

    Raises:
        KilnError: a file is missing or cannot be read.
    """
    return sha256_of_text(" ".join(map(sha256_of, _paths_in(folder).values())))[:16]


def read_truth(folder: Path | str, cache: Path | str | None = CACHE) -> Truth:
    """Read wider_{face,easy,medium,hard}_val.mat of a folder, or what the cache keeps of them.

    Args:
        folder: holds the four files; a subset's, with fewer pictures, are as good.
        cache: folder of the cache; None: read the files and keep nothing.

    Raises:
        KilnError: a file is missing, damaged, or the four do not list the same pictures and boxes.
    """
    paths, digest = _paths_in(folder), truth_digest(folder)
    if cache is None:
        return replace(_parse(paths, str(folder)), digest=digest)
    kept = Path(cache) / f"wider_truth_{_LAYOUT}_{digest}.npz"
    truth = _read_cache(kept, str(folder))
    if truth is None:
        truth = _parse(paths, str(folder))
        _write_cache(kept, truth)
    return replace(truth, digest=digest)


def _parse(paths: dict[str, Path], source: str) -> Truth:
    from facekiln.data.wider_mat import read_wider_mat

    lists = {name: read_wider_mat(name, Path(), path) for name, path in paths.items()}
    face = lists["face"]
    samples = {name: list(listing) for name, listing in lists.items()}
    corners = np.concatenate([np.zeros((0, 4)), *(sample.boxes for sample in samples["face"])])
    for name in SETTINGS:
        same = lists[name].sources == face.sources and all(
            np.array_equal(a.boxes, b.boxes) for a, b in zip(samples[name], samples["face"], strict=True)
        )
        if not same:
            raise KilnError(
                f"lists other pictures or boxes than {FILES['face']} beside it",
                file=paths[name],
                hint="take all four files from one download",
            )
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).T.copy()
    if (boxes != np.trunc(boxes)).any() or np.abs(boxes).max(initial=0) > 1 << 20:
        raise KilnError("has boxes that are not whole pixels", file=paths["face"], limit="WIDER FACE's int32")
    return Truth(
        images=tuple(source.removesuffix(".jpg") for source in face.sources),
        counts=np.array([len(sample) for sample in samples["face"]], np.int64),
        boxes=boxes,
        kept=np.stack(
            [np.concatenate([np.zeros(0, bool), *(~s.ignore for s in samples[n])]) for n in SETTINGS]
        ),
        source=source,
    )


def _read_cache(path: Path, source: str) -> Truth | None:
    """Return what is kept; None where nothing is, or it is damaged (then it is made anew)."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            found: dict[str, Any] = {name: stored[name] for name in stored.files}
        truth = Truth(
            images=tuple(found["images"].tobytes().decode().split("\n")) if len(found["images"]) else (),
            counts=found["counts"],
            boxes=found["boxes"].astype(np.float64),
            kept=found["kept"],
            source=source,
        )
        whole = len(truth.images) == len(truth.counts) and truth.boxes.shape == (4, truth.counts.sum())
        return truth if whole and truth.kept.shape == (3, truth.boxes.shape[1]) else None
    # A cut or foreign file raises one of many; each only means that the cache has to be made anew.
    except Exception:
        return None


def _write_cache(path: Path, truth: Truth) -> None:
    names = np.frombuffer("\n".join(truth.images).encode(), np.uint8)
    try:
        with atomic_path(path) as part, part.open("wb") as stream:
            np.savez(
                stream,
                images=names,
                counts=truth.counts,
                boxes=truth.boxes.astype(np.int32),
                kept=truth.kept,
            )
    except KilnError as error:
        from facekiln.progress import log

        log.warning("facekiln: the ground truth is not cached: %s", error)
