"""Predictions of a board: the same bytes as this machine's, kept shard by shard, VIRTUAL told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facekiln.boards import faults
from facekiln.boards.faults import ConnectionLost, HostKeyFault
from facekiln.boards.infer_log import Told
from facekiln.boards.settings import Board, Runtime
from facekiln.config import Config, Model
from facekiln.data.declared import Declared
from facekiln.errors import KilnError
from facekiln.predictions import on_board
from facekiln.predictions.board_names import BoardTargets
from facekiln.predictions.on_board import BoardRun, precision_of, predict_on_board
from facekiln.predictions.run import predict
from facekiln.predictions.settings import inference_of
from facekiln.predictions.shards import Shard

Scenes = Callable[..., Declared]


class _Place:
    """A leased board that is a made-up stage; `faults` come in the place of runs of pictures."""

    def __init__(self, stage: Any, batch: int, faults: list[BaseException | None], virtual: bool) -> None:
        self.stage, self.batch, self.faults, self.virtual = stage, batch, faults, virtual
        self.log: list[str] = []
        self.reconnections = 0
        self.sent: dict[str, np.ndarray] = {}
        self.runs: list[str] = []

    def send(self, pictures: np.ndarray, name: str) -> Path:
        self.sent[name] = pictures
        return Path(self.folder, name)  # type: ignore[attr-defined]

    def infer(self, path: Path, on_done: Any = lambda _: None) -> tuple[dict[str, np.ndarray], Told]:
        fault = self.faults.pop(0) if path.name != "black" and self.faults else None
        if fault is not None:
            raise fault
        self.runs.append(path.name)
        self.log.append(f"ran {path.name}\n")
        path.touch()
        each = []
        for picture in self.sent[path.name]:
            each.append(self.stage.run(picture))
            on_done(len(each))
        outputs = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
        return outputs, Told("runtime 1.0", self.batch, len(each), self.virtual, {"machine": "aarch64"})


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., _Place]:
    monkeypatch.setattr(faults.time, "sleep", lambda _: None)

    def use(stage: Any, *given: BaseException | None, batch: int = 1, virtual: bool = False) -> _Place:
        made = _Place(stage, batch, list(given), virtual)
        made.folder = tmp_path  # type: ignore[attr-defined]

        @contextmanager
        def opened(*_: Any, **__: Any) -> Iterator[_Place]:
            yield made

        monkeypatch.setattr(on_board, "inferring_on", opened)
        return made

    return use


BOARD = Board("b", "ssh", "bm1684x", None, None, None, None, "/w", "/l", {"onnxruntime": Runtime("python3")})


@pytest.fixture
def both(config: Config, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that predicts here (`board` is None) or on a board."""
    artifact = tmp_path / "results/onnx/small_96.onnx"
    artifact.parent.mkdir(parents=True)
    artifact.write_bytes(b"an artifact")

    def run(model: Model, declared: Declared, board: BoardRun | None) -> Any:
        inference = inference_of("default", model, config, label=next(iter(model.sizes)))
        if board is None:
            return predict(
                artifact, model, config, backend="onnxruntime", inference=inference, declared=declared,
                shard=Shard(), output=tmp_path / "here",
            )  # fmt: skip
        return predict_on_board(
            artifact, model, how=board, inference=inference, declared=declared, output=tmp_path / "there"
        )

    return run


