"""Runs over a dataset: resumed, sharded and merged to the same bytes; every picture or an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.config import Config, Model
from facekiln.data.declared import Declared, open_dataset
from facekiln.errors import KilnError
from facekiln.predictions.run import below_results, predict
from facekiln.predictions.settings import inference_of
from facekiln.predictions.shards import Shard, merge, parse_shard
from facekiln.predictions.store import META_KEYS, Predictions, read_predictions

Scenes = Callable[..., Declared]
Run = Callable[..., Predictions]


@pytest.fixture
def run(config: Config, tmp_path: Path) -> Run:
    artifact = tmp_path / "results/onnx/small_96.onnx"
    artifact.parent.mkdir(parents=True)
    artifact.write_bytes(b"an artifact")

    def run(model: Model, declared: Declared, output: str, **given: Any) -> Predictions:
        entry = given.pop("entry", "default")
        label = given.pop("label", next(iter(model.sizes)))
        inference = given.pop("inference", None) or inference_of(entry, model, config, label=label)
        return predict(
            artifact,
            model,
            config,
            **{
                "backend": "onnxruntime",
                "inference": inference,
                "declared": declared,
                "shard": Shard(),
                "output": tmp_path / output,
                **given,
            },
        )

    return run


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_picture_is_there_and_meta_says_what_made_it(
    run: Run, stage: Any, detector: Model, scenes: Scenes, tmp_path: Path
) -> None:
    stage(detector)
    run(detector, scenes(), "out")
    found = read_predictions(tmp_path / "out")
    assert found.images == open_dataset(scenes()).sources
    assert set(META_KEYS) <= set(found.meta)
    assert found.meta["artifact"] == "onnx/small_96.onnx"
    assert found.meta["size"] == [64, 96]
    assert (found.meta["resize"], found.meta["interpolation"]) == ("letterbox", "auto")
    assert found.meta["images"] == 7
    assert found.points is not None
    assert found.points.shape[1:] == (5, 2)
    for index in range(7):
        scores = found.of(index).scores
        assert (np.diff(scores) <= 0).all()
        assert (scores > 0.02).all()
    assert list(tmp_path.glob(".out*")) == []


def test_a_library_of_the_users_own_says_its_version(
    run: Run, stage: Any, detector: Model, scenes: Scenes, tmp_path: Path
) -> None:
    stage(detector)
    run(detector, scenes(), "out")
    assert read_predictions(tmp_path / "out").meta["backend_version"] == metadata.version("onnxruntime")
    stage(detector).version = "1.5-dev"
    run(detector, scenes(), "own")
    assert read_predictions(tmp_path / "own").meta["backend_version"] == "1.5-dev"


@pytest.mark.parametrize("stop_at", [0, 1, 3, 6])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    run: Run, stage: Any, detector: Model, scenes: Scenes, tmp_path: Path, stop_at: int
) -> None:
    stage(detector)
    run(detector, scenes(), "whole")
    stage(detector, stop_at)
    with pytest.raises(KeyboardInterrupt):
        run(detector, scenes(), "cut", keep_every=2)
    assert not (tmp_path / "cut").exists()
    second = stage(detector)
    run(detector, scenes(), "cut", keep_every=2)
    assert second.runs == 7 - stop_at
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_a_killed_run_goes_on_after_what_it_kept(
    run: Run, stage: Any, detector: Model, scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill gives no time to keep the last pictures: as if `keep` were not called at the end."""
    from facekiln.predictions import partial

    stage(detector)
    run(detector, scenes(), "whole")
    stage(detector, 5)
    kept = partial.Partial.keep
    monkeypatch.setattr(partial.Partial, "keep", lambda self: kept(self) if len(self._waiting) >= 2 else None)
    with pytest.raises(KeyboardInterrupt):
        run(detector, scenes(), "cut", keep_every=2)
    monkeypatch.undo()
    second = stage(detector)
    monkeypatch.setattr("facekiln.predictions.run.open_stage", lambda *_, **__: second)
    run(detector, scenes(), "cut", keep_every=2)
    assert second.runs == 7 - 4
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "change", ["settings", "declaration", "dataset", "artifact", "damage", "no run.json"]
)
def test_what_is_of_another_run_is_not_picked_up(
    run: Run,
    stage: Any,
    detector: Model,
    scenes: Scenes,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    monkeypatch.setattr("facekiln.progress.log.propagate", True)
    stage(detector, 4)
    with pytest.raises(KeyboardInterrupt):
        run(detector, scenes(), "out", keep_every=2)
    partial = tmp_path / ".out.partial"
    declared, entry, left, told = scenes(), "default", 7, ""
    if change == "settings":
        entry, told = "ulfd", "score_threshold was 0.02, is 0.1"
    elif change == "declaration":
        detector, told = replace(detector, options={"leaky_slope": 0.3}), "declaration was"
    elif change == "dataset":
        declared, told = scenes(7, seed=4), "dataset_digest was"
    elif change == "artifact":
        (tmp_path / "results/onnx/small_96.onnx").write_bytes(b"another")
        told = "artifact_sha256 was"
    elif change == "no run.json":
        (partial / "run.json").unlink()
        told = "missing or damaged"
    else:
        (partial / "00000002.npz").write_bytes(b"damaged")
        left, told = 5, "is made again"
    second = stage(detector)
    run(detector, declared, "out", entry=entry)
    assert second.runs == left
    assert told in caplog.text
    assert not partial.exists()


@pytest.mark.parametrize("total", [2, 3, 9])
def test_merged_shards_have_the_bytes_of_a_whole_run(
    run: Run, stage: Any, detector: Model, scenes: Scenes, tmp_path: Path, total: int
) -> None:
    """With more shards than pictures, some are empty."""
    stage(detector)
    run(detector, scenes(), "whole")
    for number in range(1, total + 1):
        run(detector, scenes(), f"shard{number}", shard=Shard(number, total))
    folders = [tmp_path / f"shard{number}" for number in range(1, total + 1)]
    merge(folders[::-1], tmp_path / "merged")
    assert bytes_of(tmp_path / "merged") == bytes_of(tmp_path / "whole")
    with pytest.raises(KilnError, match="not all shards"):
        merge(folders[1:], tmp_path / "m")
    with pytest.raises(KilnError, match="not all shards"):
        merge([folders[0], *folders[:-1]], tmp_path / "m")
    run(detector, scenes(), "shard2", shard=Shard(2, total), entry="ulfd")
    with pytest.raises(KilnError, match=r"of another run: .*score_threshold"):
        merge(folders, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_shards_of_two_declarations_are_not_merged(
    run: Run, stage: Any, detector: Model, scenes: Scenes, tmp_path: Path
) -> None:
    assert detector.priors
    other = replace(detector, priors=replace(detector.priors, variances=(0.1, 0.6)))
    for number, model in ((1, detector), (2, other)):
        stage(model)
        run(model, scenes(), f"shard{number}", shard=Shard(number, 2))
    with pytest.raises(KilnError, match=r"of another run: declaration differ"):
        merge([tmp_path / "shard1", tmp_path / "shard2"], tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "told"), [({"shard": 7}, "which shard"), ({"code": None}, "code differ"), ({}, "code differ")]
)
def test_a_shard_whose_meta_lacks_something_is_refused(
    run: Run,
    stage: Any,
    detector: Model,
    scenes: Scenes,
    tmp_path: Path,
    change: dict[str, Any],
    told: str,
) -> None:
    stage(detector)
    for number in (1, 2):
        run(detector, scenes(), f"shard{number}", shard=Shard(number, 2))
    path = tmp_path / "shard2/predictions.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({**meta, **change} if change else {k: meta[k] for k in meta if k != "code"}))
    with pytest.raises(KilnError, match=told):
        merge([tmp_path / "shard1", tmp_path / "shard2"], tmp_path / "m")


@given(pictures=st.integers(0, 500), total=st.integers(1, 60))
def test_shards_are_even_and_hold_each_picture_once(pictures: int, total: int) -> None:
    parts = [Shard(number, total).of(pictures) for number in range(1, total + 1)]
    assert [index for part in parts for index in part] == list(range(pictures))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shards_are_parsed_in_both_forms() -> None:
    assert parse_shard("2/8") == parse_shard("2-of-8") == Shard(2, 8)
    for wrong in ("0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"):
        with pytest.raises(KilnError, match="is no shard"):
            parse_shard(wrong)


def test_landmarks_of_every_annotated_face(
    run: Run, stage: Any, pointer: Model, scenes: Scenes, tmp_path: Path
) -> None:
    stage(pointer)
    found = run(pointer, scenes(), "out", label="112")
    truth = list(open_dataset(scenes()))
    assert found.counts.tolist() == [len(sample) for sample in truth]
    assert found.points is not None
    assert found.points.shape == (len(found.scores), 98, 2)
    assert found.pose is not None
    assert (found.scores == 1).all()
    np.testing.assert_allclose(found.boxes, np.concatenate([s.boxes for s in truth]), rtol=1e-6)
    assert (found.meta["resize"], found.meta["size"]) == ("crop", [112, 112])
    # Points are shares of the square that the crop declares: 0.9 of the box, 0.4 of that above its centre.
    widths = found.boxes[:, 2:] - found.boxes[:, :2]
    side = 0.9 * widths.max(axis=1)
    centre = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    low = np.stack([centre[:, 0] - side / 2, centre[:, 1] - 0.4 * side], axis=1)
    assert (found.points >= low[:, None] - 1).all()
    assert (found.points <= (low + side[:, None])[:, None] + 1).all()


def test_pose_is_in_radians(run: Run, stage: Any, pointer: Model, scenes: Scenes, tmp_path: Path) -> None:
    made = stage(pointer)
    made.run = lambda _: {
        "pose": np.array([[0.5, -0.25, 0.125]], np.float32),
        "landms": np.zeros((1, 196), np.float32),
    }
    found = run(pointer, scenes(2), "out", label="112")
    assert found.pose is not None
    np.testing.assert_allclose(found.pose, [[0.5, -0.25, 0.125]] * len(found.scores), rtol=1e-6)


def test_a_face_without_area_gets_no_points_and_is_told(
    run: Run,
    stage: Any,
    pointer: Model,
    scenes: Scenes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """WIDER FACE has 11 boxes of zero width or height: each still is one row, in order."""
    monkeypatch.setattr("facekiln.progress.log.propagate", True)
    dataset = list(open_dataset(scenes(3)))
    flat = dataset[0].boxes.copy()
    flat[0, 2] = flat[0, 0]
    dataset[0] = replace(dataset[0], boxes=flat)
    from facekiln.data.sample import Listing

    monkeypatch.setattr("facekiln.predictions.run.open_dataset", lambda _: Listing.of("scenes", dataset))
    stage(pointer)
    found = run(pointer, scenes(3), "out", label="112")
    assert found.points is not None
    assert np.isnan(found.points[0]).all()
    assert np.isfinite(found.points[1:]).all()
    assert "1 faces have no box" in caplog.text


def test_a_corrupt_picture_is_an_error_that_names_it_and_keeps_what_was_done(
    run: Run, stage: Any, detector: Model, scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = list(open_dataset(scenes()))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff cut")
    whole = dataset[4]
    dataset[4] = replace(whole, picture=broken)
    from facekiln.data.sample import Listing

    monkeypatch.setattr("facekiln.predictions.run.open_dataset", lambda _: Listing.of("scenes", dataset))
    stage(detector)
    with pytest.raises(KilnError, match=r"broken\.jpg"):
        run(detector, scenes(), "out")
    dataset[4] = whole
    second = stage(detector)
    run(detector, scenes(), "out")
    assert second.runs == 3


def test_a_stage_that_fails_names_the_picture(run: Run, stage: Any, detector: Model, scenes: Scenes) -> None:
    made = stage(detector, 2)
    made.error = RuntimeError("shape mismatch\nmore")
    with pytest.raises(KilnError, match=r"dataset_3_00002: onnxruntime: cannot run a 64x96 .*shape mismatch"):
        run(detector, scenes(), "out")


def test_an_empty_dataset_gives_empty_predictions(
    run: Run, stage: Any, detector: Model, scenes: Scenes, tmp_path: Path
) -> None:
    stage(detector)
    assert len(run(detector, scenes(0), "out")) == 0
    assert json.loads((tmp_path / "out/predictions.json").read_text())["images"] == 0


def test_faces_come_back_to_the_picture(
    run: Run, stage: Any, detector: Model, scenes: Scenes, config: Config
) -> None:
    """The same detections at the picture's own size and at half of it: boxes of one prior differ by 2."""
    made = stage(detector)
    count = 96 * 64 // 64 * 2 + 96 * 64 // 256 * 2 + 96 * 64 // 1024 * 2
    scores = np.zeros((1, count, 2), np.float32)
    scores[0, 5] = [0, 1]
    zeros = np.zeros((1, count, 4), np.float32)
    made.run = lambda _: {"loc": zeros, "conf": scores, "landms": np.zeros((1, count, 10), np.float32)}
    one = run(detector, scenes(1, size=(64, 96)), "a")
    two = run(detector, scenes(1, size=(128, 192)), "b")
    np.testing.assert_allclose(two.boxes, one.boxes * 2, rtol=1e-6)
    np.testing.assert_allclose(two.points, one.points * 2, rtol=1e-6)  # type: ignore[operator]


def test_artifacts_are_named_below_results() -> None:
    assert below_results(Path("/x/results/y/results/onnx/a.onnx")) == "onnx/a.onnx"
    assert below_results(Path("elsewhere/a.onnx")) == "a.onnx"
    assert below_results(Path("results")) == "results"
