"""A detector that is small and made up, as an ONNX file whose outputs depend on the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from facekiln.config import Model
from facekiln.vision.priors import make_priors


def write_detector(path: Path, model: Model, size: tuple[int, int], *, batch: int = 1, slow: int = 0) -> Path:
    """Write `loc`, `conf` and `landms` of all priors, linear in the picture's mean colours.

    Args:
        path: of the file.
        model: a RetinaFace by its outputs.
        size: (height, width) of the input.
        batch: that it takes at once.
        slow: convolutions that only take time.
    """
    assert model.priors is not None
    count = len(make_priors(model.priors, size))
    random = np.random.default_rng(0)
    nodes, weights = [], []
    last = "input"
    for number in range(slow):
        weights.append(helper.make_tensor(f"k{number}", TensorProto.FLOAT, (3, 3, 1, 1), np.eye(3).ravel()))
        nodes.append(helper.make_node("Conv", [last, f"k{number}"], [f"s{number}"]))
        last = f"s{number}"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["colours"]),
    ]
    outputs = []
    for name, values in (("loc", 4), ("conf", 2), ("landms", 10)):
        table = random.normal(scale=0.05, size=(3, count * values)).astype(np.float32)
        weights.append(helper.make_tensor(f"w_{name}", TensorProto.FLOAT, table.shape, table.ravel()))
        shape = np.array([batch, count, values], np.int64)
        weights.append(helper.make_tensor(f"r_{name}", TensorProto.INT64, (3,), shape))
        raw = "logits" if name == "conf" else name
        nodes.append(helper.make_node("MatMul", ["colours", f"w_{name}"], [f"flat_{name}"]))
        nodes.append(helper.make_node("Reshape", [f"flat_{name}", f"r_{name}"], [raw]))
        if name == "conf":
            nodes.append(helper.make_node("Softmax", ["logits"], ["conf"], axis=2))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, (batch, count, values)))
    entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, (batch, 3, *size))
    graph = helper.make_graph(nodes, "made_up", [entry], outputs, weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path
