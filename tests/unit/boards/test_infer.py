"""The board's inference program, its log, and which board runs what."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.boards import infer_child, infer_log
from facekiln.boards.infer_board import tool_on
from facekiln.boards.settings import Board, Runtime
from facekiln.boards.virtual.server import runtimes_of
from facekiln.config import Config, Input, Model, load_config
from facekiln.errors import KilnError
from facekiln.vision.preprocess import Unrounded, to_tensor
from support.infer_models import write_detector

SIZE = (32, 48)
LOG = "facekiln infer 1\nruntime onnxruntime 1.2\npython 3.7.1\nmachine aarch64\nthreads 1\nbatch 4\n"


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    return load_config(root / "config")


@pytest.fixture(scope="module")
def model(config: Config) -> Model:
    return replace(config.model("retinaface"), sizes={"48": SIZE})


def test_it_is_python_3_7_and_needs_numpy_only() -> None:
    tree = ast.parse(infer_log.PROGRAM.read_text(), feature_version=(3, 7))
    at_top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {name.name for node in at_top if isinstance(node, ast.Import) for name in node.names}
    assert names <= {*sys.stdlib_module_names, "numpy"}


@given(seed=st.integers(0, 2**32 - 1), colour=st.sampled_from(["rgb", "bgr"]), whole=st.booleans())
def test_it_prepares_as_this_machine_does_to_the_bit(seed: int, colour: str, whole: bool) -> None:
    random = np.random.default_rng(seed)
    mean, scale = (tuple(map(float, random.uniform(0.001, 130, 3))) for _ in range(2))
    pictures = random.integers(0, 256, (2, 5, 7, 3)).astype(np.uint8)
    if not whole:
        pictures = random.uniform(0, 255, (2, 5, 7, 3)).astype(np.float32)
    declared = {"colour": colour, "mean": mean, "scale": scale}
    given_here = pictures if whole else pictures.view(Unrounded)
    here = [to_tensor(one, Input("x", colour, mean, scale)) for one in given_here]  # type: ignore[arg-type]
    np.testing.assert_array_equal(infer_child.to_tensor(pictures, declared), np.concatenate(here))


class _Runtime:
    outputs = ("sum",)

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def run(self, tensor: np.ndarray) -> list[np.ndarray]:
        assert len(tensor) == self.batch
        return [tensor.sum(axis=(1, 2, 3))[:, None]]


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_a_batch_that_is_not_full_is_filled_up(batch: int, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    declared = {"colour": "bgr", "mean": [0, 0, 0], "scale": [1, 1, 1]}
    found = infer_child.infer(_Runtime(batch), pictures, declared)
    assert found["sum"].ravel().tolist() == [0, 12, 24, 36, 48]
    assert [infer_log.progress_of(line) for line in capsys.readouterr().out.splitlines()] == [1, 2, 3, 4, 5]
    assert infer_child.infer(_Runtime(batch), pictures, {**declared, "half": True})["sum"].dtype == np.float16


def test_the_program_from_end_to_end(tmp_path: Path, model: Model) -> None:
    artifact = write_detector(tmp_path / "a.onnx", model, SIZE, batch=2)
    infer_log.write_declared(tmp_path / infer_log.DECLARED, model, exact=False, half=False)
    pictures = np.random.default_rng(1).integers(0, 256, (3, *SIZE, 3)).astype(np.uint8)
    np.save(tmp_path / infer_log.PICTURES, pictures)
    command = [sys.executable, str(infer_log.PROGRAM), "onnxruntime"]
    command += infer_log.arguments(artifact.name, threads=1)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    told = infer_log.parse(done.stdout, count=3)
    assert (told.batch, told.virtual) == (2, False) and told.version.startswith("onnxruntime ")
    found = infer_log.read_outputs(tmp_path / infer_log.OUTPUT, model, artifact, 3)
    assert {name: value.shape[0] for name, value in found.items()} == dict.fromkeys(model.outputs, 3)
    assert np.abs(np.diff(found["loc"], axis=0)).max() > 0


# ncnn as far as the program asks it: the output is the sum over each plane.
_NCNN = """
import numpy, sys, types
class Mat:
    def __init__(self, values): self.values = values
    def clone(self): return self
    def __array__(self, dtype=None, copy=None): return self.values
class Extractor:
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def input(self, name, mat): self.mat = mat; return 0
    def extract(self, name): return 0, Mat(self.mat.values.sum(axis=(1, 2)))
class Net:
    def __init__(self): self.opt = types.SimpleNamespace(num_threads=1, use_fp16_storage=True)
    def load_param(self, path): return 0
    def load_model(self, path): print("half", self.opt.use_fp16_storage); return 0
    def input_names(self): return ["input"]
    def output_names(self): return ["out"]
    def create_extractor(self): return Extractor()
