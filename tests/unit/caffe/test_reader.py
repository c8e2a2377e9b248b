"""Reading .prototxt and .caffemodel: ours, other people's, old and damaged ones."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facekiln.caffe.net import Layer, Net
from facekiln.caffe.reader import read_net, read_prototxt
from facekiln.caffe.schema import message_class
from facekiln.caffe.writer import caffemodel_bytes, prototxt_text, write_net
from facekiln.errors import KilnError

RELU = 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }'


def _text(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    return path


@pytest.fixture
def small() -> Net:
    """A convolution and an inner product on a 2-channel image."""
    rng = np.random.default_rng(0)
    conv = {"num_output": 3, "kernel_size": [2], "stride": [2]}
    blobs = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 2, 2, 2), (3,), (4, 12))]
    return Net(
        "small",
        {"data": [1, 2, 4, 4]},
        [
            Layer("conv", "Convolution", ["data"], ["conv"], conv, blobs[:2]),
            Layer("fc", "InnerProduct", ["conv"], ["fc"], {"num_output": 4, "bias_term": False}, blobs[2:]),
        ],
    )


@pytest.mark.parametrize(
    "header",
    [
        'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }',
        'input: "data"\ninput_shape: { dim: [1, 3, 8, 8] }  # a comment',
        'input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8',
        """layer { name: "data" type: "Input" top: "data"
          input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }""",
        "layer { name: 'd' type: 'Input' top: 'data' input_param { shape: { dim: [1, 3, 8, 8] } } }",
    ],
)
def test_every_way_to_declare_an_input(tmp_path: Path, header: str) -> None:
    net = read_prototxt(_text(tmp_path, f"# made by hand\nname: 'n'\n{header}\n{RELU}"))
    assert net.inputs == {"data": [1, 3, 8, 8]}
    assert [layer.name for layer in net.layers] == ["r"]


def test_two_inputs_of_one_shape(tmp_path: Path) -> None:
    header = 'layer { name: "i" type: "Input" top: "a" top: "b" input_param { shape { dim: 1 dim: 2 } } }'
    layer = """layer { name: "s" type: "Eltwise" bottom: "a" bottom: "b" top: "s"
      eltwise_param { operation: MAX } }"""
    net = read_prototxt(_text(tmp_path, header + layer))
    assert net.inputs == {"a": [1, 2], "b": [1, 2]}
    assert net.layers[0].params == {"operation": "MAX"}


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    text = f'name: "n"\r\ninput: "data"\r\ninput_shape {{ dim: 1 dim: 3 dim: 8 dim: 8 }}\r\n{RELU}\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_prototxt(path).name == "n"


def test_only_fields_that_are_set_are_given(tmp_path: Path) -> None:
    layer = """layer { name: "c" type: "Convolution" bottom: "data" top: "c"
      convolution_param { num_output: 4 kernel_h: 3 kernel_w: 1 dilation: 2 engine: CAFFE
        weight_filler { type: "xavier" } } }"""
    head = 'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }'
    assert read_prototxt(_text(tmp_path, head + layer)).layers[0].params == {
        "num_output": 4,
        "kernel_h": 3,
        "kernel_w": 1,
        "dilation": [2],
        "engine": "CAFFE",
        "weight_filler": {"type": "xavier"},
    }


def test_what_only_training_reads_is_dropped(tmp_path: Path) -> None:
    text = """input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
    layer { name: "aug" type: "Dropout" bottom: "data" top: "aug" include { phase: TRAIN } }
    layer { name: "out" type: "Sigmoid" bottom: "data" top: "out" exclude { phase: TEST } }
    layer { name: "r" type: "ReLU" bottom: "data" top: "r" include { phase: TEST }
      param { lr_mult: 0 } propagate_down: false loss_weight: 1 }"""
    net = read_prototxt(_text(tmp_path, text))
    assert [(layer.name, layer.params) for layer in net.layers] == [("r", {})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("name: 'n'", "no `layer` block"),
        (f'input: "data" {RELU}', "1 inputs and 0 input shapes"),
        (f'input: "data" input_shape {{ dim: 1 dim: -1 }} {RELU}', "no fixed shape"),
        (f'input: "data" input_shape {{ dim: 1 }} {RELU} {RELU}', "two layers have this name"),
        ('input: "d" input_shape { dim: 1 } layer { name: "x" top: "x" }', "no name or no type"),
        ('layers { name: "c" type: CONVOLUTION }', "V1 `layers`.*\n.*upgrade"),
        ("layers { }", "V1 `layers`"),
        ('layer { name: "d" type: "Input" top: "d" input_param { } }', "no shape for each"),
        (
            'input: "d" input_shape { dim: 1 } layer { name: "r" type: "ReLU" param { name: "w" } }',
            "layer 'r'.*shares weights",
        ),
        (
            'input: "d" input_shape { dim: 1 } layer { name: "r" type: "ReLU" pooling_param { } }',
            "takes no 'pooling_param'",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(KilnError, match=message):
        read_prototxt(_text(tmp_path, text))


def test_an_unknown_field_is_named_with_line_and_layer(tmp_path: Path) -> None:
    text = f"""input: "data"
