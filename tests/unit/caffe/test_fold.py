"""Folding BatchNorm and Scale: the same function, the same blob names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facekiln.caffe.fold import RULE, affine_of, fold_batch_norm
from facekiln.caffe.net import Layer, Net
from facekiln.caffe.opencv import OpenCvNet
from facekiln.caffe.shapes import infer_shapes
from facekiln.caffe.weights import blob_shapes
from facekiln.errors import KilnError

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _filled(net: Net, seed: int = 0) -> Net:
    """Give every layer weights of the right shapes; variances and factors positive."""
    rng = np.random.default_rng(seed)
    shapes = infer_shapes(net)
    for layer in net.layers:
        wanted = blob_shapes(layer, [shapes[bottom] for bottom in layer.bottoms])
        layer.blobs = [rng.normal(size=shape).astype(np.float32) for shape in wanted]
        if layer.type == "BatchNorm":
            layer.blobs[1] = np.abs(layer.blobs[1]) + np.float32(0.1)
            layer.blobs[2] = np.array([rng.uniform(0.5, 900)], np.float32)
    return net


def _compare(net: Net) -> Net:
    folded, _ = fold_batch_norm(net)
    rng = np.random.default_rng(9)
    inputs = {name: rng.normal(size=shape).astype(np.float32) for name, shape in net.inputs.items()}
    before, after = OpenCvNet(net).run(inputs), OpenCvNet(folded).run(inputs)
    assert after
    for name, value in after.items():
        scale = np.abs(before[name]).max() + 1e-6
        assert np.abs(before[name] - value).max() / scale < 1e-4, name
    return folded


@QUICK
@given(
    kind=st.sampled_from(["Convolution", "Deconvolution", "DepthwiseConv", "InnerProduct"]),
    group=st.integers(1, 3),
    bias=st.booleans(),
    in_place=st.booleans(),
    scaled=st.booleans(),
    eps=st.sampled_from([None, 1e-5, 2e-5, 1e-2]),
)
def test_every_kind_of_layer_before(
    kind: str, group: int, bias: bool, in_place: bool, scaled: bool, eps: float | None
) -> None:
    params: dict[str, Any] = {"num_output": 2 * group, "bias_term": bias}
    if kind != "InnerProduct":
        params |= {"kernel_size": [3], "group": group}
    norm, scale = ("a", "a") if in_place else ("b", "c")
    layers = [
        Layer("k", kind, ["x"], ["a"], params),
        Layer("n", "BatchNorm", ["a"], [norm], {} if eps is None else {"eps": eps}),
    ]
    if scaled:
        layers.append(Layer("s", "Scale", [norm], [scale], {"bias_term": True}))
    layers.append(Layer("r", "ReLU", [layers[-1].tops[0]], ["y"]))
    folded = _compare(_filled(Net("n", {"x": [1, 2 * group, 5, 5]}, layers)))
    assert [layer.type for layer in folded.layers] == [kind, "ReLU"]
    assert folded.layers[0].params["bias_term"] and len(folded.layers[0].blobs) == 2


def _conv_norm(**params: Any) -> Net:
    conv = Layer("k", "Convolution", ["x"], ["a"], {"num_output": 2, "kernel_size": [1]})
    return _filled(Net("n", {"x": [1, 2, 4, 4]}, [conv, Layer("n", "BatchNorm", ["a"], ["b"], params)]))


def test_statistics_are_divided_by_the_third_blob() -> None:
    layer = _conv_norm(eps=0.5).layers[1]
    layer.blobs = [np.float32([4, 8]), np.float32([2, 6]), np.float32([4])]
    scale, shift = affine_of(layer)
    assert scale == pytest.approx([1 / np.sqrt(0.5 + 0.5), 1 / np.sqrt(1.5 + 0.5)])
    assert shift == pytest.approx([-1, -2 / np.sqrt(2)])


def test_a_factor_of_zero_makes_the_statistics_zero() -> None:
    layer = _conv_norm(eps=0.25).layers[1]
    layer.blobs[2] = np.float32([0])
    scale, shift = affine_of(layer)
    assert scale.tolist() == [2, 2] and shift.tolist() == [0, 0]


def test_eps_is_read_per_layer() -> None:
    # One published network has 1e-5 in its backbone and 2e-5 in its pyramid.
    for eps in (1e-5, 2e-5, 1e-3):
        layer = _conv_norm(eps=eps).layers[1]
        variance = layer.blobs[1].astype(np.float64) / float(layer.blobs[2][0])
        assert affine_of(layer)[0] == pytest.approx(1 / np.sqrt(variance + eps), rel=1e-12)
    default = _conv_norm().layers[1]
    variance = default.blobs[1].astype(np.float64) / float(default.blobs[2][0])
    assert affine_of(default)[0] == pytest.approx(1 / np.sqrt(variance + 1e-5), rel=1e-12)


def test_the_edit_tells_what_was_taken_up_and_the_original_stays() -> None:
    net = _conv_norm()
    folded, (edit,) = fold_batch_norm(net)
    assert (edit.rule, edit.target) == (RULE, "k") and "took up n" in edit.change
    assert [layer.name for layer in net.layers] == ["k", "n"] and len(net.layers[0].blobs) == 2
    assert folded.layers[0].tops == ["b"]


def test_what_something_else_reads_is_not_folded() -> None:
    net = _conv_norm()
    net.layers.append(Layer("other", "ReLU", ["a"], ["r"]))
    folded, edits = fold_batch_norm(net)
    assert len(folded.layers) == 3 and not edits
    _compare(net)


def test_scales_of_two_blobs_or_another_axis_are_not_folded() -> None:
    conv = Layer("k", "Convolution", ["x"], ["a"], {"num_output": 2, "kernel_size": [1]})
    two = Net("n", {"x": [1, 2, 4, 4], "g": [2]}, [conv, Layer("s", "Scale", ["a", "g"], ["b"])])
    assert not fold_batch_norm(_filled(two))[1]
    other = Net("n", {"x": [1, 2, 4, 4]}, [conv, Layer("s", "Scale", ["a"], ["b"], {"axis": 2})])
    assert not fold_batch_norm(_filled(other))[1]


def test_a_norm_on_an_input_stays() -> None:
    net = _filled(Net("n", {"x": [1, 2, 4, 4]}, [Layer("n", "BatchNorm", ["x"], ["y"])]))
    folded, edits = fold_batch_norm(net)
    assert [layer.type for layer in folded.layers] == ["BatchNorm"] and not edits


def test_a_transposed_inner_product() -> None:
    fc = Layer("k", "InnerProduct", ["x"], ["a"], {"num_output": 3, "transpose": True})
    net = _filled(Net("n", {"x": [1, 4]}, [fc, Layer("s", "Scale", ["a"], ["b"], {"bias_term": True})]))
    folded, _ = fold_batch_norm(net)
    x = np.random.default_rng(0).normal(size=4)
    (weights, bias), (scale, shift) = net.layers[0].blobs, net.layers[1].blobs
    assert x @ folded.layers[0].blobs[0] + folded.layers[0].blobs[1] == pytest.approx(
        (x @ weights + bias) * scale + shift, rel=1e-5, abs=1e-5
    )


def test_a_negative_variance_names_the_layer() -> None:
    net = _conv_norm()
    net.layers[1].blobs[1][:] = -1
    with pytest.raises(KilnError, match=r"layer 'n'.*variance"):
        fold_batch_norm(net)


def test_missing_statistics_name_the_layer() -> None:
    with pytest.raises(KilnError, match=r"layer 'n'.*three"):
        affine_of(Layer("n", "BatchNorm", ["a"], ["a"], {}, [np.ones(2, np.float32)]))
    with pytest.raises(KilnError, match=r"layer 's'.*missing"):
        affine_of(Layer("s", "Scale", ["a"], ["a"]))
