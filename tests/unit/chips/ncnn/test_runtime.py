"""What the real ncnn does with our files; skips where its wheels are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from facekiln.chips.ncnn import pnnx, runtime
from facekiln.chips.ncnn.legalise import fuse_relu_behind_concat
from facekiln.chips.ncnn.match import match_layers, tensor_of_blob, thresholds_of
from facekiln.chips.ncnn.model import NcnnModel, write_model
from facekiln.chips.ncnn.quantise import quantise
from facekiln.chips.ncnn.quantise_file import judge_proofs
from facekiln.chips.ncnn.runtime import NcnnNet
from facekiln.chips.ncnn.simulate import prove_int8
from facekiln.chips.ncnn.table import make_table
from facekiln.chips.ncnn.weights import Blob, as_fp16, bin_bytes, parse_bin
from facekiln.errors import GateError, KilnError
from facekiln.quant.ranges import Ranges, measure_ranges
from facekiln.quant.run import Session

pytestmark = pytest.mark.usefixtures("wheels")


@pytest.fixture(scope="module")
def ranges(network: onnx.ModelProto, picture: NDArray[np.float32]) -> Ranges:
    return measure_ranges(network, [picture], percentile=99.99)


@pytest.fixture
def net(converted: NcnnModel, tmp_path: Path) -> NcnnNet:
    write_model(tmp_path / "f.param", converted)
    return NcnnNet(tmp_path / "f.param")


def test_ncnn_agrees_with_onnx_runtime(
    net: NcnnNet, network: onnx.ModelProto, picture: NDArray[np.float32]
) -> None:
    expected = Session(network).run({"input": picture})
    found = net.run({"input": picture})
    assert list(found) == ["scores", "boxes", "pose"]
    for name, value in expected.items():
        assert np.allclose(found[name], value[0], atol=1e-5)


def test_the_runtimes_own_order_of_outputs_is_the_declared_one(net: NcnnNet) -> None:
    assert list(net._net.output_names()) == net.outputs == ["scores", "boxes", "pose"]


def test_moving_a_relu_changes_no_value(
    converted: NcnnModel, net: NcnnNet, picture: NDArray[np.float32], tmp_path: Path
) -> None:
    graph, edits = fuse_relu_behind_concat(converted.graph)
    assert len(edits) == 1
    write_model(tmp_path / "g.param", NcnnModel(graph, converted.weights))
    moved = NcnnNet(tmp_path / "g.param").run({"input": picture})
    for name, value in net.run({"input": picture}).items():
        assert np.array_equal(moved[name], value)


def test_pnnx_gives_the_same_bytes_twice_and_leaves_nothing_beside_its_input(onnx_file: Path) -> None:
    first, second = pnnx.convert(onnx_file), pnnx.convert(onnx_file)
    assert first.graph == second.graph
    assert bin_bytes(first.graph, first.weights) == bin_bytes(second.graph, second.weights)
    assert [path.name for path in onnx_file.parent.iterdir()] == [onnx_file.name]


def test_our_fp16_storage_is_laid_out_as_pnnxs_and_nearer(onnx_file: Path) -> None:
    model = pnnx.convert(onnx_file)
    command = [str(pnnx.program()), onnx_file.name, "fp16=1"]
    subprocess.run(command, cwd=onnx_file.parent, capture_output=True, check=True)
    data = onnx_file.with_suffix(".ncnn.bin").read_bytes()
    theirs, ours = parse_bin(model.graph, data), as_fp16(model.weights)
    assert len(bin_bytes(model.graph, ours)) == len(data)
    for name, blobs in ours.items():
        for own, other, real in zip(blobs, theirs[name], model.weights[name], strict=True):
            assert (own.role, own.tag) == (other.role, other.tag)
            # pnnx cuts where we round, and makes denormals zero; so it is never nearer than ours.
            off = [np.abs(one.values.astype(np.float64) - real.values) for one in (own, other)]
            assert (off[0] <= off[1]).all()
            assert (off[1] <= np.abs(real.values) * 2**-10 + 2**-14).all()


def test_every_layer_finds_its_node_and_its_tensor(
    converted: NcnnModel, network: onnx.ModelProto, ranges: Ranges, net: NcnnNet, picture: NDArray[np.float32]
) -> None:
    nodes = {layer: node.name for layer, node in match_layers(converted, network).items()}
    assert sorted(nodes.values()) == sorted(
        ["first", "deep", "wide", "left", "right", "boxes_map", "scores_map", "pose"]
    )
    thresholds = thresholds_of(converted, network, ranges, "minmax")
    by_node = {nodes[layer]: value for layer, value in thresholds.items()}
    assert by_node["first"] == pytest.approx(float(np.abs(picture).max()))
    whole = onnx.ModelProto()
    whole.CopyFrom(network)
    tensors = tensor_of_blob(converted, network)
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors.values() if name != "pose")
    expected = Session(whole).run({"input": picture})
    kept = NcnnNet(net._param, keep_all=True).trace({"input": picture})
    for blob, tensor in tensors.items():
        assert np.allclose(kept[blob].ravel(), expected[tensor].ravel(), atol=1e-4), (blob, tensor)


def test_layers_of_another_network_are_refused(converted: NcnnModel, network: onnx.ModelProto) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(network)
    stored = next(one for one in other.graph.initializer if one.name == "wide_w")
    stored.raw_data = bytes(len(stored.raw_data))
    with pytest.raises(KilnError, match="weights that no node"):
        match_layers(converted, other)


@pytest.mark.parametrize("requantise", [True, False])
@pytest.mark.parametrize("steps", [31, 127])
@pytest.mark.parametrize("winograd", [True, False])
def test_int8_layers_compute_what_their_scales_say(
    converted: NcnnModel,
    network: onnx.ModelProto,
    ranges: Ranges,
    picture: NDArray[np.float32],
    tmp_path: Path,
    requantise: bool,
    steps: int,
    winograd: bool,
) -> None:
    table = make_table(converted, thresholds_of(converted, network, ranges, "minmax"), steps)
    made = quantise(converted, table, requantise=requantise)
    assert made.layers == 8
    assert made.requantised == (3 if requantise else 0)  # first, deep, and wide, which both 3x3 read
    write_model(tmp_path / "q.param", made.model)
    net = NcnnNet(tmp_path / "q.param", keep_all=True, winograd=winograd)
    proofs = prove_int8(net, {"input": picture})
    assert len(proofs) == 8
    judge_proofs(proofs, "q.param")
    expected, found = Session(network).run({"input": picture}), net.run({"input": picture})
    # Int8 is near, and is not the same: that it were float would pass for a proof otherwise.
    for name, value in expected.items():
        error = np.abs(found[name] - value[0]).max() / np.abs(value).max()
        assert 1e-4 < error < 0.2, name


@pytest.mark.parametrize("role", ["weight_scales", "bottom_scale", "top_scale"])
def test_the_proof_sees_a_scale_that_ncnn_does_not_use(
    converted: NcnnModel,
    network: onnx.ModelProto,
    ranges: Ranges,
    picture: NDArray[np.float32],
    tmp_path: Path,
    role: str,
) -> None:
    made = quantise(converted, make_table(converted, thresholds_of(converted, network, ranges, "minmax")))
    write_model(tmp_path / "q.param", made.model)
    net = NcnnNet(tmp_path / "q.param", keep_all=True)
    name = next(layer.name for layer in made.model.graph if layer.params.get(8) == "102")
    for place, blob in enumerate(net.model.weights[name]):
        if blob.role == role:
            net.model.weights[name][place] = Blob(role, None, blob.values * np.float32(1.3))
    with pytest.raises(GateError, match=name):
        judge_proofs(prove_int8(net, {"input": picture}), "q.param")


def test_a_float_file_has_nothing_to_prove(net: NcnnNet, picture: NDArray[np.float32]) -> None:
    with pytest.raises(KilnError, match="no int8 layer"):
        prove_int8(net, {"input": picture})


def test_wrong_inputs_and_blobs_are_told(net: NcnnNet, picture: NDArray[np.float32]) -> None:
    with pytest.raises(KilnError, match="no input 'image'"):
        net.run({"image": picture})
    with pytest.raises(KilnError, match="cannot compute blob 'none'"):
        net.run({"input": picture}, ["none"])


def test_a_damaged_file_never_reaches_ncnn(net: NcnnNet) -> None:
    data = net._param.with_suffix(".bin").read_bytes()
    net._param.with_suffix(".bin").write_bytes(data[:-5])
    with pytest.raises(KilnError, match="cut short"):
        NcnnNet(net._param)


def test_pnnx_that_fails_or_never_ends(
    onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no onnx")
    with pytest.raises(KilnError, match="pnnx cannot convert"):
        pnnx.convert(broken)
    with pytest.raises(KilnError, match="does not exist"):
        pnnx.convert(tmp_path / "none.onnx")
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(pnnx, "program", lambda: slow)
    with pytest.raises(KilnError, match="did not end in time"):
        pnnx.convert(onnx_file, timeout=0.2)


def test_a_network_that_ncnn_has_no_layer_for(tmp_path: Path) -> None:
    node = onnx.helper.make_node("NonZero", ["x"], ["y"])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [value("x", onnx.TensorProto.FLOAT, [2, 2])],
        [value("y", onnx.TensorProto.INT64, [2, None])],
    )
    path = tmp_path / "x.onnx"
    onnx.save(onnx.helper.make_model(graph, ir_version=8), path)
    with pytest.raises(KilnError, match="pnnx"):
        pnnx.convert(path)


def test_missing_wheels_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(KilnError, match=r'pip install -e "\.\[ncnn\]"'):
        runtime.load_ncnn()
    monkeypatch.setattr(pnnx.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(KilnError, match=r'pip install -e "\.\[ncnn\]"'):
        pnnx.program()