input_shape {{ dim: 1 dim: 3 dim: 8 dim: 8 }}
{RELU}
layer {{
  name: "odd"
  type: "Custom"
  custom_param {{ shape {{ dim: 1 }} }}
}}"""
    with pytest.raises(KilnError, match=r"line 7, near layer 'odd'.*custom_param") as caught:
        read_prototxt(_text(tmp_path, text))
    assert "next step" in str(caught.value)


def test_binary_web_pages_and_pointers_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    for data, message in (
        (b"\n\x05small\xa2\x06\x80\xff", "is this the .caffemodel"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    ):
        path.write_bytes(data)
        with pytest.raises(KilnError, match=message):
            read_prototxt(path)
    with pytest.raises(KilnError, match="cannot be read"):
        read_prototxt(tmp_path / "none.prototxt")


def _pair(tmp_path: Path, net: Net) -> tuple[Path, Path]:
    prototxt, caffemodel = tmp_path / "n.prototxt", tmp_path / "n.caffemodel"
    write_net(net, prototxt, caffemodel)
    return prototxt, caffemodel


def test_weights_are_matched_by_name(tmp_path: Path, small: Net) -> None:
    prototxt, caffemodel = _pair(tmp_path, small)
    turned = small.copy()
    turned.layers.reverse()
    caffemodel.write_bytes(caffemodel_bytes(turned))
    read = read_net(prototxt, caffemodel)
    for ours, theirs in zip(small.layers, read.layers, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours.blobs, theirs.blobs, strict=True))
        assert all(blob.dtype == np.float32 for blob in theirs.blobs)


def _blob(values: np.ndarray, kind: str) -> bytes:
    """Return a BlobProto as other writers make it: old dims, unpacked floats, doubles."""
    blob = message_class("BlobProto")()
    if kind == "legacy":
        for name, dim in zip(
            ("num", "channels", "height", "width"), [1] * (4 - values.ndim) + list(values.shape), strict=True
        ):
            setattr(blob, name, dim)
    else:
        blob.shape.dim.extend(values.shape)
    if kind == "double":
        blob.double_data.append(values.astype("<f8").tobytes())
        return blob.SerializeToString()
    if kind == "unpacked":
        head = blob.SerializeToString()
        return head + b"".join(b"\x2d" + np.float32(value).tobytes() for value in values.ravel())
    if kind == "chunks":
        half = values.size // 2
        blob.data.extend([values.ravel()[:half].tobytes(), values.ravel()[half:].tobytes()])
        return blob.SerializeToString()
    blob.data.append(values.astype("<f4").tobytes())
    return blob.SerializeToString()


@pytest.mark.parametrize("kind", ["legacy", "double", "unpacked", "chunks"])
def test_blobs_of_other_writers(tmp_path: Path, small: Net, kind: str) -> None:
    prototxt, caffemodel = _pair(tmp_path, small)
    message = message_class("NetParameter")()
    for layer in small.layers:
        entry = message.layer.add(name=layer.name, type=layer.type)
        for values in layer.blobs:
            entry.blobs.add().MergeFromString(_blob(values, kind))
    caffemodel.write_bytes(message.SerializeToString())
    for ours, theirs in zip(small.layers, read_net(prototxt, caffemodel).layers, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours.blobs, theirs.blobs, strict=True))


def test_missing_weights_name_the_layer(tmp_path: Path, small: Net) -> None:
    prototxt, caffemodel = _pair(tmp_path, small)
    small.layers[1].blobs = []
    caffemodel.write_bytes(caffemodel_bytes(small))
    with pytest.raises(KilnError, match=r"layer 'fc'.*weights are missing"):
        read_net(prototxt, caffemodel)


def test_a_missing_bias_names_the_layer(tmp_path: Path, small: Net) -> None:
    prototxt, caffemodel = _pair(tmp_path, small)
    small.layers[0].blobs.pop()
    caffemodel.write_bytes(caffemodel_bytes(small))
    with pytest.raises(KilnError, match=r"layer 'conv'.*1 blobs.*2 blobs"):
        read_net(prototxt, caffemodel)


def test_extra_weights_name_the_layer(tmp_path: Path, small: Net) -> None:
    prototxt, caffemodel = _pair(tmp_path, small)
    small.layers[0].name = "other"
    caffemodel.write_bytes(caffemodel_bytes(small))
    with pytest.raises(KilnError, match="layer 'conv'"):
        read_net(prototxt, caffemodel)
    small.layers.append(Layer("conv", "Convolution", [], [], {}, small.layers[0].blobs))
    caffemodel.write_bytes(caffemodel_bytes(small))
    with pytest.raises(KilnError, match=r"(?s)layer 'other'.*not a pair"):
        read_net(prototxt, caffemodel)


def test_misshapen_weights_name_layer_and_shapes(tmp_path: Path, small: Net) -> None:
    prototxt, caffemodel = _pair(tmp_path, small)
    small.layers[0].blobs[0] = np.zeros((3, 3, 2, 2), np.float32)
    caffemodel.write_bytes(caffemodel_bytes(small))
    with pytest.raises(KilnError, match=r"layer 'conv'.*blob 0.*\[3, 3, 2, 2\].*\[3, 2, 2, 2\]"):
        read_net(prototxt, caffemodel)


def test_weights_twice_and_not_finite_name_the_layer(tmp_path: Path, small: Net) -> None:
    prototxt, caffemodel = _pair(tmp_path, small)
    whole = caffemodel.read_bytes()
    caffemodel.write_bytes(whole + whole)
    with pytest.raises(KilnError, match=r"layer 'conv'.*twice"):
        read_net(prototxt, caffemodel)
    damaged = whole.replace(small.layers[0].blobs[1].tobytes(), np.full(3, np.nan, "<f4").tobytes())
    assert damaged != whole
    caffemodel.write_bytes(damaged)
    with pytest.raises(KilnError, match=r"layer 'conv'.*NaN"):
        read_net(prototxt, caffemodel)


def test_every_truncation_is_refused(tmp_path: Path, small: Net) -> None:
    prototxt, caffemodel = _pair(tmp_path, small)
    whole = caffemodel.read_bytes()
    for length in range(len(whole)):
        caffemodel.write_bytes(whole[:length])
        with pytest.raises(KilnError):
            read_net(prototxt, caffemodel)


def test_old_caffemodels_are_refused(tmp_path: Path, small: Net) -> None:
    prototxt, caffemodel = _pair(tmp_path, small)
    message = message_class("NetParameter")()
    message.layers.add(name="conv")
    caffemodel.write_bytes(message.SerializeToString())
    with pytest.raises(KilnError, match="V1 `layers`"):
        read_net(prototxt, caffemodel)


def test_a_layer_that_reads_nothing_written_is_named(tmp_path: Path, small: Net) -> None:
    prototxt, caffemodel = _pair(tmp_path, small)
    prototxt.write_text(prototxt_text(small).replace('bottom: "conv"', 'bottom: "cnov"'))
    with pytest.raises(KilnError, match=r"layer 'fc'.*'cnov'"):
        read_net(prototxt, caffemodel)


QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), binary=st.booleans())
def test_damage_is_read_or_refused_but_never_crashes(
    tmp_path: Path, small: Net, place: int, byte: int, binary: bool
) -> None:
    pair = _pair(tmp_path, small)
    data = bytearray(pair[binary].read_bytes())
    data[place % len(data)] = byte
    pair[binary].write_bytes(data)
    with contextlib.suppress(KilnError):
        read_net(*pair)


@pytest.mark.published
def test_published_mnet25(mirror: Callable[[str], Path]) -> None:
    net = read_net(mirror("mnet25_nnie.prototxt"), mirror("mnet25_nnie.caffemodel"))
    # Census of hanson-young/nniefacelib's mnet.prototxt.
    assert Counter(layer.type for layer in net.layers) == {
        "Convolution": 56,
        "Deconvolution": 2,
        "BatchNorm": 47,
        "Scale": 47,
        "ReLU": 41,
        "Reshape": 6,
        "Softmax": 3,
        "Concat": 3,
        "Eltwise": 2,
    }
    assert net.inputs == {"data": [1, 3, 640, 640]}
    # The order of outputs is the ABI that the board code counts on.
    kinds = ("bbox_pred", "landmark_pred", "cls_prob_reshape")
    assert net.outputs == [f"face_rpn_{kind}_stride{s}" for kind in kinds for s in (32, 16, 8)]
    # eps differs inside one network: 1e-5 in the backbone, 2e-5 in the pyramid.
    eps = {layer.params["eps"] for layer in net.layers if layer.type == "BatchNorm"}
    assert sorted(round(value, 9) for value in eps) == [1e-5, 2e-5]
    upsampling = net.layer("rf_c3_upsampling_")
    assert upsampling.tops == ["rf_c3_upsampling"] and (upsampling.blobs[0] == 1).all()
    # The file itself holds 223 layers.
    message = message_class("NetParameter").FromString(mirror("mnet25_nnie.caffemodel").read_bytes())
    assert len(message.layer) == 223


@pytest.mark.published
def test_published_ulfd(mirror: Callable[[str], Path]) -> None:
    net = read_net(mirror("ulfd_rfb_320_upstream.prototxt"), mirror("ulfd_rfb_320_upstream.caffemodel"))
    assert Counter(layer.type for layer in net.layers)["Convolution"] == 52
    assert net.inputs == {"input": [1, 3, 240, 320]} and sorted(net.outputs) == ["boxes", "scores"]


def test_a_layer_of_the_training_phase_is_left_out(tmp_path: Path) -> None:
    text = f"""input: "data" input_shape {{ dim: 1 dim: 3 dim: 8 dim: 8 }} {RELU}
    layer {{ name: "t" type: "Sigmoid" bottom: "r" top: "t" phase: TRAIN }}"""
    assert [layer.name for layer in read_prototxt(_text(tmp_path, text)).layers] == ["r"]


def test_weights_of_half_a_number_name_the_layer(tmp_path: Path, small: Net) -> None:
    prototxt, caffemodel = _pair(tmp_path, small)
    message = message_class("NetParameter").FromString(caffemodel.read_bytes())
    message.layer[1].blobs[0].data[0] += b"\0"
    caffemodel.write_bytes(message.SerializeToString())
    with pytest.raises(KilnError, match=r"layer 'fc'.*cannot be read"):
        read_net(prototxt, caffemodel)


def test_weights_without_a_shape_are_one_axis(tmp_path: Path, small: Net) -> None:
    prototxt, caffemodel = _pair(tmp_path, small)
    message = message_class("NetParameter").FromString(caffemodel.read_bytes())
    message.layer[0].blobs[1].ClearField("shape")
    caffemodel.write_bytes(message.SerializeToString())
    assert np.array_equal(read_net(prototxt, caffemodel).layers[0].blobs[1], small.layers[0].blobs[1])


def test_layers_by_name(small: Net) -> None:
    assert small.layer("fc") is small.layers[1]
    with pytest.raises(KeyError):
        small.layer("none")
