"""A small network with every layer that ncnn computes in int8, and the wheels, or a skip that says which is
missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from facekiln.chips.ncnn.model import NcnnModel
from facekiln.chips.ncnn.param import Graph, Layer
from facekiln.chips.ncnn.weights import FP32, Blob

SHAPE = (1, 3, 16, 16)


@pytest.fixture(scope="session")
def wheels() -> None:
    """Skip where ncnn or pnnx is not installed."""
    for name in ("ncnn", "pnnx"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'the {name} wheel is not installed: pip install -e ".[ncnn]"')


def _network() -> onnx.ModelProto:
    random = np.random.default_rng(3)
    stored: list[onnx.TensorProto] = []

    def weight(name: str, *shape: int) -> str:
        stored.append(numpy_helper.from_array(random.normal(0, 0.3, shape).astype(np.float32), name))
        return name

    def conv(
        name: str, source: str, out: int, inner: int, side: int, group: int = 1, stride: int = 1
    ) -> onnx.NodeProto:
        return helper.make_node(
            "Conv",
            [source, weight(f"{name}_w", out, inner, side, side), weight(f"{name}_b", out)],
            [name],
            name=name,
            kernel_shape=[side, side],
            pads=[side // 2] * 4,
            strides=[stride, stride],
            group=group,
        )

    nodes = [
        conv("first", "input", 8, 3, 3, stride=2),
        helper.make_node("LeakyRelu", ["first"], ["first_a"], name="first_a", alpha=0.1),
        conv("deep", "first_a", 8, 1, 3, group=8),
        helper.make_node("Relu", ["deep"], ["deep_a"], name="deep_a"),
        conv("wide", "deep_a", 16, 8, 1),
        helper.make_node("Relu", ["wide"], ["wide_a"], name="wide_a"),
        conv("left", "wide_a", 8, 16, 3),
        conv("right", "wide_a", 8, 16, 3),
        helper.make_node("Concat", ["left", "right"], ["both"], name="both", axis=1),
        helper.make_node("Relu", ["both"], ["both_a"], name="both_a"),
        conv("boxes_map", "both_a", 8, 16, 1),
        helper.make_node("Transpose", ["boxes_map"], ["boxes_t"], name="boxes_t", perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["boxes_t", "boxes_shape"], ["boxes"], name="boxes"),
        conv("scores_map", "both_a", 4, 16, 1),
        helper.make_node("Transpose", ["scores_map"], ["scores_t"], name="scores_t", perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["scores_t", "scores_shape"], ["scores_r"], name="scores_r"),
        helper.make_node("Softmax", ["scores_r"], ["scores"], name="scores", axis=2),
        helper.make_node("Flatten", ["both_a"], ["flat"], name="flat"),
        helper.make_node(
            "Gemm", ["flat", weight("pose_w", 3, 1024), weight("pose_b", 3)], ["pose"], name="pose", transB=1
        ),
    ]
    stored.append(numpy_helper.from_array(np.array([1, -1, 4], np.int64), "boxes_shape"))
    stored.append(numpy_helper.from_array(np.array([1, -1, 2], np.int64), "scores_shape"))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small",
        [value("input", TensorProto.FLOAT, SHAPE)],
        [
            value("scores", TensorProto.FLOAT, [1, 128, 2]),
            value("boxes", TensorProto.FLOAT, [1, 128, 4]),
            value("pose", TensorProto.FLOAT, [1, 3]),
        ],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.fixture(scope="session")
def network() -> onnx.ModelProto:
    """Convolutions (3x3, depthwise, 1x1), a ReLU behind a Concat, three outputs, an inner product."""
    return _network()


@pytest.fixture
def onnx_file(network: onnx.ModelProto, tmp_path: Path) -> Path:
    """The same as a file."""
    path = tmp_path / "small.onnx"
    onnx.save(network, path)
    return path


@pytest.fixture(scope="session")
def picture() -> NDArray[np.float32]:
    """One input of the small network."""
    return np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)


@pytest.fixture(scope="session")
def converted(wheels: None, network: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> NcnnModel:
    """The small network as pnnx converts it, with declared names."""
    from facekiln.chips.ncnn import pnnx
    from facekiln.chips.ncnn.legalise import declare_blobs

    path = tmp_path_factory.mktemp("small") / "small.onnx"
    onnx.save(network, path)
    raw = pnnx.convert(path)
    graph, _ = declare_blobs(raw.graph, ["input"], ["scores", "boxes", "pose"])
    return NcnnModel(graph, raw.weights)


@pytest.fixture
def chain() -> Callable[..., NcnnModel]:
    """Return a maker of models without pnnx: an input and convolutions of 4 channels, one behind the
    other."""

    def make(*kinds: str, seed: int = 0) -> NcnnModel:
        random = np.random.default_rng(seed)
        layers, weights, blob = [Layer("Input", "in", (), ("in",))], {}, "in"
        for place, kind in enumerate(kinds):
            name = f"{kind.lower()}_{place}"
            params = {0: "4", 1: "3", 4: "1", 5: "1", 6: "144"}
            if kind == "ConvolutionDepthWise":
                params |= {6: "36", 7: "4"}
            if kind == "InnerProduct":
                params = {0: "4", 1: "1", 2: "64"}
            layers.append(Layer(kind, name, (blob,), (f"blob_{place}",), params))
            count = int(params[2 if kind == "InnerProduct" else 6])
            weights[name] = [
                Blob("weight", FP32, random.normal(size=count).astype(np.float32)),
                Blob("bias", None, random.normal(size=4).astype(np.float32)),
            ]
            blob = f"blob_{place}"
        return NcnnModel(Graph(tuple(layers)), weights)

    return make
