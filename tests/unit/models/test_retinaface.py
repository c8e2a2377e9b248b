"""The network: names, shapes and figures of the published files, and graphs that chips' tools can take."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from facekiln.config import load_config
from facekiln.models.registry import build_network
from facekiln.vision.priors import make_priors

Build = Callable[[float], nn.Module]


@pytest.fixture(scope="module")
def build(root: Path) -> Build:
    """Return a function that builds RetinaFace mobilenet0.25 with that slope."""
    model = load_config(root / "config").model("retinaface")
    return lambda slope: build_network(replace(model, options={"leaky_slope": slope}))


@pytest.fixture(scope="module")
def network(build: Build) -> nn.Module:
    return build(0.1).eval()


def test_has_the_published_number_of_keys_and_parameters(network: nn.Module) -> None:
    # biubug6/Face-Detector-1MB-with-landmark prints 0.426 M parameters; the exact figure is of the files.
    assert len(network.state_dict()) == 300
    assert sum(parameter.numel() for parameter in network.parameters()) == 426_608


@pytest.mark.published
@pytest.mark.parametrize("name", ["retinaface_mnet025.pth", "retinaface_1mb_mnet025.pth"])
def test_names_order_and_shapes_are_those_of_the_published_files(
    network: nn.Module, mirror: Callable[[str], Path], name: str
) -> None:
    published = torch.load(mirror(name), weights_only=True, map_location="cpu")
    ours = network.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {k: v.shape for k, v in published.items()}


@pytest.mark.parametrize("size", [(64, 96), (65, 47), (33, 200), (8, 8)])
def test_any_size_gives_one_row_per_prior(network: nn.Module, root: Path, size: tuple[int, int]) -> None:
    priors = load_config(root / "config").model("retinaface").priors
    assert priors
    with torch.inference_mode():
        loc, conf, landms = network(torch.zeros(2, 3, *size))
    count = len(make_priors(priors, size))
    assert (loc.shape, conf.shape, landms.shape) == ((2, count, 4), (2, count, 2), (2, count, 10))


def test_scores_are_softmaxed_in_eval_mode_only(build: Build) -> None:
    torch.manual_seed(0)
    network = build(0.1)
    image = torch.randn(2, 3, 64, 64) * 50
    with torch.inference_mode():
        raw = network.train()(image)[1]
        probabilities = network.eval()(image)[1]
    assert not torch.allclose(raw.sum(-1), torch.ones(raw.shape[:2]))
    assert torch.allclose(probabilities.sum(-1), torch.ones(raw.shape[:2]))


def _kinds(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(type(module) is kind for module in network.modules())


def test_the_slope_is_everywhere_but_after_the_ssh_concatenation(network: nn.Module) -> None:
    # Pytorch_Retinaface's own export has LeakyRelu 38, Relu 3.
    assert (_kinds(network, nn.LeakyReLU), _kinds(network, nn.ReLU)) == (38, 3)
    slopes = {module.negative_slope for module in network.modules() if isinstance(module, nn.LeakyReLU)}
    assert slopes == {0.1}


def test_slope_zero_is_a_true_relu_and_the_same_function(build: Build) -> None:
    torch.manual_seed(0)
    plain = build(0.0).eval()
    assert (_kinds(plain, nn.LeakyReLU), _kinds(plain, nn.ReLU)) == (0, 41)
    leaky = build(1e-30).eval()
    leaky.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(plain(image), leaky(image), strict=True))


def traced(network: nn.Module, height: int, width: int) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(network, torch.zeros(1, 3, height, width), check_trace=False)


def test_a_slope_given_as_an_integer_is_a_float_in_the_trace(build: Build) -> None:
    # An integer there breaks MagicMind's parser (Cambricon's magicmind_cloud patches `0` to `0.0`).
    graph = traced(build(1).eval(), 32, 32).inlined_graph
    slopes = [list(node.inputs())[1] for node in graph.findAllNodes("aten::leaky_relu_")]
    assert len(slopes) == 38
    assert {str(slope.type()) for slope in slopes} == {"float"}


def test_a_trace_holds_no_shape_arithmetic_but_for_the_batch(network: nn.Module) -> None:
    # F.interpolate(size=tensor) is what breaks converters (Pytorch_Retinaface issue 2).
    graph = traced(network, 64, 96).inlined_graph
    upsampled = graph.findAllNodes("aten::upsample_nearest2d")
    assert len(upsampled) == 2
    for node in upsampled:
        sides = list(list(node.inputs())[1].node().inputs())
        assert [side.node().kind() for side in sides] == ["prim::Constant"] * 2
    # Each head asks for its batch, which a compiler may set, and for nothing else.
    asked = graph.findAllNodes("aten::size")
    assert len(asked) == 9 and {list(node.inputs())[1].toIValue() for node in asked} == {0}


def test_gradients_reach_every_parameter(build: Build) -> None:
    torch.manual_seed(0)
    network = build(0.1).train()
    sum(output.square().mean() for output in network(torch.randn(2, 3, 64, 64))).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
