"""Stages of several pictures: fed by so many, and the same bytes whole, sharded, or resumed anywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.config import Config, Model
from facekiln.data.declared import Declared
from facekiln.errors import KilnError
from facekiln.predictions.names import BACKENDS, PredictionTargets, backend_for
from facekiln.predictions.run import grouped, predict, version_of
from facekiln.predictions.settings import inference_of
from facekiln.predictions.shards import Shard, merge

Scenes = Callable[..., Declared]


@pytest.fixture
def run(config: Config, tmp_path: Path) -> Callable[..., Any]:
    artifact = tmp_path / "small.onnx"
    artifact.write_bytes(b"an artifact")

    def run(model: Model, declared: Declared, output: str, shard: Shard = Shard(), keep: int = 256) -> Any:  # noqa: B008
        return predict(
            artifact,
            model,
            config,
            backend="onnxruntime",
            inference=inference_of("default", model, config, label=next(iter(model.sizes))),
            declared=declared,
            shard=shard,
            output=tmp_path / output,
            keep_every=keep,
        )

    return run


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(start=st.integers(0, 50), count=st.integers(0, 50), batch=st.integers(1, 9))
def test_groups_end_where_a_batch_ends(start: int, count: int, batch: int) -> None:
    groups = list(grouped(range(start, start + count), batch))
    assert [index for group in groups for index in group] == list(range(start, start + count))
    for group in groups:
        assert len({index // batch for index in group}) == 1
    assert len(groups) == len({index // batch for index in range(start, start + count)})


def test_pictures_come_by_four_and_the_last_are_fewer(
    run: Callable[..., Any], stage: Any, detector: Model, scenes: Scenes
) -> None:
    made = stage(detector, batch=4)
    run(detector, scenes(7), "out")
    assert made.places == [4, 3]


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_shards_have_the_bytes_of_the_whole(
    run: Callable[..., Any], stage: Any, detector: Model, scenes: Scenes, tmp_path: Path, shards: int
) -> None:
    stage(detector, batch=4)
    run(detector, scenes(7), "whole")
    parts = [tmp_path / f"part{number}" for number in range(1, shards + 1)]
    for number, part in enumerate(parts, 1):
        run(detector, scenes(7), part.name, Shard(number, shards))
    merge(parts, tmp_path / "merged")
    assert bytes_of(tmp_path / "merged") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize("stop_at", [1, 4, 5, 6])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    run: Callable[..., Any], stage: Any, detector: Model, scenes: Scenes, tmp_path: Path, stop_at: int
) -> None:
    stage(detector, batch=4)
    run(detector, scenes(7), "whole")
    stage(detector, stop_at, batch=4)
    with pytest.raises(KeyboardInterrupt):
        run(detector, scenes(7), "cut", keep=1)
    stage(detector, batch=4)
    run(detector, scenes(7), "cut", keep=1)
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_faces_of_one_picture_fill_a_batch(
    run: Callable[..., Any], stage: Any, pointer: Model, scenes: Scenes
) -> None:
    made = stage(pointer, batch=4)
    found = run(pointer, scenes(3), "out")
    by_four = [count for faces in found.counts for count in [4] * (faces // 4) + [faces % 4] if count]
    assert made.places == by_four
    assert np.isfinite(found.points).all()


def test_sophon_backends_and_what_they_read(config: Config, root: Path) -> None:
    targets = PredictionTargets(config, root / "config")
    assert backend_for("sophon/bm1684/ulfd_rfb_320_320_int8_4b.bmodel") == "sophon-cmodel"
    for backend, beside in (("sophon-cmodel", 0), ("sophon-twin", 2)):
        wildcards = type("W", (), {})()
        wildcards.backend, wildcards.dataset = backend, "procedural"
        wildcards.artifact = "sophon/bm1684/ulfd_rfb_320_320_int8_4b.bmodel"
        files = targets.files(wildcards)
        assert files["artifact"] == "results/sophon/bm1684/ulfd_rfb_320_320_int8_4b.bmodel"
        assert len(files["beside"]) == beside
        assert [path.endswith(".ready") for path in targets.tools(wildcards)] == [True]
        if beside:
            assert files["beside"][0].endswith("_int8_4b.twin/final.mlir")
    with pytest.raises(KilnError, match="does not run such files"):
        backend_for("ncnn/x.param", "sophon-twin")


def test_the_toolchain_is_the_version_of_a_sophon_backend(config: Config) -> None:
    for name in ("sophon-cmodel", "sophon-twin"):
        assert BACKENDS[name].toolchain == "sophon"
        assert version_of(name, config).startswith("tpu_mlir 1.26 lock ")
