"""Which measurements a table of latencies asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from facekiln.boards.latency_plan import fits, records_of
from facekiln.boards.settings import boards_from
from facekiln.config import Config, load_config
from facekiln.errors import KilnError

BOARDS = """
boards:
  se7: {host: se7, user: u, chip: bm1684x, runtimes: {bmrt_test: {tool: bmrt_test}}}
  card: {host: card, user: u, chip: mlu370_s4, runtimes: {mm_run: {tool: mm_run}, onnxruntime: {tool: py}}}
  shelf: {transport: directory, folder: /mnt, runtimes: {mm_run: {tool: mm_run}}}
"""
ARTIFACTS = (
    "onnx/retinaface_640.sim.onnx",
    "magicmind/retinaface_640_force_float16_1b.mm",
    "sophon/bm1684x/retinaface_640_int8_1b.bmodel",
    "sophon/bm1684/retinaface_640_int8_1b.bmodel",
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A config folder with three boards."""
    (tmp_path / "boards.yaml").write_text(BOARDS)
    return tmp_path


@pytest.fixture
def config(root: Path) -> Config:
    """The repository's config with four artifacts."""
    config = load_config(root / "config")
    return replace(config, latency={**config.latency, "artifacts": list(ARTIFACTS)})


def test_each_artifact_on_each_board_that_runs_it(config: Config, place: Path) -> None:
    assert records_of(config, place) == [
        "results/bench/se7/sophon/bm1684x/retinaface_640_int8_1b.bmodel.json",
        "results/bench/card/onnx/retinaface_640.sim.onnx.json",
        "results/bench/card/magicmind/retinaface_640_force_float16_1b.mm.json",
    ]
    some = replace(config, latency={**config.latency, "boards": ["local", "card"]})
    assert [path.split("/")[2] for path in records_of(some, place)] == ["local", "card", "card"]


def test_this_machine_where_no_board_is_declared(config: Config, tmp_path: Path) -> None:
    assert records_of(config, tmp_path) == ["results/bench/local/onnx/retinaface_640.sim.onnx.json"]


def test_an_unknown_board_and_nothing_to_measure(config: Config, place: Path) -> None:
    with pytest.raises(KilnError, match=r"kard(?s:.)*card"):
        records_of(replace(config, latency={**config.latency, "boards": ["kard"]}), place)
    with pytest.raises(KilnError, match=r"none of the boards runs(?s:.)*virtual up"):
        records_of(replace(config, latency={**config.latency, "boards": ["shelf"]}), place)


def test_the_chip_decides_where_a_file_is_of_one() -> None:
    boards = boards_from(
        {
            "boards": {
                "x": {"host": "h", "user": "u", "chip": "bm1684", "runtimes": {"bmrt_test": {"tool": "t"}}}
            }
        },
        Path("b"),
    )
    assert (
        fits(ARTIFACTS[3], boards["x"])
        and not fits(ARTIFACTS[2], boards["x"])
        and not fits(ARTIFACTS[3], None)
    )
