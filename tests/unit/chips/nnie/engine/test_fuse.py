"""What becomes one step, and what stays an operation of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facekiln.caffe.net import Layer, Net
from facekiln.chips.nnie.engine.fuse import FusedNet, fuse
from facekiln.errors import KilnError


def conv(name: str, bottom: str, top: str | None = None, outputs: int = 4, inputs: int = 3) -> Layer:
    weights = np.random.default_rng(1).normal(size=(outputs, inputs, 1, 1)).astype(np.float32)
    params = {"num_output": outputs, "kernel_size": [1], "bias_term": False}
    return Layer(name, "Convolution", [bottom], [top or name], params, [weights])


def layer(name: str, kind: str, bottoms: list[str], top: str, **params: Any) -> Layer:
    return Layer(name, kind, bottoms, [top], params)


def net_of(*layers: Layer) -> FusedNet:
    return fuse(Net("test", {"data": [1, 3, 4, 6]}, list(layers)))


def test_batchnorm_scale_and_the_activation_in_place_join_the_convolution() -> None:
    statistics = [np.ones(4, np.float32), np.full(4, 2, np.float32), np.ones(1, np.float32)]
    fused = net_of(
        conv("conv", "data"),
        Layer("bn", "BatchNorm", ["conv"], ["bn"], {}, statistics),
        Layer("scale", "Scale", ["bn"], ["bn"], {"bias_term": True}, [np.ones(4, np.float32)] * 2),
        layer("relu", "ReLU", ["bn"], "bn", negative_slope=0.1),
    )
    (step,) = fused.steps
    assert (step.name, step.tops) == ("conv", ("bn",))
    assert step.activation is not None
    assert step.activation.type == "ReLU"
    assert not step.non_negative  # its slope is not zero
    assert len(step.blobs) == 2
    assert fused.outputs == {"bn": "bn"}


def test_an_activation_that_is_not_in_place_is_a_step() -> None:
    fused = net_of(conv("conv", "data"), layer("relu", "ReLU", ["conv"], "relu"))
    assert [step.name for step in fused.steps] == ["conv", "relu"]


def test_an_activation_behind_a_concat_is_a_step_even_in_place() -> None:
    # As the published RetinaFace .wk files show: Concat has no record, the ReLU behind it has.
    fused = net_of(
        conv("a", "data"),
        conv("b", "data"),
        layer("cat", "Concat", ["a", "b"], "cat"),
        layer("relu", "ReLU", ["cat"], "cat"),
    )
    assert [(step.name, step.tops) for step in fused.steps[2:]] == [("cat", ("cat@cat",)), ("relu", ("cat",))]
    assert fused.steps[3].bottoms == ("cat@cat",)
    assert fused.shapes["cat@cat"] == fused.shapes["cat"] == [1, 8, 4, 6]


def test_a_value_that_is_read_before_its_activation_keeps_it_apart() -> None:
    fused = net_of(
        conv("conv", "data"),
        conv("early", "conv", inputs=4),
        layer("relu", "ReLU", ["conv"], "conv"),
        conv("late", "conv", inputs=4),
    )
    assert [step.name for step in fused.steps] == ["conv", "early", "relu", "late"]
    assert [step.bottoms for step in fused.steps[1:]] == [("conv@conv",), ("conv@conv",), ("conv",)]
    assert list(fused.outputs) == ["early", "late"]


def test_only_one_activation_is_taken_up() -> None:
    fused = net_of(
        conv("conv", "data"),
        layer("relu", "ReLU", ["conv"], "conv"),
        layer("sigmoid", "Sigmoid", ["conv"], "conv"),
    )
    assert [step.name for step in fused.steps] == ["conv", "sigmoid"]
    assert fused.steps[0].activation is not None
    assert fused.steps[0].tops == ("conv@conv",)


def test_an_activation_on_the_input_itself() -> None:
    fused = net_of(layer("relu", "ReLU", ["data"], "data"))
    assert (fused.steps[0].bottoms, fused.steps[0].tops) == (("data",), ("data@relu",))
    assert fused.outputs == {"data": "data@relu"}


def test_dropout_and_split_vanish() -> None:
    fused = net_of(
        conv("conv", "data"),
        Layer("split", "Split", ["conv"], ["one", "two"]),
        layer("drop", "Dropout", ["one"], "dropped"),
        conv("last", "two", inputs=4),
    )
    assert [step.name for step in fused.steps] == ["conv", "last"]
    assert fused.steps[1].bottoms == ("conv",)
    assert fused.outputs == {"dropped": "conv", "last": "last"}


def test_tops_with_the_report_suffix_are_outputs() -> None:
    fused = net_of(conv("a", "data", "a_report"), conv("b", "a_report", inputs=4))
    assert list(fused.outputs) == ["a_report", "b"]


def test_values_that_are_only_repeated() -> None:
    def deconv(value: float, **params: Any) -> bool:
        blob = np.full((3, 1, 2, 2), value, np.float32)
        given = {"num_output": 3, "group": 3, "kernel_size": [2], "stride": [2], "bias_term": False, **params}
        (step,) = net_of(Layer("up", "Deconvolution", ["data"], ["up"], given, [blob])).steps
        return step.is_nearest and step.keeps_codes

    assert deconv(1)
    assert not deconv(0.5)
    assert not deconv(1, stride=[1])
    assert not deconv(1, pad=[1])


def test_pooling_keeps_codes_only_where_it_picks() -> None:
    def kept(method: str) -> bool:
        pool = layer("pool", "Pooling", ["data"], "pool", pool=method, kernel_size=2, stride=2)
        return net_of(pool).steps[0].keeps_codes

    assert kept("MAX")
    assert not kept("AVE")


def test_a_convolution_without_weights_is_refused() -> None:
    bare = conv("conv", "data")
    bare.blobs = []
    with pytest.raises(KilnError, match=r"'conv'.*weights are missing"):
        net_of(bare)
