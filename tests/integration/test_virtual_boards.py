"""Virtual boards: brought up by one command, measured through the whole path, told apart from real ones."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facekiln.boards.settings import load_board
from facekiln.boards.virtual import forms
from facekiln.boards.virtual.server import VirtualServer
from facekiln.chips.magicmind.container import EmulatedModel, write_emulated
from facekiln.chips.magicmind.mm_run import parse, timings
from facekiln.chips.nnie.board_log import parse_snapshot
from facekiln.chips.sophon import bmrt_test
from facekiln.chips.tengine import tm_benchmark
from facekiln.cli import main
from support.sshd import find_sshd

SIDE = 32


def tiny() -> onnx.ModelProto:
    """One convolution."""
    weight = np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w"], ["out"])],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4, SIDE - 2, SIDE - 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.fixture
def place(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the repository's config and an emulated model; boards are ended after the test."""
    find_sshd()
    shutil.copytree(root / "config", tmp_path / "config")
    (tmp_path / "config/boards.yaml").write_text("# Mine.\nboards:\n")
    told = {
        "name": "retinaface_640", "precision": "force_float32", "batch": [1, 4], "size": [SIDE, SIDE],
        "input": "float_nchw", "outputs": ["out"], "build_config": {}, "mean": [0, 0, 0], "scale": [1, 1, 1],
    }  # fmt: skip
    write_emulated(
        tmp_path / "results/magicmind/retinaface_640_force_float32_1-4b.mm",
        EmulatedModel(told, tiny().SerializeToString()),
    )
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    main(["virtual", "down"])


def test_up_measure_down(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["virtual", "up", "v1", "--chip", "mlu370_s4"]) == 0
    assert "VIRTUAL" in capsys.readouterr().out
    board = load_board("v1", place / "config")
    assert board.virtual and board.address is not None and board.address.host_key
    assert (place / "config/boards.yaml").read_text().startswith("# Mine.\n"), "the user's words stay"
    artifact = "results/magicmind/retinaface_640_force_float32_1-4b.mm"
    words = ["--put", f"m.mm={artifact}", "--", f"{place}/.boards/v1/bin/mm_run"]
    words += ["--magicmind_model", "m.mm", "--batch_size", "4", "--iterations", "3"]
    assert main(["board", "run", "v1", *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith(forms.MARK)
    (timing,) = timings(parse(out), batch=4)
    assert timing.latency.mean > 0 and timing.runs == 3
    # Up again: the same keys and port; another chip or a stranger's name is refused.
    assert main(["virtual", "up", "v1", "--chip", "mlu370_s4"]) == 0
    assert load_board("v1", place / "config") == board
    assert main(["virtual", "up", "v1", "--chip", "bm1684x"]) == 1
    assert "another chip" in capsys.readouterr().err
    server = VirtualServer(place / ".boards/v1", board.address.port)
    assert server.pid() is not None
    assert main(["virtual", "list"]) == 0 and "runs" in capsys.readouterr().out
    assert main(["virtual", "down", "v1"]) == 0
    assert server.pid() is None
    assert main(["virtual", "list"]) == 0 and "down" in capsys.readouterr().out


def test_a_record_of_a_virtual_board_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["virtual", "up", "v2", "--chip", "mlu370_s4"]) == 0
    artifact = place / "results/magicmind/retinaface_640_force_float32_1b.mm"
    told = {
        "name": "retinaface_640", "precision": "force_float32", "batch": [1, 1], "size": [SIDE, SIDE],
        "input": "float_nchw", "outputs": ["out"], "build_config": {}, "mean": [0, 0, 0], "scale": [1, 1, 1],
    }  # fmt: skip
    write_emulated(artifact, EmulatedModel(told, tiny().SerializeToString()))
    words = ["--board", "v2", "--repeats", "2", "--retries", "0", "--loops", "3", "--keep-noisy"]
    assert main(["bench", "run", str(artifact), *words]) == 0
    record = json.loads(
        (place / "results/bench/v2/magicmind/retinaface_640_force_float32_1b.mm.json").read_text()
    )
    assert record["virtual"] is True and record["tool"] == "mm_run"
    assert (
        forms.MARK
        in (place / "results/bench/v2/magicmind/retinaface_640_force_float32_1b.mm.log").read_text()
    )
    assert "VIRTUAL" in capsys.readouterr().out


def test_the_stand_ins_print_what_the_parsers_read() -> None:
    log = forms.bmrt_head("net", [("input", (4, 3, 8, 8))], [("out", (4, 2))], "2.2+v1.26", 2)
    log += forms.bmrt_loop("net", 0, 1500) + forms.bmrt_loop("net", 1, 2500)
    found = bmrt_test.timing(bmrt_test.parse(log, loops=2), batch=4)
    assert found.latency.mean == pytest.approx(2.0) and found.batch == 4
    head, result = forms.tm_head(2, 1), forms.tm_result("net", [1.0, 3.0])
    assert tm_benchmark.parse(head, result, batch=1, status=0).latency.mean == 2.0
    report = forms.mm_run_report("m.mm", [4, 8, 8, 3], [1.0, 2.0, 6.0], 0.009, 4, 1)
    (timing,) = timings(parse(report), batch=4)
    assert timing.latency.mean == 3.0 and timing.latency.median == 2.0 and timing.latency.max == 6.0
    assert parse_snapshot(forms.nnie_snapshot(1234, 2000, 3)).values["CostTm"] == 1234


def test_a_fault_of_the_model_is_told_as_the_vendors_tool_does(place: Path) -> None:
    assert main(["virtual", "up", "v3", "--chip", "rk3328"]) == 0
    bin_folder = place / ".boards/v3/bin"
    (place / "no.tmfile").write_bytes(b"no tmfile")
    command = [f"{bin_folder}/tm_benchmark", "-r", "1", "-m", "no.tmfile", "-i", "1,3,8,8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Tengine Benchmark: " in done.stderr
    done = subprocess.run(
        [f"{bin_folder}/mm_run", "--magicmind_model", "no.tmfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "mm_run (virtual)" in done.stderr
