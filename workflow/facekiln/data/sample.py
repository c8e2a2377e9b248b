"""One picture with its faces, whatever dataset it comes from, and the interface of a dataset."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import sha256_of
from facekiln.errors import KilnError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Landmarks:
    """The landmarks of n faces.

    Attributes:
        scheme: "5", "68", "98" or "106", see `facekiln.data.landmarks`.
        points: float64 [n,k,2] x, y in pixels of the picture; NaN where a point was not annotated.
        visible: bool [n,k], False where a point was not annotated or is marked as hidden.
    """

    scheme: str
    points: Floats
    visible: Mask

    @property
    def labelled(self) -> Mask:
        """Where a point has coordinates, hidden or not: bool [n,k]."""
        return np.asarray(~np.isnan(self.points).any(axis=2))

    def take(self, which: NDArray[Any]) -> Landmarks:
        """Return the landmarks of some faces, chosen by a mask or by indices."""
        return Landmarks(self.scheme, self.points[which], self.visible[which])


def landmarks_of(scheme: str, points: Any, hidden: Any = None) -> Landmarks:
    """Make `Landmarks` of [n,k,2] points (NaN: not annotated) and an optional [n,k] mask of hidden ones."""
    placed = np.asarray(points, np.float64).reshape(-1, int(scheme), 2)
    visible = np.asarray(~np.isnan(placed).any(axis=2))
    if hidden is not None:
        visible &= ~np.asarray(hidden, bool).reshape(visible.shape)
    return Landmarks(scheme, placed, visible)


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture and its n faces.

    Attributes:
        source: name inside the dataset, e.g. "0--Parade/0_Parade_marchingband_1_465.jpg"; never an absolute
            path.
        picture: the file, or a function that returns the picture, uint8 BGR [h,w,3].
        boxes: float64 [n,4] x1, y1, x2, y2 in pixels of the stored picture, pixel edges at integers, as
            annotated.
        ignore: bool [n], faces that neither reward nor punish (invalid, difficult, outside a subset).
        landmarks: of all n faces (NaN rows where a face has none), or None.
        pose: float64 [n,3] yaw, pitch, roll in radians, signs as in 300W-LP, NaN where unknown; or None.
        attributes: by name one value per face, [n].
        size: (height, width) that the annotation states, if it does.
    """

    source: str
    picture: Path | Callable[[], Picture]
    boxes: Floats
    ignore: Mask
    landmarks: Landmarks | None = None
    pose: Floats | None = None
    attributes: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.boxes)

    def load(self) -> Picture:
        """Return the picture, uint8 BGR [h,w,3].

        Raises:
            KilnError: it is missing or not a whole picture.
        """
        if callable(self.picture):
            return self.picture()
        from facekiln.vision.image import read_image

        return read_image(self.picture)

    def sha256(self, picture: Picture) -> str:
        """Return the sha256 of the picture's file, or of the loaded `picture` itself where there is none.

        Raises:
            KilnError: the file cannot be read.
        """
        if isinstance(self.picture, Path):
            return sha256_of(self.picture)
        return hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()

    def take(self, which: NDArray[Any]) -> Sample:
        """Return the sample with some of its faces, chosen by a mask or by indices."""
        return replace(
            self,
            boxes=self.boxes[which],
            ignore=self.ignore[which],
            landmarks=self.landmarks.take(which) if self.landmarks else None,
            pose=None if self.pose is None else self.pose[which],
            attributes={name: values[which] for name, values in self.attributes.items()},
        )


def sample_of(source: str, picture: Path | Callable[[], Picture], boxes: Any, **more: Any) -> Sample:
    """Make a `Sample` of [n,4] boxes; without `ignore`, no face is ignored."""
    placed = np.asarray(boxes, np.float64).reshape(-1, 4)
    ignore = np.asarray(more.pop("ignore", np.zeros(len(placed))), bool).reshape(-1)
    return Sample(source, picture, placed, ignore, **more)


class Dataset(Protocol):
    """What every dataset offers, drawn or photographed."""

    @property
    def name(self) -> str:
        """The name that it was declared by."""

    @property
    def sources(self) -> Sequence[str]:
        """The names of its samples, in their fixed order, each once."""

    @property
    def images(self) -> Path | None:
        """The folder that its pictures lie below, or None where they are drawn."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> Sample:
        """Return sample `index`; its picture is not read yet."""

    def __iter__(self) -> Iterator[Sample]:
        """Yield all samples in their fixed order."""


class Listing:
    """A dataset whose samples are made when asked for."""

    def __init__(
        self, name: str, sources: Sequence[str], read: Callable[[int], Sample], images: Path | None = None
    ) -> None:
        """List a dataset.

        Args:
            name: the dataset's.
            sources: names of the samples, in order.
            read: makes the sample of an index.
            images: the folder that pictures lie below.

        Raises:
            KilnError: a source is listed twice.
        """
        self.name, self.sources, self.images, self._read = name, tuple(sources), images, read
        if len(set(self.sources)) < len(self.sources):
            twice, _ = Counter(self.sources).most_common(1)[0]
            raise KilnError(
                "is annotated twice", file=name, where=twice, hint="merge the two entries, or remove one"
            )

    @classmethod
    def of(cls, name: str, samples: Sequence[Sample], images: Path | None = None) -> Listing:
        """List samples that exist already."""
        return cls(name, [sample.source for sample in samples], samples.__getitem__, images)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Sample:
        return self._read(range(len(self.sources))[index])

    def __iter__(self) -> Iterator[Sample]:
        return map(self.__getitem__, range(len(self)))
