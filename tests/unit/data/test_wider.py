"""WIDER FACE: the three layouts, their quirks, and the real ground truth."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facekiln.data.wider import read_wider_label, read_wider_text
from facekiln.data.wider_mat import read_wider_mat
from facekiln.errors import KilnError

# The form of wider_face_train_bbx_gt.txt: pictures without faces have the count 0 and a row of ten zeros.
TEXT = """0--Parade/a.jpg
2
449 330 122 149 0 0 0 0 0 0
10 20 5 6 2 1 1 1 2 1
0--Parade/none.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Handshaking/b.jpg
1
1 2 3 4 1 0 0 0 1 0
"""

# The form of RetinaFace's train/label.txt.
LABEL = """# 0--Parade/a.jpg
449 330 122 149 488.9 373.6 0.0 542.1 376.4 1.0 515.0 412.8 0.0 485.2 425.9 0.0 538.4 431.5 0.0 0.82
10 20 5 6 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 -1.0 0.2
# 0--Parade/none.jpg
# 1--Handshaking/b.jpg
1 2 3 4
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def to_file(text: str) -> Path:
        path = tmp_path / "annotation.txt"
        path.write_text(text)
        return path

    return to_file


def test_text_layout(tmp_path: Path, write: Callable[[str], Path]) -> None:
    parade, none, handshaking = read_wider_text("w", tmp_path / "images", write(TEXT))
    assert parade.source == "0--Parade/a.jpg"
    assert parade.picture == tmp_path / "images/0--Parade/a.jpg"
    assert parade.boxes.tolist() == [[449, 330, 571, 479], [10, 20, 15, 26]]
    assert parade.ignore.tolist() == [False, True]  # invalid
    assert {name: values.tolist() for name, values in parade.attributes.items()} == {
        "blur": [0, 2],
        "expression": [0, 1],
        "illumination": [0, 1],
        "invalid": [0, 1],
        "occlusion": [0, 2],
        "pose": [0, 1],
    }
    assert len(none) == 0 and len(handshaking) == 1


def test_the_row_of_zeros_after_the_count_0_may_be_missing(
    tmp_path: Path, write: Callable[[str], Path]
) -> None:
    listing = read_wider_text("w", tmp_path, write(TEXT.replace("0 0 0 0 0 0 0 0 0 0\n1--", "1--")))
    assert [len(sample) for sample in listing] == [2, 0, 1]


def test_a_box_of_zeros_that_is_counted_stays_for_the_audit(
    tmp_path: Path, write: Callable[[str], Path]
) -> None:
    (sample,) = read_wider_text("w", tmp_path, write("a/b.jpg\n1\n0 0 0 0 0 0 0 0 0 0\n"))
    assert sample.boxes.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", r"a\.jpg: ends in the middle .*1 rows; limit: 2 rows"),
        ("a.jpg\n", r"line 2: should be a number of boxes"),
        ("a.jpg\n1\n1 2 3 4\n", r"line 3: is no box row .*4 columns; limit: 10"),
        ("a.jpg\n1\n1 2 3 x 0 0 0 0 0 0\n", r"line 3: is no finite number"),
        ("a.jpg\n1\n1 2 3 4 0 0 0 0.5 0 0\n", r"a\.jpg: invalid: is no label .*0\.5; limit: a whole number"),
        ("a.jpg\n" + "9" * 5000 + "\n", r"line 2: should be a number of boxes"),
        ("a.jpg\n-1\n", r"line 2: should be a number of boxes"),
        ("../../etc/passwd\n0\n", r"line 1: names a picture outside its folder"),
        (LABEL, r"line 2: should be a number of boxes .*\n.*wider_label"),
        (TEXT + "0--Parade/a.jpg\n0\n", r"0--Parade/a\.jpg: is annotated twice"),
    ],
)
def test_text_that_is_not_of_the_layout_is_refused_by_line(
    tmp_path: Path, write: Callable[[str], Path], text: str, message: str
) -> None:
    with pytest.raises(KilnError, match=message):
        read_wider_text("w", tmp_path, write(text))


def test_label_layout(tmp_path: Path, write: Callable[[str], Path]) -> None:
    parade, none, handshaking = read_wider_label("w", tmp_path, write(LABEL))
    assert parade.boxes.tolist() == [[449, 330, 571, 479], [10, 20, 15, 26]]
    marks = parade.landmarks
    assert marks is not None and marks.scheme == "5"
    assert marks.points[0, 1].tolist() == [542.1, 376.4]
    assert marks.visible[0].tolist() == [True, False, True, True, True]  # flag 1: hidden, but placed
    assert marks.labelled.tolist() == [[True] * 5, [False] * 5]  # flag -1: not annotated
    assert np.isnan(marks.points[1]).all()
    assert parade.attributes["blur_score"].tolist() == [0.82, 0.2]
    assert len(none) == 0
    assert handshaking.landmarks is not None and not handshaking.landmarks.labelled.any()


def test_a_point_left_of_and_above_the_picture_is_not_annotated(
    tmp_path: Path, write: Callable[[str], Path]
) -> None:
    row = "1 2 30 40 " + "-1.0 -1.0 0.0 " + "-1.0 5.0 0.0 " + "3 4 0 " * 3
    (sample,) = read_wider_label("w", tmp_path, write(f"# a.jpg\n{row}\n"))
    assert sample.landmarks is not None
    assert sample.landmarks.labelled.tolist() == [[False, True, True, True, True]]
    assert sample.landmarks.points[0, 1].tolist() == [-1, 5]


