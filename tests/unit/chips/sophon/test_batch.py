"""A graph for one picture becomes one for four, and the proof catches one that does not."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from facekiln.chips.sophon.batch import prove_batch, with_batch
from facekiln.errors import KilnError
from facekiln.quant.run import Session


def network(*, mixes: bool = False) -> onnx.ModelProto:
    """A convolution, a Resize and a Reshape with the batch in their targets; or one that mixes pictures."""
    random = np.random.default_rng(1)
    stored = [
        numpy_helper.from_array(random.normal(size=(4, 3, 1, 1)).astype(np.float32), "w"),
        numpy_helper.from_array(np.array([1, 4, 8, 8], np.int64), "sizes"),
        numpy_helper.from_array(np.array([1, -1, 4], np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["map"]),
        helper.make_node("Resize", ["map", "", "", "sizes"], ["large"], mode="nearest"),
        helper.make_node("Transpose", ["large"], ["rows"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["rows", "shape"], ["listed"]),
        helper.make_node("Softmax", ["listed"], ["boxes"], axis=0 if mixes else 2),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("input", TensorProto.FLOAT, [1, 3, 4, 4])],
        [value("boxes", TensorProto.FLOAT, [1, 64, 4])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.fixture
def pictures() -> NDArray[np.float32]:
    return np.random.default_rng(2).normal(size=(4, 3, 4, 4)).astype(np.float32)


def test_a_batch_is_its_pictures_one_by_one(pictures: NDArray[np.float32]) -> None:
    one = network()
    many, edits = with_batch(one, 4)
    outputs, error = prove_batch(one, many, pictures)
    assert outputs["boxes"].shape == (4, 64, 4)
    assert error < 1e-6
    assert [edit.change for edit in edits] == [
        "Resize to [4, 4, 8, 8] instead of [1, 4, 8, 8]",
        "Reshape to [4, -1, 4] instead of [1, -1, 4]",
    ]


def test_the_original_is_not_touched(pictures: NDArray[np.float32]) -> None:
    one = network()
    before = one.SerializeToString()
    with_batch(one, 4)
    assert one.SerializeToString() == before
    same, edits = with_batch(one, 1)
    assert same is one
    assert edits == []
    assert Session(one).run({"input": pictures[:1]})["boxes"].shape == (1, 64, 4)


def test_the_trap_a_reshape_to_one_picture_joins_the_pictures(pictures: NDArray[np.float32]) -> None:
    """What `--input_shapes [[4,...]]` alone makes of such a file."""
    joined = network()
    joined.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    joined.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 256
    joined.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([4, 4, 8, 8], np.int64), "sizes"))
    with pytest.raises(KilnError, match="another shape than its pictures one by one"):
        prove_batch(network(), joined, pictures)


def test_a_network_that_mixes_pictures_is_refused(pictures: NDArray[np.float32]) -> None:
    one = network(mixes=True)
    many, _ = with_batch(one, 4)
    with pytest.raises(KilnError, match="other values than its pictures one by one"):
        prove_batch(one, many, pictures)


def test_an_output_that_cannot_follow_is_refused() -> None:
    fixed = network()
    fixed.graph.node.append(helper.make_node("Reshape", ["boxes", "fixed"], ["flat"]))
    fixed.graph.initializer.append(numpy_helper.from_array(np.array([2, 128], np.int64), "fixed"))
    fixed.graph.output[0].CopyFrom(helper.make_tensor_value_info("flat", TensorProto.FLOAT, [2, 128]))
    with pytest.raises(KilnError, match="does not follow a batch of 4"):
        with_batch(fixed, 4)


def test_a_file_of_another_batch_is_refused() -> None:
    many, _ = with_batch(network(), 4)
    with pytest.raises(KilnError, match="input: is not for one picture"):
        with_batch(many, 2)
