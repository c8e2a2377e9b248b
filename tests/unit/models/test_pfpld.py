"""PFPLD: figures, the layers of the published prototxt, and what its author's code leaves unused."""

from pathlib import Path

import pytest
import torch
from torch import nn

from facekiln.config import Model, load_config
from facekiln.errors import KilnError
from facekiln.graph.export import census, export_onnx
from facekiln.models.registry import build_network, count


@pytest.fixture(scope="module")
def model(root: Path) -> Model:
    return load_config(root / "config").model("pfpld")


@pytest.fixture(scope="module")
def network(model: Model) -> nn.Module:
    torch.manual_seed(0)
    return build_network(model).eval()


def test_figures(network: nn.Module) -> None:
    assert count(network) == (291, 1_729_674)


def test_gives_pose_and_landmarks(network: nn.Module) -> None:
    with torch.inference_mode():
        pose, landmarks = network(torch.zeros(2, 3, 112, 112))
    assert (pose.shape, landmarks.shape) == ((2, 3), (2, 196))


def test_the_unused_layers_are_kept_and_stay_unused(model: Model) -> None:
    # bn8 and fc_aux: 787 parameters that a checkpoint has and the forward pass never touches.
    torch.manual_seed(0)
    network = build_network(model).train()
    sum(output.square().mean() for output in network(torch.randn(4, 3, 112, 112))).backward()
    idle = {key: p.numel() for key, p in network.named_parameters() if p.grad is None}
    assert set(idle) == {"bn8.weight", "bn8.bias", "fc_aux.weight", "fc_aux.bias"}
    assert sum(idle.values()) == 787
    assert [key for key, p in network.named_parameters() if p.grad is not None and not p.grad.any()] == []


def test_has_the_layers_of_the_published_prototxt(network: nn.Module, model: Model) -> None:
    # nniefacelib, PFPLD/cvtcaffe/models/pfpld.prototxt: Convolution 47, ReLU 34, Eltwise 9, Pooling 3
    # (AVE 14, AVE 7, MAX 3), Flatten 4, Concat 2, InnerProduct 3.
    found = census(export_onnx(network, model, "112", 13))
    assert {op: found[op] for op in ("Conv", "Relu", "Add", "Flatten", "Concat", "Gemm")} == {
        "Conv": 47,
        "Relu": 34,
        "Add": 9,
        "Flatten": 4,
        "Concat": 2,
        "Gemm": 3,
    }
    assert (found["AveragePool"], found["MaxPool"]) == (2, 1)
    kernels = [m.kernel_size for m in network.modules() if isinstance(m, (nn.AvgPool2d, nn.MaxPool2d))]
    assert sorted(kernels) == [3, 7, 14]


def test_another_size_is_refused(model: Model) -> None:
    from dataclasses import replace

    with pytest.raises(KilnError, match=r"sizes\.96: network 'pfpld' is not made for this size"):
        build_network(replace(model, sizes={"96": (96, 96)}))
