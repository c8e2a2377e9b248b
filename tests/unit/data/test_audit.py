"""Every kind of fault is counted, named and treated by its rule; what is left is what training sees."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facekiln.artifact import read_json
from facekiln.data.audit import Audit, audit, refuse_faults
from facekiln.data.clean import PAINT, cleaned, samples_left
from facekiln.data.declared import Declared, Expected, Rules, SmallFaces, load_datasets, open_dataset
from facekiln.data.report import audit_text, write_audit
from facekiln.errors import KilnError

MakePicture = Callable[..., Path]
Declare = Callable[..., Declared]

ALL = Rules(missing_image="skip", corrupt_image="skip", near_duplicate="skip")


def _annotate(tmp_path: Path, **faces: list[tuple[float, ...]]) -> int:
    lines = []
    for name, boxes in faces.items():
        rows = [" ".join(map(str, box)) + " 0 0 0 0 0 0" for box in boxes]
        lines += [f"{name}.png", str(len(boxes)), *(rows or ["0 0 0 0 0 0 0 0 0 0"])]
    (tmp_path / "gt.txt").write_text("\n".join(lines) + "\n")
    return sum(map(len, faces.values()))


def _audit(declared: Declared, jobs: int = 2) -> Audit:
    return audit(declared, open_dataset(declared), jobs=jobs)


@pytest.fixture
def faulty(tmp_path: Path, make_picture: MakePicture, declare: Declare) -> Declared:
    """Pictures of 64 x 48 with one fault each."""
    import cv2

    images = tmp_path / "images"
    for seed, name in enumerate(("good", "boxes", "again", "empty", "cut", "unlisted")):
        make_picture(images / f"{name}.png", seed)
    shutil.copy(images / "good.png", images / "copy.png")
    near = cv2.imread(str(images / "again.png"))
    cv2.imwrite(str(images / "near.png"), cv2.add(near, 2))
    data = (images / "cut.png").read_bytes()
    (images / "cut.png").write_bytes(data[: len(data) // 3])
    (images / ".thumbnail.png").write_bytes(b"hidden files are nobody's business")
    faces = _annotate(
        tmp_path,
        good=[(10, 10, 20, 20)],
        boxes=[(50, 30, 30, 30), (5, 5, 0, 9), (70, 5, 9, 9), (1, 2, 30, 20), (1, 2, 30, 20), (1, 2, 3, -4)],
        again=[(10, 10, 20, 20)],
        empty=[],
        cut=[(10, 10, 20, 20)],
        copy=[(10, 10, 20, 20)],
        near=[(10, 10, 20, 20)],
        missing=[(10, 10, 20, 20)],
    )
    return declare("wider_text", "gt.txt", images=8, faces=faces, rules=ALL)


def test_every_kind_of_fault_is_found(faulty: Declared) -> None:
    found = [(fault.kind, fault.source, fault.face) for fault in _audit(faulty).faults]
    assert sorted(found, key=str) == sorted(
        [
            ("outside_box", "boxes.png", 0),
            ("degenerate_box", "boxes.png", 1),  # no width
            ("degenerate_box", "boxes.png", 2),  # all of it outside
            ("duplicate_box", "boxes.png", 4),
            ("degenerate_box", "boxes.png", 5),  # negative height
            ("empty_annotation", "empty.png", None),
            ("corrupt_image", "cut.png", None),
            ("duplicate_file", "copy.png", None),
            ("near_duplicate", "near.png", None),
            ("missing_image", "missing.png", None),
            ("unlisted_image", "unlisted.png", None),
        ],
        key=str,
    )


def test_the_number_of_jobs_does_not_matter(faulty: Declared) -> None:
    assert _audit(faulty, jobs=1).record() == _audit(faulty, jobs=4).record()


def test_what_is_left_is_what_the_rules_say(faulty: Declared) -> None:
    result = _audit(faulty)
    assert result.skipped == {
        "cut.png": "corrupt_image",
        "copy.png": "duplicate_file",
        "near.png": "near_duplicate",
        "missing.png": "missing_image",
    }
    left = {sample.source: sample for sample in samples_left(result)}
    assert list(left) == ["good.png", "boxes.png", "again.png", "empty.png"]
    assert left["boxes.png"].boxes.tolist() == [[50, 30, 64, 48], [1, 2, 31, 22]]
    assert result.record()["kept"] == {"images": 4, "faces": 4}


@pytest.mark.parametrize(
    ("rule", "boxes"),
    [
        ("clip", [[50, 30, 64, 48], [1, 2, 31, 22]]),
        ("keep", [[50, 30, 80, 60], [1, 2, 31, 22]]),
        ("skip", [[1, 2, 31, 22]]),
    ],
)
def test_boxes_that_reach_outside_follow_their_rule(
    faulty: Declared, rule: str, boxes: list[list[int]]
) -> None:
    result = _audit(replace(faulty, rules=replace(ALL, outside_box=rule)))
    (sample,) = (each for each in samples_left(result) if each.source == "boxes.png")
    assert sample.boxes.tolist() == boxes


@pytest.mark.parametrize("kind", list(Rules.__dataclass_fields__))
def test_a_fault_whose_rule_is_refuse_stops(faulty: Declared, kind: str) -> None:
    result = _audit(replace(faulty, rules=replace(ALL, **{kind: "refuse"})))
    if kind in ("broken_annotation", "size_mismatch"):  # this layout has neither
        refuse_faults(result, Path("report.json"))
        return
    assert not result.record()["usable"]
    with pytest.raises(KilnError, match=rf"dataset 'tiny' is refused: \d {kind}; the first: "):
        refuse_faults(result, Path("report.json"))


def test_a_picture_of_another_size_than_annotated(
    tmp_path: Path, make_picture: MakePicture, declare: Declare
) -> None:
    make_picture(tmp_path / "images/a.png")  # 64 x 48
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml/a.xml").write_text(
        "<a><filename>a.png</filename><size><width>48</width><height>64</height></size></a>"
    )
    result = _audit(declare("voc", "xml", images=1, faces=0, ending=".xml"))
    (fault,) = result.refused()
    assert (fault.kind, fault.detail) == ("size_mismatch", "annotation says 48x64, the picture is 64x48")


def test_one_broken_annotation_file_among_many(
    tmp_path: Path, make_picture: MakePicture, declare: Declare
) -> None:
    for name in "ab":
        make_picture(tmp_path / f"images/{name}.jpg", ord(name))
    (tmp_path / "marks").mkdir()
    (tmp_path / "marks/a.txt").write_text("106\n" + "".join(f"{x % 60} {x % 40}\n" for x in range(106)))
    (tmp_path / "marks/b.txt").write_text("106\n1 2\n")
    declared = declare("lapa", "marks", images=2, faces=1, ending=".txt")
    with pytest.raises(KilnError, match=r"b\.txt: is no LaPa landmark file"):
        open_dataset(declared)
    result = _audit(replace(declared, rules=replace(ALL, broken_annotation="skip")))
    assert result.skipped == {"b": "broken_annotation"}
    assert [sample.source for sample in samples_left(result)] == ["a"]


def test_annotations_alone_can_be_audited(faulty: Declared) -> None:
    result = audit(faulty, open_dataset(faulty), pictures=False)
    assert {fault.kind for fault in result.faults} == {"degenerate_box", "duplicate_box", "empty_annotation"}


def test_drawn_scenes_pass() -> None:
    options = {"size": (96, 128), "seed": 1}
    result = _audit(Declared("drawn", "procedural", "drawn here", Expected(3), options=options))
    assert not result.refused() and len(result.kept()) == 3


# ----------------------------------------------------------------------------------- the report, cleaning


def test_the_report_tells_counts_rules_and_names(faulty: Declared, tmp_path: Path) -> None:
    files, text = write_audit(_audit(faulty), tmp_path / "out")
    assert [path.name for path in files] == ["report.json", "report.txt", "weights.csv"]
    assert "tiny (wider_text): 8 pictures, 12 faces, 0 of them ignored" in text
    assert "left by the rules: 4 pictures, 4 faces" in text
    assert "boxes.png face 0: 50 30 80 60 in 64x48" in text
    assert "copy.png: same bytes as good.png" in text
    assert "near.png: looks like again.png" in text
    report = read_json(files[0])
    assert report["faults"]["degenerate_box"]["count"] == 3
    assert report["faults"]["degenerate_box"]["rule"] == "skip"
    assert [item["face"] for item in report["faults"]["degenerate_box"]["items"]] == [1, 2, 5]
    assert str(tmp_path) not in files[0].read_text()
    again, _ = write_audit(_audit(faulty), tmp_path / "again")
    for one, two in zip(files, again, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_a_long_list_of_faults_is_cut_in_the_text_only(tmp_path: Path, declare: Declare) -> None:
    faces = _annotate(tmp_path, a=[(1, index, 0, 5) for index in range(9)])
    declared = declare("wider_text", "gt.txt", images=1, faces=faces)
    text = audit_text(audit(declared, open_dataset(declared), pictures=False))
    assert "... and 4 more, see report.json" in text


def test_a_cleaned_dataset_is_what_the_report_decided(faulty: Declared, tmp_path: Path) -> None:
    result = _audit(faulty)
    files, _ = write_audit(result, tmp_path / "out")
    clean = cleaned(faulty, open_dataset(faulty), read_json(files[0]))
    assert clean.sources == ("good.png", "boxes.png", "again.png", "empty.png")
    for one, two in zip(clean, samples_left(result), strict=True):
        np.testing.assert_array_equal(one.boxes, two.boxes)
    assert clean[0].load().shape == (48, 64, 3)


def test_a_report_of_another_declaration_clears_nothing(faulty: Declared) -> None:
    record = _audit(faulty).record()
    with pytest.raises(KilnError, match="the report does not clear dataset 'tiny'"):
        cleaned(replace(faulty, small_faces=SmallFaces()), open_dataset(faulty), record)
    with pytest.raises(KilnError, match="usable: False"):
        cleaned(faulty, open_dataset(faulty), record | {"usable": False})


@pytest.fixture
def crowded(tmp_path: Path, make_picture: MakePicture, declare: Declare) -> Declared:
    for seed, name in enumerate(("some", "tiny", "none")):
        make_picture(tmp_path / f"images/{name}.png", seed)
    faces = _annotate(
        tmp_path, some=[(2, 3, 9, 12), (20, 10, 10, 10), (40, 5, 12, 9)], tiny=[(5, 5, 4, 4)], none=[]
    )
    return declare("wider_text", "gt.txt", images=3, faces=faces, small_faces=SmallFaces(10))


def test_small_faces_are_painted_and_pictures_without_others_left_out(crowded: Declared) -> None:
    clean = cleaned(crowded, open_dataset(crowded), _audit(crowded).record())
    assert clean.sources == ("some.png", "none.png")  # a picture that never had a face is a negative
    some = clean[0]
    assert some.boxes.tolist() == [[20, 10, 30, 20]]  # both sides must have 10 pixels
    picture, stored = some.load(), open_dataset(crowded)[0].load()
    painted = np.zeros((48, 64), bool)
    painted[3:15, 2:11] = painted[5:14, 40:52] = True
    assert (picture[painted] == PAINT).all()
    np.testing.assert_array_equal(picture[~painted], stored[~painted])


def test_small_faces_may_be_ignored_instead(crowded: Declared) -> None:
    declared = replace(crowded, small_faces=SmallFaces(10, treat="ignore"))
    clean = cleaned(declared, open_dataset(declared), _audit(declared).record())
    assert clean.sources == ("some.png", "tiny.png", "none.png")
    assert clean[0].ignore.tolist() == [True, False, True]
    np.testing.assert_array_equal(clean[0].load(), open_dataset(declared)[0].load())


def test_small_faces_may_be_measured_at_the_networks_input(crowded: Declared) -> None:
    # 64 x 48 becomes 128 x 48: widths double, heights stay.
    declared = replace(crowded, small_faces=SmallFaces(10, measure="input", input=(48, 128)))
    clean = cleaned(declared, open_dataset(declared), _audit(declared).record())
    assert clean[0].boxes.tolist() == [[2, 3, 11, 15], [20, 10, 30, 20]]


# The 183 pictures: the first, middle and last of each of the 61 events.
def test_real_pictures(root: Path, data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEKILN_DATASETS", str(data("wider").parent))
    declared = load_datasets(root / "config")["wider_val"]
    there = {
        path.relative_to(data("wider/images")).as_posix() for path in data("wider/images").rglob("*.jpg")
    }
    result = _audit(replace(declared, rules=replace(declared.rules, missing_image="skip")))
    assert not result.refused()
    assert {item.source for item in result.kept()} == there and len(there) == 183
    assert result.count("missing_image") == 3226 - 183
    quiet = (
        "corrupt_image",
        "duplicate_file",
        "near_duplicate",
        "unlisted_image",
        "outside_box",
        "size_mismatch",
    )
    assert {kind: result.count(kind) for kind in quiet} == dict.fromkeys(quiet, 0)
    assert sum(len(item.sample) for item in result.kept() if item.sample is not None) == 1679