@pytest.mark.parametrize("kind", ["detector", "pointer"])
@pytest.mark.parametrize(("shard", "batch"), [(2, 1), (3, 2), (64, 1)])
def test_the_same_bytes_as_here(
    kind: str,
    shard: int,
    batch: int,
    request: pytest.FixtureRequest,
    stage: Callable[..., Any],
    place: Callable[..., _Place],
    both: Callable[..., Any],
    scenes: Scenes,
    tmp_path: Path,
) -> None:
    model, declared = request.getfixturevalue(kind), scenes(5)
    made = stage(model)
    both(model, declared, None)
    used = place(made, batch=batch)
    predictions = both(model, declared, BoardRun(BOARD, shard=shard))
    files = [tmp_path / name / "predictions.npz" for name in ("here", "there")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(used.runs) == 1 + -(-5 // (-(-shard // batch) * batch))
    meta = predictions.meta
    assert (meta["backend"], meta["backend_version"]) == ("board-b", "runtime 1.0")
    assert (meta["virtual"], meta["emulated"]) == (False, False)
    assert meta["board"] == {"name": "b", "chip": "bm1684x", "machine": "aarch64"}
    assert "ran black\nran shard-00000000\n" in (tmp_path / "there.log").read_text()
    assert not list(tmp_path.glob(".there*")), "nothing is left beside it"


def test_shards_that_came_home_are_not_run_again(
    detector: Model,
    stage: Callable[..., Any],
    place: Callable[..., _Place],
    both: Callable[..., Any],
    scenes: Scenes,
    tmp_path: Path,
) -> None:
    made = stage(detector)
    both(detector, scenes(7), None)
    used = place(made, None, None, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        both(detector, scenes(7), BoardRun(BOARD, shard=2))
    assert used.runs[-1] == "shard-00000002" and not (tmp_path / "there").exists()
    used = place(made)
    both(detector, scenes(7), BoardRun(BOARD, shard=2))
    assert used.runs == ["black", "shard-00000004", "shard-00000006"]
    files = [tmp_path / name / "predictions.npz" for name in ("here", "there")]
    assert files[0].read_bytes() == files[1].read_bytes()
    log = (tmp_path / "there.log").read_text()
    assert all(f"ran shard-0000000{start}\n" in log for start in (0, 2, 4, 6)), "the raw log is of all shards"


def test_faults_that_pass_are_outlived_and_others_are_not(
    detector: Model,
    stage: Callable[..., Any],
    place: Callable[..., _Place],
    both: Callable[..., Any],
    scenes: Scenes,
) -> None:
    used = place(stage(detector), None, ConnectionLost("lost"), None, ConnectionLost("lost"))
    assert len(both(detector, scenes(5), BoardRun(BOARD, shard=2))) == 5
    # Each attempt runs the black picture, and goes on behind what came home.
    assert used.runs == ["black", "shard-00000000", "black", "shard-00000002", "black", "shard-00000004"]
    place(stage(detector), HostKeyFault("another key"))
    with pytest.raises(HostKeyFault):
        both(detector, scenes(6), BoardRun(BOARD, shard=2))
    place(stage(detector), *[ConnectionLost("lost")] * 3)
    with pytest.raises(ConnectionLost):
        both(detector, scenes(6), BoardRun(BOARD, shard=2))


@pytest.mark.parametrize("who", ["board", "program"])
def test_a_stand_in_is_told_wherever_its_figures_are(
    who: str,
    detector: Model,
    stage: Callable[..., Any],
    place: Callable[..., _Place],
    both: Callable[..., Any],
    scenes: Scenes,
) -> None:
    place(stage(detector), virtual=who == "program")
    meta = both(detector, scenes(2), BoardRun(replace(BOARD, virtual=who == "board"))).meta
    assert meta["virtual"] and meta["emulated"]


def test_precision_by_name() -> None:
    names = {
        "onnx/a_640.sim.onnx": "float",
        "sophon/bm1684x/a_640_int8_4b.bmodel": "int8",
        "sophon/bm1684x/a_640_fp16_1b.bmodel": "float16",
        "magicmind/a_640_qint8_mixed_float16_1b.mm": "int8",
        "magicmind/a_640_force_float16_1b.mm": "float16",
        "magicmind/a_640_force_float32_1b.mm": "float",
        "tengine/a_640_uint8.tmfile": "int8",
        "tengine/a_640.tmfile": "float",
        "nnie/a_640.wk": "int8",
        "nnie/a_640_int16.wk": "int16",
    }
    assert {name: precision_of(Path(name)) for name in names} == names


def test_targets_of_boards(config: Config, root: Path, tmp_path: Path) -> None:
    import shutil
    from types import SimpleNamespace

    shutil.copytree(root / "config", tmp_path / "config")
    (tmp_path / "config/boards.yaml").write_text(
        "boards: {one: {host: h, user: u, runtimes: {ncnn: {tool: python3}}}}\n"
    )
    targets = BoardTargets(config, tmp_path / "config")

    def wild(board: str, artifact: str) -> Any:
        return SimpleNamespace(board=board, artifact=artifact, dataset="procedural")

    files = targets.files(wild("one", "ncnn/retinaface_640.param"))
    assert files == {
        "artifact": "results/ncnn/retinaface_640.param",
        "beside": ["results/ncnn/retinaface_640.bin"],
    }
    assert len(targets.digest(wild("one", "ncnn/retinaface_640.param"))) == 16
    with pytest.raises(KilnError, match="did you mean 'one'"):
        targets.files(wild("onee", "ncnn/retinaface_640.param"))
    with pytest.raises(KilnError, match="declares nothing"):
        targets.files(wild("one", "onnx/retinaface_640.onnx"))
    with pytest.raises(KilnError, match="unknown model"):
        targets.files(wild("one", "ncnn/retinafac_640.param"))
