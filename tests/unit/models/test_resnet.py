"""RetinaFace on ResNet-50: figures and names as torchvision and Pytorch_Retinaface have them."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from facekiln.config import Model, load_config
from facekiln.models.registry import build_network, count
from facekiln.vision.priors import make_priors


@pytest.fixture(scope="module")
def model(root: Path) -> Model:
    return load_config(root / "config").model("retinaface_r50")


@pytest.fixture(scope="module")
def network(model: Model) -> nn.Module:
    with torch.device("meta"):
        return build_network(model).eval()


def test_figures(network: nn.Module) -> None:
    # The body is torchvision's resnet50 (25,557,032 parameters) without its classifier (2,049,000).
    assert count(network) == (456, 27_293_600)
    body = network.get_submodule("body")
    assert sum(p.numel() for p in body.parameters()) == 25_557_032 - 2_049_000


def test_names_of_the_body_are_torchvisions(network: nn.Module) -> None:
    blocks = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}
    names = {"conv1", "bn1"}
    for layer, number in blocks.items():
        for block in range(number):
            parts = [f"{kind}{place}" for kind in ("conv", "bn") for place in (1, 2, 3)]
            parts += ["downsample.0", "downsample.1"] if block == 0 else []
            names |= {f"{layer}.{block}.{part}" for part in parts}
    body = [key for key in network.state_dict() if key.startswith("body.")]
    found = {re.sub(r"^body\.(.*)\.\w+$", r"\1", key) for key in body}
    assert found == names


def test_the_stride_is_on_the_3x3_convolution(network: nn.Module) -> None:
    # torchvision's; Caffe's first ResNet-50 has it on the 1x1 before, with the same keys and shapes.
    strided = [
        name
        for name, m in network.get_submodule("body").named_modules()
        if isinstance(m, nn.Conv2d) and m.stride == (2, 2)
    ]
    expected = [f"layer{n}.0.{part}" for n in (2, 3, 4) for part in ("conv2", "downsample.0")]
    assert strided == ["conv1", *expected]


def test_every_activation_is_a_relu(network: nn.Module) -> None:
    assert not [m for m in network.modules() if isinstance(m, nn.LeakyReLU)]


@pytest.mark.parametrize("size", [(640, 640), (672, 1024), (624, 1024), (65, 47)])
def test_any_size_gives_one_row_per_prior(network: nn.Module, model: Model, size: tuple[int, int]) -> None:
    assert model.priors
    with torch.inference_mode():
        outputs = network(torch.zeros(1, 3, *size, device="meta"))
    rows = len(make_priors(model.priors, size))
    assert [tuple(value.shape) for value in outputs] == [(1, rows, 4), (1, rows, 2), (1, rows, 10)]


def test_computes_what_its_parts_compute(model: Model) -> None:
    """A bottleneck against its formula, with functions instead of modules."""
    import torch.nn.functional as F

    from facekiln.models.backbones import Bottleneck

    torch.manual_seed(0)
    block = Bottleneck(8, 4, 2).eval()
    for m in block.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 8, 10, 12)

    def norm(x: torch.Tensor, bn: nn.BatchNorm2d) -> torch.Tensor:
        return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=1e-5)

    with torch.inference_mode():
        y = F.relu(norm(F.conv2d(x, block.conv1.weight), block.bn1))
        y = F.relu(norm(F.conv2d(y, block.conv2.weight, stride=2, padding=1), block.bn2))
        y = norm(F.conv2d(y, block.conv3.weight), block.bn3)
        shortcut = norm(F.conv2d(x, block.downsample[0].weight, stride=2), block.downsample[1])
        assert torch.allclose(block(x), F.relu(y + shortcut), atol=1e-6)
