"""Export: fixed input, named outputs, the same bytes every time, nothing of this machine inside."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from facekiln.config import Config, Model, load_config
from facekiln.errors import KilnError
from facekiln.graph.export import census, export_onnx, load_onnx, save_onnx, shapes, trace_torchscript
from facekiln.graph.simplify import difference, simplify
from facekiln.models.registry import build_network


@pytest.fixture(scope="module")
def model(root: Path) -> Model:
    config: Config = load_config(root / "config")
    return replace(config.model("retinaface"), sizes={"64": (64, 64)})


@pytest.fixture(scope="module")
def network(model: Model) -> torch.nn.Module:
    torch.manual_seed(1)
    return build_network(model).eval()


@pytest.fixture(scope="module")
def exported(network: torch.nn.Module, model: Model) -> onnx.ModelProto:
    return export_onnx(network, model, "64", 13)


def test_interface_is_named_and_fixed(exported: onnx.ModelProto) -> None:
    assert shapes(exported) == {
        "input": [1, 3, 64, 64],
        "loc": [1, 168, 4],
        "conf": [1, 168, 2],
        "landms": [1, 168, 10],
    }
    assert exported.opset_import[0].version == 13


def test_bytes_repeat_and_hold_no_folder_of_this_machine(
    exported: onnx.ModelProto, network: torch.nn.Module, model: Model, tmp_path: Path
) -> None:
    save_onnx(exported, tmp_path / "a.onnx")
    save_onnx(export_onnx(network, model, "64", 13), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert str(Path(sys.prefix)).encode() not in (tmp_path / "a.onnx").read_bytes()


def test_simplified_graph_has_exactly_the_ops_that_converters_know(exported: onnx.ModelProto) -> None:
    # Measured for this network: 126 nodes of these types and no Shape, Slice, Gather or Constant.
    expected = {
        "Add": 2,
        "Concat": 6,
        "Conv": 56,
        "LeakyRelu": 38,
        "Relu": 3,
        "Reshape": 9,
        "Resize": 2,
        "Softmax": 1,
    }
    simplified = simplify(exported)
    assert census(simplified) == {**expected, "Transpose": 9}
    changed = difference(exported, simplified)
    assert changed.ops["Constant"][1] == 0
    assert "Constant: " in "\n".join(changed.lines())


def test_traced_network_computes_the_same_and_holds_no_folder(
    network: torch.nn.Module, model: Model, tmp_path: Path
) -> None:
    archive = trace_torchscript(network, model, "64")
    (tmp_path / "a.pt").write_bytes(archive)
    assert str(Path(sys.prefix)).encode() not in archive
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for ours, traced in zip(network(x), torch.jit.load(str(tmp_path / "a.pt"))(x), strict=True):
            np.testing.assert_allclose(traced.numpy(), ours.numpy(), atol=1e-6)


@pytest.mark.slow
def test_traced_bytes_repeat_in_another_process(root: Path) -> None:
    code = (
        "import hashlib, torch\nfrom dataclasses import replace\nfrom facekiln.config import load_config\n"
        "from facekiln.models.registry import build_network\n"
        "from facekiln.graph.export import trace_torchscript\n"
        "m = replace(load_config('config').model('retinaface'), sizes={'64': (64, 64)})\n"
        "torch.manual_seed(1)\n"
        "print(hashlib.sha256(trace_torchscript(build_network(m).eval(), m, '64')).hexdigest())"
    )
    run = [sys.executable, "-c", code]
    first, second = (
        subprocess.run(run, cwd=root, capture_output=True, text=True, check=True).stdout for _ in range(2)
    )
    assert first == second


def test_wrong_number_of_outputs_is_refused(network: torch.nn.Module, model: Model) -> None:
    with pytest.raises(KilnError, match=r"retinaface\.yaml: outputs: .*\(value: \['loc', 'conf'\]"):
        export_onnx(network, replace(model, outputs=("loc", "conf")), "64", 13)


def test_unknown_size_is_refused(network: torch.nn.Module, model: Model) -> None:
    with pytest.raises(KilnError, match="unknown size of model 'retinaface' '65'"):
        export_onnx(network, model, "65", 13)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"", "is not a valid ONNX model"),
        (b"\x08\x07garbage", "not a valid"),
    ],
)
def test_what_is_no_onnx_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(KilnError, match=message):
        load_onnx(tmp_path / "a.onnx")


def test_truncated_onnx_is_named(exported: onnx.ModelProto, tmp_path: Path) -> None:
    data = exported.SerializeToString()
    (tmp_path / "a.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(KilnError, match=r"a\.onnx: is not a valid ONNX model"):
        load_onnx(tmp_path / "a.onnx")


def test_symbolic_dimension_is_refused(exported: onnx.ModelProto) -> None:
    symbolic = onnx.ModelProto()
    symbolic.CopyFrom(exported)
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 3])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    opset = [onnx.helper.make_opsetid("", 13)]
    with pytest.raises(KilnError, match="a dimension is not fixed"):
        simplify(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8))


@pytest.mark.parametrize(("name", "slope"), [("retinaface", 0.1), ("retinaface", 1), ("retinaface_1mb", 0)])
def test_torchscript_has_no_whole_number_for_a_slope(root: Path, name: str, slope: float) -> None:
    """MagicMind's parser fails on an int (magicmind_cloud, retinaface.diff: `leaky = 0` becomes `0.0`)."""
    declared = load_config(root / "config").model(name)
    model = replace(declared, sizes={"64": (64, 64)}, options={**declared.options, "leaky_slope": slope})
    traced = torch.jit.load(io.BytesIO(trace_torchscript(build_network(model).eval(), model, "64")))
    graph = traced.inlined_graph
    slopes = [
        list(node.inputs())[1]
        for kind in ("aten::leaky_relu", "aten::leaky_relu_")
        for node in graph.findAllNodes(kind)
    ]
    assert {str(value.type()) for value in slopes} == ({"float"} if slope else set())
    assert {value.toIValue() for value in slopes} == ({float(slope)} if slope else set())
    assert bool(slopes) or graph.findAllNodes("aten::relu_")


@pytest.mark.parametrize("name", ["retinaface", "ulfd_rfb_320", "slim_1mb", "pfpld"])
def test_torchscript_takes_other_batches(root: Path, name: str) -> None:
    """A compiler sets the batch of a traced file; frozen heads would join the pictures' boxes in one list."""
    declared = load_config(root / "config").model(name)
    sizes = {"64": (64, 64)} if name == "retinaface" else dict([next(iter(declared.sizes.items()))])
    model = replace(declared, sizes=sizes)
    torch.manual_seed(2)
    data = trace_torchscript(build_network(model).eval(), model, next(iter(sizes)))
    traced = torch.jit.load(io.BytesIO(data))
    batch = torch.rand(3, 3, *next(iter(sizes.values()))) * 255 - 110
    with torch.no_grad():
        whole, single = traced(batch), [traced(one[None]) for one in batch]
    for place, values in enumerate(whole):
        torch.testing.assert_close(values, torch.cat([one[place] for one in single]), rtol=1e-3, atol=1e-3)
