"""Error galleries: detections on samples, the worst misses, the worst shifts of boxes between two stages."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facekiln.data.sample import Dataset
from facekiln.errors import KilnError
from facekiln.evaluation.gallery_sheet import Picture, Tile, draw_tiles
from facekiln.predictions.store import Predictions
from facekiln.progress import progress_bar
from facekiln.vision.detect import Faces
from facekiln.vision.image import draw_faces
from facekiln.vision.nms import best_pairs, iou_matrix

Box = NDArray[np.float64]

MATCH_IOU = 0.5
# A box that moved by half a face is still the same face; one that overlaps less is another.
_SHIFT_IOU = 0.3
_CONTEXT = 2.5  # side of a crop over the longer side of its face
_GREEN, _RED = (0, 200, 0), (0, 0, 230)


@dataclass(frozen=True, eq=False)
class Miss:
    """A face that no detection of the score is on.

    Attributes:
        index: of the picture in the dataset.
        source: its name.
        box: [4], the annotated face.
        size: its longer side, pixels.
        nearest: greatest IoU of any detection at all with it, and that detection's score; 0, 0 without any.
    """

    index: int
    source: str
    box: Box
    size: float
    nearest: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Shift:
    """A face whose box differs between two stages.

    Attributes:
        index: of the picture in the dataset.
        source: its name.
        parent, child: [4], the boxes.
        pixels: greatest difference of a coordinate.
        share: `pixels` over the longer side of the parent's box.
    """

    index: int
    source: str
    parent: Box
    child: Box
    pixels: float
    share: float


def places_of(predictions: Predictions, dataset: Dataset) -> list[int]:
    """Return the dataset's index of each predicted picture.

    Raises:
        KilnError: the dataset lacks one.
    """
    known = {source: index for index, source in enumerate(dataset.sources)}
    for source in predictions.images:
        if source not in known:
            raise KilnError(
                f"dataset '{dataset.name}' has no such picture",
                where=source,
                hint="name the dataset that was predicted",
            )
    return [known[source] for source in predictions.images]


def worst_misses(predictions: Predictions, dataset: Dataset, count: int, score: float) -> list[Miss]:
    """Return the largest annotated faces without a detection, largest first.

    Args:
        predictions: of the dataset.
        dataset: with boxes; ignored faces are nobody's miss.
        count: how many.
        score: detections count from this score on.

    Raises:
        KilnError: a predicted picture is not of the dataset.
    """
    with progress_bar(len(predictions), "misses", "picture") as bar:
        return heapq.nlargest(count, _misses(predictions, dataset, score, bar), key=lambda miss: miss.size)


def _misses(predictions: Predictions, dataset: Dataset, score: float, bar: tqdm) -> Iterator[Miss]:
    for at, place in enumerate(places_of(predictions, dataset)):
        sample, own = dataset[place], predictions.of(at)
        boxes = own.boxes.astype(np.float64)
        counted = boxes[own.scores >= score]
        hit = {row for row, _, _ in best_pairs(sample.boxes, counted, MATCH_IOU)}
        overlaps = iou_matrix(sample.boxes, boxes)
        for row in range(len(sample)):
            if row in hit or sample.ignore[row]:
                continue
            best = int(overlaps[row].argmax()) if len(boxes) else -1
            yield Miss(
                index=place,
                source=sample.source,
                box=sample.boxes[row],
                size=float((sample.boxes[row, 2:] - sample.boxes[row, :2]).max()),
                nearest=(float(overlaps[row, best]), float(own.scores[best])) if best >= 0 else (0.0, 0.0),
            )
        bar.update(1)


def worst_shifts(
    child: Predictions, parent: Predictions, dataset: Dataset, count: int, score: float
) -> list[Shift]:
    """Return the faces whose boxes differ most between two stages, as a share of the face, worst first.

    Args:
        child: one stage's predictions.
        parent: the other's, of the same pictures.
        dataset: both are of.
        count: how many.
        score: both stages' detections count from this score on.

    Raises:
        KilnError: the two are of other pictures, or of another dataset.
    """
    if child.images != parent.images:
        raise KilnError(
            "the two predictions are of other pictures",
            value=len(child),
            limit=len(parent),
            hint="predict both stages on one dataset",
        )
    shifts: list[Shift] = []
    for at, place in enumerate(places_of(child, dataset)):
        mine, theirs = child.of(at), parent.of(at)
        a = theirs.boxes[theirs.scores >= score].astype(np.float64)
        b = mine.boxes[mine.scores >= score].astype(np.float64)
        for row, column, _ in best_pairs(a, b, _SHIFT_IOU):
            pixels = float(np.abs(a[row] - b[column]).max())
            side = float((a[row, 2:] - a[row, :2]).max())
            shifts.append(Shift(place, child.images[at], a[row], b[column], pixels, pixels / max(side, 1e-9)))
    return heapq.nlargest(count, shifts, key=lambda shift: shift.share)


def draw_misses(predictions: Predictions, dataset: Dataset, count: int, score: float) -> Picture:
    """Draw the worst misses: the annotated face red, whatever was detected around it green.

    Returns:
        uint8 BGR [h,w,3].
    """
    misses = worst_misses(predictions, dataset, count, score)
    place = {source: at for at, source in enumerate(predictions.images)}
    tiles = []
    for miss in misses:
        own = predictions.of(place[miss.source])
        boxes = [(box.astype(np.float64), _GREEN) for box in own.boxes]
        overlap, best = miss.nearest
        nearest = f"nearest: IoU {overlap:.2f}, score {best:.2f}" if overlap else "nothing near"
        tiles.append(
            Tile(
                _crop(dataset[miss.index].load(), miss.box, [*boxes, (miss.box, _RED)]),
                (f"{miss.size:.0f} px, {nearest}", miss.source),
            )
        )
    return draw_tiles(_heading(f"largest misses (score from {score:g})", predictions, len(tiles)), tiles)


def draw_shifts(
    child: Predictions, parent: Predictions, dataset: Dataset, count: int, score: float
) -> Picture:
    """Draw the worst shifts: the parent's box green, the child's red.

    Returns:
        uint8 BGR [h,w,3].
    """
    tiles = [
        Tile(
            _crop(dataset[shift.index].load(), shift.parent, [(shift.parent, _GREEN), (shift.child, _RED)]),
            (f"{shift.pixels:.1f} px, {100 * shift.share:.1f} % of the face", shift.source),
        )
        for shift in worst_shifts(child, parent, dataset, count, score)
    ]
    against = f"worst shifts (red) against {parent.meta['artifact']}, {parent.meta['backend']} (green)"
    return draw_tiles(_heading(against, child, len(tiles)), tiles)


def draw_samples(predictions: Predictions, dataset: Dataset, count: int, score: float) -> Picture:
    """Draw detections on pictures taken evenly over the dataset.

    Returns:
        uint8 BGR [h,w,3].
    """
    places = places_of(predictions, dataset)
    chosen = np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int))
    tiles = []
    for at in chosen.tolist():
        own = predictions.of(at)
        keep = own.scores >= score
        points = own.points if own.points is not None else np.zeros((len(own.scores), 0, 2), np.float32)
        faces = Faces(own.boxes[keep], own.scores[keep], points[keep])
        tiles.append(
            Tile(draw_faces(dataset[places[at]].load(), faces), (f"{len(faces)} faces", own.images[0]))
        )
    heading = _heading(f"detections (score from {score:g})", predictions, len(tiles))
    return draw_tiles(heading, tiles, side=400, columns=3)


def _heading(what: str, predictions: Predictions, count: int) -> tuple[str, str]:
    meta = predictions.meta
    mark = " VIRTUAL" if meta.get("virtual") else " EMULATED" if meta["emulated"] else ""
    subject = f"{meta['artifact']}, {meta['backend']}{mark}, on {meta['dataset']}"
    return subject, what if count else f"no {what}"


def _crop(picture: Picture, around: Box, boxes: list[tuple[Box, tuple[int, int, int]]]) -> Picture:
    """Cut a square around a box and draw boxes in it; beyond the picture it is grey."""
    side = max(24, round(_CONTEXT * float((around[2:] - around[:2]).max())))
    side = min(side, 2 * max(picture.shape[:2]))
    left, top = (round(float(value) - side / 2) for value in (around[:2] + around[2:]) / 2)
    canvas = np.full((side, side, 3), 128, np.uint8)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(picture.shape[1], left + side), min(picture.shape[0], top + side)
    if x0 < x1 and y0 < y1:
        canvas[y0 - top : y1 - top, x0 - left : x1 - left] = picture[y0:y1, x0:x1]
    zoom = max(1, -(-220 // side))  # draw thin lines on small crops
    canvas = np.asarray(
        cv2.resize(canvas, (side * zoom, side * zoom), interpolation=cv2.INTER_NEAREST), np.uint8
    )
    thick = max(1, canvas.shape[0] // 220)
    for box, colour in boxes:
        corners = ((box.reshape(2, 2) - [left, top]) * zoom).clip(-(2**14), 2**14).round().astype(int)
        cv2.rectangle(canvas, tuple(corners[0].tolist()), tuple(corners[1].tolist()), colour, thick)
    return canvas
