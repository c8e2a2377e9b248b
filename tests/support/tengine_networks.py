"""Small ONNX models for tests, with fixed weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Node = tuple[str, list[str], list[str], dict[str, Any]]


def network(
    nodes: Sequence[Node],
    shape: Sequence[int],
    constants: Mapping[str, NDArray[Any]] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 13,
) -> onnx.ModelProto:
    """Return a model with input `x` of a shape; nodes are (op, inputs, outputs, attributes)."""
    made = [
        helper.make_node(op, sources, results, name=f"{op}_{number}", **attributes)
        for number, (op, sources, results, attributes) in enumerate(nodes)
    ]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(made, "test", [entry], ends, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return onnx.shape_inference.infer_shapes(model)


def numbers(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run_onnx(model: onnx.ModelProto, feed: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Run the original."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": feed}), strict=True))


def small_detector() -> onnx.ModelProto:
    """Return a detector in small: boxes [1, 32, 4] and scores [1, 32, 2] from a picture [1, 3, 8, 8]."""
    nodes: list[Node] = [
        ("Conv", ["x", "w0", "b0"], ["c0"], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("Relu", ["c0"], ["r0"], {}),
        ("Conv", ["r0", "w1"], ["c1"], {"pads": [1, 1, 1, 1], "group": 8}),
        ("LeakyRelu", ["c1"], ["r1"], {"alpha": 0.1}),
        ("Add", ["r1", "r0"], ["s"], {}),
        ("Concat", ["s", "r0"], ["j"], {"axis": 1}),
        ("Conv", ["j", "w2", "b2"], ["h"], {}),
        ("Transpose", ["h"], ["t"], {"perm": [0, 2, 3, 1]}),
        ("Reshape", ["t", "shape4"], ["boxes"], {}),
        ("Conv", ["j", "w3", "b3"], ["g"], {}),
        ("Transpose", ["g"], ["u"], {"perm": [0, 2, 3, 1]}),
        ("Reshape", ["u", "shape2"], ["raw"], {}),
        ("Softmax", ["raw"], ["scores"], {"axis": 2}),
    ]
    constants = {
        "w0": numbers(8, 3, 3, 3, seed=1) / 4,
        "b0": numbers(8, seed=2) / 4,
        "w1": numbers(8, 1, 3, 3, seed=3) / 2,
        "w2": numbers(8, 16, 1, 1, seed=4) / 4,
        "b2": numbers(8, seed=5),
        "w3": numbers(4, 16, 1, 1, seed=6) / 2,
        "b3": numbers(4, seed=7),
        "shape4": np.array([1, -1, 4]),
        "shape2": np.array([1, -1, 2]),
    }
    return network(nodes, (1, 3, 8, 8), constants, ("boxes", "scores"))
