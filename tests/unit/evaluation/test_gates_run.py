"""Gates that run something: golden pictures, batches, pipelines, the board's decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facekiln.artifact import sha256_of, write_bytes
from facekiln.config import Config, Golden, Model, load_config
from facekiln.errors import KilnError
from facekiln.evaluation import gates_run
from facekiln.evaluation.gates_board import UNIT, board_faces, gate_board_decode, to_board
from facekiln.evaluation.gates_run import gate_batch, gate_golden, gate_pipelines
from facekiln.predictions.store import Predictions
from facekiln.provenance import write_record
from facekiln.vision.decode import encode_boxes
from facekiln.vision.detect import faces_from_outputs
from facekiln.vision.heads import HeadMap, split
from facekiln.vision.image import write_image
from facekiln.vision.priors import make_priors

SIZE = (640, 640)


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    return load_config(root / "config", {"weights": "published"})


@pytest.fixture(scope="module")
def model(config: Config) -> Model:
    return config.model("retinaface")


def _outputs(model: Model, boxes: np.ndarray, scores: list[float]) -> dict[str, np.ndarray]:
    """Outputs of a network that finds exactly these boxes: the nearest prior of each says so."""
    assert model.priors is not None
    priors = make_priors(model.priors, SIZE)
    loc, conf = np.zeros((1, len(priors), 4), np.float32), np.zeros((1, len(priors), 2), np.float32)
    conf[..., 0] = 1
    for box, score in zip(boxes / 640, scores, strict=True):
        centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        at = int(np.abs(priors - np.concatenate([centre, size])).sum(axis=1).argmin())
        loc[0, at] = encode_boxes(box[None], priors[at : at + 1], model.priors.variances)[0]
        conf[0, at] = (1 - score, score)
    return {"loc": loc, "conf": conf, "landms": np.zeros((1, len(priors), 10), np.float32)}


class _Stage:
    """A stage that finds what it is told."""

    name, precision, emulated = "fake", "int8", True

    def __init__(self, outputs: dict[str, np.ndarray]) -> None:
        self.outputs = outputs

    def run(self, _picture: np.ndarray) -> dict[str, np.ndarray]:
        return self.outputs


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, model: Model) -> Callable[..., None]:
    def use(boxes: np.ndarray, scores: list[float]) -> None:
        made = _Stage(_outputs(model, boxes, scores))
        monkeypatch.setattr(gates_run, "open_stage", lambda *_: made)

    return use


def test_no_detection_stops(stage: Callable[..., None], config: Config, model: Model) -> None:
    stage(np.zeros((0, 4)), [])
    verdict = gate_golden(Path("x.wk"), model, "640", config, subject="x.wk")
    assert (verdict.verdict, verdict.value) == ("failed", 0.0)
    assert "0 detections" in verdict.reason
    assert verdict.emulated


def test_detections_beside_the_faces_do_not_help(
    stage: Callable[..., None], config: Config, model: Model
) -> None:
    stage(np.array([[600.0, 600, 636, 636]]), [0.99])
    assert gate_golden(Path("x.wk"), model, "640", config, subject="x.wk").verdict == "failed"


def test_a_limit_of_nothing_lets_everything_pass(
    stage: Callable[..., None], config: Config, model: Model
) -> None:
    stage(np.zeros((0, 4)), [])
    free = replace(config, gates={**config.gates, "golden": {"scenes": 1, "seed": 0, "warn": 0, "stop": 0}})
    assert gate_golden(Path("x.wk"), model, "640", free, subject="x.wk").verdict == "passed"


def test_a_landmark_model_is_skipped_with_a_reason(config: Config) -> None:
    verdict = gate_golden(Path("x.onnx"), config.model("ghostone"), "112", config, subject="x.onnx")
    assert verdict.verdict == "skipped"
    assert "landmark" in verdict.reason


def test_weights_of_snakemakes_own_option_are_judged_on_the_golden_picture(
    stage: Callable[..., None], root: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--config weights=published` stands in the checkpoint's record, not in config.yaml."""
    picture, checkpoint = tmp_path / "mirror/x.png", tmp_path / "results/checkpoints/retinaface.pth"
    write_image(picture, np.zeros((64, 64, 3), np.uint8))
    write_bytes(checkpoint, b"weights")
    monkeypatch.chdir(tmp_path)
    there = replace(load_config(root / "config"), mirror=str(picture.parent))
    assert there.weights == "synthetic"
    known = replace(model, golden=Golden(sha256_of(picture), (1, 1)))
    stage(np.array([[100.0, 100, 200, 200]]), [0.99])
    reasons = []
    for weights in ("published", "synthetic"):
        write_record(checkpoint, verb="checkpoint fetch", inputs=[], settings={"weights": weights})
        reasons.append(gate_golden(Path("x.wk"), known, "640", there, subject="x.wk").reason)
    assert "golden picture" in reasons[0]
    assert "drawn faces" in reasons[1]


