"""Ranges against the blobs that OpenCV computes."""

from __future__ import annotations

import numpy as np
import pytest

from facekiln.caffe.net import Layer, Net
from facekiln.caffe.opencv import OpenCvNet
from facekiln.chips.nnie.engine.ranges import measure_ranges
from facekiln.errors import KilnError

RNG = np.random.default_rng(11)


def small_net() -> Net:
    weights = [RNG.normal(size=(5, 3, 3, 3)).astype(np.float32), RNG.normal(size=5).astype(np.float32)]
    return Net(
        "small",
        {"data": [1, 3, 9, 9]},
        [
            Layer("conv", "Convolution", ["data"], ["conv"], {"num_output": 5, "kernel_size": [3]}, weights),
            Layer("relu", "ReLU", ["conv"], ["conv"], {}),
            Layer("sigmoid", "Sigmoid", ["conv"], ["sigmoid"], {}),
        ],
    )


def pictures(count: int) -> list[dict[str, np.ndarray]]:
    return [{"data": RNG.normal(0, 2, (1, 3, 9, 9)).astype(np.float32)} for _ in range(count)]


def test_ranges_are_the_largest_magnitudes_over_all_pictures() -> None:
    net, batches = small_net(), pictures(3)
    seen: list[int] = []
    ranges = measure_ranges(net, iter(batches), progress=seen.append)
    assert seen == [1, 1, 1]
    runner = OpenCvNet(net)
    blobs = [runner.run(batch, ["conv", "sigmoid"]) | batch for batch in batches]
    assert set(ranges) == {"data", "conv", "sigmoid"}
    for name, value in ranges.items():
        assert value == pytest.approx(max(float(np.abs(b[name]).max()) for b in blobs), rel=1e-5)


def test_the_larger_of_two_sets_is_kept() -> None:
    net, batches = small_net(), pictures(2)
    first = measure_ranges(net, batches[:1])
    both = measure_ranges(net, batches[1:], start=first)
    assert both == measure_ranges(net, batches)
    assert measure_ranges(net, batches, start={"data": 1e6})["data"] == 1e6


def test_errors() -> None:
    net = small_net()
    with pytest.raises(KilnError, match="no pictures"):
        measure_ranges(net, [])
    with pytest.raises(KilnError, match=r"picture 1 .*\[1, 3, 8, 9\]"):
        measure_ranges(net, [{"data": np.zeros((1, 3, 8, 9), np.float32)}])
    with pytest.raises(KilnError, match="'data' of picture 1 is missing"):
        measure_ranges(net, [{}])
    with pytest.raises(KilnError, match="overflows on picture 2"):
        measure_ranges(net, [*pictures(1), {"data": np.full((1, 3, 9, 9), 3e38, np.float32)}])
