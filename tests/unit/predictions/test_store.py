"""Predictions on disk: the same bytes for the same predictions, nothing damaged is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.artifact import write_json
from facekiln.errors import KilnError
from facekiln.predictions.store import (
    META_KEYS,
    Predictions,
    join,
    read_predictions,
    write_predictions,
)


def made(
    counts: list[int], *, points: int | None = 5, pose: bool = False, seed: int = 0, names: str = "a"
) -> Predictions:
    """Predictions with `counts` detections per picture and random values."""
    rng = np.random.default_rng(seed)
    total = sum(counts)
    values: Any = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return Predictions(
        images=tuple(f"{names}/{index}.jpg" for index in range(len(counts))),
        counts=np.asarray(counts, np.int64),
        boxes=values(total, 4),
        scores=values(total),
        points=None if points is None else values(total, points, 2),
        pose=values(total, 3) if pose else None,
        meta={**dict.fromkeys(META_KEYS, "x"), "images": len(counts), "size": None},
    )


def assert_same(a: Predictions, b: Predictions) -> None:
    assert a.images == b.images
    assert a.meta == b.meta
    for name in ("counts", "boxes", "scores", "points", "pose"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


@given(
    counts=st.lists(st.integers(0, 4), max_size=6),
    points=st.sampled_from([None, 0, 5, 98]),
    pose=st.booleans(),
)
def test_round_trip(
    counts: list[int], points: int | None, pose: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("predictions") / "p"
    wanted = made(counts, points=points, pose=pose)
    write_predictions(folder, wanted)
    assert_same(read_predictions(folder), wanted)
    assert sorted(path.name for path in folder.iterdir()) == ["predictions.json", "predictions.npz"]


def test_same_bytes_in_another_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    write_predictions(tmp_path / "a", made([2, 0, 1]))
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    write_predictions(tmp_path / "b", made([2, 0, 1]))
    for name in ("predictions.npz", "predictions.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_names_beyond_ascii(tmp_path: Path) -> None:
    one = made([1, 1])
    names = ("0--Parade/été 雪.jpg", 'a"b\\c\nd.jpg')
    write_predictions(tmp_path / "p", Predictions(names, *_values(one)))
    assert read_predictions(tmp_path / "p").images == names


def _values(p: Predictions) -> tuple[Any, ...]:
    return p.counts, p.boxes, p.scores, p.points, p.pose, p.meta


def test_of_gives_each_picture_its_own(tmp_path: Path) -> None:
    whole = made([2, 0, 3], pose=True)
    assert [len(whole.of(index).scores) for index in range(3)] == [2, 0, 3]
    np.testing.assert_array_equal(whole.of(2).boxes, whole.boxes[2:])
    np.testing.assert_array_equal(whole.of(-1).pose, whole.pose[2:])  # type: ignore[index]
    assert whole.of(0).images == ("a/0.jpg",)
    with pytest.raises(IndexError):
        whole.of(3)


def test_join_is_the_inverse_of_of() -> None:
    whole = made([2, 0, 3])
    assert_same(join([whole.of(index) for index in range(3)], whole.meta), whole)


def test_join_takes_the_number_of_points_from_parts_that_show_it() -> None:
    """A part without a detection cannot know how many points the model has."""
    empty, full = made([0, 0], points=0, names="empty"), made([2], points=5)
    assert join([empty, full], full.meta).points.shape == (2, 5, 2)  # type: ignore[union-attr]


def test_join_refuses_different_kinds_and_a_picture_twice() -> None:
    one = made([1])
    with pytest.raises(KilnError, match="different kinds"):
        join([one, made([1], points=98, names="b")], one.meta)
    with pytest.raises(KilnError, match="different kinds"):
        join([one, made([1], points=None, names="b")], one.meta)
    with pytest.raises(KilnError, match="twice"):
        join([one, one], one.meta)


def test_arrays_that_do_not_fit_are_refused() -> None:
    good = made([2, 1])
    with pytest.raises(KilnError, match=r"boxes.*float32 \[2, 4\].*float32 \[3, 4\]"):
        Predictions(good.images, good.counts, good.boxes[:2], good.scores, good.points, None, good.meta)
    with pytest.raises(KilnError, match=r"scores.*float64"):
        Predictions(
            good.images, good.counts, good.boxes, good.scores.astype(np.float64), None, None, good.meta
        )


def test_meta_must_say_what_made_them(tmp_path: Path) -> None:
    one = made([1])
    del one.meta["artifact_sha256"]
    with pytest.raises(KilnError, match="artifact_sha256"):
        write_predictions(tmp_path / "p", one)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("name", ["predictions.npz", "predictions.json"])
@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04", b"{}", b"[1]"])
def test_damage_is_told(tmp_path: Path, name: str, content: bytes | None) -> None:
    write_predictions(tmp_path / "p", made([1, 2]))
    path = tmp_path / "p" / name
    if content is None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(content)
    with pytest.raises(KilnError, match=name):
        read_predictions(tmp_path / "p")


@pytest.mark.parametrize(("key", "value"), [("artifact", []), ("model", None), ("dataset", 3)])
def test_a_description_of_another_kind_is_told(tmp_path: Path, key: str, value: object) -> None:
    write_predictions(tmp_path / "p", made([1, 2, 0]))
    path = tmp_path / "p/predictions.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(KilnError, match=rf"predictions\.json: {key}: is no text"):
        read_predictions(tmp_path / "p")


def test_arrays_beside_another_description_are_refused(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p", made([1, 2]))
    write_json(tmp_path / "p/predictions.json", made([1, 2, 0]).meta)
    with pytest.raises(KilnError, match=r"another number of pictures.*value: 2; limit: 3"):
        read_predictions(tmp_path / "p")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(
        KilnError, match=r"cannot be read: no such folder(?s:.)*next step: .*predict run --help"
    ):
        read_predictions(tmp_path / "nothing")
    room = tmp_path / "results/predictions/onnxruntime/onnx/x.onnx"
    write_predictions(room / "wider_val", made([1]))
    # The dataset forgotten, or misspelt; a rule makes what is there to be made.
    for asked, told in ((room, "holds no predictions"), (room / "wider_vol", "no such folder")):
        with pytest.raises(KilnError) as refused:
            read_predictions(asked)
        assert told in str(refused.value)
        assert f"did you mean {room / 'wider_val'}?" in str(refused.value)
        assert f"snakemake --cores 4 {asked}" in str(refused.value)


def test_a_failure_leaves_the_former_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = made([1])
    write_predictions(tmp_path / "p", former)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(KilnError, match="disk is full"):
        write_predictions(tmp_path / "p", made([2]))
    monkeypatch.undo()
    assert_same(read_predictions(tmp_path / "p"), former)
