"""Measurements on a board behind a real OpenSSH server: upload, lease, run, monitor, record."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from facekiln.boards.bench import Plan, read_bench, run_bench
from facekiln.boards.bench_board import chip_of, files_of, measuring_on
from facekiln.boards.faults import BoardBusy, WrongArchitecture, WrongRuntime
from facekiln.boards.lease import Lease, holder_of
from facekiln.boards.script import BoardScript
from facekiln.boards.session import Session
from facekiln.boards.settings import Board, Runtime
from facekiln.boards.tools import TOOLS, Request
from facekiln.cli import main
from facekiln.errors import KilnError
from support.bench_tools import BMRT, write_tool
from support.sshd import Sshd, processes_with, wait_until

pytestmark = pytest.mark.bound(300)

PLAN = Plan(repeats=3, retries=0, cool_down=0.0, timeout=60)


def _with_runtime(board: Board, name: str, tool: str, chip: str | None = None) -> Board:
    return replace(board, chip=chip, runtimes={name: Runtime(tool)})


@pytest.fixture
def bmodel(tmp_path: Path) -> Path:
    path = tmp_path / "results" / "sophon" / "bm1684x" / "slim_320_int8_4b.bmodel"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a model")
    return path


def test_a_vendors_tool_on_a_virtual_board(sshd: Sshd, tmp_path: Path, bmodel: Path) -> None:
    program = write_tool(tmp_path / "bmrt_test", BMRT)
    board = _with_runtime(sshd.board(tmp_path), "bmrt_test", str(program), "bm1684x")
    tool = TOOLS["bmrt_test"]
    request = Request(str(bmodel), (4, 3, 240, 320), loops=9, warm_up=2, dtype="int8")
    output = tmp_path / "bench.json"
    with measuring_on(board, tool, bmodel, request) as (runner, there):
        run_bench(
            runner, tool, there, board=board.name, artifact=bmodel, output=output, plan=PLAN, virtual=True
        )
    record = read_bench(output)
    assert record["verdict"] == "steady"
    assert record["virtual"] is True
    assert record["result"]["latency_ms"] == pytest.approx(2.001)
    assert record["command"][2] == "slim_320_int8_4b.bmodel"
    assert record["repeats"][0]["before"]["uptime_s"] > 0
    with Session(board) as session:
        assert holder_of(BoardScript(session)) is None


def test_true_latency_through_the_whole_path(sshd: Sshd, tmp_path: Path) -> None:
    model = tmp_path / "a.onnx"
    weight = np.ones((4, 3, 3, 3), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 32, 40))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.ravel())],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), model)
    board = _with_runtime(sshd.board(tmp_path), "onnxruntime", sys.executable)
    request = Request(str(model), (1, 3, 32, 40), loops=10, warm_up=2)
    tool, output = TOOLS["onnxruntime"], tmp_path / "bench.json"
    with measuring_on(board, tool, model, request) as (runner, there):
        record = run_bench(runner, tool, there, board=board.name, artifact=model, output=output, plan=PLAN)
    assert record["virtual"] is False
    assert record["result"]["latency_ms"] > 0
    assert len(record["repeats"]) == 3
    assert record["tool_version"].startswith("onnxruntime ")


def test_a_board_of_another_chip_is_refused_before_any_upload(
    sshd: Sshd, tmp_path: Path, bmodel: Path
) -> None:
    board = _with_runtime(sshd.board(tmp_path), "bmrt_test", "sh", "bm1688")
    request = Request(str(bmodel), (4, 3, 240, 320))
    with pytest.raises(WrongArchitecture), measuring_on(board, TOOLS["bmrt_test"], bmodel, request):
        pass


def test_a_missing_tool_and_an_undeclared_one(sshd: Sshd, tmp_path: Path, bmodel: Path) -> None:
    request = Request(str(bmodel), (4, 3, 240, 320))
    board = _with_runtime(sshd.board(tmp_path), "bmrt_test", "no-such-tool-here")
    with pytest.raises(WrongRuntime), measuring_on(board, TOOLS["bmrt_test"], bmodel, request):
        pass
    with (
        pytest.raises(KilnError, match="runtime of board"),
        measuring_on(sshd.board(tmp_path), TOOLS["bmrt_test"], bmodel, request),
    ):
        pass


def test_two_measurements_never_share_a_board(sshd: Sshd, tmp_path: Path, bmodel: Path) -> None:
    board = _with_runtime(sshd.board(tmp_path), "bmrt_test", "sh")
    request = Request(str(bmodel), (4, 3, 240, 320))
    with Session(board) as session, Lease(BoardScript(session), "another"):  # noqa: SIM117
        with pytest.raises(BoardBusy), measuring_on(board, TOOLS["bmrt_test"], bmodel, request):
            pass


def test_a_board_that_runs_no_commands(sshd: Sshd, tmp_path: Path, bmodel: Path) -> None:
    board = replace(sshd.board(tmp_path), transport="directory")
    request = Request(str(bmodel), (4, 3, 240, 320))
    with (
        pytest.raises(KilnError, match="bench read"),
        measuring_on(board, TOOLS["bmrt_test"], bmodel, request),
    ):
        pass


def test_what_a_run_needs(tmp_path: Path) -> None:
    param = tmp_path / "a.param"
    param.write_text("x")
    assert list(files_of(param, TOOLS["benchncnn"])) == ["a.param"]
    with pytest.raises(KilnError, match=r"a\.bin"):
        files_of(param, TOOLS["ncnn"])
    (tmp_path / "a.bin").write_text("x")
    assert list(files_of(param, TOOLS["ncnn"])) == ["a.param", "a.bin", "latency_child.py"]
    assert chip_of("results/sophon/bm1684x/a_320_int8_1b.bmodel") == "bm1684x"
    assert chip_of("results/ncnn/a.param") is None


def test_the_command_with_an_entry_of_boards_yaml(
    sshd: Sshd, tmp_path: Path, root: Path, bmodel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = write_tool(tmp_path / "bmrt_test", BMRT)
    config = tmp_path / "config"
    shutil.copytree(root / "config", config)
    address = sshd.board(tmp_path).address
    assert address is not None
    entry = {
        "host": address.host,
        "port": address.port,
        "user": address.user,
        "key": str(sshd.key),
        "host_key": sshd.host_key,
        "chip": "bm1684x",
        "work": str(tmp_path / "work"),
        "lease": str(tmp_path / "lease"),
        "runtimes": {"bmrt_test": {"tool": str(program)}},
    }
    (config / "boards.yaml").write_text(yaml.safe_dump({"boards": {"se7": entry}}))
    monkeypatch.chdir(tmp_path)
    artifact = bmodel.with_name("ulfd_slim_320_320_int8_4b.bmodel").relative_to(tmp_path)
    bmodel.rename(artifact)
    arguments = ["bench", "run", str(artifact), "--board", "se7", "--virtual", "--config", str(config)]
    arguments += ["--loops", "7", "--warm-up", "1", "--repeats", "2", "--cool-down", "0"]
    assert main(arguments) == 0
    record = read_bench("results/bench/se7/sophon/bm1684x/ulfd_slim_320_320_int8_4b.bmodel.json")
    assert (record["board"], record["virtual"], record["batch"]) == ("se7", True, 4)
    assert record["command"][0] == str(program)


def test_a_measurement_that_is_ended_leaves_nothing_and_frees_the_board(
    sshd: Sshd, tmp_path: Path, bmodel: Path, root: Path, mark: str
) -> None:
    """Snakemake ends its jobs with SIGTERM."""
    program = write_tool(tmp_path / "bmrt_test", f"#!/bin/sh\nexec sleep {mark}\n")
    board = _with_runtime(sshd.board(tmp_path), "bmrt_test", str(program), "bm1684x")
    assert board.address is not None
    shutil.copytree(root / "config", tmp_path / "config")
    entry = {
        "host": "127.0.0.1",
        "port": board.address.port,
        "user": board.address.user,
        "key": board.address.key,
        "host_key": board.address.host_key,
        "chip": "bm1684x",
        "work": board.work,
        "lease": board.lease,
        "runtimes": {"bmrt_test": {"tool": str(program)}},
        "limits": {"reserve_mb": 1, "poll_seconds": 0.1},
    }
    (tmp_path / "config/boards.yaml").write_text(yaml.safe_dump({"boards": {"loop": entry}}))
    command = [sys.executable, "-m", "facekiln", "bench", "run", str(bmodel), "--board", "loop"]
    command += ["--model", "retinaface", "--size", "640"]
    client = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE)
    wait_until(lambda: processes_with(f"sleep {mark}"))
    client.send_signal(signal.SIGTERM)
    client.communicate(timeout=90)
    assert client.returncode == 130
    assert not processes_with(f"sleep {mark}")
    with Session(board) as session:
        assert holder_of(BoardScript(session)) is None
