"""ONNX files whose weights lie in another file are told apart from damaged ones."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facekiln.errors import KilnError
from facekiln.graph.export import load_onnx


@pytest.mark.parametrize("location", ["weights.data", "../outside.data", "/etc/passwd", None])
def test_weights_in_another_file_are_told_with_what_to_do(tmp_path: Path, location: str | None) -> None:
    """It said 'is not a valid ONNX model ... it is not regular file' though the file lay beside it."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    weight = numpy_helper.from_array(np.ones((1, 2), np.float32), "w")
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:], [weight]))
    path = tmp_path / "a.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=0)
    stored = onnx.load(path, load_external_data=False)
    for entry in list(stored.graph.initializer[0].external_data):
        if entry.key == "location":
            if location is None:
                stored.graph.initializer[0].external_data.remove(entry)
            else:
                entry.value = location
    path.write_bytes(stored.SerializeToString())
    with pytest.raises(KilnError, match=r"a\.onnx: tensor w: keeps its weights in another file") as refused:
        load_onnx(path)
    assert "onnx.save(onnx.load" in str(refused.value)


def test_files_that_are_no_onnx_tell_what_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    for data, told in ((b"", "holds nothing"), (b"\xff\x00\x01", "cut off or changed")):
        path.write_bytes(data)
        with pytest.raises(KilnError, match=rf"is not a valid ONNX model(.|\n)*{told}"):
            load_onnx(path)
