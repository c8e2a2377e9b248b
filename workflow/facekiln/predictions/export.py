"""Predictions as others read them: WIDER FACE result files, JSON, Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import atomic_folder, atomic_path, write_text
from facekiln.config import known
from facekiln.errors import KilnError
from facekiln.evaluation.detections import written_boxes
from facekiln.predictions.store import Predictions
from facekiln.progress import progress_bar

FORMATS = ("text", "json", "parquet")
HEADERS = ("name", "path")


def export(
    predictions: Predictions,
    output: Path,
    *,
    form: str = "text",
    boxes: str = "float",
    digits: int | None = None,
    header: str = "name",
) -> None:
    """Write predictions in one of `FORMATS`.

    Args:
        predictions: what to write.
        output: for "text" a folder with `event/picture.txt` per picture: header, count, then `x y w h score`
            per detection; for "json" a file of `{"event/picture.jpg": [[x, y, w, h, score], ...]}`, empty
            pictures included, with `x.landmarks.json` and `x.pose.json` beside it where there are any; for
            "parquet" a file with a row per detection and columns image, x, y, width, height, score, and
            `landmarks` (x0, y0, x1, ...) and `pose` where there are any.
        form: the format.
        boxes: how corners are written: "float", "truncate" (test_widerface.py of Pytorch_Retinaface) or
            "floor_ceil" (evaluation_on_widerface.py of Ultra-Light-Fast-Generic-Face-Detector-1MB).
        digits: of scores behind the point, then capped at 1 as that script does; None: all of float32.
        header: first line of a text file: "name" without ending (both scripts), or "path" with event and
            ending (other tools).

    Raises:
        KilnError: unknown format, rule or header; pyarrow is needed and not installed; two pictures would
            have one file.
    """
    known(form, FORMATS, "format")
    known(header, HEADERS, "header")
    table = np.empty((len(predictions.scores), 5))
    table[:, :4] = written_boxes(predictions.boxes, boxes).T
    table[:, 4] = predictions.scores
    if digits is not None:
        # Rounded as a printed number is, so that every format has the same score.
        table[:, 4] = [min(1.0, float(f"{score:.{digits}f}")) for score in table[:, 4]]
    if form == "text":
        _write_text(predictions, table, output, digits, header)
    elif form == "json":
        _write_json(predictions, table, output)
    else:
        _write_parquet(predictions, table, output)


def _write_text(
    predictions: Predictions, table: NDArray[np.float64], output: Path, digits: int | None, header: str
) -> None:
    names = [PurePosixPath(source).with_suffix(".txt") for source in predictions.images]
    if len(set(names)) < len(names):
        raise KilnError("two pictures differ by their endings only, so text files cannot hold them")
    for name in names:
        if name.is_absolute() or ".." in name.parts:
            raise KilnError("a picture's name leads out of the folder", where=str(name))
    with atomic_folder(output) as folder, progress_bar(len(names), "export", "img") as bar:
        for index, name in enumerate(names):
            rows = table[predictions.starts[index] : predictions.starts[index + 1]]
            source = PurePosixPath(predictions.images[index])
            first = source.stem if header == "name" else source.as_posix()
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = "".join(f"{_row(row, digits)}\n" for row in rows)
            path.write_text(f"{first}\n{len(rows)}\n{lines}", encoding="utf-8")
            bar.update(1)


def _row(row: NDArray[np.float64], digits: int | None) -> str:
    corners = " ".join(_number(value) for value in row[:4])
    return f"{corners} {_number(row[4]) if digits is None else f'{row[4]:.{digits}f}'}"


def _number(value: float) -> str:
    """Write a whole number without a point, any other with all digits that tell its float32 from the next."""
    if value == np.trunc(value):
        return str(int(value))
    return np.format_float_positional(np.float32(value), unique=True, trim="0")


def _plain(values: Any) -> Any:
    """Nested lists in which what is not finite is None, as JSON has no form for it."""
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return values if np.isfinite(values) else None


def _by_picture(predictions: Predictions, values: NDArray[Any]) -> Iterator[tuple[str, Any]]:
    for index, source in enumerate(predictions.images):
        rows = values[predictions.starts[index] : predictions.starts[index + 1]]
        yield source, _plain(rows.tolist())


def _write_json(predictions: Predictions, table: NDArray[np.float64], output: Path) -> None:
    whole: dict[str, Any] = dict(_by_picture(predictions, table))
    write_text(output, json.dumps(whole, ensure_ascii=False, allow_nan=False) + "\n")
    for name, values in (("landmarks", predictions.points), ("pose", predictions.pose)):
        if values is not None:
            text = json.dumps(dict(_by_picture(predictions, values)), ensure_ascii=False, allow_nan=False)
            write_text(output.with_suffix(f".{name}{output.suffix}"), text + "\n")


def _write_parquet(predictions: Predictions, table: NDArray[np.float64], output: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet as pq
    except ImportError as error:
        raise KilnError(
            "Parquet files need pyarrow, which is not installed",
            file=output,
            hint="pip install 'facekiln[parquet]', or use --format text or json",
        ) from error
    images = np.repeat(np.arange(len(predictions)), predictions.counts)
    columns: dict[str, Any] = {
        "image": pyarrow.DictionaryArray.from_arrays(
            pyarrow.array(images, pyarrow.int32()), pyarrow.array(list(predictions.images), pyarrow.string())
        ),
        **dict(zip(("x", "y", "width", "height", "score"), table.T, strict=True)),
    }
    for name, values in (("landmarks", predictions.points), ("pose", predictions.pose)):
        if values is not None:
            flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
            columns[name] = pyarrow.FixedSizeListArray.from_arrays(
                pyarrow.array(flat.ravel()), max(1, flat.shape[1])
            )
    with atomic_path(output) as part:
        pq.write_table(pyarrow.table(columns), part)