@pytest.mark.published
@pytest.mark.slow
def test_published_weights_pass_and_their_wrong_twin_is_caught(
    config: Config, model: Model, mirror: Callable[[str], Path], data: Callable[[str], Path]
) -> None:
    weights = mirror("retinaface_mnet025.pth")
    drawn = gate_golden(weights, model, "640", config, subject="x")
    assert (drawn.verdict, drawn.value) == ("passed", 1.0)
    there = replace(config, mirror=str(data("images/det41.jpg").parent))
    golden = gate_golden(weights, model, "640", there, subject="x")
    assert (golden.verdict, golden.value) == ("passed", 3.0)
    # One face more than the picture has is as wrong as one less.
    other = replace(model, golden=Golden(model.golden.sha256 if model.golden else "", (4, 9)))
    assert gate_golden(weights, other, "640", there, subject="x").verdict == "failed"


@pytest.mark.published
def test_a_batch_gives_what_its_pictures_give(config: Config, mirror: Callable[[str], Path]) -> None:
    model = config.model("slim_1mb")
    small = replace(model, sizes={"64": (64, 96)})
    verdict = gate_batch(mirror("retinaface_1mb_slim.pth"), small, "64", config, subject="x")
    assert verdict.verdict == "passed"
    assert verdict.value is not None
    assert verdict.value < 1e-5


def test_a_network_that_mixes_its_batch_fails(
    monkeypatch: pytest.MonkeyPatch, config: Config, model: Model
) -> None:
    def mixing(tensor: np.ndarray) -> list[np.ndarray]:
        return [tensor - tensor.mean()]  # batch norm left in training mode does this

    monkeypatch.setattr(gates_run, "_batch_runner", lambda *_: mixing)
    small = replace(model, sizes={"64": (64, 64)})
    assert gate_batch(Path("x.pth"), small, "64", config, subject="x").verdict == "failed"


def test_what_fails_at_a_batch_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, config: Config, model: Model
) -> None:
    class TheirOwnError(Exception):
        """As ONNX Runtime's, which are no RuntimeError."""

    def reshaping(error: type[Exception]) -> Callable[[np.ndarray], list[np.ndarray]]:
        def run(tensor: np.ndarray) -> list[np.ndarray]:
            if len(tensor) > 1:
                raise error("\nshape '[1, 4]' is invalid\n  at line 2")
            return [tensor]

        return run

    small = replace(model, sizes={"64": (64, 64)})
    for error in (RuntimeError, TheirOwnError):
        monkeypatch.setattr(gates_run, "_batch_runner", lambda *_, error=error: reshaping(error))
        verdict = gate_batch(Path("x.pth"), small, "64", config, subject="x")
        assert verdict.verdict == "failed"
        assert f"{error.__name__}: shape '[1, 4]' is invalid" in verdict.reason
        assert "line 2" not in verdict.reason
    monkeypatch.setattr(gates_run, "_batch_runner", lambda *_: lambda x: [x.reshape(1, -1, 4)])
    merged = gate_batch(Path("x.pth"), small, "64", config, subject="x")
    assert merged.verdict == "failed"
    assert "one by one" in merged.reason


