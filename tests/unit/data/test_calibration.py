"""Calibration sets: fitted as the model declares, even over strata, never of an evaluation set."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from facekiln.artifact import read_json, sha256_of, write_json
from facekiln.config import Model, load_config
from facekiln.data.calibration import check_calibration, make_calibration
from facekiln.data.calibration_pool import drawn_sample
from facekiln.data.calibration_rule import choice_options, sets_digest, with_evaluation_sets
from facekiln.data.calibration_sheet import draw_sheet
from facekiln.data.procedural import Scene
from facekiln.errors import KilnError
from facekiln.vision.image import read_image, write_image

MakePicture = Callable[..., Path]


@pytest.fixture
def model(root: Path) -> Model:
    return load_config(root / "config").model("retinaface_1mb")


@pytest.fixture
def photos(tmp_path: Path, make_picture: MakePicture) -> Path:
    """Twelve different pictures in a folder."""
    for index in range(12):
        make_picture(tmp_path / f"photos/{index:02d}.png", seed=index)
    return tmp_path / "photos"


@pytest.fixture
def config(tmp_path: Path, photos: Path) -> Path:
    """datasets.yaml with the photos as a dataset: a large, a small, or no face in each."""
    rows = ""
    for index in range(12):
        box = ("4 5 40 40", "4 5 3 3", "0 0 0 0")[index % 3]
        pose = int(index >= 6)
        rows += f"{index:02d}.png\n{int(index % 3 < 2)}\n{box} 0 0 0 0 0 {pose if index % 3 < 2 else 0}\n"
    (tmp_path / "gt.txt").write_text(rows)
    entry = {
        "kind": "wider_text",
        "licence": "made here",
        "folder": ".",
        "images": "photos",
        "annotations": [{"path": "gt.txt", "sha256": sha256_of(tmp_path / "gt.txt")}],
        "expected": {"images": 12, "faces": 8},
    }
    value = {"root": str(tmp_path), "datasets": {"tiny": entry}}
    (tmp_path / "config").mkdir()
    (tmp_path / "config/datasets.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    return tmp_path / "config"


def make(folder: Path, model: Model, source: Path | str, **more: Any) -> dict[str, Any]:
    return make_calibration(folder, model, "320", **{"source": str(source), "count": 4, "seed": 3, **more})


@pytest.mark.parametrize(
    ("name", "size", "policy"), [("retinaface_1mb", "320", "letterbox"), ("ulfd_rfb_320", "320", "stretch")]
)
def test_pictures_are_fitted_as_the_model_declares(
    root: Path, tmp_path: Path, name: str, size: str, policy: str
) -> None:
    model = load_config(root / "config").model(name)
    write_image(tmp_path / "in" / "tall.png", np.full((300, 50, 3), 200, np.uint8))
    facts = make_calibration(tmp_path / "out", model, size, source=str(tmp_path / "in"), count=1, seed=0)
    assert facts["policy"] == read_json(tmp_path / "out" / "calibration.json")["policy"] == policy
    picture = read_image(tmp_path / "out" / "images" / "0000.png")
    assert picture.shape[:2] == model.size(size)
    assert (picture[:, -1] == (200 if policy == "stretch" else 0)).all()


def test_the_same_seed_gives_the_same_set(tmp_path: Path, model: Model, photos: Path) -> None:
    one, again, other = (
        make(tmp_path / f"{n}", model, photos, seed=seed) for n, seed in enumerate((3, 3, 4))
    )
    assert one == again
    assert one["set_sha256"] != other["set_sha256"]
    assert one["name"] == f"{photos}-4-s3"
    assert (tmp_path / "0/calibration.json").read_bytes() == (tmp_path / "1/calibration.json").read_bytes()


def test_the_draw_is_even_over_strata(tmp_path: Path, model: Model, config: Path) -> None:
    facts = make(
        tmp_path / "out", model, "dataset:tiny", count=6, strata=["face_size", "pose"], config=config
    )
    # 64x48 pictures are enlarged five times: faces of 200 and 15 pixels, frontal or turned, and none.
    assert {label: counts["available"] for label, counts in facts["bins"].items()} == {
        ">= 96 px, frontal": 2,
        ">= 96 px, turned": 2,
        "< 32 px, frontal": 2,
        "< 32 px, turned": 2,
        "no face": 4,
    }
    assert sorted(counts["chosen"] for counts in facts["bins"].values()) == [1, 1, 1, 1, 2]
    assert len({item["stratum"] for item in facts["pictures"][:5]}) == 5


def test_a_folder_knows_light_only(tmp_path: Path, model: Model) -> None:
    for index, grey in enumerate((20, 30, 120, 125, 230, 240)):
        shade = np.full((40, 40, 3), grey, np.uint8)
        shade[:, : 3 + index] = 0
        write_image(tmp_path / f"in/{index}.png", shade)
    facts = make(tmp_path / "out", model, tmp_path / "in", count=3, strata=["face_size", "pose", "light"])
    assert facts["strata"] == ["light"]
    assert sorted(item["stratum"] for item in facts["pictures"]) == [
        "85..170 light",
        "< 85 light",
        ">= 170 light",
    ]


def test_fewer_pictures_than_asked_are_told(
    tmp_path: Path, model: Model, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = make(tmp_path / "out", model, photos, count=40)
    assert facts["count"] == 12 and facts["asked"] == 40


def test_equal_files_of_an_evaluation_set_are_never_chosen(
    tmp_path: Path, model: Model, photos: Path
) -> None:
    for index in (0, 5, 7):
        (tmp_path / "eval").mkdir(exist_ok=True)
        shutil.copy(photos / f"{index:02d}.png", tmp_path / f"eval/other_name_{index}.png")
    facts = make(tmp_path / "out", model, photos, count=12, exclude=[str(tmp_path / "eval")])
    assert {item["from"] for item in facts["pictures"]} == {
        f"{index:02d}.png" for index in range(12) if index not in (0, 5, 7)
    }
    assert facts["excluded"]["same"] == 3 and facts["excluded"]["near"] == 0
    assert facts["excluded"]["against"][0]["pictures"] == 3


def test_near_duplicates_are_never_chosen(tmp_path: Path, model: Model, photos: Path) -> None:
    """Other sizes and another file format, as when a set was published twice."""
    image = read_image(photos / "04.png")
    write_image(tmp_path / "eval/a.jpg", np.asarray(cv2.resize(image, (160, 120)), np.uint8))
    facts = make(tmp_path / "out", model, photos, count=12, exclude=[str(tmp_path / "eval")])
    assert "04.png" not in {item["from"] for item in facts["pictures"]}
    assert facts["excluded"]["near"] == 1 and facts["excluded"]["same"] == 0


def test_a_large_folder_is_not_read_whole(
    tmp_path: Path, model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facekiln.data.calibration._LOOK", 2)
    facts = make(tmp_path / "out", model, photos, count=3)
    assert facts["looked_at"] == 6 and facts["count"] == 3
    shutil.copytree(photos, tmp_path / "eval")
    for index in range(9, 12):
        (tmp_path / f"eval/{index:02d}.png").unlink()
    # Refused pictures do not use up what may be looked at: the three that are left are found.
    facts = make(tmp_path / "out", model, photos, count=3, exclude=[str(tmp_path / "eval")])
    assert {item["from"] for item in facts["pictures"]} == {"09.png", "10.png", "11.png"}


def test_repeated_files_are_chosen_once(tmp_path: Path, model: Model, photos: Path) -> None:
    shutil.copy(photos / "04.png", photos / "copy.png")
    facts = make(tmp_path / "out", model, photos, count=13)
    assert facts["count"] == 12 and facts["excluded"]["repeat"] == 1


def test_a_set_of_nothing_but_evaluation_pictures_is_refused(
    tmp_path: Path, model: Model, photos: Path
) -> None:
    with pytest.raises(KilnError, match=r"no picture is left.*12 are of an evaluation set"):
        make(tmp_path / "out", model, photos, exclude=[str(photos)])
    assert not (tmp_path / "out").exists()


def test_an_evaluation_set_that_is_not_here_is_refused(
    tmp_path: Path, model: Model, photos: Path, config: Path
) -> None:
    with pytest.raises(KilnError, match="neither a dataset nor a folder"):
        make(tmp_path / "out", model, photos, exclude=["nowhere"], config=config)
    (tmp_path / "empty").mkdir()
    with pytest.raises(KilnError, match="holds no picture"):
        make(tmp_path / "out", model, photos, exclude=[str(tmp_path / "empty")])
    moved = photos.rename(tmp_path / "elsewhere")
    with pytest.raises(KilnError, match=r"none of the 12 pictures of evaluation set 'tiny' is here"):
        make(tmp_path / "out", model, moved, exclude=["tiny"], config=config)


def test_pictures_that_a_dataset_lacks_are_counted(
    tmp_path: Path, model: Model, photos: Path, config: Path
) -> None:
    (photos / "00.png").unlink()
    facts = make(tmp_path / "out", model, "dataset:tiny", count=12, config=config)
    assert facts["missing"] == 1 and facts["count"] == 11


def test_unknown_names_get_a_suggestion(tmp_path: Path, model: Model, photos: Path, config: Path) -> None:
    with pytest.raises(KilnError, match="did you mean 'tiny'"):
        make(tmp_path / "out", model, "dataset:tinny", config=config)
    with pytest.raises(KilnError, match="unknown stratum"):
        make(tmp_path / "out", model, photos, strata=["age"])
    with pytest.raises(KilnError, match="is not a folder"):
        make(tmp_path / "out", model, tmp_path / "nowhere")


@pytest.mark.parametrize("source", ["procedural", "dataset:tiny"])
def test_a_landmark_model_gets_crops(root: Path, tmp_path: Path, config: Path, source: str) -> None:
    ghostone = load_config(root / "config").model("ghostone")
    facts = make_calibration(
        tmp_path / "out", ghostone, "112", source=source, count=3, seed=1, strata=["face_size"], config=config
    )
    assert facts["policy"] == "crop" and facts["size"] == [112, 112]
    assert read_image(tmp_path / "out/images/0000.png").shape == (112, 112, 3)
    if source == "dataset:tiny":
        large = next(item for item in facts["pictures"] if item["stratum"] == "32..96 px")
        whole = read_image(tmp_path / "photos" / large["from"])
        expected = cv2.resize(whole[5:45, 4:44], (112, 112), interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(read_image(tmp_path / "out" / large["path"]), expected)


def test_a_large_pool_of_drawn_scenes_holds_no_pictures() -> None:
    samples = [drawn_sample(index, 1, (64, 64), None) for index in range(6)]
    scenes = [item for item in gc.get_objects() if isinstance(item, Scene) and item.image.shape[0] == 64]
    assert len(scenes) <= 2
    assert np.array_equal(samples[0].load(), drawn_sample(0, 1, (64, 64), None).load())


def test_check_finds_every_kind_of_fault(tmp_path: Path, model: Model, photos: Path) -> None:
    out = tmp_path / "out"
    make(out, model, photos)
    assert check_calibration(out) == []
    chosen = read_json(out / "calibration.json")["pictures"]
    assert any("same file" in fault for fault in check_calibration(out, [str(photos)]))
    write_image(out / "images/0001.png", np.zeros((320, 320, 3), np.uint8))
    (out / "images/0002.png").unlink()
    (out / "list.txt").write_text("images/0000.png\n")
    faults = check_calibration(out)
    assert len(faults) == 3
    assert "0001.png has other bytes" in faults[0] and "0002.png is missing" in faults[1]
    facts = read_json(out / "calibration.json")
    facts["pictures"][0]["sha256"] = chosen[1]["sha256"]
    write_json(out / "calibration.json", facts)
    assert "set_sha256 is not that of the listed pictures" in check_calibration(out)


def test_damage_of_the_record_and_the_list_is_told(tmp_path: Path, model: Model, photos: Path) -> None:
    out = tmp_path / "out"
    make(out, model, photos)
    (out / "list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(KilnError, match=r"list\.txt: cannot be read"):
        check_calibration(out)
    facts = read_json(out / "calibration.json")
    write_json(out / "calibration.json", {key: facts[key] for key in facts if key != "size"})
    with pytest.raises(KilnError, match=r"calibration\.json: is no whole record .*no size"):
        draw_sheet(out)
    del facts["pictures"][1]["path"]
    write_json(out / "calibration.json", facts)
    for read in (check_calibration, draw_sheet):
        with pytest.raises(KilnError, match=r"pictures\.1: names no picture"):
            read(out)


def test_check_remembers_the_sets_it_was_made_against(tmp_path: Path, model: Model, photos: Path) -> None:
    """A picture that joins the evaluation set later is found."""
    (tmp_path / "eval").mkdir()
    shutil.copy(photos / "00.png", tmp_path / "eval/a.png")
    facts = make(tmp_path / "out", model, photos, exclude=[str(tmp_path / "eval")])
    assert check_calibration(tmp_path / "out") == []
    shutil.copy(photos / facts["pictures"][2]["from"], tmp_path / "eval/b.png")
    (fault,) = check_calibration(tmp_path / "out")
    assert "images/0002.png" in fault and "b.png" in fault


def test_sheet_shows_every_picture_in_its_place(tmp_path: Path, model: Model) -> None:
    for index, grey in enumerate((60, 120, 240)):
        write_image(tmp_path / f"in/{index}.png", np.full((32, 32, 3), grey, np.uint8))
    make(tmp_path / "out", model, tmp_path / "in", strata=["light"])
    sheet = draw_sheet(tmp_path / "out")
    # Sorted by the label of the stratum: "85..170", "< 85", ">= 170".
    assert [int(sheet[40 + 75, 8 + 75 + 158 * at, 0]) for at in range(3)] == [120, 60, 240]
    assert (sheet[40 + 75, 8 + 75 + 158 * 3] == 255).all()


def test_the_rules_options_are_quoted() -> None:
    chosen = {"source": "my photos", "count": 8, "seed": 1, "strata": [], "exclude": ["a b", "wider_val"]}
    assert choice_options(chosen) == (
        "--source 'my photos' --count 8 --seed 1 --strata --exclude 'a b' wider_val"
    )


def test_what_a_table_judges_is_never_calibrated_on(root: Path) -> None:
    tables = {"t": {"evaluations": ["voc/onnxruntime/onnx/a_64.onnx/procedural@ulfd", "port/x/y/wider_val"]}}

    def excluded(source: str, exclude: tuple[str, ...] = ()) -> list[str]:
        chosen = {"source": source, "exclude": list(exclude)}
        return list(with_evaluation_sets(chosen, tables, root / "config")["exclude"])

    assert excluded("procedural") == []
    assert excluded("dataset:procedural", ("folder",)) == ["folder", "procedural"]
    assert "procedural" not in excluded("photos/")  # a drawn scene is no photograph


def test_a_dataset_of_a_table_that_is_here_is_excluded(config: Path) -> None:
    tables = {"t": {"evaluations": ["voc/onnxruntime/onnx/a_64.onnx/tiny"]}}
    chosen = with_evaluation_sets({"source": "photos/", "exclude": []}, tables, config)
    assert chosen["exclude"] == ["tiny"]


def test_a_changed_folder_reruns_the_rule(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_image(folder / "1.png", np.zeros((8, 8, 3), np.uint8))
    chosen = {"source": "procedural", "exclude": [str(folder)]}
    before = sets_digest(chosen, config)
    assert before == sets_digest(chosen, config)
    write_image(folder / "2.png", np.zeros((8, 8, 3), np.uint8))
    assert sets_digest(chosen, config) != before


def test_a_changed_declaration_reruns_the_rule(config: Path) -> None:
    chosen = {"source": "dataset:tiny", "exclude": []}
    before = sets_digest(chosen, config)
    value = yaml.safe_load((config / "datasets.yaml").read_text())
    value["datasets"]["tiny"]["expected"]["images"] = 9
    (config / "datasets.yaml").write_text(yaml.safe_dump(value))
    assert before and before != sets_digest(chosen, config)
    assert sets_digest({"source": "procedural", "exclude": []}, config / "nowhere") == ""
