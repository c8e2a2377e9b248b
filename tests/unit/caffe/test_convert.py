"""Whole networks: ONNX and Caffe compute the same, blob by blob, and every rewrite is told."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxsim
import pytest
from onnx import helper

from facekiln.caffe.convert import Conversion, convert, save
from facekiln.caffe.emit import Emitter
from facekiln.caffe.mnn import run_mnn
from facekiln.caffe.opencv import OpenCvNet, run_opencv
from facekiln.caffe.ops import CONVERTERS
from facekiln.caffe.reader import read_net
from facekiln.caffe.writer import caffemodel_bytes, prototxt_text
from facekiln.errors import KilnError
from facekiln.graph.onnx_graph import Node
from facekiln.graph.simplify import simplify
from facekiln.vision.heads import assemble, split

STEPS = (8, 16, 32)


@pytest.fixture(scope="module")
def untrained(root: Path) -> onnx.ModelProto:
    """RetinaFace at 64x96 with untrained weights, exported and simplified as the workflow does."""
    torch = pytest.importorskip("torch")
    from facekiln.config import load_config
    from facekiln.graph.export import export_onnx
    from facekiln.models.registry import build_network

    torch.manual_seed(3)
    model = dataclasses.replace(load_config(root / "config").model("retinaface"), sizes={"64": (64, 96)})
    network = build_network(model).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # Statistics that are not neutral, so that folding them wrongly shows.
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return simplify(export_onnx(network, model, "64", 13))


def _picture(path: Path, height: int, width: int, mean: Any, scale: float, rgb: bool) -> np.ndarray:
    picture = cv2.resize(cv2.imread(str(path)), (width, height))
    picture = picture[:, :, ::-1] if rgb else picture
    tensor = ((picture.astype(np.float32) - np.float32(mean)) * np.float32(scale)).transpose(2, 0, 1)[None]
    return np.ascontiguousarray(tensor)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def _prove(
    model: onnx.ModelProto,
    done: Conversion,
    inputs: dict[str, np.ndarray],
    onnx_values: Callable[..., Any],
    close: Callable[..., None],
    folder: Path,
) -> None:
    """Every blob in OpenCV, every output in OpenCV and MNN, against ONNX Runtime."""
    expected = onnx_values(model, inputs)
    pair = (folder / "n.prototxt", folder / "n.caffemodel")
    save(done, *pair, folder / "n.heads.json")
    blobs = run_opencv(*pair, inputs)
    for blob, tensor in done.tensor_of_blob.items():
        if blob not in inputs:
            close(blobs[blob], expected[tensor], f"{blob} = {tensor}", 1e-4)
    readers = [(blobs, 1e-4), (run_mnn(*pair, inputs, [head.blob for head in done.heads]), 5e-4)]
    for values, limit in readers:
        for name, ours in assemble(values, done.heads).items():
            close(ours, expected[name], name, limit)
            assert _cosine(ours, expected[name]) > 0.99999


def test_untrained_retinaface(
    untrained: onnx.ModelProto, onnx_values: Callable[..., Any], close: Callable[..., None], tmp_path: Path
) -> None:
    done = convert(untrained, name="tiny", steps=STEPS)
    image = np.random.default_rng(1).uniform(-120, 140, (1, 3, 64, 96)).astype(np.float32)
    _prove(untrained, done, {"input": image}, onnx_values, close, tmp_path)


def test_what_a_retinaface_becomes(untrained: onnx.ModelProto) -> None:
    done = convert(untrained, name="tiny", steps=STEPS)
    net = done.net
    assert Counter(layer.type for layer in net.layers) == {
        "Convolution": 56,
        "ReLU": 41,
        "Reshape": 6,
        "Concat": 3,
        "Softmax": 3,
        "Deconvolution": 2,
        "Eltwise": 2,
    }
    heads = {head.blob: head for head in done.heads}
    assert sorted(heads) == sorted(f"{kind}_s{s}" for kind in ("loc", "conf", "landms") for s in STEPS)
    assert sorted(net.outputs) == sorted(heads)
    assert heads["conf_s16"].order == "value_major" and heads["loc_s16"].order == "anchor_major"
    assert (heads["landms_s8"].cells, heads["landms_s8"].values) == ((8, 12), 10)
    names = [layer.name for layer in net.layers]
    assert {"body_stage1_0_0", "fpn_output1_0", "ssh1_concat", "fpn_resize", "ClassHead_0_conv1x1"} <= set(
        names
    )
    assert done.tensor_of_blob["body_stage1_0_2"] == "/body/stage1/stage1.0/stage1.0.2/LeakyRelu_output_0"
    # Scores in another order stand for no ONNX tensor.
    assert not {"conf_s8", "conf_s8_classes", "ClassHead_0_conv1x1"} & set(done.tensor_of_blob)
    assert done.tensor_of_blob["loc_s8"] == "/BboxHead.0/conv1x1/Conv_output_0"
    # The slope of the last ReLU of each context module is 0, of the others 0.1.
    slopes = Counter(layer.params.get("negative_slope", 0) for layer in net.layers if layer.type == "ReLU")
    assert sorted(slopes.values()) == [3, 38]
    # N is literal here; the NNIE legaliser makes it 0. Nothing works in place, nothing asks for a rounding.
    assert net.layer("conf_s8_classes").params == {"shape": {"dim": [1, 2, -1, 0]}}
    assert net.layer("conf_s8").params == {"shape": {"dim": [1, 4, -1, 0]}}
    assert net.layer("conf_s8_softmax").params == {"axis": 1}
    assert not any(layer.in_place for layer in net.layers)
    assert "_mode" not in prototxt_text(net)
    assert Counter(edit.rule for edit in done.edits) == {
        "CAFFE-CUT-HEAD": 3,
        "CAFFE-CLASS-MAJOR": 1,
        "CAFFE-NEAREST-DECONV": 2,
    }
    assert all(edit.reason and edit.change and edit.limit for edit in done.edits)


def test_the_same_bytes_every_time(untrained: onnx.ModelProto, tmp_path: Path) -> None:
    before = untrained.SerializeToString(deterministic=True)
    first, second = (convert(untrained, name="tiny", steps=STEPS) for _ in range(2))
    assert prototxt_text(first.net) == prototxt_text(second.net)
    assert caffemodel_bytes(first.net) == caffemodel_bytes(second.net)
    assert first.edits == second.edits and first.tensor_of_blob == second.tensor_of_blob
    assert untrained.SerializeToString(deterministic=True) == before


def test_steps_are_told_from_the_maps(untrained: onnx.ModelProto) -> None:
    assert convert(untrained, name="t").heads == convert(untrained, name="t", steps=STEPS).heads


def test_wrong_steps_are_refused_with_the_numbers(untrained: onnx.ModelProto) -> None:
    with pytest.raises(KilnError, match=r"level 1 has 4x6 cells.*\[1, 3, 64, 96\].*steps \[32\]"):
        convert(untrained, name="t", steps=(8, 32, 64))


def test_split_of_the_onnx_outputs_gives_the_blobs(
    untrained: onnx.ModelProto, onnx_values: Callable[..., Any], close: Callable[..., None]
) -> None:
    done = convert(untrained, name="tiny", steps=STEPS)
    image = np.random.default_rng(2).uniform(-120, 140, (1, 3, 64, 96)).astype(np.float32)
    blobs = OpenCvNet(done.net).run({"input": image})
    for name, value in split(onnx_values(untrained, {"input": image}), done.heads).items():
        close(blobs[name], value, name, 1e-4)


def test_batches_are_refused(single_op: Callable[..., Any]) -> None:
    with pytest.raises(KilnError, match=r"input 'x': the batch is not 1.*\[2, 3, 4, 4\]"):
        convert(single_op("Relu", (2, 3, 4, 4)), name="t")


def test_an_output_that_the_network_reads_is_refused(onnx_model: Callable[..., Any]) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Sigmoid", ["a"], ["b"])]
    with pytest.raises(KilnError, match=r"output 'a', blob 'a'.*read inside"):
        convert(onnx_model(nodes, {"x": (1, 2, 4, 4)}, ["a", "b"]), name="t")


def test_shapes_that_are_not_fixed_are_refused() -> None:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 3, "height", 8))
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    with pytest.raises(KilnError, match=r"tensor 'x' is not fixed.*\n.*fixed input size"):
        convert(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), name="t")


def test_private_operators_are_refused() -> None:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 3, 8, 8))
    node = helper.make_node("Swish", ["x"], ["y"], name="odd", domain="com.example")
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 3, 8, 8))
    graph = helper.make_graph([node], "g", [x], [y])
    with pytest.raises(KilnError, match=r"'odd'.*private domain.*com.example"):
        convert(helper.make_model(graph), name="t")


def test_names_where_the_graph_has_none(onnx_model: Callable[..., Any]) -> None:
    weights = np.ones((2, 2, 1, 1), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "heads.0.weight"], ["101"]),
        helper.make_node("Relu", ["101"], ["102"]),
        helper.make_node("Conv", ["102", "heads.0.weight"], ["103"]),
        helper.make_node("Relu", ["103"], ["104"], name="Relu_7"),
        helper.make_node("Sigmoid", ["104"], ["final.out"]),
    ]
    done = convert(
        onnx_model(nodes, {"x": (1, 2, 4, 4)}, ["final.out"], {"heads.0.weight": weights}), name="t"
    )
    names = [layer.name for layer in done.net.layers]
    assert names == ["heads_0", "relu_102", "heads_0_2", "Relu_7", "final_out"]
    assert done.heads[0].blob == "final_out" and done.heads[0].output == "final.out"


def test_a_landmark_like_network(onnx_model: Callable[..., Any], agree: Callable[..., Any]) -> None:
    """Residual block, depthwise convolution, pyramid of averages, concatenation, fully connected."""
    rng = np.random.default_rng(4)
    constants = {
        "w1": rng.normal(size=(4, 3, 3, 3)),
        "w2": rng.normal(size=(4, 1, 3, 3)),
        "w3": rng.normal(size=(4, 4, 1, 1)),
        "fc": rng.normal(size=(6, 8)),
        "b": rng.normal(size=(6,)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["d"], pads=[1, 1, 1, 1], group=4),
        helper.make_node("Conv", ["d", "w3"], ["p"]),
        helper.make_node("Add", ["p", "r"], ["s"]),
        helper.make_node("AveragePool", ["r"], ["q1"], kernel_shape=[8, 8]),
        helper.make_node("GlobalAveragePool", ["s"], ["q2"]),
        helper.make_node("Flatten", ["q1"], ["f1"]),
        helper.make_node("Flatten", ["q2"], ["f2"]),
        helper.make_node("Concat", ["f1", "f2"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "fc", "b"], ["y"], transB=1),
    ]
    stored = {name: value.astype(np.float32) for name, value in constants.items()}
    done = agree(onnx_model(nodes, {"x": (1, 3, 16, 16)}, ["y"], stored))
    (head,) = done.heads
    assert (head.order, head.values, head.cells) == ("plain", 6, (1, 1))


@pytest.mark.published
@pytest.mark.parametrize("picture", ["det41.jpg", "det39.jpg"])
def test_published_retinaface(
    mirror: Callable[[str], Path],
    data: Callable[[str], Path],
    root: Path,
    onnx_values: Callable[..., Any],
    close: Callable[..., None],
    tmp_path: Path,
    picture: str,
) -> None:
    pytest.importorskip("torch")
    from facekiln.config import load_config
    from facekiln.graph.export import export_onnx
    from facekiln.models.checkpoint import load_network

    config = load_config(root / "config")
    model = config.model("retinaface")
    network = load_network(mirror("retinaface_mnet025.pth"), model, config)
    simplified = simplify(export_onnx(network, model, "640", 13))
    done = convert(simplified, name="retinaface_640", steps=STEPS)
    image = _picture(data(f"images/{picture}"), 640, 640, (104, 117, 123), 1, rgb=False)
    _prove(simplified, done, {"input": image}, onnx_values, close, tmp_path)


@pytest.mark.published
def test_published_ulfd_against_onnx_and_its_own_caffe_files(
    mirror: Callable[[str], Path],
    data: Callable[[str], Path],
    onnx_values: Callable[..., Any],
    close: Callable[..., None],
    tmp_path: Path,
) -> None:
    model = onnx.load(mirror("ulfd_rfb_320_upstream_simplified.onnx"))
    done = convert(model, name="ulfd", steps=(8, 16, 32, 64))
    assert [(head.anchors, head.cells) for head in done.heads if head.output == "boxes"] == [
        (3, (30, 40)),
        (2, (15, 20)),
        (2, (8, 10)),
        (3, (4, 5)),
    ]
    image = _picture(data("images/det41.jpg"), 240, 320, (127, 127, 127), 1 / 128, rgb=True)
    _prove(model, done, {"input": image}, onnx_values, close, tmp_path)
    theirs = OpenCvNet(
        read_net(mirror("ulfd_rfb_320_upstream.prototxt"), mirror("ulfd_rfb_320_upstream.caffemodel"))
    ).run({"input": image}, ["boxes", "scores"])
    ours = assemble(OpenCvNet(done.net).run({"input": image}), done.heads)
    for name in ("boxes", "scores"):
        close(ours[name], theirs[name], name, 1e-4)


@pytest.mark.published
@pytest.mark.parametrize("name", ["pfld_ghostone_112.onnx", "tengine_mnist.onnx"])
def test_published_networks_with_one_vector_out(
    mirror: Callable[[str], Path],
    onnx_values: Callable[..., Any],
    close: Callable[..., None],
    tmp_path: Path,
    name: str,
) -> None:
    model = onnx.load(mirror(name))
    done = convert(model, name="vector")
    rng = np.random.default_rng(0)
    inputs = {name: rng.random(shape).astype(np.float32) for name, shape in done.net.inputs.items()}
    _prove(model, done, inputs, onnx_values, close, tmp_path)


@pytest.mark.published
def test_decoding_inside_the_graph_is_refused_by_output(mirror: Callable[[str], Path]) -> None:
    # The full ULFD file decodes its boxes itself; scripts that expect raw ones draw garbage from it.
    simplified, _ = onnxsim.simplify(onnx.load(mirror("ulfd_rfb_320_upstream.onnx")))
    with pytest.raises(KilnError, match=r"output 'boxes'.*cut back.*\n.*without decoding"):
        convert(simplified, name="t")


def test_a_converter_that_lies_about_shapes_is_caught(
    single_op: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(emitter: Emitter, node: Node) -> None:
        emitter.emit(node, "Pooling", {"pool": "MAX", "kernel_size": 2, "stride": 2})

    monkeypatch.setitem(CONVERTERS, "Relu", wrong)
    with pytest.raises(KilnError, match=r"blob 'y'.*'y'.*\[1, 2, 2, 2\].*\[1, 2, 4, 4\].*\n.*report it"):
        convert(single_op("Relu", (1, 2, 4, 4)), name="t")


def test_a_converter_that_leaves_a_blob_over_is_caught(
    single_op: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def untidy(emitter: Emitter, node: Node) -> None:
        emitter.emit_inner(node, "left", "ReLU", {}, emitter.bottoms(node))
        emitter.emit(node, "ReLU")

    monkeypatch.setitem(CONVERTERS, "Relu", untidy)
    with pytest.raises(KilnError, match="blob 'y_left' is used by nothing"):
        convert(single_op("Relu", (1, 2, 4, 4)), name="t")
