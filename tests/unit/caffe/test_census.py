"""Counting layers, parameters and work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from facekiln.caffe.census import take_census
from facekiln.caffe.net import Layer, Net
from facekiln.caffe.reader import read_prototxt


def test_counts_by_hand() -> None:
    net = Net(
        "n",
        {"x": [1, 4, 6, 6]},
        [
            Layer("c", "Convolution", ["x"], ["c"], {"num_output": 8, "kernel_size": [3], "group": 2}),
            Layer(
                "d",
                "Deconvolution",
                ["c"],
                ["d"],
                {"num_output": 8, "kernel_size": [2], "stride": [2], "group": 8},
            ),
            Layer("r", "ReLU", ["d"], ["d"]),
            Layer("f", "InnerProduct", ["d"], ["f"], {"num_output": 5}),
        ],
    )
    census = take_census(net)
    assert census.macs == 8 * 4 * 4 * 2 * 9 + 8 * 4 * 4 * 4 + 8 * 8 * 8 * 5
    assert census.parameters == (8 * 2 * 9 + 8) + (8 * 4 + 8) + (512 * 5 + 5)
    assert census.outputs == {"f": [1, 5]} and census.layers["ReLU"] == 1
    assert any("4 layers" in line for line in census.lines())


@pytest.mark.published
def test_published_work(mirror: Callable[[str], Path]) -> None:
    # Convolution MACs of ULFD RFB at 320x240: 100.4 M.
    ulfd = take_census(read_prototxt(mirror("ulfd_rfb_320_upstream.prototxt")))
    assert ulfd.macs / 1e6 == pytest.approx(100.4, abs=0.05)
    # mnet.25 at 640x640: 981.1 M in convolutions, and 0.5 M in the two nearest-neighbour deconvolutions.
    mnet = take_census(read_prototxt(mirror("mnet25_nnie.prototxt")))
    deconvolutions = 64 * 4 * (20 * 20 + 40 * 40)
    assert (mnet.macs - deconvolutions) / 1e6 == pytest.approx(981.1, abs=0.1)
