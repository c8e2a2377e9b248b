"""Which tool measures what, and how it is called."""

from __future__ import annotations

import shlex

import pytest

from facekiln.boards.runner import RunResult
from facekiln.boards.tools import TOOLS, Request, batch_and_cores_of, precision_of, tool_for
from facekiln.chips.rknn import rknn_benchmark
from facekiln.cli import build_parser
from facekiln.errors import KilnError

REQUEST = Request("/data/a", (1, 3, 240, 320), loops=20, warm_up=3)


def test_the_default_tool_of_each_kind() -> None:
    kinds = {
        suffix: tool_for(f"a{suffix}").name for suffix in (".onnx", ".param", ".bmodel", ".mm", ".tmfile")
    }
    assert kinds == {
        ".onnx": "onnxruntime",
        ".param": "ncnn",
        ".bmodel": "bmrt_test",
        ".mm": "mm_run",
        ".tmfile": "tm_benchmark",
    }
    assert tool_for("a.param", "benchncnn").name == "benchncnn"


def test_wrong_kinds_and_names() -> None:
    with pytest.raises(KilnError, match=r"no benchmark tool.*\.bmodel"):
        tool_for("a.txt")
    with pytest.raises(KilnError, match=r"measures \*\.bmodel"):
        tool_for("a.param", "bmrt_test")
    with pytest.raises(KilnError, match="bmrt_test"):
        tool_for("a.bmodel", "bmrt_tets")


@pytest.mark.parametrize("name", [None, "rknn_benchmark", "onnxruntime"])
def test_rknn_file_is_refused_with_the_two_commands_that_measure_it(name: str | None) -> None:
    with pytest.raises(KilnError) as told:
        tool_for("results/rknn/a_640.rknn", name)
    if name != "onnxruntime":
        assert "`bench run` does not start rknn_benchmark" in str(told.value)
        steps = str(told.value).partition("next step: ")[2]
        run, _, read = steps.partition("; then: ")
        # What is told can be given to the command line as it stands.
        options = build_parser("board").parse_args(shlex.split(run)[1:])
        assert options.words == rknn_benchmark.command("a_640.rknn", "input.npy")
        assert options.put == ["a_640.rknn=results/rknn/a_640.rknn", "input.npy=INPUT.npy"]
        assert build_parser("bench").parse_args(shlex.split(read)[1:]).tool == "rknn_benchmark"


def test_names_tell_precision_batch_and_cores() -> None:
    assert precision_of("ncnn/retinaface_640_int8.param") == "int8"
    assert precision_of("tengine/pfpld_112_uint8.tmfile") == "uint8"
    assert precision_of("onnx/retinaface_640.sim.onnx") == "float32"
    assert batch_and_cores_of("retinaface_640_int8_4b_2core.bmodel") == (4, 2)
    assert batch_and_cores_of("retinaface_640_fp16_1b.bmodel") == (1, 1)
    assert batch_and_cores_of("rfb_1mb_640.param") == (1, 1)


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_every_tool_gives_a_command_and_refuses_silence(name: str) -> None:
    tool = TOOLS[name]
    command = tool.command(REQUEST)
    assert "/data/a" in " ".join(command)
    assert all(isinstance(word, str) for word in command)
    with pytest.raises(KilnError):
        tool.parse(REQUEST, RunResult(0, "", "", 1.0))


def test_warm_up_of_bmrt_test_is_loops_of_its_own() -> None:
    command = TOOLS["bmrt_test"].command(REQUEST)
    assert command[command.index("--loopnum") + 1] == "23"
