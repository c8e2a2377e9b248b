"""What others read: WIDER FACE text as the reference scripts write it, JSON, Parquet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from facekiln.errors import KilnError
from facekiln.predictions.export import export
from facekiln.predictions.store import META_KEYS, Predictions

NAMES = ("0--Parade/0_Parade_1.jpg", "0--Parade/0_Parade_2.jpg", "1--Sea/1_x.jpg")


@pytest.fixture
def found() -> Predictions:
    """Two faces, none, and one that reaches beyond the picture."""
    return Predictions(
        images=NAMES,
        counts=np.array([2, 0, 1]),
        boxes=np.array([[1.2, 2.9, 11.7, 23.1], [5, 6, 7, 8], [-3.5, -0.5, 4.5, 9]], np.float32),
        scores=np.array([0.99996, 0.1, 0.5], np.float32),
        points=np.arange(12, dtype=np.float32).reshape(3, 2, 2),
        pose=None,
        meta=dict.fromkeys(META_KEYS),
    )


def lines(folder: Path, index: int) -> list[str]:
    return (folder / NAMES[index]).with_suffix(".txt").read_text().splitlines()


def test_text_with_all_digits(found: Predictions, tmp_path: Path) -> None:
    export(found, tmp_path / "out")
    assert lines(tmp_path / "out", 0) == ["0_Parade_1", "2", "1.2 2.9 10.5 20.2 0.99996", "5 6 2 2 0.1"]
    assert lines(tmp_path / "out", 1) == ["0_Parade_2", "0"]


def test_text_as_pytorch_retinaface_cuts_corners(found: Predictions, tmp_path: Path) -> None:
    """int() cuts towards zero, and sides are the difference of cut corners."""
    export(found, tmp_path / "out", boxes="truncate", header="path")
    assert lines(tmp_path / "out", 0)[:3] == ["0--Parade/0_Parade_1.jpg", "2", "1 2 10 21 0.99996"]
    assert lines(tmp_path / "out", 2)[2] == "-3 0 7 9 0.5"


def test_text_as_the_ultra_light_detector_rounds(found: Predictions, tmp_path: Path) -> None:
    """Corner down, sides up, three digits, at most 1."""
    export(found, tmp_path / "out", boxes="floor_ceil", digits=3)
    assert lines(tmp_path / "out", 0)[2:] == ["1 2 11 21 1.000", "5 6 2 2 0.100"]
    assert lines(tmp_path / "out", 2)[2] == "-4 -1 8 10 0.500"


def test_json_names_every_picture(found: Predictions, tmp_path: Path) -> None:
    found.points[2, 0, 0] = np.nan  # type: ignore[index]
    export(found, tmp_path / "out.json", form="json", boxes="truncate", digits=3)
    value = json.loads((tmp_path / "out.json").read_text())
    assert value == {
        NAMES[0]: [[1, 2, 10, 21, 1.0], [5, 6, 2, 2, 0.1]],
        NAMES[1]: [],
        NAMES[2]: [[-3, 0, 7, 9, 0.5]],
    }
    points = json.loads((tmp_path / "out.landmarks.json").read_text())
    assert points[NAMES[2]] == [[[None, 9], [10, 11]]]
    assert not (tmp_path / "out.pose.json").exists()


def test_parquet_has_a_row_per_detection(found: Predictions, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    export(found, tmp_path / "out.parquet", form="parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["image", "x", "y", "width", "height", "score", "landmarks"]
    rows = table.to_pylist()
    assert [row["image"] for row in rows] == [NAMES[0], NAMES[0], NAMES[2]]
    assert rows[2]["width"] == 8.0
    assert rows[1]["landmarks"] == [4, 5, 6, 7]


def test_parquet_without_pyarrow_is_told(
    found: Predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(KilnError, match=r"facekiln\[parquet\]"):
        export(found, tmp_path / "out.parquet", form="parquet")


def test_names_that_text_cannot_hold_and_unknown_forms(found: Predictions, tmp_path: Path) -> None:
    clash = Predictions(
        ("a/x.jpg", "a/x.png", "b.jpg"), found.counts, found.boxes, found.scores, None, None, {}
    )
    with pytest.raises(KilnError, match="differ by their endings"):
        export(clash, tmp_path / "out")
    with pytest.raises(KilnError, match="did you mean 'text'"):
        export(found, tmp_path / "out", form="txt")
    with pytest.raises(KilnError, match="unknown box rule"):
        export(found, tmp_path / "out", boxes="ceil")
    assert not (tmp_path / "out").exists()
