"""Stages that run: tensors on the way have the values and names of the same tensors in the parent."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from facekiln.config import Config, load_config
from facekiln.graph.export import export_onnx, save_onnx
from facekiln.models.registry import build_network
from facekiln.parity.executors import Stage, open_stage

# One of each way of writing convolution, batch norm and activation; the smaller size where there is a choice.
SIZES = {"retinaface_1mb": "320", "rfb_1mb": "320", "ulfd_slim_320": "320", "pfpld": "112"}


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    return load_config(root / "config")


@pytest.fixture
def stages(tmp_path: Path, config: Config) -> Callable[[str, str], tuple[Stage, Stage]]:
    """Return a function that opens a network with random weights, and its ONNX file."""

    def make(name: str, label: str) -> tuple[Stage, Stage]:
        model = config.model(name)
        torch.manual_seed(0)
        network = build_network(model).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        torch.save(network.state_dict(), tmp_path / "x.pth")
        save_onnx(export_onnx(network, model, label, 13), tmp_path / "x.onnx")
        parent, child = (open_stage(tmp_path / file, model, config) for file in ("x.pth", "x.onnx"))
        return parent, child

    return make


@pytest.mark.parametrize("name", SIZES)
def test_every_named_tensor_of_the_onnx_file_has_its_modules_value(
    stages: Callable[[str, str], tuple[Stage, Stage]], config: Config, name: str
) -> None:
    parent, child = stages(name, SIZES[name])
    size = config.model(name).size(SIZES[name])
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    ours, theirs = parent.trace(picture), child.trace(picture)
    pairs = {tensor: module for tensor in theirs if (module := child.name_in_parent(tensor)) in ours}
    convolutions = [tensor for tensor in pairs if "Conv" in tensor]
    assert len(convolutions) == sum(
        isinstance(m, torch.nn.Conv2d) for m in build_network(config.model(name)).modules()
    )
    for tensor, module in pairs.items():
        scale = np.abs(ours[module]).max()
        assert np.abs(ours[module] - theirs[tensor]).max() <= 1e-4 * max(scale, 1), (tensor, module)
