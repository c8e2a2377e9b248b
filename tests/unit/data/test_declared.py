"""Declarations: folder, counts and hashes are checked, never assumed."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from facekiln.data.declared import (
    KINDS,
    Declared,
    Rules,
    SmallFaces,
    declared_set,
    hash_of,
    load_datasets,
    open_dataset,
)
from facekiln.errors import KilnError

TEXT = "a/1.jpg\n1\n1 2 30 40 0 0 0 0 0 0\nb/2.jpg\n2\n1 2 30 40 0 0 0 1 0 0\n5 6 7 8 0 0 0 0 0 0\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def to_folder(value: dict[str, Any]) -> Path:
        (tmp_path / "datasets.yaml").write_text(yaml.safe_dump(value))
        return tmp_path

    return to_folder


def _entry(**more: Any) -> dict[str, Any]:
    return {
        "kind": "wider_text",
        "licence": "made here",
        "folder": "tiny",
        "annotations": [{"path": "gt.txt", "sha256": "0" * 64}],
        "expected": {"images": 2, "faces": 3},
        **more,
    }


def test_shipped_declarations_load(root: Path) -> None:
    datasets = load_datasets(root / "config")
    assert {"procedural", "wider_val", "wider_val_hard"} <= set(datasets)
    wider = datasets["wider_val"]
    assert (wider.expected.images, wider.expected.faces, wider.expected.folders) == (3226, 39708, 61)
    assert wider.small_faces == SmallFaces(least=10, measure="original", treat="paint")
    assert all(item.licence for item in datasets.values())


def test_one_declaration_is_found_by_its_name(root: Path) -> None:
    assert declared_set("wider_val", root / "config") == load_datasets(root / "config")["wider_val"]
    with pytest.raises(KilnError, match="unknown dataset 'wider_vla'; did you mean 'wider_val'"):
        declared_set("wider_vla", root / "config")


def test_schema_and_code_know_the_same_rules_kinds_and_options(root: Path) -> None:
    schema = yaml.safe_load((root / "workflow/schemas/datasets.yaml").read_text())["$defs"]["dataset"][
        "properties"
    ]
    assert set(schema["rules"]["properties"]) == set(Rules.__dataclass_fields__)
    assert set(schema["kind"]["enum"]) == set(KINDS)
    assert set(schema["options"]["properties"]) == {name for kind in KINDS.values() for name in kind.options}
    assert set(schema["small_faces"]["properties"]) == set(SmallFaces.__dataclass_fields__)
    for kind, rule in Rules.__dataclass_fields__.items():
        assert rule.default in schema["rules"]["properties"][kind]["enum"], kind


def test_the_page_on_datasets_names_every_kind_and_rule(root: Path) -> None:
    page = (root / "docs/datasets.md").read_text()
    for name in [*KINDS, *Rules.__dataclass_fields__]:
        assert f"`{name}`" in page, name


def test_relative_folders_lie_below_the_root(
    write: Callable[[dict[str, Any]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write({"datasets": {"tiny": _entry(), "far": _entry(folder="/srv/faces")}})
    monkeypatch.delenv("FACEKILN_DATASETS", raising=False)
    assert load_datasets(folder)["tiny"].folder == Path("datasets/tiny")
    monkeypatch.setenv("FACEKILN_DATASETS", "/data")
    assert load_datasets(folder)["tiny"].folder == Path("/data/tiny")
    assert load_datasets(folder)["far"].folder == Path("/srv/faces")
    folder = write({"root": "/mine", "datasets": {"tiny": _entry()}})
    assert load_datasets(folder)["tiny"].folder == Path("/mine/tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licens": "x"}, r"datasets\.tiny: unknown key 'licens'; did you mean 'licence'"),
        ({"kind": "widerface"}, r"datasets\.tiny\.kind: 'widerface' is not one of"),
        ({"expected": {"images": 2}}, r"datasets\.tiny\.expected: 'faces' is a required property"),
        ({"annotations": []}, r"datasets\.tiny\.annotations"),
        ({"annotations": [{"path": "a"}]}, r"annotations\.0: 'sha256' is a required property"),
        ({"rules": {"outside_box": "crop"}}, r"rules\.outside_box: 'crop' is not one of"),
        (
            {"rules": {"corrupt_images": "skip"}},
            r"unknown key 'corrupt_images'; did you mean 'corrupt_image'",
        ),
        (
            {"options": {"origin": 0}},
            r"datasets\.tiny\.options: unknown option of a 'wider_text' dataset 'origin'",
        ),
        ({"small_faces": {"least": 0}}, r"small_faces\.least"),
    ],
)
def test_wrong_declarations_are_refused_by_key(
    write: Callable[[dict[str, Any]], Path], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(KilnError, match=message):
        load_datasets(write({"datasets": {"tiny": _entry(**change)}}))


def test_a_licence_is_required(write: Callable[[dict[str, Any]], Path]) -> None:
    entry = _entry()
    del entry["licence"]
    with pytest.raises(KilnError, match="'licence' is a required property"):
        load_datasets(write({"datasets": {"tiny": entry}}))


def test_true_counts_and_hashes_open(tmp_path: Path, declare: Callable[..., Declared]) -> None:
    (tmp_path / "gt.txt").write_text(TEXT)
    dataset = open_dataset(declare("wider_text", "gt.txt", images=2, faces=3, counted=2, folders=2))
    assert dataset.sources == ("a/1.jpg", "b/2.jpg") and dataset.name == "tiny"


def test_wrong_counts_are_all_named(tmp_path: Path, declare: Callable[..., Declared]) -> None:
    (tmp_path / "gt.txt").write_text(TEXT)
    wrong = (
        r"images: expected 5, found 2; faces: expected 4, found 3; counted: expected 3, found 2; folders: "
    )
    with pytest.raises(KilnError, match=wrong + "expected 1, found 2"):
        open_dataset(declare("wider_text", "gt.txt", images=5, faces=4, counted=3, folders=1))


def test_another_hash_is_named_with_both(tmp_path: Path, declare: Callable[..., Declared]) -> None:
    (tmp_path / "gt.txt").write_text(TEXT)
    declared = declare("wider_text", "gt.txt", images=2, faces=3)
    (tmp_path / "gt.txt").write_text(TEXT.replace("30 40", "30 41"))
    found = hashlib.sha256((tmp_path / "gt.txt").read_bytes()).hexdigest()
    with pytest.raises(KilnError, match=rf"expected {declared.annotations[0].sha256}, found {found}"):
        open_dataset(declared)


def test_a_dataset_that_is_not_here_says_where_to_get_it(
    tmp_path: Path, declare: Callable[..., Declared]
) -> None:
    (tmp_path / "gt.txt").write_text(TEXT)
    declared = declare("wider_text", "gt.txt", images=2, faces=3, source="http://example.org/faces")
    assert declared.is_here()
    (tmp_path / "gt.txt").unlink()
    assert not declared.is_here()
    with pytest.raises(KilnError, match=r"gt\.txt: is not here(?s:.)*http://example\.org/faces"):
        open_dataset(declared)


def test_a_folder_of_annotations_has_one_hash(tmp_path: Path) -> None:
    folder = tmp_path / "xml"
    (folder / "b").mkdir(parents=True)
    (folder / "b/2.xml").write_text("two")
    (folder / "1.xml").write_text("one")
    lines = "".join(
        f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n"
        for text, name in (("one", "1.xml"), ("two", "b/2.xml"))
    )
    before = hash_of(folder, ".xml")
    assert before == hashlib.sha256(lines.encode()).hexdigest()
    (folder / "picture.jpg").write_text("not an annotation")
    assert hash_of(folder, ".xml") == before
    (folder / "1.xml").rename(folder / "3.xml")
    assert hash_of(folder, ".xml") != before


def test_the_digest_is_of_the_dataset_not_of_its_place(
    tmp_path: Path, declare: Callable[..., Declared]
) -> None:
    from dataclasses import replace

    (tmp_path / "gt.txt").write_text(TEXT)
    declared = declare("wider_text", "gt.txt", images=2, faces=3)
    assert replace(declared, folder=Path("/elsewhere"), licence="other").digest() == declared.digest()
    assert replace(declared, rules=Rules(outside_box="skip")).digest() != declared.digest()
    assert replace(declared, small_faces=SmallFaces()).digest() != declared.digest()


def test_the_state_tells_of_a_picture_that_was_replaced(
    tmp_path: Path, declare: Callable[..., Declared]
) -> None:
    from dataclasses import replace

    (tmp_path / "gt.txt").write_text(TEXT)
    (tmp_path / "images/a").mkdir(parents=True)
    picture = tmp_path / "images/a/1.jpg"
    picture.write_bytes(b"one")
    declared = replace(declare("wider_text", "gt.txt", images=2, faces=3), images="images")
    before = declared.state()
    assert before == declared.state()
    picture.write_bytes(b"another")
    assert declared.state() != before
    before = declared.state()
    (tmp_path / "images/a/2.jpg").symlink_to("nowhere")
    assert declared.state() == before, "the audit tells of a link to nothing"
    copy = tmp_path.with_name("elsewhere")
    shutil.copytree(tmp_path, copy, symlinks=True)
    assert replace(declared, folder=copy).state() == before, "where it lies is not part of it"
    (tmp_path / "gt.txt").unlink()
    assert declared.state() == ""


def test_real_wider_face_opens_by_the_shipped_declaration(
    root: Path, data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEKILN_DATASETS", str(data("wider").parent))
    for name in ("wider_val", "wider_val_easy"):
        assert len(open_dataset(load_datasets(root / "config")[name])) == 3226


def test_another_file_under_the_name_of_wider_face_is_refused(
    root: Path, data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wider/ground_truth").mkdir(parents=True)
    easy = data("wider/ground_truth/wider_easy_val.mat")
    shutil.copy(easy, tmp_path / "wider/ground_truth/wider_face_val.mat")
    monkeypatch.setenv("FACEKILN_DATASETS", str(tmp_path))
    with pytest.raises(KilnError, match=r"expected 1dfe6a98.*, found c2fb672d"):
        open_dataset(load_datasets(root / "config")["wider_val"])
