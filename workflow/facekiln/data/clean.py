"""A dataset without what its audit left out, and without the faces that are too small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from facekiln.data.audit import Audit
from facekiln.data.declared import Declared, SmallFaces
from facekiln.data.sample import Listing, Mask, Picture, Sample
from facekiln.data.sizes import large_enough
from facekiln.errors import KilnError

Boxes = Mapping[int, Sequence[float]]
Size = tuple[int, int]

# BGR, the mean that the networks take off: a painted face becomes zero. Source: the Ultra-Light detector's
# converter.
PAINT = (104, 117, 123)


def clean_sample(
    sample: Sample, dropped: Sequence[int], clipped: Boxes, small: SmallFaces | None, size: Size | None
) -> Sample | None:
    """Return a sample as training sees it, or None where painting leaves it without a face.

    A picture that has no face to begin with stays: it is a negative.

    Args:
        sample: as annotated.
        dropped: faces left out by rule.
        clipped: boxes cut at the picture's edge by rule.
        small: the filter of small faces, if any.
        size: (height, width) of the picture, which only `measure: input` needs.

    Raises:
        KilnError: the size is needed and not known.
    """
    if clipped:
        boxes = sample.boxes.copy()
        for face, box in clipped.items():
            boxes[face] = box
        sample = replace(sample, boxes=boxes)
    if dropped:
        sample = sample.take(np.delete(np.arange(len(sample)), dropped))
    if small is None or not len(sample):
        return sample
    large = large_enough(sample.boxes, small, size)
    if small.treat == "ignore":
        return replace(sample, ignore=sample.ignore | ~large)
    if large.all():
        return sample
    return replace(sample.take(large), picture=_painted(sample, large)) if large.any() else None


def _painted(sample: Sample, large: Mask) -> Callable[[], Picture]:
    def load() -> Picture:
        picture = sample.load().copy()
        for x1, y1, x2, y2 in np.maximum(sample.boxes[~large], 0).astype(int):
            picture[y1:y2, x1:x2] = PAINT
        return picture

    return load


def samples_left(result: Audit) -> Iterator[Sample]:
    """Yield the samples that an audit just made leaves, as training will see them.

    Raises:
        KilnError: the filter needs pictures' sizes, and they were not read.
    """
    for item in result.kept():
        if item.sample is None:
            continue
        sample = clean_sample(item.sample, item.dropped, item.clipped, result.declared.small_faces, item.size)
        if sample is not None:
            yield sample


def cleaned(
    declared: Declared, dataset: Listing, report: Mapping[str, Any], *, small_faces: bool = True
) -> Listing:
    """Return the samples that an audit kept, with its decisions and the declaration's `small_faces` applied.

    Args:
        declared: the dataset's declaration.
        dataset: the opened dataset.
        report: its audit, as `facekiln dataset check` wrote it (`Audit.record`).
        small_faces: leave small faces out as declared, which is for what learns, not for what judges.

    Raises:
        KilnError: the report is of another declaration, refuses the dataset, or lacks a size that is needed.
    """
    if report.get("declaration") != declared.digest() or not report.get("usable"):
        raise KilnError(
            f"the report does not clear dataset '{declared.name}' as it is declared now",
            value=f"{report.get('declaration')}, usable: {report.get('usable')}",
            limit=f"{declared.digest()}, usable: True",
            hint=f"facekiln dataset check {declared.name}",
        )

    small = declared.small_faces if small_faces else None

    def clean(index: int) -> Sample | None:
        sample = dataset[index]
        stated = report["sizes"].get(sample.source)
        size = (stated[0], stated[1]) if stated else sample.size
        clipped = {int(face): box for face, box in report["clipped"].get(sample.source, {}).items()}
        return clean_sample(
            replace(sample, size=size),
            report["dropped"].get(sample.source, ()),
            clipped,
            small,
            size,
        )

    kept = [index for index, source in enumerate(dataset.sources) if source not in report["skipped"]]
    if small:
        kept = [index for index in kept if clean(index) is not None]

    def read(at: int) -> Sample:
        sample = clean(kept[at])
        assert sample is not None  # those were left out above
        return sample

    return Listing(dataset.name, [dataset.sources[index] for index in kept], read, dataset.images)
