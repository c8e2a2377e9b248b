"""A bmodel as a stage, on a made-up runtime: places of a batch, meaning of outputs, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facekiln.artifact import sha256_of
from facekiln.chips.sophon.environment import Environment
from facekiln.chips.sophon.runtime import TensorInfo
from facekiln.config import Config, Model, load_config
from facekiln.errors import KilnError
from facekiln.parity.executors import BatchStage, run_each
from facekiln.parity.sophon_proofs import _gates_of_faces, add_proofs, differences, single_of
from facekiln.parity.sophon_stage import SophonStage
from facekiln.provenance import write_record
from facekiln.vision.preprocess import to_tensor

SIZE = (8, 8)


class MadeUpRuntime:
    """Outputs are each picture's mean, told apart by place; a twin is off by a little."""

    batch_shape = True
    off = 0.0
    fed: list[np.ndarray]

    def __init__(self, path: Path, _environment: Environment, mode: str, **_limits: Any) -> None:
        self.batch = 4 if "_4b" in str(path) else 1
        self.mode, self.closed = mode, False
        self.inputs = (TensorInfo("input", (self.batch, 3, *SIZE), "float32"),)
        front = (self.batch, 2) if self.batch_shape else (1, 2 * self.batch)
        # Not in the model's order.
        self.outputs = (
            TensorInfo("boxes_Concat_f32", (*front, 4), "float32"),
            TensorInfo("scores_Softmax", (*front, 2), "float32"),
        )

    def run(self, feeds: dict[str, np.ndarray], *, every: bool = False) -> dict[str, np.ndarray]:
        x = feeds["input"]
        type(self).fed.append(x)
        means = x.mean(axis=(1, 2, 3)).reshape(-1, 1, 1) + (self.off if self.mode == "twin" else 0)
        outputs = {
            "boxes_Concat_f32": np.tile(means, (1, 2, 4)).astype(np.float32),
            "scores_Softmax": np.tile(means / 2, (1, 2, 2)).astype(np.float32),
        }
        if every:
            return {"input": x, "mid_Conv": x + 1, "constant_Weight": np.ones((7, 2), np.float32), **outputs}
        return outputs

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def config(root: Path) -> Config:
    return load_config(root / "config")


@pytest.fixture
def model(config: Config) -> Model:
    return replace(config.model("ulfd_rfb_320"), priors=None, sizes={"320": SIZE})


def compiled(path: Path, lowered: str = "1234", arguments: Sequence[str] = ()) -> None:
    """Write a record as a compilation does."""
    settings = {"arguments": list(arguments)}
    write_record(path, verb="sophon compile", inputs=[], settings=settings, facts={"lowered_sha256": lowered})