def _onnx(path: Path, batch: int | str, shape: list[int]) -> Path:
    """A graph of one Reshape."""
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [helper.make_node("Reshape", ["data", "shape"], ["loc"])],
        "g",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, 64, 64])],
        [helper.make_tensor_value_info("loc", TensorProto.FLOAT, ["b", "n", 4])],
        [helper.make_tensor("shape", TensorProto.INT64, [len(shape)], shape)],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def test_an_onnx_file_is_skipped_by_its_declared_batch_only(
    tmp_path: Path, config: Config, model: Model
) -> None:
    small = replace(model, sizes={"64": (64, 64)})

    def judged(batch: int | str, shape: list[int]) -> tuple[str, str]:
        verdict = gate_batch(_onnx(tmp_path / "x.onnx", batch, shape), small, "64", config, subject="x")
        return verdict.verdict, verdict.reason

    assert judged(1, [1, -1, 4]) == ("skipped", "its batch is fixed at 1")
    assert judged("n", [0, -1, 4])[0] == "passed"
    # ONNX Runtime's own exception, and a batch that ends in one picture's outputs.
    verdict, reason = judged("n", [1, 3072, 4])
    assert verdict == "failed"
    assert reason.count("\n") == 0
    assert judged("n", [1, -1, 4])[0] == "failed"
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(KilnError):
        gate_batch(tmp_path / "x.onnx", small, "64", config, subject="x")


def test_a_file_of_no_known_kind_is_no_skip(config: Config, model: Model) -> None:
    with pytest.raises(KilnError, match="no kind that a backend runs"):
        gate_batch(Path("x.txt"), model, "640", config, subject="x")


def test_a_fixed_batch_is_skipped(config: Config, model: Model) -> None:
    verdict = gate_batch(Path("x.wk"), model, "640", config, subject="x.wk")
    assert (verdict.verdict, verdict.value) == ("skipped", None)
    assert "fixed batch" in verdict.reason


def _predictions(shift: float = 0.0, scores: tuple[float, ...] = (0.9, 0.8), **meta: Any) -> Predictions:
    boxes = np.array([[10, 10, 60, 60], [100, 100, 180, 200]], np.float32)[: len(scores)] + np.float32(shift)
    return Predictions(
        images=("a", "b"),
        counts=np.array([len(scores), 0], np.int64),
        boxes=boxes,
        scores=np.array(scores, np.float32),
        points=None,
        pose=None,
        meta={
            "artifact": "nnie/x.wk",
            "artifact_sha256": "ab",
            "backend": "b",
            "emulated": False,
            "dataset_digest": "d",
            "resize": "letterbox",
            "size": [640, 640],
            "score_threshold": 0.02,
            "extent": 1,
            "nms_epsilon": 0.0,
            "nms_iou": 0.4,
            "top_k": 1,
            "keep": 1,
            **meta,
        },
    )


def test_pipelines_agree_or_not(config: Config) -> None:
    limits = config.gates["pipelines"]
    assert gate_pipelines(_predictions(), _predictions(0.1), limits, 0.5).verdict == "passed"
    assert gate_pipelines(_predictions(), _predictions(4.0), limits, 0.5).verdict == "failed"
    lost = gate_pipelines(_predictions(), _predictions(scores=(0.9,)), limits, 0.5)
    assert (lost.verdict, lost.value) == ("failed", 0.5)


@pytest.mark.parametrize(
    "change",
    [
        {"artifact_sha256": "cd"},
        {"dataset_digest": "e"},
        {"nms_iou": 0.3},
        {"interpolation": "x"},
        {"extent": 0},
        {"nms_epsilon": 1e-5},
        {"score_threshold": 0.1},
    ],
)
def test_pipelines_of_two_things_are_refused(config: Config, change: dict[str, Any]) -> None:
    with pytest.raises(KilnError, match=next(iter(change))):
        gate_pipelines(_predictions(), _predictions(**change), config.gates["pipelines"], 0.5)


def test_pipelines_without_a_face_are_no_pass(config: Config) -> None:
    limits = config.gates["pipelines"]
    for board in (_predictions(scores=()), _predictions(scores=(0.3,))):
        nothing = gate_pipelines(_predictions(scores=()), board, limits, 0.5)
        assert (nothing.verdict, nothing.value) == ("skipped", None)
        assert "finds no face in 2 pictures" in nothing.reason
    emulated = gate_pipelines(_predictions(scores=()), _predictions(scores=(), emulated=True), limits, 0.5)
    assert emulated.emulated
    invented = gate_pipelines(_predictions(scores=()), _predictions(), limits, 0.5)
    assert (invented.verdict, invented.value) == ("failed", 1.0)


