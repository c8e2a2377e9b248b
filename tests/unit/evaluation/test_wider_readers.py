"""Detections in every form: the habits of result files, and every fault told by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facekiln.errors import KilnError
from facekiln.evaluation import read_rows
from facekiln.evaluation import read_text as module
from facekiln.evaluation.detections import Detections, from_predictions, written_boxes
from facekiln.evaluation.read_any import read_any
from facekiln.evaluation.read_json import read_json
from facekiln.evaluation.read_parquet import read_parquet
from facekiln.evaluation.read_text import read_text
from facekiln.evaluation.wider_truth import Truth, read_truth
from facekiln.predictions.store import Predictions

NAMES = ("0--Parade/a_1", "0--Parade/a_2", "1--Riot/b_1")
TRUTH = Truth(
    images=NAMES,
    counts=np.ones(3, np.int64),
    boxes=np.array([[1.0, 1, 9, 9]] * 3).T.copy(),
    kept=np.ones((3, 3), bool),
    source="the truth",
)
GOOD = {
    "0--Parade/a_1.txt": "0--Parade/a_1.jpg\n2\n1 2 3 4 0.9\n5 6 7 8 0.5\n",
    "0--Parade/a_2.txt": "a_2\n0\n",
    "1--Riot/b_1.txt": "b_1\n1\n1.5 2.5 3.25 4.0 0.99878246 \n",
}
TABLE = [[1, 5, 1.5], [2, 6, 2.5], [3, 7, 3.25], [4, 8, 4.0], [0.9, 0.5, 0.99878246]]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


def check(found: Detections) -> None:
    assert found.counts.tolist() == [2, 0, 1] and found.table.tolist() == TABLE


@pytest.mark.parametrize("official", [False, True])
def test_both_habits_of_result_files(tmp_path: Path, official: bool) -> None:
    check(read_text(write(tmp_path, GOOD), TRUTH, official=official))


@pytest.mark.parametrize(
    "text",
    [
        "a_1.jpg\r\n2\r\n1 2 3 4 0.9\r\n5 6 7 8 0.5\r\n",
        "a_1\n2\n1 2 3 4 0.9\n5 6 7 8 0.5",
        "a_1\n2\n1 2 3 4 0.9\n5 6 7 8 0.5\n\n\n",
        "a_1\n2\n1 2 3 4 0.9 \n\n5 6 7 8 5e-1 \n",
        "a_1\n 2 \n1\t2\t3\t4\t0.9\n5.0 6 +7 8 .5\n",
        "any/where/a_1.jpg\n2\n1 2 3 4 0.9 face\n5 6 7 8 0.5 face\n",
    ],
)
def test_habits_that_do_no_harm(tmp_path: Path, text: str) -> None:
    check(read_text(write(tmp_path, GOOD | {"0--Parade/a_1.txt": text}), TRUTH))


def test_hidden_files_and_an_empty_end_are_passed_over(tmp_path: Path) -> None:
    extra = {".DS_Store": "x", "0--Parade/.swp": "x", "0--Parade/a_2.txt": "a_2"}
    check(read_text(write(tmp_path, GOOD | extra), TRUTH))


def test_the_first_line_names_the_picture_to_the_port_only(tmp_path: Path) -> None:
    swapped = {
        "0--Parade/a_1.txt": GOOD["0--Parade/a_2.txt"],
        "0--Parade/a_2.txt": GOOD["0--Parade/a_1.txt"],
    }
    folder = write(tmp_path, GOOD | swapped)
    check(read_text(folder, TRUTH))
    assert read_text(folder, TRUTH, official=True).counts.tolist() == [0, 2, 1]
    (folder / "0--Parade/a_1.txt").rename(folder / "0--Parade/other.txt")
    check(read_text(folder, TRUTH))


def test_blocks_and_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 1 << 10)
    monkeypatch.setattr(read_rows, "_ROWS", 16)
    rows = [f"{n} {n + 1} 10 10 {n / 4096:.6f}" for n in range(3000)]
    many = {
        name.replace("txt", "txt"): f"{Path(name).stem}\n3000\n" + "\n".join(rows) + "\n" for name in GOOD
    }
    mixed = {"0--Parade/a_2.txt": "a_2\n2\n1 2 3 4 1e-3\n1 2 3 4 5 6\n"}
    found = read_text(write(tmp_path, many | mixed), TRUTH)
    assert found.counts.tolist() == [3000, 2, 3000]
    assert found.table[4, :3000].tolist() == [float(f"{n / 4096:.6f}") for n in range(3000)]
    assert found.table[:, 3000:3002].T.tolist() == [[1, 2, 3, 4, 0.001], [1, 2, 3, 4, 5]]


FAULTS: dict[str, tuple[dict[str, str | None], str]] = {
    "missing picture": ({"0--Parade/a_2.txt": None}, r"no detections of 1 pictures.*0--Parade/a_2"),
    "missing event": ({"1--Riot/b_1.txt": None}, r"no detections of 1 pictures.*1--Riot/b_1"),
    "unknown event": ({"2--Wedding/x.txt": "x\n0\n"}, r"2--Wedding.*no event '2--Wedding'"),
    "near event": ({"1--Riots/b_1.txt": "b_1\n0\n"}, r"did you mean '1--Riot'"),
    "unknown picture": ({"0--Parade/a_9.txt": "a_9\n0\n"}, r"a_9.txt: line 1.*no picture '0--Parade/a_9'"),
    "stray file": ({"readme.txt": "hello"}, r"readme.txt.*no folder of an event"),
    "stray file in event": ({"0--Parade/a_1.jpg": "hello"}, r"a_1.jpg.*no picture '0--Parade/a_1.jpg'"),
    "twice": ({"0--Parade/a_2.txt": "a_1\n0\n"}, r"0--Parade/a_1: has detections of one picture twice"),
    "empty": ({"0--Parade/a_2.txt": ""}, r"a_2.txt.*is empty"),
    "no count": ({"0--Parade/a_2.txt": "a_2\n1 2 3 4 0.5\n"}, r"a_2.txt: line 2.*number of detections"),
    "nan": ({"0--Parade/a_2.txt": "a_2\n1\n1 2 3 4 nan\n"}, r"a_2.txt: line 3.*no finite number.*nan"),
    "inf": (
        {"0--Parade/a_2.txt": "a_2\n2\n1 2 3 4 1\n1 inf 3 4 1\n"},
        r"a_2.txt: line 4.*no finite number.*inf",
    ),
    "word": ({"0--Parade/a_2.txt": "a_2\n1\n1 2 x 4 1\n"}, r"a_2.txt: line 3.*no finite number.*x"),
    "columns": ({"0--Parade/a_2.txt": "a_2\n1\n1 2 3 4\n"}, r"a_2.txt: line 3.*has 4 columns"),
    "comma": ({"0--Parade/a_2.txt": "a_2\n1\n1,2,3,4,0.5\n"}, r"a_2.txt: line 3.*has 1 columns"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_told_by_name(tmp_path: Path, fault: str) -> None:
    changes, message = FAULTS[fault]
    files = {name: text for name, text in (GOOD | changes).items() if text is not None}
    with pytest.raises(KilnError, match=f"(?s){message}"):
        read_text(write(tmp_path, files), TRUTH)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="cannot be read"):
        read_text(tmp_path / "none", TRUTH)
    with pytest.raises(KilnError, match="is not here"):
        read_any(tmp_path / "none.json", TRUTH, official=False)
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(KilnError, match="no form of detections"):
        read_any(tmp_path / "a.csv", TRUTH, official=False)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("a_1\n1\n1 2 3 4 0.9\n5 6 7 8 0.5\n", [1, 0, 1]),  # the count is obeyed
        ("a_1\n1\n1 2 3 4 0.9\nnot read\n", [1, 0, 1]),  # ... so that what follows is not read
        ("a_1\n3\n1 2 3 4 0.9\n5 6 7 8 0.5\n", [0, 0, 1]),  # fewer rows than it says: malformed
        ("a_1\n2\n1 2 3 4 0.9\n5 6 x 8 0.5\n", [0, 0, 1]),
        ("a_1\nmany\n1 2 3 4 0.9\n", [0, 0, 1]),
        ("", [0, 0, 1]),
        (None, [0, 0, 1]),
    ],
)
def test_the_official_tool_takes_bad_files_as_empty(
    tmp_path: Path, text: str | None, counts: list[int]
) -> None:
    files: dict[str, Any] = GOOD | {"0--Parade/a_1.txt": text}
    folder = write(tmp_path, {name: value for name, value in files.items() if value is not None})
    assert read_text(folder, TRUTH, official=True).counts.tolist() == counts


# ---- one file


BY_PICTURE = {
    "1--Riot/b_1.jpg": [[1.5, 2.5, 3.25, 4.0, 0.99878246]],
    "0--Parade/a_1": [[1, 2, 3, 4, 0.9], [5, 6, 7, 8, 0.5]],
    "0--Parade/a_2.jpg": [],
}
BY_DETECTION = [
    {"image_id": "1--Riot/b_1", "bbox": [1.5, 2.5, 3.25, 4.0], "score": 0.99878246, "category_id": 1},
    {"image_id": "0--Parade/a_1.jpg", "bbox": [1, 2, 3, 4], "score": 0.9},
    {"image_id": "0--Parade/a_1", "bbox": [5, 6, 7, 8], "score": 0.5},
]


@pytest.mark.parametrize("value", [BY_PICTURE, BY_DETECTION])
def test_json(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps(value))
    check(read_any(path, TRUTH, official=False))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "neither an object of pictures nor a list"),
        ({"0--Parade/a_1": [[1, 2, 3, 4]]}, r"0--Parade/a_1.*no list of rows"),
        ({"0--Parade/a_1": [[1, 2, 3, 4, "x"]]}, r"no list of rows"),
        ({"0--Parade/a_1": [[1, 2, 3, 4, 5], [1]]}, r"no list of rows"),
        ({"0--Parade/a_9": []}, r"no picture '0--Parade/a_9'"),
        ({"0--Parade/a_1": []}, r"no detections of 2 pictures"),
        ({**BY_PICTURE, "0--Parade/a_1.jpg": []}, r"twice"),
        ([{"image_id": "0--Parade/a_1", "score": 1}], r"detection 1: is no detection"),
        ([*BY_DETECTION, 3], r"detection 4: is no detection"),
        ([{"image_id": "x", "bbox": [1, 2, 3, 4], "score": 1}], r"detection 1.*no event 'x'"),
        ([{"image_id": "0--Parade/a_1", "bbox": [1, 2, 3], "score": 1}], r"detection 1: is no detection"),
        ([{"image_id": "0--Parade/a_1", "bbox": [1, 2, 3, "4"], "score": 1}], r"is no detection"),
        ([{"image_id": "0--Parade/a_1", "bbox": [1, 2, 3, float("nan")], "score": 1}], r"height.*nan"),
    ],
)
def test_json_faults(tmp_path: Path, value: Any, message: str) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps(value))
    with pytest.raises(KilnError, match=f"(?s){message}"):
        read_json(path, TRUTH)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither an object"),
        ("{", "is not JSON"),
        ('{"0--Parade/a_1": [[1, 2, 3, 4, 0.5]]', "is not JSON: neither ',' nor '}'"),
        ('{"0--Parade/a_1" [[1, 2, 3, 4, 0.5]]}', "is not JSON: no key and colon"),
        ('{"0--Parade/a_1": []} x', "is not JSON: more text"),
        ('{"0--Parade/a_1": [], "0--Parade/a_1": []}', "0--Parade/a_1: has detections of one picture twice"),
        ('[{"image_id": "0--Parade/a_1", "bbox": [1, 2, 3, 4], "score": 1},]', "is not JSON"),
    ],
)
def test_json_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "found.json"
    path.write_text(text)
    with pytest.raises(KilnError, match=message):
        read_json(path, TRUTH)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(KilnError, match="is not JSON"):
        read_json(path, TRUTH)


def test_json_that_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(" [ ] ")
    assert read_json(path, TRUTH).counts.tolist() == [0, 0, 0]
    path.write_text("{}")
    assert read_json(path, TRUTH, official=True).counts.tolist() == [0, 0, 0]


def parquet(path: Path, **columns: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    good = {
        "image": ["1--Riot/b_1", "0--Parade/a_1.jpg", "0--Parade/a_1"],
        **dict(
            zip(("x", "y", "width", "height", "score"), (row[2:] + row[:2] for row in TABLE), strict=True)
        ),
    }
    pq.write_table(
        pyarrow.table({name: value for name, value in (good | columns).items() if value is not None}), path
    )
    return path


def test_parquet(tmp_path: Path) -> None:
    check(read_any(parquet(tmp_path / "found.parquet"), TRUTH, official=False))
    import pyarrow

    names = pyarrow.array(["1--Riot/b_1", "0--Parade/a_1", "0--Parade/a_1"]).dictionary_encode()
    check(read_parquet(parquet(tmp_path / "coded.parquet", image=names), TRUTH))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"score": None}, "score: lacks a column"),
        ({"x": ["a", "b", "c"]}, "x: is no column of numbers"),
        ({"x": [1.0, None, 2.0]}, "x: has rows without a value"),
        ({"x": [1.0, float("nan"), 2.0]}, "detection 2, x.*nan"),
        ({"image": [1, 2, 3]}, "image: is no column of names"),
        ({"image": ["1--Riot/b_1", "0--Parade/a_1", "0--Parade/zz"]}, "no picture '0--Parade/zz'"),
    ],
)
def test_parquet_faults(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(KilnError, match=f"(?s){message}"):
        read_parquet(parquet(tmp_path / "found.parquet", **columns), TRUTH)


def test_parquet_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(KilnError, match="is no Parquet file"):
        read_parquet(tmp_path / "a.parquet", TRUTH)
    with pytest.raises(KilnError, match="cannot be read"):
        read_parquet(tmp_path / "none.parquet", TRUTH)
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(KilnError, match=r"(?s)needs? pyarrow.*facekiln\[parquet\]"):
        read_parquet(tmp_path / "a.parquet", TRUTH)


# ---- predictions of ours

CORNERS = np.array([[1.75, -2.5, 4.25, 9.0], [10.0, 20.5, 10.25, 30.75]], np.float32)


def test_box_rules() -> None:
    assert written_boxes(CORNERS, "float").T.tolist() == [[1.75, -2.5, 2.5, 11.5], [10, 20.5, 0.25, 10.25]]
    # int() cuts toward zero, as Python does in test_widerface.py.
    assert written_boxes(CORNERS, "truncate").T.tolist() == [[1, -2, 3, 11], [10, 20, 0, 10]]
    assert written_boxes(CORNERS, "floor_ceil").T.tolist() == [[1, -3, 3, 12], [10, 20, 1, 11]]
    with pytest.raises(KilnError, match="unknown box rule"):
        written_boxes(CORNERS, "round")


def predictions(*images: str) -> Predictions:
    counts = np.array([2] + [0] * (len(images) - 1), np.int64)
    return Predictions(images, counts, CORNERS, np.array([0.9, 0.1], np.float32), None, None, {})


def test_predictions_are_brought_into_the_order_of_the_truth() -> None:
    found = from_predictions(predictions(NAMES[2] + ".jpg", NAMES[0] + ".jpg", NAMES[1] + ".jpg"), TRUTH)
    assert found.counts.tolist() == [0, 0, 2]
    assert found.table[4].tolist() == [float(np.float32(0.9)), float(np.float32(0.1))]
    with pytest.raises(KilnError, match="no detections of 2 pictures"):
        from_predictions(predictions(NAMES[2] + ".jpg"), TRUTH)
    with pytest.raises(KilnError, match="no event 'x'"):
        from_predictions(predictions("x/y.jpg"), TRUTH)


# ---- ground truth


def test_ground_truth_of_a_subset_and_its_cache(data: Callable[[str], Path], tmp_path: Path) -> None:
    folder = data("wider/subset183/ground_truth")
    truth = read_truth(folder, tmp_path / "cache")
    assert len(truth.images) == 183 and len(truth.events) == 61
    [cache] = (tmp_path / "cache").iterdir()
    again = read_truth(folder, tmp_path / "cache")
    for name in ("images", "counts", "boxes", "kept"):
        assert np.array_equal(getattr(truth, name), getattr(again, name))
    cache.write_bytes(cache.read_bytes()[:100])  # damaged: made anew
    assert read_truth(folder, tmp_path / "cache").images == truth.images
    assert cache.stat().st_size > 100
    assert read_truth(folder, None).totals.tolist() == truth.totals.tolist()


def test_ground_truth_of_two_downloads_is_refused(data: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("face", "easy", "medium"):
        (tmp_path / f"wider_{name}_val.mat").write_bytes(
            data(f"wider/subset183/ground_truth/wider_{name}_val.mat").read_bytes()
        )
    with pytest.raises(KilnError, match=r"wider_hard_val.mat: is not here"):
        read_truth(tmp_path, None)
    (tmp_path / "wider_hard_val.mat").write_bytes(data("wider/ground_truth/wider_hard_val.mat").read_bytes())
    with pytest.raises(KilnError, match=r"wider_hard_val.mat: lists other pictures"):
        read_truth(tmp_path, None)