def quantised(path: Path) -> Path:
    """Make the twin of a .bmodel and return its folder."""
    folder = path.with_suffix(".twin")
    folder.mkdir()
    for name in ("final.mlir", "weights.npz"):
        (folder / name).write_text(name)
    facts = {"lowered_sha256": "1234", "weights_sha256": sha256_of(folder / "weights.npz")}
    write_record(folder / "final.mlir", verb="sophon twin", inputs=[], facts=facts)
    return folder


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes a .bmodel, and its twin, that the made-up runtime runs."""
    monkeypatch.setattr(MadeUpRuntime, "fed", [], raising=False)
    monkeypatch.setattr("facekiln.parity.sophon_stage.SophonRuntime", MadeUpRuntime)
    monkeypatch.setattr("facekiln.parity.sophon_stage.environment_of", lambda *_: None)

    def make(name: str, *, twin: bool = True) -> Path:
        path = tmp_path / "sophon" / "bm1684x" / f"ulfd_rfb_320_320_{name}.bmodel"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        compiled(path)
        if twin:
            quantised(path)
        return path

    return make


def picture(level: int) -> np.ndarray:
    return np.full((*SIZE, 3), level, np.uint8)


def test_each_picture_of_a_batch_has_its_place_and_its_answer(
    file: Callable[..., Path], model: Model, config: Config
) -> None:
    stage = SophonStage(file("int8_4b"), model, config, twin=False)
    assert isinstance(stage, BatchStage)
    assert (stage.name, stage.precision, stage.batch) == ("sophon-cmodel", "int8", 4)
    found = stage.run_batch([None, picture(10), picture(200)])
    fed = MadeUpRuntime.fed[-1]
    black = to_tensor(picture(0), model.input)
    np.testing.assert_array_equal(fed[[0]], black)
    np.testing.assert_array_equal(fed[[3]], black)
    np.testing.assert_array_equal(fed[[2]], to_tensor(picture(200), model.input))
    assert len(found) == 2
    for level, outputs in zip((10, 200), found, strict=True):
        assert outputs["boxes"].shape == (1, 2, 4)
        assert outputs["boxes"][0, 0, 0] == pytest.approx((level - 127) / 128)
        assert outputs["scores"][0, 0, 0] == pytest.approx((level - 127) / 256)


def test_run_each_feeds_by_four(file: Callable[..., Path], model: Model, config: Config) -> None:
    stage = SophonStage(file("int8_4b"), model, config, twin=True)
    levels = [1, 50, 99, 150, 250, 7]
    found = list(run_each(stage, [picture(level) for level in levels]))
    assert len(MadeUpRuntime.fed) == 2
    assert [one["boxes"][0, 0, 0] for one in found] == pytest.approx(
        [(level - 127) / 128 for level in levels]
    )


def test_precision_is_of_the_name(file: Callable[..., Path], model: Model, config: Config) -> None:
    found = [
        SophonStage(file(f"{name}_1b"), model, config, twin=False).precision for name in ("fp32", "fp16")
    ]
    assert found == ["float", "float16"]


def test_a_trace_is_of_the_first_picture_and_ends_in_the_outputs(
    file: Callable[..., Path], model: Model, config: Config
) -> None:
    stage = SophonStage(file("fp16_4b"), model, config, twin=False)
    traced = stage.trace(picture(10))
    assert list(traced) == ["mid_Conv", "scores", "boxes"] or list(traced) == ["mid_Conv", "boxes", "scores"]
    assert traced["mid_Conv"].shape == (1, 3, *SIZE)
    assert stage.name_in_parent("mid_Conv") == "mid"
    assert stage.name_in_parent("boxes") == "boxes"


def test_without_a_twin_a_trace_has_outputs_only(
    file: Callable[..., Path], model: Model, config: Config
) -> None:
    path = file("fp32_1b", twin=False)
    assert sorted(SophonStage(path, model, config, twin=False).trace(picture(1))) == ["boxes", "scores"]
    with pytest.raises(KilnError, match=r"final\.mlir.*does not exist"):
        SophonStage(path, model, config, twin=True)


@pytest.mark.parametrize("name", ["final.mlir", "weights.npz", "final.mlir.kiln.json", "bmodel", "record"])
def test_a_twin_of_another_file_is_refused(
    file: Callable[..., Path], model: Model, config: Config, name: str
) -> None:
    """Average precision of a whole dataset would be told of a file that it is not of."""
    path = file("int8_1b")
    SophonStage(path, model, config, twin=True)
    if name == "bmodel":
        path.write_text("compiled again")
    elif name == "record":
        compiled(path, lowered="5678")
    elif name.endswith(".json"):
        (path.with_suffix(".twin") / name).unlink()
    else:
        (path.with_suffix(".twin") / name).write_text("another")
    with pytest.raises(KilnError, match="make the twin again"):
        SophonStage(path, model, config, twin=True)


def test_outputs_that_join_the_pictures_are_refused(
    file: Callable[..., Path], model: Model, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--input_shapes of four on a file with Reshape to [1, -1, v] gives [1, 4N, v], levels interleaved."""
    monkeypatch.setattr(MadeUpRuntime, "batch_shape", False)
    with pytest.raises(KilnError, match="mixes the pictures of a batch of 4"):
        SophonStage(file("int8_4b"), model, config, twin=False)


