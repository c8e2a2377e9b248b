"""Legalising: others' networks become legal, compute the same, and every change is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facekiln.caffe.net import Layer, Net
from facekiln.caffe.opencv import OpenCvNet
from facekiln.caffe.reader import read_net, read_prototxt
from facekiln.caffe.writer import prototxt_text
from facekiln.chips.nnie.legalise.legalise import Legalised, legal_text, legalise, order_heads
from facekiln.chips.nnie.legalise.limits import LIMITS
from facekiln.chips.nnie.legalise.proof import prove
from facekiln.chips.nnie.settings import LegaliseSettings, NnieSettings, load_settings
from facekiln.errors import KilnError
from facekiln.vision.heads import HeadMap

RNG = np.random.default_rng(7)


@pytest.fixture(scope="module")
def settings() -> NnieSettings:
    return load_settings("nowhere")


def choose(settings: NnieSettings, **changes: object) -> NnieSettings:
    return replace(settings, legalise=replace(settings.legalise, **changes))  # type: ignore[arg-type]


def conv(name: str, bottom: str, top: str, inputs: int, outputs: int, **params: object) -> Layer:
    weights = RNG.standard_normal((outputs, inputs // int(params.get("group", 1)), 3, 3)).astype(np.float32)
    given = {"num_output": outputs, "kernel_size": [3], "pad": [1], **params}
    return Layer(name, "Convolution", [bottom], [top], given, [weights, RNG.random(outputs, np.float32)])


def relu(name: str, bottom: str, top: str, **params: object) -> Layer:
    return Layer(name, "ReLU", [bottom], [top], dict(params))


def small(*layers: Layer, size: int = 16) -> Net:
    return Net("small", {"data": [1, 3, size, size]}, list(layers))


def same(before: Net, after: Legalised, tolerance: float = 1e-5) -> None:
    """Run both in OpenCV and compare all outputs, by original name."""
    (name, shape) = next(iter(before.inputs.items()))
    value = RNG.random(shape, np.float32)
    expected = OpenCvNet(before).run({name: value}, before.outputs)
    (renamed,) = after.net.inputs
    got = OpenCvNet(after.net).run({renamed: value}, after.net.outputs)
    assert {after.original_names.get(key, key) for key in got} == set(expected)
    for key, array in got.items():
        reference = expected[after.original_names.get(key, key)]
        scale = float(np.abs(reference).max()) + 1e-6
        assert float(np.abs(array - reference).max()) / scale < tolerance, key


def rules(result: Legalised) -> set[str]:
    return {edit.rule for edit in result.edits}


@pytest.fixture
def charrin(mirror: Callable[[str], Path]) -> Callable[[int, int], Net]:
    """mnet.25 as Charrin/RetinaFace-Cpp has it: Crop before both additions, and dim 1 in Reshapes."""

    def make(height: int, width: int) -> Net:
        net = read_net(mirror("mnet25_nnie.prototxt"), mirror("mnet25_nnie.caffemodel"))
        net.inputs["data"] = [1, 3, height, width]
        for number, (plus, like) in enumerate(
            (("plus0", "rf_c2_lateral_bn"), ("plus1", "rf_c1_red_conv_bn"))
        ):
            layer = net.layer(plus)
            source = next(bottom for bottom in layer.bottoms if bottom != like)
            layer.bottoms = [like, f"crop{number}"]
            crop = Layer(
                f"crop{number}", "Crop", [source, like], [f"crop{number}"], {"axis": 2, "offset": [0, 0]}
            )
            net.layers.insert(net.layers.index(layer), crop)
        for layer in net.layers:
            if layer.type == "Reshape":
                layer.params["shape"]["dim"][0] = 1
        return net

    return make


def test_charrins_network_becomes_legal_and_computes_the_same(charrin, settings) -> None:
    net = charrin(96, 64)
    before = prototxt_text(net)
    result = legalise(net, settings)
    assert prototxt_text(net) == before, "the input net was changed"
    same(net, result)
    assert {"NNIE-CROP", "NNIE-RESHAPE", "CAFFE-FOLD-BN", "NNIE-ORDER", "NNIE-NAME"} <= rules(result)
    assert not {"Crop", "BatchNorm", "Scale"} & {layer.type for layer in result.net.layers}
    for layer in result.net.layers:
        if layer.type == "Reshape":
            assert layer.params["shape"]["dim"][0] == 0
    assert result.warnings == []
    assert all(edit.reason and edit.limit for edit in result.edits)


def test_output_order_is_the_published_abi(charrin, settings) -> None:
    # nniefacelib's board code indexes bbox 32,16,8 / landmark 32,16,8 / cls_prob 32,16,8.
    heads = [
        HeadMap(
            f"face_rpn_{kind}_stride{stride}",
            kind,
            level,
            stride,
            (96 // stride, 64 // stride),
            2,
            values,
            order,
        )
        for kind, values, order in (
            ("cls_prob_reshape", 2, "value_major"),
            ("bbox_pred", 4, "anchor_major"),
            ("landmark_pred", 10, "anchor_major"),
        )
        for level, stride in enumerate((8, 16, 32))
    ]
    result = legalise(charrin(96, 64), settings, heads)
    originals = [result.original_names.get(name, name) for name in result.net.outputs]
    assert originals == [
        f"face_rpn_{kind}_stride{stride}"
        for kind in ("bbox_pred", "landmark_pred", "cls_prob_reshape")
        for stride in (32, 16, 8)
    ]
    assert [head.blob for head in result.heads] == result.net.outputs
    assert len({name[:31] for name in result.net.outputs}) == 9
    # Heads stand last: nothing of the body comes behind the first of them.
    first = next(i for i, layer in enumerate(result.net.layers) if layer.tops[0] == result.net.outputs[0])
    assert len(result.net.layers) - first == 6 + 3 * 4


def test_orders_can_be_chosen(settings) -> None:
    heads = [
        HeadMap(f"{k}{s}", k, i, s, (1, 1), 2, v, "anchor_major")
        for k, v in (("a", 4), ("b", 2))
        for i, s in enumerate((8, 16))
    ]
    chosen: LegaliseSettings = replace(
        settings.legalise, output_kinds=("cls", "bbox", "landmark"), output_levels="small_first"
    )
    assert [head.blob for head in order_heads(heads, chosen)] == ["b8", "b16", "a8", "a16"]


def test_landmark_models_have_their_points_first(settings) -> None:
    # nniefacelib's pfpld.prototxt: `landms` stands before `pose`, and its board code takes them so; its ONNX
    # file has `pose` first.
    def inner(name: str, outputs: int) -> Layer:
        weights = RNG.standard_normal((outputs, 4 * 16 * 16)).astype(np.float32)
        return Layer(
            name, "InnerProduct", ["a"], [name], {"num_output": outputs, "bias_term": False}, [weights]
        )

    net = small(conv("a", "data", "a", 3, 4), inner("pose", 3), inner("other", 2), inner("landms", 196))
    heads = [
        HeadMap(name, name, 0, 0, (1, 1), 1, values, "plain")
        for name, values in (("pose", 3), ("other", 2), ("landms", 196))
    ]
    result = legalise(net, settings, heads)
    assert result.net.outputs == ["landms", "pose", "other"] == [head.blob for head in result.heads]
    assert any(edit.rule == "NNIE-ORDER" and "landms, pose" in edit.change for edit in result.edits)
    same(net, result)
    as_declared = legalise(net, choose(settings, plain_outputs=()), heads)
    assert as_declared.net.outputs == ["pose", "other", "landms"]


def test_a_crop_that_crops_is_refused_with_the_sizes(charrin, settings) -> None:
    with pytest.raises(KilnError, match=r"crop0.*Crop cuts 8x4 to 7x4.*100x64.*multiple of 32") as caught:
        legalise(charrin(100, 64), settings)
    assert "pad pictures" in str(caught.value)


def test_an_in_place_layer_behind_a_crop(settings) -> None:
    net = small(
        conv("a", "data", "a", 3, 4),
        conv("b", "data", "b", 3, 4),
        Layer("crop", "Crop", ["a", "b"], ["c"], {"axis": 2}),
        relu("r", "c", "c"),
        Layer("sum", "Eltwise", ["a", "c"], ["out"]),
        Layer("sum2", "Eltwise", ["b", "out"], ["out2"]),
    )
    same(net, legalise(net, settings))


def test_ulfd_upstream_is_refused_by_name(mirror, settings) -> None:
    net = read_net(mirror("ulfd_rfb_320_upstream.prototxt"), mirror("ulfd_rfb_320_upstream.caffemodel"))
    with pytest.raises(KilnError) as caught:
        legalise(net, settings)
    message = str(caught.value)
    assert (
        "342: 3-D shape [1, -1, 4] [NNIE-RESHAPE" in message
        and "next step: cut the network before it" in message
    )


def test_ulfd_without_its_tail_is_legal(mirror, settings) -> None:
    net = read_net(mirror("ulfd_rfb_320_upstream.prototxt"), mirror("ulfd_rfb_320_upstream.caffemodel"))
    net.layers = [
        la
        for la in net.layers
        if la.type not in ("Permute", "Reshape", "Softmax") and la.name not in ("459", "boxes")
    ]
    result = legalise(net, settings)
    same(net, result, 1e-4)
    assert len(result.net.outputs) == 8
    # The exporter writes every ReLU beside its input; the chip fuses only those in place.
    assert "NNIE-ACTIVATION-ORDER" in rules(result)
    alone = [layer for layer in result.net.layers if layer.type == "ReLU" and not layer.in_place]
    assert not alone


def test_activations_write_in_place_where_nothing_else_reads(settings) -> None:
    net = small(
        conv("a", "data", "a", 3, 4),
        relu("ra", "a", "ra"),
        conv("b", "ra", "b", 4, 4),
        relu("rb", "b", "rb"),
        Layer("sum", "Eltwise", ["b", "rb"], ["out"]),
    )
    result = legalise(net, settings)
    same(net, result)
    assert result.net.layer("ra").in_place and result.original_names == {"a": "ra"}
    assert not result.net.layer("rb").in_place


def test_a_value_that_others_read_is_not_overwritten(settings) -> None:
    # Caffe reads blobs in file order: `sum` wants `a` before the ReLU, `out` wants it after.
    net = small(
        conv("a", "data", "a", 3, 4),
        conv("b", "a", "b", 4, 4),
        relu("r", "a", "a"),
        Layer("out", "Eltwise", ["a", "b"], ["out"]),
    )
    result = legalise(net, settings)
    same(net, result)
    assert result.net.layer("r").bottoms != result.net.layer("r").tops == ["a"]


def test_activations_are_moved_behind_their_producers(settings) -> None:
    net = small(
        conv("a", "data", "a", 3, 4),
        conv("b", "data", "b", 3, 4),
        relu("ra", "a", "a"),
        relu("rb", "b", "b"),
        Layer("sum", "Eltwise", ["a", "b"], ["out"]),
    )
    result = legalise(net, settings)
    same(net, result)
    assert [layer.name for layer in result.net.layers] == ["a", "ra", "b", "rb", "sum"]


def test_leaky_relu_three_ways(settings) -> None:
    net = small(conv("a", "data", "a", 3, 4), relu("r", "a", "a", negative_slope=0.1))
    assert legalise(net, settings).net.layer("r").type == "ReLU"
    expanded = legalise(net, choose(settings, relu_negative_slope="expand"))
    assert expanded.net.layer("r").type == "PReLU" and expanded.net.layer("r").blobs[0].shape == (4,)
    same(net, expanded)
    with pytest.raises(KilnError, match=r"layer 'r'(.|\n)*negative_slope 0.1(.|\n)*expand"):
        legalise(net, choose(settings, relu_negative_slope="refuse"))


def test_upsample_becomes_a_deconvolution_of_ones(settings) -> None:
    net = small(conv("a", "data", "a", 3, 4), Layer("up", "Upsample", ["a"], ["up"], {"scale": 2}))
    up = legalise(net, settings).net.layer("up")
    assert up.type == "Deconvolution" and up.params["group"] == 4 and (up.blobs[0] == 1).all()
    assert legalise(net, choose(settings, upsample="keep")).net.layer("up").type == "Upsample"
    net.layers[1].params["scale"] = 4
    with pytest.raises(KilnError, match="NNIE-UPSAMPLE"):
        legalise(net, settings)


def test_depthwise_convolutions_can_be_renamed(settings) -> None:
    net = small(conv("a", "data", "a", 3, 4), conv("d", "a", "d", 4, 4, group=4))
    result = legalise(net, choose(settings, depthwise="depthwise_conv"))
    assert [layer.type for layer in result.net.layers] == ["Convolution", "DepthwiseConv"]
    same(net, result)


@pytest.mark.parametrize(
    ("size", "kernel", "fine"),
    # (16 - 2) / 2 is whole, so rounding makes no difference; (16 + 2 - 3) / 2 is not: PyTorch 8, Caffe 9.
    [(16, {"kernel_size": 2, "stride": 2}, True), (16, {"kernel_size": 3, "stride": 2, "pad": 1}, False)],
)
def test_pooling_that_rounds_down(settings, size: int, kernel: dict[str, int], fine: bool) -> None:
    pool = Layer("p", "Pooling", ["data"], ["p"], {"pool": "MAX", **kernel, "ceil_mode": False})
    net = small(pool, size=size)
    if fine:
        assert "ceil_mode" not in legalise(net, settings).net.layer("p").params
    else:
        with pytest.raises(KilnError, match="NNIE-POOLING-CEIL"):
            legalise(net, settings)


def test_round_mode_ceil_is_only_text(settings) -> None:
    pool = Layer("p", "Pooling", ["data"], ["p"], {"kernel_size": 3, "stride": 2, "round_mode": "CEIL"})
    result = legalise(small(pool), settings)
    assert "round_mode" not in result.net.layer("p").params and "NNIE-POOLING-CEIL" in rules(result)


def test_names_stay_short_unique_and_safe(settings) -> None:
    stem = "/body/stage1/stage1.0/stage1.0.2"
    layers = [conv(f"{stem}/Conv_{i}", "data", f"{stem}/Conv_output_{i}", 3, 2) for i in range(12)]
    layers += [conv("short", "data", "short", 3, 2)]
    result = legalise(small(*layers), settings)
    names = [layer.name for layer in result.net.layers]
    blobs = [layer.tops[0] for layer in result.net.layers]
    assert len(set(names)) == len(set(blobs)) == 13 and all(
        len(n) <= 31 and "/" not in n for n in names + blobs
    )
    assert result.original_names[blobs[3]] == f"{stem}/Conv_output_3"
    assert "short" in names


def test_what_leads_nowhere_is_kept_as_an_output(settings) -> None:
    net = small(conv("a", "data", "a", 3, 4), conv("b", "data", "b", 3, 4))
    assert legalise(net, settings).net.outputs == ["a", "b"]


def test_heads_of_another_network_are_refused(settings) -> None:
    net = small(conv("a", "data", "a", 3, 4))
    with pytest.raises(KilnError, match=r"heads do not name.*value: b; limit: a"):
        legalise(net, settings, [HeadMap("b", "b", 0, 1, (16, 16), 1, 4, "anchor_major")])


def test_unknown_layers_are_refused_first(settings) -> None:
    net = small(conv("a", "data", "a", 3, 4), Layer("i", "Interp", ["a"], ["i"]))
    with pytest.raises(KilnError, match=r"i: Interp is not an NNIE layer.*\n.*next step: bilinear"):
        legalise(net, settings)


def test_headers(settings, tmp_path: Path) -> None:
    net = legalise(small(conv("a", "data", "a", 3, 4)), settings).net
    assert legal_text(net, "legacy").splitlines()[1] == 'input: "data"'
    (tmp_path / "n.prototxt").write_text(legal_text(net, "layer"))
    assert 'type: "Input"' in legal_text(net, "layer")
    assert read_prototxt(tmp_path / "n.prototxt").inputs == net.inputs


def test_every_edit_cites_a_known_limit(charrin, settings) -> None:
    for edit in legalise(charrin(64, 64), settings).edits:
        assert edit.rule in LIMITS or edit.rule.startswith("CAFFE-")


def test_a_changed_function_is_never_written(settings) -> None:
    net = small(conv("a", "data", "a", 3, 4), relu("r", "a", "a"))
    result = legalise(net, settings)
    assert prove(net, result)["max_relative"] < 1e-5
    result.net.layer("a").blobs[1] = result.net.layer("a").blobs[1] + 1
    with pytest.raises(KilnError, match="legalising changed the network"):
        prove(net, result)


def test_what_opencv_cannot_run_is_not_claimed(settings) -> None:
    net = small(conv("a", "data", "a", 3, 4), Layer("up", "Upsample", ["a"], ["up"], {"scale": 2}))
    assert "not_measured" in prove(net, legalise(net, settings))
