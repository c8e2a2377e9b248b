"""Small ONNX graphs, and the same graph run by ONNX Runtime and, converted, by OpenCV."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from facekiln.caffe.convert import Conversion, convert
from facekiln.caffe.opencv import OpenCvNet
from facekiln.vision.heads import assemble

Arrays = dict[str, np.ndarray]


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int]],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray] | None = None,
    opset: int = 13,
) -> onnx.ModelProto:
    """Return a checked model; output shapes are inferred."""
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(inferred)
    return inferred


def run_onnx(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """Run in ONNX Runtime and return every tensor."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    asked = [output.name for output in model.graph.output]
    inner = [name for node in model.graph.node for name in node.output if name and name not in asked]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(
        whole.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [*asked, *inner]
    return {**inputs, **dict(zip(names, session.run(names, inputs), strict=True))}


def assert_close(ours: np.ndarray, theirs: np.ndarray, what: str, limit: float = 1e-4) -> None:
    """Assert that the largest error is below `limit` of the tensor's scale."""
    assert ours.shape == theirs.shape, what
    scale = max(float(np.abs(theirs).max()), 1e-6)
    worst = float(np.abs(ours.astype(np.float64) - theirs).max()) / scale
    assert worst <= limit, f"{what}: {worst:.2e} of scale"


def check_agreement(
    model: onnx.ModelProto,
    inputs: Arrays | None = None,
    steps: Sequence[int] | None = None,
    limit: float = 1e-4,
) -> Conversion:
    """Convert; assert that every blob equals its ONNX tensor and every assembled output its ONNX output."""
    done = convert(model, name="test", steps=steps)
    rng = np.random.default_rng(0)
    fed = inputs or {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in done.net.inputs.items()
    }
    expected = run_onnx(model, fed)
    blobs = OpenCvNet(done.net).run(fed)
    for blob, tensor in done.tensor_of_blob.items():
        if blob in blobs:
            assert_close(blobs[blob], expected[tensor], f"{blob} = {tensor}", limit)
    outputs = assemble(blobs, done.heads)
    for output in model.graph.output:
        # A plain map of one cell counts as a vector.
        theirs = expected[output.name]
        theirs = theirs[:, :, 0, 0] if theirs.shape[2:] == (1, 1) else theirs
        assert_close(outputs[output.name], theirs, output.name, limit)
    return done


@pytest.fixture(scope="session")
def onnx_model() -> Callable[..., onnx.ModelProto]:
    """`make_model`."""
    return make_model


@pytest.fixture(scope="session")
def single_op() -> Callable[..., onnx.ModelProto]:
    """Return a function that makes a model of one node: op, input shape(s), constant inputs, attributes."""

    def make(
        op: str, *shapes: Sequence[int], constants: Sequence[Any] = (), opset: int = 13, **attrs: Any
    ) -> onnx.ModelProto:
        inputs = {f"x{place}" if place else "x": shape for place, shape in enumerate(shapes)}
        stored = {f"c{place}": value for place, value in enumerate(constants) if value is not None}
        names = [f"c{place}" if value is not None else "" for place, value in enumerate(constants)]
        node = helper.make_node(op, [*inputs, *names], ["y"], name="the_node", **attrs)
        return make_model([node], inputs, ["y"], stored, opset)

    return make


@pytest.fixture(scope="session")
def agree() -> Callable[..., Conversion]:
    """`check_agreement`."""
    return check_agreement


@pytest.fixture(scope="session")
def onnx_values() -> Callable[[onnx.ModelProto, Arrays], Arrays]:
    """`run_onnx`."""
    return run_onnx


@pytest.fixture(scope="session")
def close() -> Callable[..., None]:
    """`assert_close`."""
    return assert_close