def test_the_single_file_of_a_batch(config: Config) -> None:
    folder = Path("results/sophon/bm1688")
    two = folder / "ulfd_rfb_320_320_int8_4b_2core.bmodel"
    assert single_of(two, config) == folder / "ulfd_rfb_320_320_int8_1b_2core.bmodel"
    assert single_of(folder / "ulfd_rfb_320_320_int8_1b.bmodel", config) is None


def proofs(path: Path, model: Model, config: Config, pictures: list[np.ndarray]) -> dict[str, Any]:
    report: dict[str, Any] = {"gates": []}
    found = {}
    for twin in (False, True):
        stage = SophonStage(path, model, config, twin=twin)
        found[stage.name] = list(run_each(stage, pictures))
    add_proofs(report, path, model, "320", config, pictures, found)
    return report


def test_a_report_proves_twin_and_batch(file: Callable[..., Path], model: Model, config: Config) -> None:
    file("int8_1b")
    report = proofs(file("int8_4b"), model, config, [picture(level) for level in (3, 90, 200)])
    assert report["twin"]["identical"] == ["boxes", "scores"]
    assert report["batch"]["of"] == 4
    assert report["batch"]["identical"] == ["boxes", "scores"]
    # The fourth place is proved too, by the first picture once more.
    full = [fed for fed in MadeUpRuntime.fed if len(fed) == 4][-1]
    np.testing.assert_array_equal(full[3], full[0])
    assert len(report["gates"]) == 4
    assert {gate["verdict"] for gate in report["gates"]} == {"passed"}


def test_a_twin_that_is_off_fails(
    file: Callable[..., Path], model: Model, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MadeUpRuntime, "off", 0.01)
    report = proofs(file("int8_1b"), model, config, [picture(3)])
    assert "batch" not in report
    failed = [gate["name"] for gate in report["gates"] if gate["verdict"] == "failed"]
    assert sorted(failed) == ["twin against the C model: boxes", "twin against the C model: scores"]


def test_int8_with_operators_in_float_may_round_otherwise_but_no_further(
    file: Callable[..., Path], model: Model, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured with the shipped settings: 4.2e-3 (slim, BM1684), 1.1e-2 (GhostOne, BM1684X)."""
    path = file("int8_1b")
    compiled(path, arguments=["--quantize=INT8", "--quantize_table=mixed.qtable"])
    for off, verdict in ((0.01, "passed"), (0.2, "failed")):
        monkeypatch.setattr(MadeUpRuntime, "off", off)
        report = proofs(path, model, config, [picture(3)])
        assert {gate["verdict"] for gate in report["gates"]} == {verdict}


def test_two_ways_to_run_a_file_must_find_the_same_faces() -> None:
    same = {"faces": {"found": 1.0, "invented": 0.0}}
    assert {gate["verdict"] for gate in _gates_of_faces("twin", same)} == {"passed"}
    for faces in ({"found": 0.9, "invented": 0.0}, {"found": 1.0, "invented": 0.1}):
        verdicts = [gate["verdict"] for gate in _gates_of_faces("twin", {"faces": faces})]
        assert sorted(verdicts) == ["failed", "passed"]
    assert _gates_of_faces("twin", {}) == []


def test_a_batch_whose_single_file_is_missing_is_an_error(
    file: Callable[..., Path], model: Model, config: Config
) -> None:
    with pytest.raises(KilnError, match=r"int8_1b\.bmodel: does not exist"):
        proofs(file("int8_4b"), model, config, [picture(3)])


def test_differences_are_the_worst_over_pictures() -> None:
    ones = np.ones((1, 2, 2), np.float32)
    found = differences([{"a": ones}, {"a": ones}], [{"a": ones}, {"a": 3 * ones}])
    assert found["a"].max_abs == 2
