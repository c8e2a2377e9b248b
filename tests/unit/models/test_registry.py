"""Networks by name: suggestions, and declarations that they are not made for."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from facekiln.config import Model, load_config
from facekiln.errors import KilnError
from facekiln.models.registry import NETWORKS, build_network, count


@pytest.fixture(scope="module")
def model(root: Path) -> Model:
    return load_config(root / "config").model("retinaface")


def test_every_declared_model_has_a_network(root: Path) -> None:
    for model in load_config(root / "config").models.values():
        assert model.born == "onnx" or model.network in NETWORKS


def test_builds_in_training_mode_with_the_declared_slope(model: Model) -> None:
    network = build_network(model)
    assert network.training
    assert count(network) == (300, 426_608)
    assert {m.negative_slope for m in network.modules() if hasattr(m, "negative_slope")} == {0.1}


def test_an_unknown_network_gets_a_suggestion(model: Model) -> None:
    with pytest.raises(
        KilnError, match=r"retinaface\.yaml: network: .*did you mean 'retinaface_mobilenet025'"
    ):
        build_network(replace(model, network="retinaface_mobilnet025"))


def test_the_slope_has_no_default(model: Model) -> None:
    with pytest.raises(KilnError, match=r"options\.leaky_slope.*\n.*0\.1"):
        build_network(replace(model, options={}))


def test_priors_that_the_heads_are_not_made_for_are_refused(model: Model) -> None:
    assert model.priors
    with pytest.raises(KilnError, match="not made for these steps"):
        build_network(replace(model, priors=replace(model.priors, steps=(8, 16, 64))))
    three = ((16.0, 24.0, 32.0), (64.0, 128.0), (256.0, 512.0))
    with pytest.raises(KilnError, match="not made for these anchors per level"):
        build_network(replace(model, priors=replace(model.priors, min_sizes=three)))
    with pytest.raises(KilnError, match="not made for these steps"):
        build_network(replace(model, priors=None))


def test_the_register_is_read_without_torch() -> None:
    code = "import sys, facekiln.models.registry; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