def test_label_layout_with_sizes_has_corners(tmp_path: Path, write: Callable[[str], Path]) -> None:
    row = "449 330 571 479 " + "1 2 0 " * 5
    (sample,) = read_wider_label("w", tmp_path, write(f"# 0--Parade/a.jpg 1024 1385\n{row}\n"))
    assert sample.boxes.tolist() == [[449, 330, 571, 479]]
    assert sample.size == (1385, 1024)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3 4\n", r"line 1: is no row of a label file"),
        ("# a.jpg\n1 2 3 4 5\n", r"line 2: is no row of a label file .*5 columns"),
        ("# /etc/passwd\n", r"line 1: names a picture outside its folder"),
        ("# a b.jpg\n", r"line 1: should be `# path`"),
        (TEXT, r"line 1: is no row of a label file (?s:.)*wider_text"),
    ],
)
def test_labels_that_are_not_of_the_layout_are_refused_by_line(
    tmp_path: Path, write: Callable[[str], Path], text: str, message: str
) -> None:
    with pytest.raises(KilnError, match=message):
        read_wider_label("w", tmp_path, write(text))


def _cells(*items: object) -> np.ndarray:
    cells = np.empty((len(items), 1), object)
    for index, item in enumerate(items):
        cells[index, 0] = item
    return cells


def _write_mat(path: Path, **changes: object) -> Path:
    from scipy.io import savemat

    boxes = np.array([[250, 3, 10, 20], [1, 2, 255, 4]], np.uint8)  # uint8: 250 + 10 must not wrap round
    labels = np.array([[0], [1]], np.uint8)
    attributes = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
    content: dict[str, object] = {
        "event_list": _cells("0--Parade"),
        "file_list": _cells(_cells("a", "b")),
        "face_bbx_list": _cells(_cells(boxes, boxes.astype(np.int32)[:1])),
        **{f"{name}_label_list": _cells(_cells(labels, labels[:1])) for name in attributes},
        "gt_list": _cells(_cells(np.array([[2]], np.uint8), np.zeros((0, 0)))),
        **changes,
    }
    savemat(path, {key: value for key, value in content.items() if value is not None})
    return path


def test_mat_layout_with_narrow_integers_and_empty_lists(tmp_path: Path) -> None:
    first, second = read_wider_mat("w", tmp_path / "images", _write_mat(tmp_path / "gt.mat"))
    assert first.boxes.tolist() == [[250, 3, 260, 23], [1, 2, 256, 6]]
    assert first.ignore.tolist() == [True, False]  # gt_list counts from 1
    assert second.ignore.tolist() == [True]  # an empty list is 0x0
    assert second.picture == tmp_path / "images/0--Parade/b.jpg"


def test_mat_without_a_setting_ignores_invalid_faces(tmp_path: Path) -> None:
    first, _ = read_wider_mat("w", tmp_path, _write_mat(tmp_path / "gt.mat", gt_list=None))
    assert first.ignore.tolist() == [False, True]


def test_mat_whose_lists_do_not_fit_is_refused(tmp_path: Path) -> None:
    short = _cells(_cells(np.zeros((2, 4), np.int32)))
    with pytest.raises(KilnError, match=r"0--Parade: has lists of different lengths"):
        read_wider_mat("w", tmp_path, _write_mat(tmp_path / "gt.mat", face_bbx_list=short))
    beyond = _cells(_cells(np.array([[3]], np.uint8), np.zeros((0, 0))))
    with pytest.raises(KilnError, match=r"a: gt_list: counts a face that does not exist .*3\.\.3.*1\.\.2"):
        read_wider_mat("w", tmp_path, _write_mat(tmp_path / "gt.mat", gt_list=beyond))
    with pytest.raises(KilnError, match=r"file_list: lacks a variable"):
        read_wider_mat("w", tmp_path, _write_mat(tmp_path / "gt.mat", file_list=None))
    away = _cells(_cells("../../a", "b"))
    with pytest.raises(KilnError, match=r"outside its folder"):
        read_wider_mat("w", tmp_path, _write_mat(tmp_path / "gt.mat", file_list=away))


@pytest.mark.parametrize("damage", [b"", b"MATLAB 5.0 MAT-file" + bytes(200), b"<html>no</html>" * 30])
def test_damaged_mat_is_refused_by_name(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "gt.mat"
    path.write_bytes(damage)
    with pytest.raises(KilnError, match=r"gt\.mat: is no MATLAB 5 file"):
        read_wider_mat("w", tmp_path, path)


def test_cut_mat_is_refused_by_name(tmp_path: Path) -> None:
    path = _write_mat(tmp_path / "gt.mat")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(KilnError, match=r"gt\.mat: is no whole MATLAB file: it ends inside"):
        read_wider_mat("w", tmp_path, path)


# The census of the official files: 61 events, 3226 pictures, 39,708 boxes; counted faces per setting.
@pytest.mark.parametrize(
    ("setting", "counted"), [("face", 39708 - 585), ("easy", 7211), ("medium", 13319), ("hard", 31958)]
)
def test_real_ground_truth(data: Callable[[str], Path], setting: str, counted: int) -> None:
    path = data(f"wider/ground_truth/wider_{setting}_val.mat")
    listing = read_wider_mat(setting, data("wider/images"), path)
    assert len(listing) == 3226
    assert len({source.split("/")[0] for source in listing.sources}) == 61
    assert listing.sources[0] == "0--Parade/0_Parade_marchingband_1_465.jpg"
    assert sum(len(sample) for sample in listing) == 39708
    assert sum(int((~sample.ignore).sum()) for sample in listing) == counted