sys.modules["ncnn"] = types.SimpleNamespace(Net=Net, Mat=Mat, __version__="0")
import runpy
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@pytest.mark.parametrize("which", ["this Python", "Python 3.7"])
@pytest.mark.parametrize("exact", [False, True])
def test_the_program_in_a_boards_python(which: str, exact: bool, tmp_path: Path, model: Model) -> None:
    python = sys.executable if which == "this Python" else os.environ.get("FACEKILN_PYTHON37")
    if not python:
        pytest.skip("no Python 3.7 with numpy: set FACEKILN_PYTHON37")
    infer_log.write_declared(tmp_path / infer_log.DECLARED, model, exact=exact, half=False)
    pictures = np.random.default_rng(1).integers(0, 256, (3, 4, 6, 3)).astype(np.uint8)
    np.save(tmp_path / infer_log.PICTURES, pictures)
    command = [python, "-c", _NCNN, str(infer_log.PROGRAM), "ncnn"]
    command += infer_log.arguments("a.param", threads=1)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert infer_log.parse(done.stdout, count=3).version == "ncnn 0"
    assert f"half {not exact}\n" in done.stdout
    wanted = np.stack([to_tensor(one, model.input)[0].sum(axis=(1, 2)) for one in pictures])
    with np.load(tmp_path / infer_log.OUTPUT) as found:
        np.testing.assert_allclose(found["out"], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "did not end"),
        (LOG, "did not end"),
        (LOG.partition("\n")[2] + "end 3\n", "did not end"),
        (LOG.replace("batch 4\n", "") + "end 3\n", "did not end"),
        (LOG + "end 2\n", "another number"),
    ],
)
def test_a_log_that_is_not_whole_is_refused(text: str, what: str) -> None:
    with pytest.raises(KilnError, match=what):
        infer_log.parse(text, count=3)


def test_a_stand_ins_log_says_so() -> None:
    assert infer_log.parse(f"{LOG}virtual yes\nend 3\n", count=3).virtual
    told = infer_log.parse(f"anything\r\n{LOG}noise 7\nend 3\n", count=3)
    assert not told.virtual and told.facts == {"python": "3.7.1", "machine": "aarch64", "threads": "1"}


def test_outputs_go_by_the_models_names(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "o.npz"
    arrays: Any = {name: np.zeros((2, 8, 4), np.float16) for name in model.outputs}
    np.savez(path, extra=np.zeros(1), **arrays)
    assert infer_log.read_outputs(path, model, Path("a.mm"), 2)["loc"].dtype == np.float32
    with pytest.raises(KilnError, match="not of 3 pictures"):
        infer_log.read_outputs(path, model, Path("a.mm"), 3)
    np.savez(path, **{f"{name}_Concat_f32": value for name, value in arrays.items()})
    assert set(infer_log.read_outputs(path, model, Path("a.bmodel"), 2)) == set(model.outputs)
    with pytest.raises(KilnError, match="gives other outputs"):
        infer_log.read_outputs(path, model, Path("a.mm"), 2)
    path.write_bytes(b"PK no archive")
    with pytest.raises(KilnError, match="is no file of outputs"):
        infer_log.read_outputs(path, model, Path("a.mm"), 2)


def test_what_the_program_is_told(tmp_path: Path, model: Model) -> None:
    infer_log.write_declared(tmp_path / "d.json", model, exact=True, half=False)
    told = json.loads((tmp_path / "d.json").read_text())
    assert told["colour"] == model.input.colour and told["mean"] == list(model.input.mean)
    assert told["exact"] is True and told["half"] is False


def _board(chip: str | None, **runtimes: Runtime) -> Board:
    return Board("b", "ssh", chip, None, None, None, None, "/w", "/l", runtimes=runtimes)


def test_which_board_runs_what() -> None:
    python, vendor = Runtime("python3"), Runtime("bmrt_test", infer="/opt/infer")
    assert tool_on(_board(None, ncnn=python), "ncnn/a.param").name == "ncnn"
    assert tool_on(_board("bm1684x", bmrt_test=vendor), "sophon/bm1684x/a_int8_1b.bmodel").name == "bmrt_test"
    for board, artifact, said in (
        (_board("bm1688", bmrt_test=vendor), "sophon/bm1684x/a_int8_1b.bmodel", "has bm1688"),
        (_board("bm1684x", bmrt_test=Runtime("bmrt_test")), "sophon/bm1684x/a.bmodel", "bmrt_test.infer"),
        (_board(None, benchncnn=python), "ncnn/a.param", "declares nothing"),
        (_board(None, ncnn=python), "checkpoints/a.pth", "no runtime takes .pth"),
        (replace(_board(None, ncnn=python), transport="plan"), "ncnn/a.param", "runs no commands"),
    ):
        with pytest.raises(KilnError, match=said):
            tool_on(board, artifact)


@pytest.mark.parametrize("chip", ["bm1684x", "mlu370_s4", "hi3516", "rk3328"])
def test_every_virtual_board_runs_pictures(chip: str) -> None:
    (entry,) = runtimes_of(chip, Path("/home")).values()
    assert entry["infer"] == "/home/bin/infer"
