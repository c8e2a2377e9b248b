"""Which chip an artifact is for, by its record and its path, and boards that have another."""

from __future__ import annotations

from pathlib import Path

import pytest

from facekiln.boards.bench_board import measuring_on
from facekiln.boards.chips import chips_of, planned_chips, refuse_other_chip, suits
from facekiln.boards.faults import WrongArchitecture
from facekiln.boards.infer_board import inferring_on
from facekiln.boards.latency_plan import fits
from facekiln.boards.settings import Board, Runtime
from facekiln.boards.tools import TOOLS, Request
from facekiln.config import load_config
from facekiln.provenance import write_record

# NNIE 1.2 (guide: Hi3516CV500, Hi3516DV300, Hi3519AV100) against 1.1 (Hi3559AV100).
SAME, OTHER = "hi3519av100", "hi3559av100"


def board_of(chip: str | None, tool: str) -> Board:
    runtime = Runtime(tool, infer="/opt/infer")
    return Board("b", "ssh", chip, None, None, None, None, "/w", "/l", runtimes={tool: runtime})


def made(path: Path, **settings: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    write_record(path, verb="make", inputs=[], settings=settings)
    return path


@pytest.fixture
def config(root: Path) -> Path:
    return root / "config"


def test_record_tells_the_chip_wherever_the_file_lies(tmp_path: Path, config: Path) -> None:
    assert chips_of(made(tmp_path / "a.bmodel", chip="bm1684x"), config) == ["bm1684x"]
    assert chips_of(made(tmp_path / "a.mm", cards=["mlu370-s4", "mlu370-x4"]), config)[0] == "mlu370-s4"
    wk = chips_of(made(tmp_path / "a.wk", chip="hi3516dv300"), config)
    assert "hi3516dv300" in wk
    assert SAME in wk
    assert OTHER not in wk
    assert chips_of(made(tmp_path / "old.wk", chip="hi3531dv200"), config) == ["hi3531dv200"]


def test_path_tells_it_without_a_record_and_processors_files_are_for_any(
    tmp_path: Path, config: Path
) -> None:
    assert chips_of("results/sophon/bm1688/a_320_int8_1b.bmodel", config) == ["bm1688"]
    assert chips_of(made(tmp_path / "a.tmfile", model="a"), config) == []
    assert chips_of(tmp_path / "vendors.wk", config) == []


@pytest.mark.parametrize(
    ("chips", "chip", "suit"),
    [
        ([], "bm1684", True),
        (["bm1684x"], None, True),
        (["bm1684x"], "bm1684x", True),
        (["bm1684x"], "bm1684", False),
        (["bm1684"], "bm1684x", False),
        (["mlu370-s4"], "MLU370_S4", True),
        (["mlu370-s4"], "mlu370", True),
        (["mlu370-s4"], "mlu220", False),
        (["mlu370-s4"], "mlu", False),
        (["hi3516dv300"], "hi3516", True),
        (["hi3516dv300"], OTHER, False),
        (["hi3516dv300"], "rk3328", False),
    ],
)
def test_names_are_compared_as_people_write_them(chips: list[str], chip: str | None, suit: bool) -> None:
    assert suits(chips, chip) is suit


@pytest.mark.parametrize(
    ("name", "settings", "tool", "chip"),
    [
        ("a_640.wk", {"chip": "hi3516dv300"}, "nnie_forward", OTHER),
        ("a_640_force_float16_1b.mm", {"cards": ["mlu370-s4"]}, "mm_run", "mlu220"),
        ("a_640_int8_1b.bmodel", {"chip": "bm1684"}, "bmrt_test", "bm1684x"),
    ],
)
def test_board_of_another_chip_is_refused_before_anything_is_connected(
    name: str, settings: dict[str, object], tool: str, chip: str, tmp_path: Path, root: Path
) -> None:
    artifact, board = made(tmp_path / name, **settings), board_of(chip, tool)
    request = Request(str(artifact), (1, 3, 640, 640))
    with (
        pytest.raises(WrongArchitecture, match=f"the board has {chip}"),
        measuring_on(board, TOOLS[tool], artifact, request, folder=root / "config"),
    ):
        pass
    model = load_config(root / "config").models["retinaface"]
    with (
        pytest.raises(WrongArchitecture, match=f"the board has {chip}"),
        inferring_on(board, artifact, model, threads=1),
    ):
        pass
    refuse_other_chip(board_of(None, tool), artifact, root / "config")


def test_plan_of_latencies_leaves_out_other_chips(config: Path) -> None:
    wk, mm = "nnie/retinaface_640.wk", "magicmind/retinaface_640_force_float16_1b.mm"
    assert planned_chips("tengine/a.tmfile", config) == []
    assert fits(wk, board_of("hi3516dv300", "nnie_forward"), config)
    assert fits(wk, board_of(SAME, "nnie_forward"), config)
    assert not fits(wk, board_of(OTHER, "nnie_forward"), config)
    assert fits(mm, board_of("mlu370_s4", "mm_run"), config)
    assert not fits(mm, board_of("mlu220", "mm_run"), config)
