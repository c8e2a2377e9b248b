"""VOC XML: boxes, the Ultra-Light converter's landmarks, and hostile files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facekiln.data.voc import parse_xml, read_voc
from facekiln.errors import KilnError

OBJECT = """<object><name>face</name><difficult>{difficult}</difficult>
<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>60</ymax></bndbox>{more}</object>"""
POINTS = "".join(f"<x{i}>{10 * i}.5</x{i}><y{i}>{i}</y{i}>" for i in range(1, 6))


def _xml(*objects: str, file: str = "a.jpg", size: str = "<width>64</width><height>48</height>") -> str:
    return f"<annotation><filename>{file}</filename><size>{size}</size>{''.join(objects)}</annotation>"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    folder = tmp_path / "Annotations"
    folder.mkdir()

    def to_file(text: str, name: str = "a.xml") -> Path:
        (folder / name).write_text(text)
        return folder

    return to_file


def test_pascal_coordinates_start_at_one_and_include_the_last_pixel(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    objects = (OBJECT.format(difficult=0, more=""), OBJECT.format(difficult=1, more=""))
    (sample,) = read_voc("v", tmp_path, write(_xml(*objects)))
    assert sample.boxes.tolist() == [[10, 20, 30, 60]] * 2
    assert sample.ignore.tolist() == [False, True]
    assert sample.size == (48, 64)
    assert sample.picture == tmp_path / "a.jpg"
    assert sample.landmarks is None


def test_the_ultra_light_converter_counts_from_zero_and_adds_landmarks(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    with_points = OBJECT.format(difficult=0, more=f"<lm>{POINTS}<visible>0</visible><blur>0.6</blur></lm>")
    without = OBJECT.format(difficult=0, more="<has_lm>0</has_lm>")
    (sample,) = read_voc("v", tmp_path, write(_xml(with_points, without)), origin=0)
    assert sample.boxes[0].tolist() == [11, 21, 30, 60]
    assert sample.landmarks is not None
    assert sample.landmarks.points[0, 4].tolist() == [50.5, 5]
    assert np.isnan(sample.landmarks.points[1]).all()


def test_other_objects_are_passed_over(tmp_path: Path, write: Callable[..., Path]) -> None:
    text = _xml(OBJECT.format(difficult=0, more="").replace("face", "hat"))
    assert len(read_voc("v", tmp_path, write(text))[0]) == 0
    assert len(read_voc("v", tmp_path, write(text), label="hat")[0]) == 1


@pytest.mark.parametrize(
    "size", ["<width>0</width><height>48</height>", "<width>64</width><height>0</height>"]
)
def test_a_side_of_zero_is_unknown(tmp_path: Path, write: Callable[..., Path], size: str) -> None:
    assert read_voc("v", tmp_path, write(_xml(size=size)))[0].size is None


def test_a_list_chooses_and_orders(tmp_path: Path, write: Callable[..., Path]) -> None:
    for name in "abc":
        folder = write(_xml(file=f"{name}.png"), f"{name}.xml")
    chosen = tmp_path / "train.txt"
    chosen.write_text("c\na\n\n")
    assert read_voc("v", tmp_path, folder).sources == ("a", "b", "c")
    assert [sample.picture.name for sample in read_voc("v", tmp_path, folder, chosen)] == ["c.png", "a.png"]  # type: ignore[union-attr]
    chosen.write_text("../../etc/passwd\n")
    with pytest.raises(KilnError, match=r"train\.txt: line 1: names a picture outside its folder"):
        read_voc("v", tmp_path, folder, chosen)


def test_a_file_name_that_leaves_its_folder_is_refused(tmp_path: Path, write: Callable[..., Path]) -> None:
    listing = read_voc("v", tmp_path, write(_xml(file="../../../etc/shadow")))
    with pytest.raises(KilnError, match=r"a\.xml: filename: names a picture outside its folder"):
        listing[0]


BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;&x;&x;">
<!ENTITY z "&y;&y;&y;&y;&y;&y;">]><annotation><filename>&z;</filename></annotation>"""
OUTSIDE = (
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>'
)


@pytest.mark.parametrize("text", [BOMB, OUTSIDE, '<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd"><annotation/>'])
def test_xml_that_declares_entities_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(KilnError, match=r"a\.xml: declares a document type"):
        parse_xml(path)


@pytest.mark.parametrize("text", ["", "<a>", "<a></b>", "<a>&x;</a>", "GIF89a"])
def test_what_is_no_xml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(KilnError, match=r"a\.xml: is not XML"):
        parse_xml(path)


def test_a_box_without_a_corner_is_refused(tmp_path: Path, write: Callable[..., Path]) -> None:
    text = _xml(OBJECT.format(difficult=0, more="").replace("<ymax>60</ymax>", ""))
    with pytest.raises(KilnError, match=r"a\.xml: ymax: lacks a number"):
        read_voc("v", tmp_path, write(text))[0]
    text = _xml(OBJECT.format(difficult=0, more="").replace("60", "sixty"))
    with pytest.raises(KilnError, match=r"a\.xml: ymax: is no finite number"):
        read_voc("v", tmp_path, write(text))[0]
