"""Stability: draws that share nothing, thresholds of each set, and which size is enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.quant.collect import collect
from facekiln.quant.ranges import measure_ranges
from facekiln.quant.stability import (
    _enough,
    _two_draws,
    draw_stability,
    relative_difference,
    stability,
    stability_text,
    thresholds_of_set,
)
from facekiln.quant.thresholds import METHODS
from facekiln.vision.image import write_image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(12):
        coarse = rng.integers(0, 30 + 18 * index, (8, 8, 3), np.uint8)
        write_image(tmp_path / f"photos/{index:02d}.png", np.kron(coarse, np.ones((4, 4, 1), np.uint8)))
    return tmp_path / "photos"


def study(
    tmp_path: Path, network: onnx.ModelProto, model: Model, photos: Path, **more: Any
) -> dict[str, Any]:
    onnx.save(network, tmp_path / "small_16.sim.onnx")
    settings = {
        "source": str(photos),
        "count": 6,
        "seed": 1,
        "strata": ["light"],
        "exclude": [],
        "sizes": [2, 4, 8],
    }
    return stability(tmp_path / "small_16.sim.onnx", model, "16", percentile=99.9, **{**settings, **more})


def test_relative_difference_by_hand() -> None:
    found = relative_difference(np.array([1.0, 2.0, 0.0, 0.0]), np.array([2.0, 1.0, 0.0, 3.0]))
    assert found.tolist() == [0.5, 0.5, 0.0, 1.0]


def test_the_whole_set_has_the_ranges_of_the_calibrator(
    network: onnx.ModelProto, pictures: list[Any]
) -> None:
    spread = collect(network, pictures, sets=[[0, 1], range(6)])
    found = thresholds_of_set(spread, 1, range(6), 99.9)
    ranges = measure_ranges(network, pictures, percentile=99.9)
    for index, tensor in enumerate(spread.tensors):
        assert dict(zip(METHODS, found[:, index], strict=True)) == ranges.of(tensor.name).thresholds
    # Of fewer pictures, no extreme is larger, and no threshold above the set's own extreme.
    fewer = thresholds_of_set(spread, 0, [0, 1], 99.9)
    own = measure_ranges(network, pictures[:2], percentile=99.9)
    for index, tensor in enumerate(spread.tensors):
        assert fewer[0, index] == own.threshold(tensor.name, "minmax") <= found[0, index]
        assert (fewer[:, index] <= fewer[0, index]).all()
        assert fewer[1, index] == pytest.approx(own.threshold(tensor.name, "percentile"), rel=0.02)


def test_two_draws_share_no_picture() -> None:
    from facekiln.data.calibration import Pool
    from facekiln.data.calibration_pool import Looked, Source
    from facekiln.data.sample import sample_of

    looked = [Looked(sample_of(f"{i}", Path(), []), f"{i}", None, (1, 1), 0.0) for i in range(11)]
    pool = Pool(Source("s", "", False, None), looked, list("aaaaaaabbbb"), ["light"], 0, {}, [])
    first, second = _two_draws(pool, 4, 0)
    assert len(first) == len(second) == 4 and not set(first) & set(second)
    # Both are even over the strata.
    assert [sum(index < 7 for index in one) for one in (first, second)] == [2, 2]
    first, second = _two_draws(pool, 50, 0)
    assert len(first) == len(second) == 5 and not set(first) & set(second)


def test_the_report_compares_draws_and_sizes(
    tmp_path: Path, network: onnx.ModelProto, model: Model, photos: Path
) -> None:
    report = study(tmp_path, network, model, photos)
    assert report["draws"]["pictures"] == 6
    assert [row["pictures"] for row in report["sizes"]] == [2, 4, 8]
    assert all(row["worst"] == 0 for row in report["sizes"][-1]["methods"].values())
    assert all(0 < row["worst"] <= 1 for row in report["sizes"][0]["methods"].values())
    assert report == study(tmp_path, network, model, photos)
    text = stability_text(report)
    assert "two disjoint draws of 6 pictures" in text and "enough" in text
    draw_stability(report, tmp_path / "a.png")
    draw_stability(report, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_few_pictures_make_a_smaller_study(
    tmp_path: Path, network: onnx.ModelProto, model: Model, photos: Path
) -> None:
    report = study(tmp_path, network, model, photos, count=64, sizes=[8, 64])
    assert report["draws"]["pictures"] == 6 and [row["pictures"] for row in report["sizes"]] == [8]
    draw_stability(report, tmp_path / "a.png")
    (tmp_path / "one").mkdir()
    (photos / "00.png").rename(tmp_path / "one/00.png")
    with pytest.raises(KilnError, match="too few pictures"):
        study(tmp_path, network, model, tmp_path / "one")


def test_enough_is_the_least_size_that_stays_within() -> None:
    medians = {8: 0.2, 16: 0.01, 32: 0.2, 64: 0.04, 128: 0.03, 256: 0.0}
    rows = [{"pictures": size, "methods": {"kl": {"median": value}}} for size, value in medians.items()]
    assert _enough(rows, "kl") == 64
    assert _enough(rows[:4], "kl") is None
