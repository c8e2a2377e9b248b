"""Pascal VOC: one XML file per picture, as the Ultra-Light detector's converter and many tools write it."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from facekiln.data.rows import AGAIN, below, lines_of, numbers
from facekiln.data.sample import Listing, Sample, landmarks_of, sample_of
from facekiln.errors import KilnError
from facekiln.unreadable import readable_size, unreadable

_LARGEST = 16 << 20  # bytes of one picture's XML


def parse_xml(path: Path) -> Element:
    """Parse XML that declares nothing: a DOCTYPE, and with it every entity of its own, is refused.

    Raises:
        KilnError: it cannot be read, is not XML, has a DOCTYPE, or is larger than 16 MiB.
    """

    def refuse(*_: object) -> NoReturn:
        raise KilnError(
            "declares a document type, which annotations never need", file=path, hint="do not trust this file"
        )

    try:
        if readable_size(path) > _LARGEST:
            raise KilnError("is too large for one picture", file=path, limit=f"{_LARGEST} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: an encoding of no known name
        raise KilnError(f"is not XML: {error}", file=path, hint=AGAIN) from error
    root: Element = builder.close()
    return root


def read_voc(
    name: str,
    images: Path,
    annotations: Path,
    chosen: Path | None = None,
    *,
    label: str = "face",
    origin: int = 1,
) -> Listing:
    """List a folder of XML files, each read when its sample is asked for.

    Args:
        name: the dataset's.
        images: where `filename` of each XML is looked for.
        annotations: the folder of XML files.
        chosen: a list of names without ending (ImageSets/Main/*.txt); all files where it is None.
        label: objects of other names are passed over.
        origin: coordinate of the first pixel: 1 in Pascal VOC, whose last pixel is inside; 0 as the
            Ultra-Light detector's own converter writes (x, y, x + width, y + height), although its loader
            then takes 1 off.

    Raises:
        KilnError: the list names a file outside the folder.
    """
    if chosen:
        stems = [
            below(annotations, word, file=chosen, where=f"line {number}").relative_to(annotations).as_posix()
            for number, line in enumerate(lines_of(chosen), 1)
            if (word := line.strip())
        ]
    else:
        stems = sorted(
            path.relative_to(annotations).with_suffix("").as_posix() for path in annotations.rglob("*.xml")
        )

    def read(index: int) -> Sample:
        return _read(annotations / f"{stems[index]}.xml", stems[index], images, label, origin)

    return Listing(name, stems, read, images)


def _read(path: Path, source: str, images: Path, label: str, origin: int) -> Sample:
    root = parse_xml(path)
    file = (root.findtext("filename") or f"{source}.jpg").strip()
    objects = [item for item in root.iter("object") if (item.findtext("name") or "").strip() == label]
    boxes = [_numbers(item.find("bndbox"), ("xmin", "ymin", "xmax", "ymax"), path) for item in objects]
    points = [_landmarks(item.find("lm"), path) for item in objects]
    shift = np.array([-origin, -origin, 0, 0])
    return sample_of(
        source,
        below(images, file, file=path, where="filename"),
        np.array(boxes, np.float64).reshape(-1, 4) + shift,
        ignore=[(item.findtext("difficult") or "0").strip() == "1" for item in objects],
        landmarks=landmarks_of("5", points) if any(item.find("lm") is not None for item in objects) else None,
        size=_size(root, path),
    )


def _numbers(parent: Element | None, names: tuple[str, ...], path: Path) -> list[float]:
    values = []
    for name in names:
        text = parent.findtext(name) if parent is not None else None
        if text is None or not text.strip():
            raise KilnError("lacks a number", file=path, where=name, hint=AGAIN)
        values += numbers([text.strip()], path, name)
    return values


def _landmarks(parent: Element | None, path: Path) -> list[list[float]]:
    """The five points of the Ultra-Light converter's `lm` element; NaN where there is none."""
    if parent is None:
        return [[np.nan, np.nan]] * 5
    return [_numbers(parent, (f"x{index}", f"y{index}"), path) for index in range(1, 6)]


def _size(root: Element, path: Path) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    height, width = _numbers(size, ("height", "width"), path)
    return (int(height), int(width)) if height and width else None  # some tools write 0 for unknown
