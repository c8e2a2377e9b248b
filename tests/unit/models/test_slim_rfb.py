"""Slim and RFB: names, shapes and figures of the published files, and the values of published ONNX files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from facekiln.config import Config, load_config
from facekiln.models.checkpoint import load_network
from facekiln.models.registry import build_network, count
from facekiln.vision.decode import decode_boxes
from facekiln.vision.priors import make_priors

# name -> keys and parameters of the published file.
FIGURES = {
    "slim_1mb": (198, 343_488),
    "rfb_1mb": (258, 359_592),
    "ulfd_slim_320": (184, 260_188),
    "ulfd_rfb_320": (244, 276_292),
    "ulfd_slim_640": (184, 260_188),
    "ulfd_rfb_640": (244, 276_292),
}
FILES = {
    "slim_1mb": "retinaface_1mb_slim.pth",
    "rfb_1mb": "retinaface_1mb_rfb.pth",
    **{name: f"{name}.pth" for name in FIGURES if name.startswith("ulfd")},
}
EVERY = pytest.mark.parametrize("name", FIGURES)


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    return load_config(root / "config")


@EVERY
def test_figures(config: Config, name: str) -> None:
    assert count(build_network(config.model(name))) == FIGURES[name]


@pytest.mark.published
@EVERY
def test_names_order_and_shapes_are_those_of_the_published_files(
    config: Config, mirror: Callable[[str], Path], name: str
) -> None:
    published = torch.load(mirror(FILES[name]), weights_only=True, map_location="cpu")
    ours = build_network(config.model(name)).state_dict()
    assert list(ours) == list(published)
    assert all(ours[key].shape == published[key].shape for key in ours)


@EVERY
@pytest.mark.parametrize("size", [(240, 320), (96, 128), (65, 47), (480, 360)])
def test_any_size_gives_one_row_per_prior(config: Config, name: str, size: tuple[int, int]) -> None:
    model = config.model(name)
    assert model.priors
    network = build_network(model).eval()
    with torch.inference_mode():
        outputs = network(torch.zeros(2, 3, *size))
    rows = len(make_priors(model.priors, size))
    assert [tuple(value.shape[:2]) for value in outputs] == [(2, rows)] * len(model.outputs)
    values = {"loc": 4, "boxes": 4, "conf": 2, "scores": 2, "landms": 10}
    assert [value.shape[2] for value in outputs] == [values[output] for output in model.outputs]


@pytest.mark.parametrize("name", ["rfb_1mb", "ulfd_rfb_320"])
def test_scores_are_softmaxed_in_eval_mode_only(config: Config, name: str) -> None:
    model = config.model(name)
    place = [output in ("conf", "scores") for output in model.outputs].index(True)
    torch.manual_seed(0)
    network = build_network(model)
    image = torch.randn(2, 3, 96, 128)
    with torch.inference_mode():
        raw, scores = network.train()(image)[place], network.eval()(image)[place]
    assert not torch.allclose(raw.sum(-1), torch.ones(raw.shape[:2]))
    assert torch.allclose(scores.sum(-1), torch.ones(raw.shape[:2]))


@pytest.mark.parametrize("name", ["slim_1mb", "rfb_1mb", "ulfd_slim_320", "ulfd_rfb_320"])
def test_gradients_reach_every_parameter(config: Config, name: str) -> None:
    torch.manual_seed(0)
    network = build_network(config.model(name)).train()
    sum(output.square().mean() for output in network(torch.randn(2, 3, 128, 128))).backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


# The published ONNX files of ULFD, made by its author with another exporter, of the same weights


def upstream(path: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"input": image}), strict=True))


@pytest.fixture(scope="module")
def ours(config: Config, mirror: Callable[[str], Path]) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """A picture's tensor, and scores and raw boxes of our network with the published RFB-320 weights."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, 240, 320)
    network = load_network(mirror("ulfd_rfb_320.pth"), config.model("ulfd_rfb_320"), config)
    with torch.inference_mode():
        scores, boxes = network(image)
    return image.numpy(), (scores.numpy(), boxes.numpy())


@pytest.mark.published
def test_equals_the_simplified_onnx_file(ours: tuple, mirror: Callable[[str], Path]) -> None:
    image, (scores, boxes) = ours
    theirs = upstream(mirror("ulfd_rfb_320_upstream_simplified.onnx"), image)
    assert np.abs(scores - theirs["scores"]).max() < 1e-5
    assert np.abs(boxes - theirs["boxes"]).max() < 1e-5


@pytest.mark.published
def test_decoded_by_the_declared_priors_equals_the_full_onnx_file(
    ours: tuple, config: Config, mirror: Callable[[str], Path]
) -> None:
    image, (scores, boxes) = ours
    theirs = upstream(mirror("ulfd_rfb_320_upstream.onnx"), image)
    priors = config.model("ulfd_rfb_320").priors
    assert priors
    decoded = decode_boxes(boxes[0], make_priors(priors, (240, 320)), priors.variances)
    assert np.abs(scores - theirs["scores"]).max() < 1e-5
    assert np.abs(decoded - theirs["boxes"][0]).max() < 1e-5


@pytest.mark.published
def test_decoded_by_nominal_steps_is_fifteen_pixels_off(
    ours: tuple, config: Config, mirror: Callable[[str], Path]
) -> None:
    # What ULFD's Caffe, ncnn, MNN and Tengine samples do.
    image, (_, boxes) = ours
    theirs = upstream(mirror("ulfd_rfb_320_upstream.onnx"), image)["boxes"][0]
    declared = config.model("ulfd_rfb_320").priors
    assert declared
    wrong = make_priors(replace(declared, centre="step"), (240, 320))
    moved = decode_boxes(boxes[0], wrong, declared.variances) - theirs
    assert np.abs(moved[:, [1, 3]] * 240).max() == pytest.approx(15, abs=0.01)
    assert np.abs(moved[:, [0, 2]] * 320).max() < 0.01
