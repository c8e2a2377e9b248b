"""Our own latency program: run here, and its log mutated."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from facekiln.boards.latency_log import PROGRAM, command, parse
from facekiln.boards.runner import LocalRunner
from facekiln.errors import KilnError

LOG = """\
facekiln latency 1
runtime ncnn 1.0.20261020
python 3.11.7
machine x86_64
threads 2
shape 4,3,240,320
load_ms 179.356
run 0 64.5262 ms
run 1 48.9920 ms
run 2 58.5464 ms
peak_memory_kib 99016
mean 57.3549 ms
end 3
"""


def _network(path: Path, shape: tuple[int, ...]) -> Path:
    weight = np.ones((4, 3, 3, 3), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.ravel())],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_a_log() -> None:
    result = parse(LOG, loops=3)
    assert result.latency.samples == (64.5262, 48.9920, 58.5464)
    assert result.batch == 4
    assert result.tool_version == "ncnn 1.0.20261020"
    assert result.memory_mib["peak_resident"] == pytest.approx(96.7, abs=0.1)


def test_a_real_run_in_onnxruntime(tmp_path: Path) -> None:
    model = _network(tmp_path / "a b.onnx", (2, 3, 32, 40))
    arguments = command("onnxruntime", str(model), (2, 3, 32, 40), loops=7, warm_up=2, python=sys.executable)
    done = LocalRunner().run(arguments, timeout=120)
    assert done.status == 0, done.stderr
    result = parse(done.stdout, loops=7)
    assert len(result.latency.samples) == 7
    assert result.batch == 2
    assert result.latency.mean > 0


def test_a_wrong_shape_fails(tmp_path: Path) -> None:
    model = _network(tmp_path / "a.onnx", (2, 3, 32, 40))
    done = LocalRunner().run(
        command("onnxruntime", str(model), (1, 3, 8, 8), loops=1, python=sys.executable), timeout=120
    )
    assert done.status != 0
    with pytest.raises(KilnError, match="did not end"):
        parse(done.stdout)


def test_the_program_is_fit_for_a_boards_python() -> None:
    tree = ast.parse(PROGRAM.read_text(), feature_version=(3, 7))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "ncnn"}


@given(st.integers(0, len(LOG) - 2))
def test_a_cut_log_is_refused(end: int) -> None:
    with pytest.raises(KilnError):
        parse(LOG[:end])


@given(st.integers(0, len(LOG) - 1), st.sampled_from("0123456789,.x -e"))
def test_a_changed_character_never_changes_the_mean(place: int, character: str) -> None:
    try:
        result = parse(LOG[:place] + character + LOG[place + 1 :], loops=3)
    except KilnError:
        return
    assert result.latency.mean == pytest.approx(57.3549, abs=3e-4)


def test_wrong_arguments() -> None:
    for wrong in ({"runtime": "tensorrt"}, {"loops": 0}, {"threads": 0}, {"shape": (0, 3, 8, 8)}):
        values = {"runtime": "ncnn", "model": "a.param", "shape": (1, 3, 8, 8), **wrong}
        with pytest.raises(KilnError):
            command(**values)  # type: ignore[arg-type]
