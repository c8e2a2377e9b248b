"""Multiply-accumulates: figures measured on the upstream networks, and the same of an ONNX file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from facekiln.config import Config, load_config
from facekiln.graph.export import export_onnx
from facekiln.models.macs import network_macs, onnx_macs, onnx_parameters
from facekiln.models.registry import build_network, count


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    return load_config(root / "config")


@pytest.mark.parametrize(
    ("name", "size", "millions"),
    [
        # Counted by hooks on the upstream code: convolutions and fully connected layers.
        ("retinaface", (640, 640), 981.1),
        ("retinaface", (480, 640), 735.9),
        ("retinaface", (240, 320), 184.7),
        ("retinaface", (672, 1024), 1648.3),
        ("retinaface_r50", (640, 640), 44_264.7),
        ("retinaface_r50", (672, 1024), 74_364.6),
        ("slim_1mb", (240, 320), 87.5),
        ("rfb_1mb", (240, 320), 106.5),
        ("ulfd_slim_320", (240, 320), 81.4),
        ("ulfd_rfb_320", (240, 320), 100.4),
        ("ulfd_slim_640", (480, 640), 323.1),
        ("ulfd_rfb_640", (480, 640), 399.2),
        ("pfpld", (112, 112), 433.6),
    ],
)
def test_figures(config: Config, name: str, size: tuple[int, int], millions: float) -> None:
    with torch.device("meta"):
        network = build_network(config.model(name))
        assert network_macs(network, size) / 1e6 == pytest.approx(millions, abs=0.05)
    assert network.training, "counting leaves the network as it was"


def test_groups_strides_and_rows_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1, groups=3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4 * 5, 7)
    )
    assert network_macs(network, (8, 10)) == 6 * 4 * 5 * 9 + 6 * 4 * 5 * 7


@pytest.mark.parametrize("name", ["ulfd_rfb_320", "pfpld"])
def test_an_onnx_file_has_the_work_of_its_network(config: Config, name: str) -> None:
    model = config.model(name)
    (label,) = model.sizes
    network = build_network(model).eval()
    exported = export_onnx(network, model, label, 13)
    assert onnx_macs(exported) == network_macs(network, model.size(label))
    # Batch norms are folded: two learned figures and the bias of a convolution become one.
    assert onnx_parameters(exported) < count(network)[1]


@pytest.mark.published
def test_the_published_file_of_ghostone(mirror: Callable[[str], Path]) -> None:
    import onnx

    model = onnx.load(str(mirror("pfld_ghostone_112.onnx")))
    # Its 2,838,549 bytes are 4 a parameter and the graph.
    assert onnx_parameters(model) == 702_864
    assert onnx_macs(model) / 1e6 == pytest.approx(74.9, abs=0.05)
