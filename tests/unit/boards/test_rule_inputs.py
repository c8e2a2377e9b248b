"""What the rule of measurements asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from facekiln.boards.rule_inputs import benched, measured_by
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


def test_record_is_measured_again_where_the_board_is_another(tmp_path: Path) -> None:
    def identity(text: str) -> str:
        (tmp_path / "boards.yaml").write_text(f"boards:\n  b: {{host: h, user: u, {text}}}\n")
        return measured_by("b", "tengine/a_320.tmfile", tmp_path)

    tools = "runtimes: {tm_benchmark: {tool: /old}, mm_run: {tool: /x}}"
    first = identity(tools)
    others = [
        "runtimes: {tm_benchmark: {tool: /new}}",
        f"{tools}, virtual: true",
        f"{tools}, chip: rk3399",
        f"{tools}, environment: {{LD_LIBRARY_PATH: /lib}}",
        f"{tools}, host_key: ssh-ed25519 AAAA",
    ]
    assert len({first, *map(identity, others)}) == 1 + len(others)
    # Another artifact's tool, the port and the limits decide nothing.
    assert identity("port: 23, limits: {run_seconds: 9}, runtimes: {tm_benchmark: {tool: /old}}") == first
    assert measured_by("local", "onnx/a_320.onnx", tmp_path) == "local"
