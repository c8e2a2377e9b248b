"""Each operation in float against OpenCV's own Caffe reader, or numpy where OpenCV has no such layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facekiln.caffe.net import Layer, Net
from facekiln.caffe.opencv import OpenCvNet
from facekiln.chips.nnie.engine.engine import Engine
from facekiln.errors import KilnError

RNG = np.random.default_rng(5)
SHAPE = [1, 6, 11, 14]
Arrays = dict[str, np.ndarray]


def weights(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [RNG.normal(0, 0.4, shape).astype(np.float32) for shape in shapes]


def layer(
    kind: str, params: dict[str, Any], blobs: list[np.ndarray] | None = None, top: str = "out"
) -> Layer:
    return Layer(top, kind, ["data"], [top], params, blobs or [])


def conv(outputs: int, **params: Any) -> Layer:
    group = params.get("group", 1)
    kernel = params.setdefault("kernel_size", [3])
    shape = (outputs, 6 // group, kernel[0], kernel[-1])
    return layer("Convolution", {"num_output": outputs, **params}, weights(shape, (outputs,)))


def pool(**params: Any) -> Layer:
    return layer("Pooling", {"pool": "MAX", "kernel_size": 3, "stride": 2, **params})


CASES: dict[str, list[Layer]] = {
    "convolution": [conv(8, pad=[1])],
    "strided, dilated": [conv(8, pad=[2], dilation=[2], stride=[2])],
    "grouped": [conv(8, group=2, pad=[1])],
    "depthwise": [conv(6, group=6, pad=[1], stride=[2])],
    "rectangular": [layer("Convolution", {"num_output": 4, "kernel_h": 1, "kernel_w": 5, "pad_h": 0,
                                          "pad_w": 2, "stride_h": 2, "stride_w": 1},
                          weights((4, 6, 1, 5), (4,)))],
    "deconvolution": [layer("Deconvolution", {"num_output": 4, "kernel_size": [4], "stride": [2], "pad": [1]},
                            weights((6, 4, 4, 4), (4,)))],
    "grouped deconvolution": [layer("Deconvolution", {"num_output": 6, "kernel_size": [2], "stride": [2],
                                    "group": 3, "bias_term": False}, weights((6, 2, 2, 2)))],
    "max pooling rounds up": [pool()],
    "max pooling, padded": [pool(pad=1)],
    "max pooling, last window dropped": [pool(kernel_size=2, stride=2, pad=1)],
    "average pooling": [pool(pool="AVE")],
    "average pooling, padded": [pool(pool="AVE", pad=1)],
    "global average": [layer("Pooling", {"pool": "AVE", "global_pooling": True})],
    "inner product": [layer("InnerProduct", {"num_output": 5}, weights((5, 924), (5,)))],
    "relu": [layer("ReLU", {})],
    "leaky relu": [layer("ReLU", {"negative_slope": 0.1})],
    "prelu": [layer("PReLU", {}, weights((6,)))],
    "sigmoid": [layer("Sigmoid", {})],
    "tanh": [layer("TanH", {})],
    "elu": [layer("ELU", {"alpha": 1.0})],
    "softmax over channels": [layer("Softmax", {})],
    "softmax over the last axis": [layer("Softmax", {"axis": 3})],
    "reshape": [layer("Reshape", {"shape": {"dim": [0, 2, -1, 0]}})],
    "flatten": [layer("Flatten", {})],
    "permute": [layer("Permute", {"order": [0, 2, 3, 1]})],
    "power": [layer("Power", {"power": 2.0, "scale": 0.5, "shift": 0.25})],
    "scale alone": [layer("Scale", {"bias_term": True}, weights((6,), (6,)))],
    "batchnorm alone": [layer("BatchNorm", {"eps": 2e-5}, [*weights((6,)), np.arange(1, 7, dtype=np.float32),
                                                           np.full(1, 3, np.float32)])],
    "sum with coefficients": [
        layer("Sigmoid", {}, top="b"),
        Layer("out", "Eltwise", ["data", "b"], ["out"], {"operation": "SUM", "coeff": [0.5, -2.0]}),
    ],
    "product": [
        layer("TanH", {}, top="b"),
        Layer("out", "Eltwise", ["data", "b"], ["out"], {"operation": "PROD"}),
    ],
    "maximum": [
        layer("TanH", {}, top="b"),
        Layer("out", "Eltwise", ["data", "b"], ["out"], {"operation": "MAX"}),
    ],
    "concat": [layer("TanH", {}, top="b"), Layer("out", "Concat", ["data", "b"], ["out"], {"axis": 1})],
    "slice": [Layer("cut", "Slice", ["data"], ["one", "two"], {"axis": 1, "slice_point": [2]})],
    "convolution and activations": [
        conv(8, pad=[1]),
        Layer("act", "ReLU", ["out"], ["out"], {"negative_slope": 0.1}),
        Layer("more", "Convolution", ["out"], ["more"], {"num_output": 3, "kernel_size": [1]},
              weights((3, 8, 1, 1), (3,))),
        Layer("sig", "Sigmoid", ["more"], ["more"], {}),
    ],
}  # fmt: skip


def ours(net: Net, data: np.ndarray) -> Arrays:
    return Engine(net, bits=32).run({"data": data})


@pytest.mark.parametrize("name", CASES)
def test_float_equals_opencv(name: str) -> None:
    net = Net(name, {"data": SHAPE}, CASES[name])
    data = RNG.normal(0, 1.5, SHAPE).astype(np.float32)
    found = ours(net, data)
    expected = OpenCvNet(net).run({"data": data}, list(found))
    assert found
    for blob, value in found.items():
        assert value.shape == expected[blob].shape
        np.testing.assert_allclose(value, expected[blob], atol=2e-5, rtol=1e-5)


def test_depthwise_conv_is_a_grouped_convolution() -> None:
    data = RNG.normal(size=SHAPE).astype(np.float32)
    grouped = conv(6, group=6, pad=[1])
    named = Layer(grouped.name, "DepthwiseConv", ["data"], ["out"], grouped.params, grouped.blobs)
    one, two = (ours(Net("n", {"data": SHAPE}, [each]), data)["out"] for each in (grouped, named))
    np.testing.assert_array_equal(one, two)


def test_upsample_repeats() -> None:
    data = RNG.normal(size=SHAPE).astype(np.float32)
    found = ours(Net("n", {"data": SHAPE}, [layer("Upsample", {"scale": 2})]), data)["out"]
    np.testing.assert_array_equal(found, data.repeat(2, 2).repeat(2, 3))


def test_shared_prelu_slope() -> None:
    data = RNG.normal(size=SHAPE).astype(np.float32)
    shared = layer("PReLU", {"channel_shared": True}, [np.array(0.3, np.float32)])
    found = ours(Net("n", {"data": SHAPE}, [shared]), data)["out"]
    np.testing.assert_allclose(found, np.where(data > 0, data, data * np.float32(0.3)), rtol=1e-6)


def test_scale_with_two_inputs_multiplies_channels() -> None:
    # Squeeze and excitation: global average, then Scale over N and C.
    layers = [
        layer("Pooling", {"pool": "AVE", "global_pooling": True}, top="mean"),
        Layer("vector", "Flatten", ["mean"], ["vector"], {}),
        Layer("out", "Scale", ["data", "vector"], ["out"], {"axis": 0}),
    ]
    data = RNG.normal(size=SHAPE).astype(np.float32)
    found = ours(Net("n", {"data": SHAPE}, layers), data)["out"]
    np.testing.assert_allclose(found, data * data.mean((2, 3), keepdims=True), atol=1e-5)


def test_transposed_inner_product_over_a_later_axis() -> None:
    (blob, bias) = weights((14, 5), (5,))
    product = layer("InnerProduct", {"num_output": 5, "axis": 3, "transpose": True}, [blob, bias])
    data = RNG.normal(size=SHAPE).astype(np.float32)
    found = ours(Net("n", {"data": SHAPE}, [product]), data)["out"]
    np.testing.assert_allclose(found, data @ blob + bias, atol=1e-5)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (layer("LRN", {}), r"'out' \(LRN\).*type that the NNIE engine does not run"),
        (pool(pool="STOCHASTIC"), r"'out' \(Pooling\).*STOCHASTIC"),
        (pool(kernel_size=1, stride=3), r"'out' \(Pooling\).*wholly outside"),
        (Layer("two", "InnerProduct", ["data"], ["a"], {"num_output": 5}), "weights are missing"),
    ],
)
def test_what_cannot_be_run_is_named(bad: Layer, message: str) -> None:
    with pytest.raises(KilnError, match=message):
        Engine(Net("n", {"data": SHAPE}, [bad]), bits=32)
