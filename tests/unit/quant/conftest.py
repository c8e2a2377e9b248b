"""A small network with what quantisation must cope with, and its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from facekiln.config import Input, Model, load_config

SIDE = 16
Pictures = list[NDArray[np.float32]]


def build_network(seed: int = 0, bias: bool = True, opset: int = 13) -> onnx.ModelProto:
    """Conv, LeakyRelu, depthwise Conv, Relu, 1x1 Conv, Add, Concat, head Conv, Transpose, Reshape.

    Channels differ in scale by up to a hundred, as folded batch norms make them.
    """
    rng = np.random.default_rng(seed)
    stored: list[onnx.TensorProto] = []

    def weight(name: str, *shape: int) -> str:
        spread = np.exp(rng.uniform(np.log(0.02), np.log(2), shape[0])).reshape(-1, 1, 1, 1)
        values = rng.normal(size=shape) * spread / np.sqrt(np.prod(shape[1:]))
        stored.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(name: str, source: str, out: int, per_group: int, kernel: int, **attrs: int) -> onnx.NodeProto:
        inputs = [source, weight(f"{name}.weight", out, per_group, kernel, kernel)]
        if bias:
            values = rng.normal(size=out).astype(np.float32) * 0.1
            stored.append(numpy_helper.from_array(values, f"{name}.bias"))
            inputs.append(f"{name}.bias")
        pads = [kernel // 2] * 4
        return helper.make_node(
            "Conv", inputs, [name], name=name, kernel_shape=[kernel] * 2, pads=pads, **attrs
        )

    stored.append(numpy_helper.from_array(np.array([1, -1, 4], np.int64), "shape"))
    nodes = [
        conv("first", "input", 8, 3, 3),
        helper.make_node("LeakyRelu", ["first"], ["leaky"], name="leaky", alpha=0.1),
        conv("depthwise", "leaky", 8, 1, 3, group=8),
        helper.make_node("Relu", ["depthwise"], ["relu"], name="relu"),
        conv("pointwise", "relu", 8, 8, 1),
        helper.make_node("Add", ["pointwise", "leaky"], ["sum"], name="sum"),
        helper.make_node("Concat", ["sum", "relu"], ["joined"], name="joined", axis=1),
        conv("head", "joined", 4, 16, 1),
        helper.make_node("Transpose", ["head"], ["turned"], name="turned", perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["turned", "shape"], ["points"], name="reshape"),
    ]
    shape = [1, 3, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("points", onnx.TensorProto.FLOAT, [1, SIDE * SIDE, 4])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def network() -> onnx.ModelProto:
    """The small network."""
    return build_network()


@pytest.fixture
def pictures() -> Pictures:
    """Six input tensors of normalised pixels."""
    rng = np.random.default_rng(1)
    return [rng.uniform(-1, 1, (1, 3, SIDE, SIDE)).astype(np.float32) for _ in range(6)]


@pytest.fixture
def model(root: Path) -> Model:
    """A landmark model whose output is the small network's."""
    declared = load_config(root / "config").model("ghostone")
    own = Input("input", "bgr", (127.5,) * 3, (1 / 127.5,) * 3)
    return replace(declared, name="small", outputs=("points",), sizes={"16": (SIDE, SIDE)}, input=own)


@pytest.fixture
def make_network() -> Callable[..., onnx.ModelProto]:
    """Return the builder of small networks."""
    return build_network
