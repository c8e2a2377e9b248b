"""Writing: what is written reads back the same, in the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facekiln.caffe.net import Layer, Net
from facekiln.caffe.reader import read_net, read_prototxt
from facekiln.caffe.schema import PARAM_OF_TYPE, message_class, param_class
from facekiln.caffe.writer import caffemodel_bytes, prototxt_text, write_net
from facekiln.errors import KilnError

QUICK = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
# Surrogates have no UTF-8 form; everything else may stand in a name.
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def _field_values(field: Any) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        one: st.SearchStrategy[Any] = st.sampled_from([value.name for value in field.enum_type.values])
    elif field.message_type is not None:
        one = _params(_class_of(field.message_type.name))
    elif field.cpp_type == field.CPPTYPE_FLOAT:
        one = st.floats(width=32, allow_nan=False, allow_infinity=False)
    elif field.cpp_type == field.CPPTYPE_BOOL:
        one = st.booleans()
    elif field.cpp_type == field.CPPTYPE_STRING:
        one = NAMES
    else:
        low = 0 if field.cpp_type == field.CPPTYPE_UINT32 else -5
        one = st.integers(low, 1 << 31 - 1 if low else 9)
    return st.lists(one, min_size=1, max_size=3) if _repeated(field) else one


def _class_of(name: str) -> Any:
    return message_class(name)


def _repeated(field: Any) -> bool:
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def _params(cls: Any) -> st.SearchStrategy[dict[str, Any]]:
    # Rounding of a pooling is never written.
    fields = [field for field in cls.DESCRIPTOR.fields if field.name not in ("round_mode", "ceil_mode")]
    return st.fixed_dictionaries({}, optional={field.name: _field_values(field) for field in fields})


@st.composite
def _nets(draw: st.DrawFn) -> Net:
    layers = []
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    for name in names:
        layer_type = draw(st.sampled_from([*sorted(set(PARAM_OF_TYPE) - {"Input"}), "AbsVal", "Split"]))
        cls = param_class(layer_type)
        params = draw(_params(cls)) if cls else {}
        tops = draw(st.lists(NAMES, min_size=1, max_size=2))
        layers.append(Layer(name, layer_type, draw(st.lists(NAMES, max_size=2)), tops, params))
    inputs = draw(st.dictionaries(NAMES, st.lists(st.integers(1, 9), min_size=1, max_size=4), max_size=2))
    return Net(draw(NAMES), inputs, layers)


@QUICK
@given(_nets())
def test_structure_round_trip(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "n.prototxt"
    text = prototxt_text(net)
    path.write_text(text, encoding="utf-8", newline="")
    read = read_prototxt(path)
    # An empty parameter block says nothing, in text as in memory.
    assert (read.name, read.inputs) == (net.name, net.inputs)
    for ours, theirs in zip(net.layers, read.layers, strict=True):
        assert (ours.name, ours.type, ours.bottoms, ours.tops) == (
            theirs.name,
            theirs.type,
            theirs.bottoms,
            theirs.tops,
        )
        assert ours.params == theirs.params
    assert prototxt_text(read) == text


@QUICK
@given(_nets())
def test_caffemodel_holds_the_same_parameters(net: Net) -> None:
    message = message_class("NetParameter").FromString(caffemodel_bytes(net))
    assert [layer.name for layer in message.layer] == [layer.name for layer in net.layers]
    for layer, entry in zip(net.layers, message.layer, strict=True):
        if layer.params:
            assert getattr(entry, PARAM_OF_TYPE[layer.type]) == param_class(layer.type)(**layer.params)


@QUICK
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8),
)
def test_weights_round_trip_to_the_bit(
    tmp_path: Path, outputs: int, inputs: int, kernel: int, values: list[float]
) -> None:
    shape = (outputs, inputs, kernel, kernel)
    weights = np.resize(np.array(values, np.float32), shape)
    params = {"num_output": outputs, "kernel_size": [kernel], "bias_term": False}
    net = Net("n", {"x": [1, inputs, 4, 4]}, [Layer("c", "Convolution", ["x"], ["c"], params, [weights])])
    write_net(net, tmp_path / "n.prototxt", tmp_path / "n.caffemodel")
    read = read_net(tmp_path / "n.prototxt", tmp_path / "n.caffemodel")
    assert read.layers[0].blobs[0].tobytes() == weights.tobytes()
    assert caffemodel_bytes(read) == (tmp_path / "n.caffemodel").read_bytes()


def test_the_text_is_what_people_expect() -> None:
    params = {"num_output": 8, "kernel_size": [3], "pad": [1]}
    relu = Layer("r", "ReLU", ["c"], ["c"], {"negative_slope": 0.1})
    net = Net("n", {"data": [1, 3, 8, 8]}, [Layer("c", "Convolution", ["data"], ["c"], params), relu])
    assert prototxt_text(net) == (
        'name: "n"\ninput: "data"\ninput_shape {\n  dim: 1\n  dim: 3\n  dim: 8\n  dim: 8\n}\n'
        'layer {\n  name: "c"\n  type: "Convolution"\n  bottom: "data"\n  top: "c"\n'
        "  convolution_param {\n    num_output: 8\n    pad: 1\n    kernel_size: 3\n  }\n}\n"
        'layer {\n  name: "r"\n  type: "ReLU"\n  bottom: "c"\n  top: "c"\n'
        "  relu_param {\n    negative_slope: 0.1\n  }\n}\n"
    )


def _one(layer_type: str, **params: Any) -> Net:
    return Net("n", {"x": [1, 2, 4, 4]}, [Layer("the_layer", layer_type, ["x"], ["y"], params)])


def test_rounding_of_poolings_is_never_written() -> None:
    # Field 13 is round_mode in BVLC and ceil_mode, of opposite meaning, in forks.
    for params in ({"round_mode": "CEIL"}, {"ceil_mode": True}):
        net = _one("Pooling", pool="MAX", kernel_size=2, **params)
        assert "_mode" not in prototxt_text(net)
        message = message_class("NetParameter").FromString(caffemodel_bytes(net))
        assert not message.layer[0].pooling_param.HasField("round_mode")
    for params in ({"round_mode": "FLOOR"}, {"ceil_mode": False}):
        for write in (prototxt_text, caffemodel_bytes):
            with pytest.raises(KilnError, match=r"layer 'the_layer'.*rounds down"):
                write(_one("Pooling", pool="MAX", kernel_size=2, **params))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (_one("ReLU", slope=0.1), "layer 'the_layer'.*do not fit"),
        (_one("Eltwise", operation="MIN"), "do not fit"),
        (_one("Convolution", num_output=-1), "do not fit"),
        (_one("Convolution", num_output="8"), "do not fit"),
        (_one("AbsVal", negative_slope=0.1), "takes no parameters"),
        (_one("ReLU", negative_slope=float("nan")), "not finite"),
    ],
)
def test_parameters_that_caffe_has_not_are_refused(net: Net, message: str) -> None:
    with pytest.raises(KilnError, match=message):
        prototxt_text(net)


def test_weights_that_are_not_finite_are_refused() -> None:
    net = _one("Convolution", num_output=1, kernel_size=[1])
    net.layers[0].blobs = [np.full((1, 2, 1, 1), np.inf, np.float32)]
    with pytest.raises(KilnError, match=r"layer 'the_layer'.*NaN or infinity"):
        caffemodel_bytes(net)


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    with pytest.raises(KilnError):
        write_net(_one("ReLU", slope=1), tmp_path / "n.prototxt", tmp_path / "n.caffemodel")
    assert not list(tmp_path.iterdir())


def test_where_one_file_cannot_be_written_neither_is(tmp_path: Path) -> None:
    weights = tmp_path / "n.caffemodel"
    weights.write_bytes(b"of before")
    (tmp_path / "file").write_text("no folder")
    net = _one("ReLU", negative_slope=0.1)
    with pytest.raises(KilnError):
        write_net(net, tmp_path / "file" / "n.prototxt", weights)
    assert weights.read_bytes() == b"of before"
