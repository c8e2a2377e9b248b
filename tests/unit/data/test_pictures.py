"""Pictures for calibration and parity: drawn, or chosen from a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from facekiln.data.pictures import folder_pictures, pictures, procedural_pictures
from facekiln.errors import KilnError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(6):
        path = tmp_path / ("sub" if index % 2 else ".") / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((8, 9, 3), 10 * index, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"no picture either")
    return tmp_path


def test_procedural_pictures_are_named_and_repeatable() -> None:
    first, again = (list(procedural_pictures(3, 7, (48, 64))) for _ in range(2))
    assert [name for name, _ in first] == [f"procedural_7_{i:04d}" for i in range(3)]
    for (_, one), (_, two) in zip(first, again, strict=True):
        assert one.shape == (48, 64, 3) and one.dtype == np.uint8
        assert one.tobytes() == two.tobytes()


def test_pictures_of_two_seeds_differ() -> None:
    one, two = (next(iter(procedural_pictures(1, seed, (48, 48))))[1] for seed in (20, 40))
    assert one.tobytes() != two.tobytes()


def test_a_folder_gives_all_in_order(folder: Path) -> None:
    found = list(folder_pictures(folder, 10, 0))
    assert [name for name, _ in found] == ["0.png", "2.png", "4.png", "sub/1.png", "sub/3.png", "sub/5.png"]
    assert [int(image[0, 0, 0]) for _, image in found] == [0, 20, 40, 10, 30, 50]


def test_the_choice_depends_on_the_seed_only(folder: Path) -> None:
    def chosen(seed: int) -> list[str]:
        return [name for name, _ in folder_pictures(folder, 3, seed)]

    assert chosen(1) == chosen(1) == sorted(chosen(1))
    assert len({tuple(chosen(seed)) for seed in range(10)}) > 1


def test_an_unreadable_picture_is_named(folder: Path) -> None:
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    with pytest.raises(KilnError, match=r"torn\.jpg"):
        list(folder_pictures(folder, 10, 0))


@pytest.mark.parametrize("make", [True, False])
def test_an_empty_or_missing_folder_is_refused(tmp_path: Path, make: bool) -> None:
    path = tmp_path / "none"
    if make:
        path.mkdir()
    with pytest.raises(KilnError, match="none"):
        list(folder_pictures(path, 1, 0))


def test_the_source_decides(folder: Path) -> None:
    assert next(iter(pictures("procedural", 1, 0, (32, 40))))[1].shape == (32, 40, 3)
    assert next(iter(pictures(folder, 1, 0, (32, 40))))[1].shape == (8, 9, 3)


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from facekiln.data.pictures import pictures;"
        "list(pictures('procedural', 1, 0, (32, 32))); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
