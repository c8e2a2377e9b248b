"""Detections of a whole set in memory: the one form that the WIDER FACE evaluators take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facekiln.errors import KilnError

if TYPE_CHECKING:
    from facekiln.evaluation.wider_truth import Truth
    from facekiln.predictions.store import Predictions

# How corners are written before evaluation; see `from_predictions`.
BOX_RULES = ("float", "truncate", "floor_ceil")


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes with scores, in the order of a ground truth's pictures.

    Attributes:
        counts: int64 [n], detections per picture.
        table: float64 [5, m]: rows x, y, width, height (pixels) and score; pictures in order, each in the
            order that it was given in.
    """

    counts: NDArray[np.int64]
    table: NDArray[np.float64]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """int64 [n + 1]: picture i has the detections `starts[i]` to `starts[i + 1]`."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)


def aligned(
    truth: Truth,
    index: Sequence[int] | NDArray[np.int64],
    counts: Sequence[int] | NDArray[np.int64],
    table: NDArray[np.float64],
    file: Path | str,
    *,
    missing: str = "refuse",
) -> Detections:
    """Bring detections into the order of the ground truth.

    Args:
        truth: the ground truth.
        index: the truth's picture of each group of detections.
        counts: detections of each group.
        table: float64 [5, m], the groups one after the other.
        file: where they come from, for messages.
        missing: "refuse" pictures without a group, or take them as "none" found and say so.

    Raises:
        KilnError: a picture has two groups or, if they are refused, none.
    """
    pictures, lengths = np.asarray(index, np.int64), np.asarray(counts, np.int64)
    groups = np.bincount(pictures, minlength=len(truth.images))
    if (groups > 1).any():
        raise KilnError(
            "has detections of one picture twice",
            file=file,
            where=truth.images[int(groups.argmax())],
            hint="each picture once: for text files, the first line of each file names its picture",
        )
    if (absent := np.flatnonzero(groups == 0)).size:
        _tell_missing(truth, absent, file, missing)
    whole = np.zeros(len(truth.images), np.int64)
    whole[pictures] = lengths
    if (np.diff(pictures) > 0).all():
        return Detections(whole, table)
    order = np.argsort(pictures)
    starts = np.cumsum(lengths) - lengths
    first = np.repeat(starts[order] - (np.cumsum(lengths[order]) - lengths[order]), lengths[order])
    return Detections(whole, table[:, first + np.arange(table.shape[1])])


def _tell_missing(truth: Truth, absent: NDArray[np.int64], file: Path | str, missing: str) -> None:
    names = ", ".join(truth.images[at] for at in absent[:3].tolist())
    more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    if missing == "refuse":
        raise KilnError(
            f"has no detections of {len(absent)} pictures of the ground truth",
            file=file,
            value=names + more,
            limit=f"{len(truth.images)} pictures, {truth.source}",
            hint="write an empty file (a name and the count 0) where nothing was found; a subset needs "
            "its own ground truth; the official tool counts such pictures as empty: --protocol matlab",
        )
    from facekiln.progress import log

    log.warning(
        "facekiln: %s: %d pictures are missing and count as empty: %s%s", file, len(absent), names, more
    )


def picture_index(truth: Truth) -> dict[str, int]:
    """Return the index of each picture by name, "event/name"."""
    return {name: at for at, name in enumerate(truth.images)}


def unknown_picture(name: str, truth: Truth, file: Path | str, where: str | None = None) -> KilnError:
    """Return the error for a picture, or an event, that the ground truth does not have."""
    import difflib

    event = name.partition("/")[0]
    if event in truth.events:
        kind, shown = "picture", name
        choices = [truth.images[at] for at in truth.events[event]]
    else:
        kind, shown, choices = "event", event, list(truth.events)
    near = difflib.get_close_matches(shown, choices, n=1, cutoff=0.6)
    return KilnError(
        f"the ground truth has no {kind} '{shown}'" + (f"; did you mean '{near[0]}'?" if near else ""),
        file=file,
        where=where,
        limit=f"{len(truth.images)} pictures in {len(truth.events)} events, {truth.source}",
        hint="take it away, or name the ground truth that it belongs to: --truth FOLDER",
    )


def from_predictions(
    predictions: Predictions, truth: Truth, *, boxes: str = "float", file: Path | str = "predictions"
) -> Detections:
    """Turn predictions of ours into what a result file would hold.

    Args:
        predictions: sources must be "event/name.jpg".
        truth: the ground truth of the same pictures.
        boxes: "float": corners as they are; "truncate": corners cut to whole pixels, then subtracted
            (test_widerface.py of Pytorch_Retinaface and of the 1MB detectors); "floor_ceil": corner rounded
            down, sides rounded up (evaluation_on_widerface.py of the Ultra-Light detector).
        file: where they come from, for messages.

    Raises:
        KilnError: unknown, repeated or missing pictures, or numbers that are not finite.
    """
    places = picture_index(truth)
    index = []
    for source in predictions.images:
        name = source.removesuffix(".jpg")
        if name not in places:
            raise unknown_picture(name, truth, file)
        index.append(places[name])
    table = np.empty((5, len(predictions.scores)))
    table[:4] = written_boxes(predictions.boxes, boxes)
    table[4] = predictions.scores
    refuse_not_finite(table, file, predictions)
    return aligned(truth, index, predictions.counts, table, file)


def written_boxes(corners: NDArray[np.float32], rule: str) -> NDArray[np.float64]:
    """Return [4, m] x, y, width, height of corners [m, 4] as a result file would hold them.

    Raises:
        KilnError: unknown rule; see `from_predictions`.
    """
    result = np.empty((4, len(corners)))
    low, high = corners[:, :2].T, corners[:, 2:].T
    if rule == "truncate":
        result[:2] = np.trunc(low)
        result[2:] = np.trunc(high) - result[:2]
    elif rule == "floor_ceil":
        result[:2] = np.floor(low)
        result[2:] = np.ceil(high - low)
    elif rule == "float":
        result[:2] = low
        result[2:] = high
        with np.errstate(invalid="ignore"):  # infinity is told by `refuse_not_finite`
            result[2:] -= result[:2]
    else:
        raise KilnError("unknown box rule", value=rule, limit=", ".join(BOX_RULES))
    return result


def refuse_not_finite(
    table: NDArray[np.float64], file: Path | str, predictions: Predictions | None = None
) -> None:
    """Refuse NaN and infinity.

    Args:
        table: float64 [5, m], see `Detections.table`.
        file: where it comes from.
        predictions: what it was made of, detection for detection, if it is ours: the picture is named.

    Raises:
        KilnError: names the file, the picture or the row, and the column.
    """
    finite = np.isfinite(table)
    if not finite.all():
        column, row = (int(at[0]) for at in np.nonzero(~finite))
        name = ("x", "y", "width", "height", "score")[column]
        where, hint = f"detection {row + 1}, {name}", None
        if predictions is not None:
            picture = int(np.searchsorted(predictions.starts, row, side="right")) - 1
            at = row - int(predictions.starts[picture])
            where = f"{predictions.images[picture]}: detection {at + 1}, {name}"
            hint = "compare what made it with its parent: facekiln parity compare --help; then predict again"
        raise KilnError(
            "is no finite number", file=file, where=where, value=float(table[column, row]), hint=hint
        )
