"""Predictions of one stage on one dataset: in memory, and as a folder of two files.

`predictions.npz` holds the arrays and `predictions.json` says what made them. Both have the same bytes for
the same predictions, so that a resumed or sharded run can be compared with a whole one by hash.
"""

from __future__ import annotations

import difflib
import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import atomic_folder, read_json, write_json
from facekiln.errors import KilnError

ARRAYS_FILE = "predictions.npz"
META_FILE = "predictions.json"

# What every `predictions.json` says; more may follow.
META_KEYS = (
    "model",
    "artifact",
    "artifact_sha256",
    "precision",
    "backend",
    "backend_version",
    "emulated",
    "dataset",
    "dataset_digest",
    "images",
    "resize",
    "interpolation",
    "size",
    "score_threshold",
    "nms_iou",
    "top_k",
    "keep",
    "extent",
    "nms_epsilon",
)
_META_TEXTS = ("model", "artifact", "dataset")
_ROOM = "results/predictions/"
_AGAIN = "predict again: facekiln predict run --help"


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a stage found in every picture of a dataset.

    Attributes:
        images: names as the dataset's `sources`, each once, in dataset order.
        counts: int64 [n], detections per picture.
        boxes: float32 [m, 4] x1, y1, x2, y2 in pixels of the stored picture (plane coordinates: pixel i
            covers i to i + 1), not clipped; pictures in order, each by falling score.
        scores: float32 [m].
        points: float32 [m, k, 2] x, y in the same pixels; None where the model has none.
        pose: float32 [m, 3] yaw, pitch, roll in radians (landmark models); None where the model has none.
        meta: what made them, see `META_KEYS`.
    """

    images: tuple[str, ...]
    counts: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    points: NDArray[np.float32] | None
    pose: NDArray[np.float32] | None
    meta: dict[str, Any]

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit each other.

        Raises:
            KilnError: names the array, its shape and the one wanted.
        """
        total = int(self.counts.sum())
        wanted: dict[str, tuple[str, tuple[int | None, ...]]] = {
            "counts": ("int64", (len(self.images),)),
            "boxes": ("float32", (total, 4)),
            "scores": ("float32", (total,)),
            "points": ("float32", (total, None, 2)),
            "pose": ("float32", (total, 3)),
        }
        for name, (dtype, shape) in wanted.items():
            value = getattr(self, name)
            if value is None and name in ("points", "pose"):
                continue
            fits = len(value.shape) == len(shape) and all(
                b in (None, a) for a, b in zip(value.shape, shape, strict=True)
            )
            if value.dtype != dtype or not fits:
                raise KilnError(
                    "predictions do not fit each other",
                    where=name,
                    value=f"{value.dtype} {list(value.shape)}",
                    limit=f"{dtype} {list(shape)}",
                )
        if (self.counts < 0).any() or len(set(self.images)) < len(self.images):
            raise KilnError("predictions count below zero, or name a picture twice", where="counts, images")

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.images)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """int64 [n + 1]: picture i has the detections `starts[i]` to `starts[i + 1]`."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def of(self, index: int) -> Predictions:
        """Return the predictions of one picture (views, not copies)."""
        at = range(len(self.images))[index]
        part = slice(int(self.starts[at]), int(self.starts[at + 1]))
        return Predictions(
            images=(self.images[at],),
            counts=self.counts[at : at + 1],
            boxes=self.boxes[part],
            scores=self.scores[part],
            points=None if self.points is None else self.points[part],
            pose=None if self.pose is None else self.pose[part],
            meta=self.meta,
        )


def join(parts: list[Predictions], meta: dict[str, Any]) -> Predictions:
    """Put predictions one after the other.

    Args:
        parts: all with the same number of points and with or without pose, or without a
            detection to show it.
        meta: of the whole.

    Raises:
        KilnError: parts of different kinds, or a picture in two of them.
    """

    if not parts:
        nothing = np.zeros(0, np.float32)
        return Predictions((), np.zeros(0, np.int64), nothing.reshape(0, 4), nothing, None, None, meta)

    def stacked(name: str) -> Any:
        values = [value for part in parts if (value := getattr(part, name)) is not None]
        if not values:
            return None
        telling = [value for value in values if len(value)] or values[:1]
        shapes = {value.shape[1:] for value in telling}
        silent = sum(len(part.scores) for part in parts if getattr(part, name) is None)
        if len(shapes) > 1 or silent:
            raise KilnError("parts of predictions are of different kinds", where=name, value=sorted(shapes))
        return np.concatenate(telling)

    return Predictions(
        images=tuple(name for part in parts for name in part.images),
        counts=np.concatenate([part.counts for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        points=stacked("points"),
        pose=stacked("pose"),
        meta=meta,
    )


def write_predictions(folder: Path | str, predictions: Predictions) -> None:
    """Write predictions as a folder, atomically: what was there before goes, on failure it stays.

    Raises:
        KilnError: `meta` lacks a key of `META_KEYS`, or the disk is full.
    """
    missing = [key for key in META_KEYS if key not in predictions.meta]
    if missing:
        raise KilnError("predictions do not say what made them", where="meta", value=missing)
    with atomic_folder(folder) as part:
        write_arrays(part / ARRAYS_FILE, predictions)
        write_json(part / META_FILE, predictions.meta)


def write_arrays(path: Path, predictions: Predictions) -> None:
    """Write everything but `meta`: an uncompressed .npz, whose entries have no clock."""
    arrays: dict[str, Any] = {
        # JSON, not a unicode array: four bytes per character of the longest name would outgrow the boxes.
        "images": np.frombuffer(json.dumps(predictions.images, ensure_ascii=False).encode(), np.uint8),
        "counts": predictions.counts,
        "boxes": predictions.boxes,
        "scores": predictions.scores,
        "points": predictions.points,
        "pose": predictions.pose,
    }
    with path.open("wb") as stream:
        np.savez(stream, **{name: value for name, value in arrays.items() if value is not None})


def read_predictions(folder: Path | str) -> Predictions:
    """Read a folder that `write_predictions` wrote.

    Raises:
        KilnError: it is missing, damaged, or no folder of predictions.
    """
    folder = Path(folder)
    if not (folder / META_FILE).is_file():
        raise _nothing_there(folder)
    meta = read_json(folder / META_FILE)
    missing = [key for key in META_KEYS if key not in meta] if isinstance(meta, dict) else list(META_KEYS)
    if missing:
        raise KilnError(
            "is no description of predictions", file=folder / META_FILE, value=missing, hint=_AGAIN
        )
    wrong = [key for key in _META_TEXTS if not isinstance(meta[key], str)]
    if wrong:
        raise KilnError(
            "is no text",
            file=folder / META_FILE,
            where=wrong[0],
            value=repr(meta[wrong[0]]),
            hint=_AGAIN,
        )
    predictions = read_arrays(folder / ARRAYS_FILE, meta)
    if meta["images"] != len(predictions):
        raise KilnError(
            "has another number of pictures than its description",
            file=folder / ARRAYS_FILE,
            value=len(predictions),
            limit=meta["images"],
            hint=_AGAIN,
        )
    return predictions


def _nothing_there(folder: Path) -> KilnError:
    """Return the error of a folder without predictions: the nearest that has some, and what makes them."""
    names = sorted(path.parent.name for path in folder.glob(f"*/{META_FILE}"))
    beside = sorted(path.parent.name for path in folder.parent.glob(f"*/{META_FILE}"))
    near = difflib.get_close_matches(folder.name, beside, n=1, cutoff=0.5)
    found = [folder / name for name in names] or [folder.with_name(name) for name in near]
    meant = f"did you mean {found[0]}? " if found else ""
    # A rule makes what lies below results/predictions/.
    made = f"snakemake --cores 4 {folder}" if _ROOM in folder.as_posix() else "facekiln predict run --help"
    return KilnError(
        "holds no predictions" if folder.is_dir() else "cannot be read: no such folder",
        file=folder,
        limit=f"a folder with {META_FILE} and {ARRAYS_FILE}",
        hint=f"{meant}else make them: {made}" if found else f"make them: {made}",
    )


def read_arrays(path: Path, meta: dict[str, Any]) -> Predictions:
    """Read what `write_arrays` wrote.

    Raises:
        KilnError: it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        names = json.loads(arrays.pop("images").tobytes())
        return Predictions(
            images=tuple(map(str, names)),
            **{"points": None, "pose": None, **arrays},
            meta=meta,
        )
    except OSError as error:
        raise KilnError(f"cannot be read: {error.strerror or error}", file=path, hint=_AGAIN) from error
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise KilnError(f"is no file of predictions: {error}", file=path, hint=_AGAIN) from error
    except KilnError as error:
        raise KilnError(str(error), file=path, hint=_AGAIN) from error
