"""What the rule of measurements asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from facekiln.boards.rule_inputs import benched
from facekiln.errors import KilnError


def test_files_of_an_artifact(tmp_path: Path) -> None:
    assert benched("local", "sophon/bm1684x/a_320_int8_1b.bmodel", tmp_path) == {
        "artifact": "results/sophon/bm1684x/a_320_int8_1b.bmodel"
    }
    assert benched("local", "ncnn/a_320.param", tmp_path) == {
        "artifact": "results/ncnn/a_320.param",
        "weights": "results/ncnn/a_320.bin",
    }


def test_an_unknown_board_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="local"):
        benched("locl", "ncnn/a_320.param", tmp_path)
