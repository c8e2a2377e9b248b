"""Pictures, means and scales as the mapper prepares them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facekiln.chips.nnie.mapper.cfg import InputGroup, MapperConfig
from facekiln.chips.nnie.mapper.inputs import ENDINGS, calibration_batches, normalised, picture_to_planes
from facekiln.chips.nnie.mapper.job import read_list
from facekiln.chips.nnie.mapper.log import MapperLog, cause_lines, ends_well, has_error
from facekiln.config import Input
from facekiln.errors import KilnError
from facekiln.vision.image import write_image
from facekiln.vision.preprocess import to_tensor

RNG = np.random.default_rng(2)
PICTURE = RNG.integers(0, 256, (8, 12, 3), np.uint8)


def test_planes_are_in_the_order_that_the_network_sees() -> None:
    rgb = picture_to_planes(PICTURE, [1, 3, 8, 12], "RGB", "linear")
    bgr = picture_to_planes(PICTURE, [1, 3, 8, 12], "BGR", "linear")
    assert np.array_equal(rgb[0, 0], PICTURE[:, :, 2]) and np.array_equal(bgr[0, 0], PICTURE[:, :, 0])
    assert picture_to_planes(PICTURE, [1, 1, 8, 12], "RGB", "linear").shape == (1, 1, 8, 12)
    assert picture_to_planes(PICTURE, [1, 3, 4, 6], "RGB", "area").shape == (1, 3, 4, 6)


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_the_mapper_prepares_as_the_model_declares(colour: str) -> None:
    # Board, calibration and host must see the same numbers, to the bit.
    mean, scale = (104.0, 117.0, 123.0), 1 / 128
    declared = Input("data", colour, mean, (scale,) * 3)
    planes = picture_to_planes(PICTURE, [1, 3, 8, 12], colour.upper(), "linear")
    ours = normalised(planes, np.float32(mean).reshape(3, 1, 1), scale)
    assert np.array_equal(ours, to_tensor(PICTURE, declared))


def config(*lists: Path) -> MapperConfig:
    return MapperConfig("p", "c", tuple(InputGroup(str(path)) for path in lists))


def test_two_inputs_need_two_groups(tmp_path: Path) -> None:
    write_image(tmp_path / "x.PNG", PICTURE)
    (tmp_path / "l").write_text(f"{tmp_path / 'x.PNG'}\n")
    shapes = {"a": [1, 3, 8, 12], "b": [1, 1, 4, 6]}
    (batch,) = calibration_batches(config(tmp_path / "l", tmp_path / "l"), shapes, "linear", print)
    assert {name: list(value.shape) for name, value in batch.items()} == shapes
    with pytest.raises(KilnError, match=r"per input layer.*1; limit: 2 \(a, b\)"):
        next(calibration_batches(config(tmp_path / "l"), shapes, "linear", print))


def test_endings_are_the_guides_in_either_case() -> None:
    assert len(ENDINGS) == 15 and {".jpe", ".sr", ".ras", ".dib"} <= ENDINGS


def test_lists_skip_blank_lines_and_keep_order(tmp_path: Path) -> None:
    (tmp_path / "l").write_text("b.png\n\n  a.png \n")
    assert read_list(tmp_path / "l", Path("x")) == [Path("x/b.png"), Path("x/a.png")]
    (tmp_path / "l").write_bytes(b"\xff\xfe")
    with pytest.raises(KilnError, match="UTF-8"):
        read_list(tmp_path / "l")
    (tmp_path / "l").write_bytes(b"\0" * 10)
    with pytest.raises(KilnError, match="NUL"):
        read_list(tmp_path / "l")
    with pytest.raises(KilnError, match="facekiln calibration make --source"):
        read_list(tmp_path / "pictures" / "list.txt")


def test_logs_are_recognised() -> None:
    # Lines as published logs of the vendor's tool have them.
    error = (
        "ERROR: file: parsePermutePara  line: 6149\nlayer name: [Transpose_174]. error:Permute can only ...!"
    )
    good = "begin net parsing....\nend net parsing\n..\nend quant files writing\n"
    warned = "WARNING: file: Inference::x  line: 92\ndata containing only zeros; set max value to 1e-6.\n"
    assert has_error(good + error) and not has_error(good + warned)
    assert ends_well(good) and not ends_well("end optimizing\n")
    assert cause_lines(f"{good}\r{error}\nmore") == error.splitlines()
    assert cause_lines("a\nb\nc", 2) == ["b", "c"]
    assert cause_lines("Traceback (most recent call last):\n  File x\nValueError: why") == ["ValueError: why"]


def test_a_stage_that_fails_does_not_end(capsys: pytest.CaptureFixture[str]) -> None:
    log = MapperLog()
    with pytest.raises(KilnError), log.stage("memory"):
        raise KilnError("x")
    assert capsys.readouterr().out == "begin NNIE[0] mem allocation....\n"
