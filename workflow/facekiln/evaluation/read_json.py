"""Detections of a whole set in one JSON file, in either of two forms.

By picture: `{"0--Parade/0_Parade_marchingband_1_465.jpg": [[x, y, width, height, score], ...], ...}`.
By detection, as COCO's result files: `[{"image_id": "0--Parade/0_Parade...", "bbox": [x, y, width, height],
"score": 0.9}, ...]`; the pictures without a detection are then the ones not named.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import read_bytes
from facekiln.errors import KilnError
from facekiln.evaluation.detections import (
    Detections,
    aligned,
    picture_index,
    refuse_not_finite,
    unknown_picture,
)
from facekiln.evaluation.wider_truth import Truth

_BLANKS = re.compile(r"[ \t\n\r]*")
_Members = Iterator[tuple[Any, Any]]


def read_json(path: Path | str, truth: Truth, *, official: bool = False) -> Detections:
    """Read one JSON file.

    Args:
        path: the file; names of pictures are "event/name", with or without ".jpg".
        truth: the ground truth.
        official: a missing picture is told and counts as empty; else it is an error (only by picture).

    Raises:
        KilnError: another form, a row that is not five finite numbers, an unknown, missing or repeated
            picture; names the file and the picture or the detection.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise KilnError(f"is not JSON: {error}", file=path) from error
    form = text[_after_blanks(text, 0) :][:1]
    if form not in ("{", "["):
        raise KilnError(
            "is neither an object of pictures nor a list of detections",
            file=path,
            value=repr(text[:20]),
            hint="the two forms are in docs/evaluation.md",
        )
    members = _members(text, {"{": "}", "[": "]"}[form], path)
    if form == "{":
        return _by_picture(members, truth, path, official)
    return _by_detection(members, truth, path)


def _after_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    assert found is not None  # it matches nothing, too
    return found.end()


def _members(text: str, closing: str, path: Path | str) -> _Members:
    """Yield the members of an object (key, value), or of a list (None, value), one at a time.

    The whole as Python objects would take ten times the memory of its text; and a key that comes twice would
    silently win over the first.
    """
    decoder = json.JSONDecoder()
    try:
        at = _after_blanks(text, _after_blanks(text, 0) + 1)
        if text[at : at + 1] == closing:
            return
        while True:
            key = None
            if closing == "}":
                key, at = decoder.raw_decode(text, at)
                at = _after_blanks(text, at)
                if not isinstance(key, str) or text[at : at + 1] != ":":
                    raise ValueError(f"no key and colon before character {at}")
                at = _after_blanks(text, at + 1)
            value, at = decoder.raw_decode(text, at)
            yield key, value
            at = _after_blanks(text, at)
            if text[at : at + 1] == closing:
                break
            if text[at : at + 1] != ",":
                raise ValueError(f"neither ',' nor '{closing}' at character {at}")
            at = _after_blanks(text, at + 1)
        if _after_blanks(text, at + 1) != len(text):
            raise ValueError(f"more text after its end, character {at + 1}")
    except ValueError as error:
        raise KilnError(f"is not JSON: {error}", file=path) from error


def _place(name: str, places: dict[str, int], truth: Truth, path: Path | str, where: str | None) -> int:
    stem = name.removesuffix(".jpg")
    if stem not in places:
        raise unknown_picture(stem, truth, path, where)
    return places[stem]


def _by_picture(members: _Members, truth: Truth, path: Path | str, official: bool) -> Detections:
    places = picture_index(truth)
    index, counts, tables = [], [], [np.zeros((5, 0))]
    for name, rows in members:
        index.append(_place(name, places, truth, path, None))
        tables.append(_numbers(rows, path, name))
        counts.append(tables[-1].shape[1])
    table = np.concatenate(tables, axis=1)
    refuse_not_finite(table, path)
    return aligned(truth, index, counts, table, path, missing="none" if official else "refuse")


def _numbers(rows: Any, path: Path | str, name: str) -> NDArray[np.float64]:
    """Return [5, n] of a list of rows."""
    try:
        flat = array("d", chain.from_iterable(rows))
        fits = all(len(row) == 5 for row in rows)
    except TypeError:
        fits = False
    if not fits:
        raise KilnError(
            "is no list of rows [x, y, width, height, score]", file=path, where=name, value=repr(rows)[:60]
        )
    return np.frombuffer(flat, np.float64).reshape(-1, 5).T.copy()


def _by_detection(members: _Members, truth: Truth, path: Path | str) -> Detections:
    places = picture_index(truth)
    pictures, flat = array("q"), array("d")
    for number, (_, item) in enumerate(members, 1):
        where = f"detection {number}"
        try:
            name = str(item["image_id"])
            flat.extend([*item["bbox"], item["score"]])
        except (TypeError, KeyError):
            name = ""
        if len(flat) != 5 * number:
            raise KilnError(
                "is no detection",
                file=path,
                where=where,
                value=repr(item)[:80],
                limit='{"image_id": "event/name", "bbox": [x, y, width, height], "score": number}',
            )
        pictures.append(_place(name, places, truth, path, where))
    table = np.frombuffer(flat, np.float64).reshape(-1, 5).T
    refuse_not_finite(table, path)
    index = np.frombuffer(pictures, np.int64)
    order = np.argsort(index, kind="stable")
    return Detections(np.bincount(index, minlength=len(truth.images)), np.ascontiguousarray(table[:, order]))
