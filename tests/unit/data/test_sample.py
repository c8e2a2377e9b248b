"""The sample, the listing, and the reading of rows."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.data.rows import below, lines_of, numbers
from facekiln.data.sample import Listing, landmarks_of, sample_of
from facekiln.errors import KilnError


def test_take_chooses_every_column_of_a_face() -> None:
    points = np.arange(30, dtype=float).reshape(3, 5, 2)
    sample = sample_of(
        "a.jpg",
        Path("a.jpg"),
        np.arange(12).reshape(3, 4),
        ignore=[False, True, False],
        landmarks=landmarks_of("5", points),
        pose=np.arange(9, dtype=float).reshape(3, 3),
        attributes={"blur": np.array([0, 1, 2])},
    )
    taken = sample.take(np.array([False, True, True]))
    assert len(taken) == 2
    assert taken.boxes.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert taken.ignore.tolist() == [True, False]
    assert taken.landmarks is not None and taken.landmarks.points.tolist() == points[1:].tolist()
    assert taken.pose is not None and taken.pose[0].tolist() == [3, 4, 5]
    assert taken.attributes["blur"].tolist() == [1, 2]


def test_a_point_is_labelled_where_it_has_coordinates_and_visible_where_it_is_not_hidden() -> None:
    points = np.array([[[1, 2], [np.nan, np.nan], [3, 4], [5, 6], [7, 8]]])
    marks = landmarks_of("5", points, [[True, False, False, False, False]])
    assert marks.labelled.tolist() == [[True, False, True, True, True]]
    assert marks.visible.tolist() == [[False, False, True, True, True]]


def test_no_faces_at_all_is_a_sample_too() -> None:
    sample = sample_of("a", Path("a"), [], landmarks=landmarks_of("98", []))
    assert len(sample) == 0 and sample.boxes.shape == (0, 4)
    assert sample.landmarks is not None and sample.landmarks.points.shape == (0, 98, 2)


def test_a_picture_is_read_only_when_asked_for(tmp_path: Path) -> None:
    sample = sample_of("a", tmp_path / "absent.jpg", [])
    with pytest.raises(KilnError, match=r"absent\.jpg: cannot be read"):
        sample.load()


def test_a_listing_is_ordered_and_reads_on_demand() -> None:
    asked: list[int] = []

    def read(index: int):  # type: ignore[no-untyped-def]
        asked.append(index)
        return sample_of(str(index), Path("x"), [])

    listing = Listing("tiny", ["0", "1", "2"], read)
    assert len(listing) == 3 and not asked
    assert listing[-1].source == "2" and asked == [2]
    assert [sample.source for sample in listing] == ["0", "1", "2"]
    with pytest.raises(IndexError):
        listing[3]


def test_a_picture_that_is_annotated_twice_is_named() -> None:
    with pytest.raises(KilnError, match=r"tiny: b: is annotated twice"):
        Listing.of("tiny", [sample_of(name, Path(name), []) for name in "abcb"])


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "a/../../secret.jpg",
        "/etc/passwd",
        "..\\secret.jpg",
        "a\\b.jpg",
        "C:/x.jpg",
        "c:x.jpg",
        "",
        ".",
        "a\0.jpg",
        "a\n.jpg",
    ],
)
def test_a_name_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KilnError, match=r"list\.txt: line 7: names a picture outside its folder"):
        below(tmp_path, name, file=Path("list.txt"), where="line 7")


@given(st.text(max_size=30))
def test_no_accepted_name_resolves_outside(name: str) -> None:
    folder = Path("/data/images")
    try:
        path = below(folder, name, file=Path("list.txt"))
    except KilnError:
        return
    assert Path(*path.parts).resolve().is_relative_to(folder)
    assert path != folder


def test_names_of_wider_face_are_accepted(tmp_path: Path) -> None:
    name = "0--Parade/0_Parade_marchingband_1_849.jpg"
    assert below(tmp_path, name, file=Path("x")) == tmp_path / name


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "1,5", "0x10", "one", "1e999"])
def test_what_is_no_finite_number_is_refused_by_line(word: str) -> None:
    with pytest.raises(KilnError, match=r"a\.txt: line 3: is no finite number"):
        numbers(["1", word], Path("a.txt"), 3)


def test_lines_survive_a_byte_order_mark_and_windows_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf# a.jpg\r\n1 2\x0b3 4\r\n")
    assert lines_of(path) == ["# a.jpg", "1 2\x0b3 4", ""]


def test_a_binary_file_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"ok\n\xff\xfe")
    with pytest.raises(KilnError, match=r"a\.txt: byte 3: is no UTF-8 text"):
        lines_of(path)
