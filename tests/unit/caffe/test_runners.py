"""Running Caffe pairs in OpenCV and in MNN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from facekiln.caffe.mnn import MnnNet, run_mnn
from facekiln.caffe.net import Layer, Net
from facekiln.caffe.opencv import OpenCvNet, run_opencv
from facekiln.caffe.reader import read_net
from facekiln.caffe.writer import write_net
from facekiln.errors import KilnError


@pytest.fixture
def net() -> Net:
    """A depthwise convolution, an in-place ReLU, and a softmax; layers named unlike their blobs."""
    weights = [np.full((2, 1, 1, 1), -1, np.float32), np.float32([0.5, 2])]
    params = {"num_output": 2, "kernel_size": [1], "group": 2}
    return Net(
        "n",
        {"x": [1, 2, 2, 3]},
        [
            Layer("depthwise_layer", "DepthwiseConv", ["x"], ["a"], params, weights),
            Layer("relu_layer", "ReLU", ["a"], ["a"]),
            Layer("softmax_layer", "Softmax", ["a"], ["probability"]),
        ],
    )


X = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3) / 4


def test_blobs_by_name_where_layers_work_in_place(net: Net) -> None:
    values = OpenCvNet(net).run({"x": X})
    expected = np.maximum(np.float32([0.5, 2]).reshape(1, 2, 1, 1) - X, 0)
    assert list(values) == ["a", "probability"]
    assert np.allclose(values["a"], expected, atol=1e-6)
    assert np.allclose(values["probability"].sum(axis=1), 1)
    assert net.layers[0].type == "DepthwiseConv"


def test_asking_for_some_blobs_and_the_input(net: Net) -> None:
    assert list(OpenCvNet(net).run({"x": X}, ["probability", "x"])) == ["probability", "x"]


def test_a_network_is_run_many_times(net: Net) -> None:
    runner = OpenCvNet(net)
    first = runner.run({"x": X})["a"]
    runner.run({"x": X + 1})
    assert np.array_equal(first, runner.run({"x": X})["a"])


def test_several_tops(net: Net) -> None:
    net.layers.append(Layer("cut", "Slice", ["probability"], ["one", "two"]))
    values = OpenCvNet(net).run({"x": X})
    assert np.array_equal(np.concatenate([values["one"], values["two"]], axis=1), values["probability"])


def test_wrong_blobs_and_inputs_are_named(net: Net) -> None:
    runner = OpenCvNet(net)
    with pytest.raises(KilnError, match="no blob 'b'"):
        runner.run({"x": X}, ["b"])
    with pytest.raises(KilnError, match="not the network's inputs"):
        runner.run({"data": X})


def test_a_layer_that_opencv_has_not(net: Net) -> None:
    net.layers.append(Layer("up", "Upsample", ["probability"], ["big"], {"scale": 2}))
    with pytest.raises(KilnError, match="OpenCV cannot"):
        OpenCvNet(net).run({"x": X})


def test_opencv_five_has_no_caffe_reader(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2.dnn, "readNetFromCaffe")
    with pytest.raises(KilnError, match=r"no Caffe reader.*\n.*<5"):
        OpenCvNet(net)


def test_the_deconvolution_that_crashes_opencv_is_refused(net: Net) -> None:
    params = {"num_output": 2, "kernel_size": [1], "pad": [1], "bias_term": False}
    blob = np.ones((2, 2, 1, 1), np.float32)
    net.layers.append(Layer("deconv", "Deconvolution", ["a"], ["d"], params, [blob]))
    with pytest.raises(KilnError, match=r"layer 'deconv'.*crashes OpenCV"):
        OpenCvNet(net)


def test_mnn_agrees(tmp_path: Path, net: Net) -> None:
    pytest.importorskip("MNN")
    before = set(Path.cwd().iterdir())
    write_net(net, tmp_path / "n.prototxt", tmp_path / "n.caffemodel")
    pair = (tmp_path / "n.prototxt", tmp_path / "n.caffemodel")
    ours, theirs = run_opencv(*pair, {"x": X}, ["probability"]), run_mnn(*pair, {"x": X})
    assert list(theirs) == ["probability"]
    assert np.allclose(ours["probability"], theirs["probability"], atol=1e-5)
    with pytest.raises(KilnError, match="not the network's inputs"):
        run_mnn(*pair, {"data": X})
    # Its converter drops side files where it runs.
    assert set(Path.cwd().iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n.caffemodel", "n.prototxt"]


@pytest.mark.published
def test_golden_boxes_of_mnet25(
    mirror: Callable[[str], Path], data: Callable[[str], Path], close: Callable[..., None]
) -> None:
    net = read_net(mirror("mnet25_nnie.prototxt"), mirror("mnet25_nnie.caffemodel"))
    rgb = cv2.imread(str(data("images/det41.jpg")))[:, :, ::-1].astype(np.float32)
    blobs = OpenCvNet(net).run({"data": np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])}, net.outputs)
    boxes = np.concatenate([_decode_mnet(blobs, stride) for stride in (32, 16, 8)])
    best = boxes[np.argsort(-boxes[:, 4])]
    kept: list[np.ndarray] = []
    for box in best:
        if all(_iou(box, other) < 0.4 for other in kept):
            kept.append(box)
    # Three faces at threshold 0.7, the same from OpenCV with and without Crop layers and from ncnn.
    golden = [
        [134.21, 245.88, 194.17, 340.11],
        [226.42, 321.47, 270.16, 385.17],
        [457.65, 85.61, 521.72, 171.76],
    ]
    found = np.array(sorted(box[:4].tolist() for box in kept))
    assert found == pytest.approx(np.array(golden), abs=0.01)


def _decode_mnet(blobs: dict[str, np.ndarray], stride: int) -> np.ndarray:
    """Decode as the public demo does: base box (0, 0, 15, 15), scales large first, no variances."""
    scores = blobs[f"face_rpn_cls_prob_reshape_stride{stride}"][0, 2:]
    deltas = blobs[f"face_rpn_bbox_pred_stride{stride}"][0].reshape(2, 4, *scores.shape[1:])
    boxes = []
    for anchor, row, column in np.argwhere(scores > 0.7):
        size = 16 * {32: (32, 16), 16: (8, 4), 8: (2, 1)}[stride][anchor]
        centre = np.array([column, row]) * stride + 7.5
        dx, dy, dw, dh = deltas[anchor, :, row, column]
        centre = centre + np.array([dx, dy]) * size
        half = 0.5 * (np.exp([dw, dh]) * size - 1)
        boxes.append([*(centre - half), *(centre + half), scores[anchor, row, column]])
    return np.array(boxes).reshape(-1, 5)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:4], b[2:4])
    inner = float(np.prod(np.clip(high - low, 0, None)))
    return inner / float(np.prod(a[2:4] - a[:2]) + np.prod(b[2:4] - b[:2]) - inner)


def test_blobs_inside_and_layers_that_mnn_has_not(tmp_path: Path, net: Net) -> None:
    pytest.importorskip("MNN")
    pair = (tmp_path / "n.prototxt", tmp_path / "n.caffemodel")
    net.layers[0].tops = net.layers[1].bottoms = ["before"]
    write_net(net, *pair)
    # It would give the value after the ReLU under this name.
    with pytest.raises(KilnError, match="'before', which is no output"):
        run_mnn(*pair, {"x": X}, ["before"])
    net.layers.append(Layer("odd", "RReLU", ["probability"], ["odd"]))
    write_net(net, *pair)
    with pytest.raises(KilnError, match=r"(?s)MNN cannot convert.*RReLU"):
        run_mnn(*pair, {"x": X})


def agree(net: Net, inputs: dict[str, np.ndarray]) -> None:
    """Both readers give the same values in the shapes that Caffe has."""
    pytest.importorskip("MNN")
    ours, theirs = OpenCvNet(net).run(inputs, net.outputs), MnnNet(net).run(inputs)
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in theirs.items()
    }
    assert all(np.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)


def test_mnn_joins_a_fully_connected_layer_with_flattened_maps() -> None:
    # PFPLD's pose branch: MNN refuses [N, C, 1, 1] beside [N, C].
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(3, 12)).astype(np.float32), np.zeros(3, np.float32)]
    net = Net(
        "n",
        {"x": [1, 2, 2, 3]},
        [
            Layer("rows", "InnerProduct", ["x"], ["rows"], {"num_output": 3}, weights),
            Layer("flat", "Flatten", ["x"], ["flat"]),
            Layer("both", "Concat", ["rows", "flat"], ["both"], {"axis": 1}),
        ],
    )
    agree(net, {"x": X})


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize(("kernel", "pad"), [(2, 1), (3, 1)])
def test_mnn_drops_the_window_that_caffe_drops(method: str, kernel: int, pad: int) -> None:
    # ResNet's first pooling as the converter writes it: MNN alone gives 81 cells for 80 at 640 pixels.
    x = np.random.default_rng(1).random((1, 3, 9, 10), dtype=np.float32)
    params = {"pool": method, "kernel_size": kernel, "stride": 2, "pad": pad}
    agree(Net("n", {"x": [1, 3, 9, 10]}, [Layer("pool", "Pooling", ["x"], ["pool"], params)]), {"x": x})
