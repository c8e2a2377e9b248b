"""Predictions on a board behind a real OpenSSH server: the same bytes as here, whatever happens."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from facekiln.boards.lease import holder_of
from facekiln.boards.script import BoardScript
from facekiln.boards.session import Session
from facekiln.boards.settings import Board, Runtime
from facekiln.config import Config, Model, load_config
from facekiln.data.declared import Declared, Expected
from facekiln.errors import KilnError
from facekiln.predictions.on_board import BoardRun, predict_on_board
from facekiln.predictions.run import predict
from facekiln.predictions.settings import inference_of
from facekiln.predictions.shards import Shard
from support.infer_models import write_detector
from support.sshd import Proxy, Sshd, processes_with, wait_until

pytestmark = pytest.mark.bound(300)

SIZE = (640, 640)
PICTURES = 6
ARTIFACT = "results/onnx/retinaface_640.onnx"


@dataclass
class Here:
    """An artifact, its predictions made by this machine, and how to make them on a board."""

    folder: Path
    config: Config
    model: Model
    declared: Declared

    @property
    def artifact(self) -> Path:
        return self.folder / ARTIFACT

    def on_board(self, board: Board, output: Path, **how: Any) -> Any:
        inference = inference_of("default", self.model, self.config, label="640")
        run = BoardRun(board, **{"shard": 2, "threads": 1, **how})
        return predict_on_board(
            self.artifact, self.model, how=run, inference=inference, declared=self.declared, output=output
        )

    def same(self, output: Path) -> bool:
        files = [folder / "predictions.npz" for folder in (self.folder / "here", output)]
        return files[0].read_bytes() == files[1].read_bytes()


@pytest.fixture(scope="module")
def here(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Here:
    folder = tmp_path_factory.mktemp("here")
    config = load_config(root / "config")
    model = config.model("retinaface")
    artifact = write_detector(folder / ARTIFACT, model, SIZE, slow=6)
    declared = Declared(
        name="scenes",
        kind="procedural",
        licence="drawn",
        expected=Expected(images=PICTURES),
        options={"purpose": "dataset", "seed": 3, "size": (72, 108)},
    )
    inference = inference_of("default", model, config, label="640")
    predict(
        artifact, model, config, backend="onnxruntime", inference=inference, declared=declared,
        shard=Shard(), output=folder / "here",
    )  # fmt: skip
    return Here(folder, config, model, declared)


@pytest.fixture
def board(sshd: Sshd, tmp_path: Path) -> Iterator[Board]:
    made = replace(sshd.board(tmp_path), runtimes={"onnxruntime": Runtime(sys.executable)})
    yield made
    with Session(made) as session:
        assert holder_of(BoardScript(session)) is None, "the lease is free"
    assert not processes_with(f"{made.work}/runs"), "nothing is left running"
    assert not list(Path(made.work, "runs").glob("*")), "no run's folder is left"


def _through(board: Board, proxy: Proxy) -> Board:
    assert board.address is not None
    return replace(board, address=replace(board.address, port=proxy.port))


def test_the_same_bytes_as_here_and_pictures_are_sent_once(here: Here, board: Board, tmp_path: Path) -> None:
    predictions = here.on_board(board, tmp_path / "there")
    assert here.same(tmp_path / "there") and len(predictions.scores) > 0
    assert predictions.meta["backend"] == "board-loop"
    assert predictions.meta["backend_version"].startswith("onnxruntime ")
    assert predictions.meta["virtual"] is False
    blobs = Path(board.work, "blobs")
    # A file that is sent again replaces the one of its name.
    before = {path.name: path.stat().st_ino for path in blobs.iterdir()}
    here.on_board(board, tmp_path / "again", shard=2)
    assert here.same(tmp_path / "again")
    assert {path.name: path.stat().st_ino for path in blobs.iterdir()} == before
    assert (tmp_path / "again.log").read_text().count("facekiln infer 1") == 1 + PICTURES // 2


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_line_is_found_again(
    share: float, here: Here, board: Board, proxy: Proxy, tmp_path: Path
) -> None:
    # What passes: 2 x 1.2 MB of pictures and 2 x 1 MB of outputs for each shard.
    proxy.cut_in(int(share * PICTURES * 2.2e6))
    here.on_board(_through(board, proxy), tmp_path / "there")
    assert proxy.connections >= 2, "it was cut"
    assert here.same(tmp_path / "there")


def test_many_cuts(here: Here, board: Board, proxy: Proxy, tmp_path: Path) -> None:
    done = threading.Event()

    def cut() -> None:
        # Not for ever: a slow machine would get nothing done between two of them.
        for _ in range(12):
            if done.wait(0.7):
                return
            proxy.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        here.on_board(_through(board, proxy), tmp_path / "there", attempts=6, wait=30)
    finally:
        done.set()
        cutter.join()
    assert proxy.connections >= 2
    assert here.same(tmp_path / "there")


def test_a_board_that_is_gone_in_mid_run_and_comes_back(
    here: Here, board: Board, sshd: Sshd, tmp_path: Path
) -> None:
    output = tmp_path / "there"

    def interrupt() -> None:
        wait_until(lambda: list(tmp_path.glob(".there.partial/*.npz")))
        sshd.stop()
        time.sleep(0.5)
        sshd.start()

    thread = threading.Thread(target=interrupt)
    thread.start()
    here.on_board(board, output, wait=30)
    thread.join()
    assert here.same(output)


def test_a_killed_client_goes_on_behind_what_came_home(
    here: Here, board: Board, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert board.address is not None
    shutil.copytree(root / "config", tmp_path / "config")
    entry = {
        "host": "127.0.0.1",
        "port": board.address.port,
        "user": board.address.user,
        "key": board.address.key,
        "host_key": board.address.host_key,
        "work": board.work,
        "lease": board.lease,
        "runtimes": {"onnxruntime": {"tool": sys.executable}},
        "limits": {"lease_seconds": 12, "grace_seconds": 12, "poll_seconds": 0.1, "reserve_mb": 1},
    }
    (tmp_path / "config/boards.yaml").write_text(yaml.safe_dump({"boards": {"loop": entry}}))
    scenes = {
        "kind": "procedural",
        "licence": "drawn",
        "expected": {"images": PICTURES},
        "options": {"purpose": "dataset", "seed": 3, "size": [72, 108]},
    }
    (tmp_path / "config/datasets.yaml").write_text(yaml.safe_dump({"datasets": {"scenes": scenes}}))
    output = tmp_path / "there"
    command = [sys.executable, "-m", "facekiln", "predict", "board", "--stage", str(here.artifact)]
    command += ["--board", "loop", "--dataset", "scenes", "--shard-pictures", "1", "--threads", "1"]
    command += ["--wait", "60", "--output", str(output)]
    for blow in (signal.SIGKILL, signal.SIGTERM):
        before = len(list(tmp_path.glob(".there.partial/*.npz")))
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE)
        wait_until(lambda: len(list(tmp_path.glob(".there.partial/*.npz"))) > before)  # noqa: B023
        process.send_signal(blow)
        process.communicate(timeout=90)
        assert process.returncode != 0 and not output.exists()
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    told = re.search(r"going on after (\d+) of", ended.stderr)
    assert told and int(told[1]) > before >= 1, "neither blow cost a shard that had come home"
    assert here.same(output)
    # What SIGKILL left on the board was ended there; its folder stays until `board clean`.
    shutil.rmtree(Path(board.work, "runs"))
    Path(board.work, "runs").mkdir()


def test_a_program_that_fails_is_told_with_its_last_words(
    here: Here, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / ARTIFACT
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no model")
    with pytest.raises(KilnError, match=r"the program on board 'loop' failed: .*exit status"):
        replace(here, folder=tmp_path).on_board(board, tmp_path / "there")


def test_an_unmarked_board_with_a_stand_in_is_told(
    here: Here, board: Board, tmp_path: Path, root: Path
) -> None:
    """A vendor's runtime is a program of the board's own; this one says that it is a stand-in."""
    program = tmp_path / "infer.sh"
    package = root / "workflow"
    program.write_text(
        f"#!/bin/sh\nexport FACEKILN_HERE=$(pwd) PYTHONPATH={package}\nhere=$(pwd)\n"
        'model=$here/$1; shift\nset -- "$model" --declared "$here/input.json" --pictures "$here/pictures.npy"'
        f" --output outputs.npz\ncd {root}\nexec {sys.executable} -m facekiln.boards.virtual.tools infer"
        ' "$@"\n'
    )
    program.chmod(0o755)
    artifact = here.folder / "results/magicmind/retinaface_640_force_float32_1b.mm"
    _emulated(artifact, here)
    runtimes = {"mm_run": Runtime("sh", infer=str(program))}
    found = Here(here.folder, here.config, here.model, here.declared)
    vendor = replace(board, runtimes=runtimes)
    inference = inference_of("default", here.model, here.config, label="640")
    predictions = predict_on_board(
        artifact, here.model, how=BoardRun(vendor, shard=4), inference=inference, declared=here.declared,
        output=tmp_path / "there",
    )  # fmt: skip
    assert predictions.meta["virtual"] and predictions.meta["emulated"]
    assert predictions.meta["backend_version"].startswith("magicmind-emulator ")
    assert found.same(tmp_path / "there"), "float32 of the same graph"


def _emulated(path: Path, here: Here) -> None:
    from facekiln.chips.magicmind.container import EmulatedModel, write_emulated

    path.parent.mkdir(parents=True, exist_ok=True)
    told = {
        "name": "retinaface_640", "precision": "force_float32", "batch": [1, 1], "size": list(SIZE),
        "input": "float_nchw", "outputs": list(here.model.outputs), "build_config": {},
        "mean": list(map(float, here.model.input.mean)), "scale": list(map(float, here.model.input.scale)),
    }  # fmt: skip
    write_emulated(path, EmulatedModel(told, here.artifact.read_bytes()))