def test_scenes_without_a_drawn_face_are_no_pass(
    stage: Callable[..., None], monkeypatch: pytest.MonkeyPatch, config: Config, model: Model
) -> None:
    monkeypatch.setattr(gates_run, "GOLDEN_STYLE", replace(gates_run.GOLDEN_STYLE, empty=1.0))
    stage(np.zeros((0, 4)), [])
    assert gate_golden(Path("x.wk"), model, "640", config, subject="x.wk").verdict == "skipped"


class _Wk:
    """An emulated file whose network finds what it is told."""

    def __init__(self, maps: dict[str, np.ndarray], heads: list[HeadMap]) -> None:
        self.maps, self.heads = maps, heads

    def run(self, _picture: np.ndarray) -> dict[str, np.ndarray]:
        return self.maps


@pytest.mark.parametrize(("scores", "wanted"), [([], "skipped"), ([0.9], "passed")])
def test_the_boards_decoding_of_nothing_is_no_pass(
    monkeypatch: pytest.MonkeyPatch, config: Config, model: Model, scores: list[float], wanted: str
) -> None:
    boxes, heads = np.array([[100.0, 120, 180, 230]])[: len(scores)], _heads(model)
    maps = split(_outputs(model, boxes, scores), heads)
    monkeypatch.setattr("facekiln.chips.nnie.runtime.WkRuntime", lambda _path: _Wk(maps, heads))
    verdict = gate_board_decode(Path("x.wk"), model, "640", config, subject="x.wk")
    assert (verdict.verdict, verdict.emulated) == (wanted, True)


def _heads(model: Model) -> list[HeadMap]:
    assert model.priors is not None
    return [
        HeadMap(
            f"{output}_{step}", output, level, step, (640 // step, 640 // step), 2, values, "anchor_major"
        )
        for level, step in enumerate(model.priors.steps)
        for output, values in (("loc", 4), ("conf", 2), ("landms", 10))
    ]


def test_the_board_decodes_in_4096ths(model: Model) -> None:
    wanted = np.array([[100.0, 120, 180, 230], [400, 300, 520, 470]])
    outputs, heads = _outputs(model, wanted, [0.93, 0.71]), _heads(model)
    maps = to_board(split(outputs, heads))
    assert all(value.dtype == np.int32 for value in maps.values())
    host = faces_from_outputs(outputs, model, SIZE)
    board = board_faces(maps, heads, model, SIZE, model.decode)
    assert len(board) == len(host) == 2
    # Half of 1/4096 of a prior's size, times the variances, is far below a pixel.
    assert np.abs(board.boxes - host.boxes).max() < 0.05
    assert 0 < np.abs(board.scores - host.scores).max() <= 0.5 / UNIT


def test_the_board_compares_scores_as_integers(model: Model) -> None:
    outputs, heads = _outputs(model, np.array([[100.0, 120, 180, 230]]), [0.5 + 0.4 / UNIT]), _heads(model)
    assert len(faces_from_outputs(outputs, model, SIZE)) == 1
    # 2048.4 rounds to 2048, which is not above 0.5 * 4096.
    assert len(board_faces(to_board(split(outputs, heads)), heads, model, SIZE, model.decode)) == 0


def test_the_board_adds_a_pixel_to_the_common_part_only(model: Model) -> None:
    # Boxes of 20 x 20, moved by 8: common part 12 x 20, IoU 240 / 560 = 0.43 on the plane; on the board
    # 13 * 21 / (800 - 273) = 0.52.
    boxes = np.array([[100.0, 100, 120, 120], [108, 100, 128, 120]])
    outputs, heads = _outputs(model, boxes, [0.9, 0.8]), _heads(model)
    decode = replace(model.decode, nms_iou=0.47, extent=0)
    assert len(faces_from_outputs(outputs, model, SIZE, decode)) == 2
    assert len(board_faces(to_board(split(outputs, heads)), heads, model, SIZE, decode)) == 1


def test_maps_beyond_32_bits_are_held() -> None:
    held = to_board({"x": np.array([1e9, -1e9, 0.5 / UNIT])})["x"]
    assert held.tolist() == [2**31 - 1, -(2**31), 0]
