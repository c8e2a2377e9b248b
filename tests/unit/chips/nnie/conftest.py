"""A minimal emulated container, a tiny network, and mapper jobs around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from facekiln.caffe.net import Layer, Net
from facekiln.caffe.writer import write_net
from facekiln.chips.nnie.wk import container as wk
from facekiln.chips.nnie.wk.write import build_emulated_wk


@pytest.fixture(scope="session")
def small_wk() -> Callable[..., bytes]:
    """Return a maker of a one-input, one-output container around a payload."""

    def make(payload: bytes = b"KILNPAY1\2\0\0\0{}", output: str = "out") -> bytes:
        report = [
            wk.ReportRecord(0x2C, 1, 8, 6, 3, 0, 16, 0, 0, -384, 288),
            wk.ReportRecord(0x2D, 4, 4, 3, 2, 288, 16, 1, 1, 0, 96),
        ]
        source = wk.Node("data", 6, 8, 3, wk.KIND_BGR, wk.FLAGS_IMAGE)
        target = wk.Node(output, 3, 4, 2, wk.KIND_MAP, wk.FLAGS_MAP)
        return build_emulated_wk([source], [target], payload, report, tmp_bytes=384, alignment=16)

    return make


@pytest.fixture
def tiny_net() -> Callable[..., Net]:
    """Return a maker of a small legal network: a residual, two outputs, input [1, 3, 16, 24]."""

    def make(channels: int = 3, name: str = "b") -> Net:
        rng = np.random.default_rng(11)

        def conv(layer: str, bottom: str, top: str, inputs: int, outputs: int) -> Layer:
            weights = rng.standard_normal((outputs, inputs, 3, 3)).astype(np.float32) / 4
            params = {"num_output": outputs, "kernel_size": [3], "pad": [1]}
            return Layer(
                layer, "Convolution", [bottom], [top], params, [weights, rng.random(outputs, np.float32)]
            )

        layers = [
            conv("a", "data", "a", channels, 4),
            Layer("a_relu", "ReLU", ["a"], ["a"]),
            conv(name, "a", name, 4, 4),
            Layer("sum", "Eltwise", ["a", name], ["sum"]),
            conv("bbox", "sum", "bbox", 4, 8),
            conv("score", "sum", "score", 4, 4),
        ]
        return Net("tiny", {"data": [1, channels, 16, 24]}, layers)

    return make


@pytest.fixture
def job(tmp_path: Path, tiny_net: Callable[..., Net]) -> Callable[..., Path]:
    """Return a maker of a folder with a network, pictures and a .cfg whose keys can be changed."""

    def make(
        folder: str = "job", net: Net | None = None, size: tuple[int, int] = (16, 24), **keys: object
    ) -> Path:
        place = tmp_path / folder
        (place / "images").mkdir(parents=True)
        write_net(net or tiny_net(), place / "net.prototxt", place / "net.caffemodel")
        rng = np.random.default_rng(5)
        names = [f"images/{i}.png" for i in range(3)]
        for name in names:
            cv2.imwrite(str(place / name), rng.integers(0, 256, (*size, 3), np.uint8))
        (place / "list.txt").write_text("\n".join(names) + "\n")
        values: dict[str, object] = {
            "prototxt_file": "net.prototxt",
            "caffemodel_file": "net.caffemodel",
            "image_list": "list.txt",
            "image_type": 1,
            "norm_type": 0,
            "mean_file": "null",
            "RGB_order": "RGB",
            "instruction_name": "inst",
            "batch_num": 1,
            **keys,
        }
        (place / "x.cfg").write_text("".join(f"[{key}] {value}\n" for key, value in values.items()))
        return place

    return make
