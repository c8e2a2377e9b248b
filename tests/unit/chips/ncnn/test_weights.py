from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.chips.ncnn.model import NcnnModel, read_model, write_model
from facekiln.chips.ncnn.param import Graph, Layer, parse_param
from facekiln.chips.ncnn.weights import FP16, FP32, INT8, Blob, as_fp16, bin_bytes, parse_bin
from facekiln.errors import KilnError

GRAPH = parse_param(
    """7767517
4 4
Input data 0 1 data
Convolution conv 1 1 data conv 0=2 1=1 5=1 6=3 8=102
PReLU prelu 1 1 conv prelu 0=2
InnerProduct fc 1 1 prelu fc 0=1 1=0 2=2
"""
)


def _data() -> bytes:
    """By hand, after https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure: tag, values,
    padding."""
    conv = struct.pack("<I3bx2f2fff", 0x000D4B38, 1, -2, 127, 0.5, -0.5, 10, 20, 3, 4)
    prelu = struct.pack("<2f", 0.1, 0.2)
    inner = struct.pack("<I2e", 0x01306B47, 1.5, -2)
    return conv + prelu + inner


def test_a_file_by_hand() -> None:
    weights = parse_bin(GRAPH, _data())
    roles = [(blob.role, blob.tag, blob.values.tolist()) for blob in weights["conv"]]
    assert roles == [
        ("weight", INT8, [1, -2, 127]),
        ("bias", None, [0.5, -0.5]),
        ("weight_scales", None, [10, 20]),
        ("bottom_scale", None, [3]),
        ("top_scale", None, [4]),
    ]
    assert weights["fc"][0].tag == FP16
    assert weights["fc"][0].values.tolist() == [1.5, -2]
    assert bin_bytes(GRAPH, weights) == _data()


def test_every_truncation_is_refused() -> None:
    data = _data()
    for size in range(len(data)):
        with pytest.raises(KilnError, match="cut short"):
            parse_bin(GRAPH, data[:size], "x.bin")
    with pytest.raises(KilnError, match="longer than its graph"):
        parse_bin(GRAPH, data + b"\0\0\0\0")


@given(st.integers(0, len(_data()) - 1), st.integers(1, 255))
def test_a_mutated_byte_is_read_or_refused(place: int, change: int) -> None:
    data = bytearray(_data())
    data[place] ^= change
    with contextlib.suppress(KilnError):
        parse_bin(GRAPH, bytes(data))


@given(st.binary(max_size=80))
def test_bytes_at_random_are_refused_or_come_back(data: bytes) -> None:
    try:
        weights = parse_bin(GRAPH, data)
    except KilnError:
        return
    assert len(bin_bytes(GRAPH, weights)) == len(data)


def test_an_unknown_tag_and_values_that_are_not_finite() -> None:
    with pytest.raises(KilnError, match="unknown storage tag"):
        parse_bin(GRAPH, b"\1\2\3\4" + _data()[4:])
    bad = bytearray(_data())
    bad[8:12] = struct.pack("<f", np.inf)
    with pytest.raises(KilnError, match="not finite"):
        parse_bin(GRAPH, bytes(bad))


@pytest.mark.parametrize(
    ("kind", "params", "told"),
    [
        ("LSTM", {}, "not known here"),
        ("Convolution", {6: "-4"}, "impossible size"),
        ("Convolution", {6: "999999999999"}, "impossible size"),
        ("Convolution", {6: "8", 8: "7"}, "int8 parameter"),
        ("PReLU", {}, "impossible size"),
    ],
)
def test_a_layer_that_cannot_be_read(kind: str, params: dict[int, str], told: str) -> None:
    graph = Graph((Layer(kind, "x", (), ("x",), params),))
    with pytest.raises(KilnError, match=told):
        parse_bin(graph, b"\0" * 64)


def test_weights_that_do_not_fit_their_layer_are_not_written() -> None:
    weights = parse_bin(GRAPH, _data())
    with pytest.raises(KilnError, match="not what it reads"):
        bin_bytes(GRAPH, {**weights, "fc": []})


def test_fp16_storage_keeps_biases_and_refuses_what_it_cannot_hold(chain: Callable[..., NcnnModel]) -> None:
    model = chain("Convolution")
    halved = as_fp16(model.weights)["convolution_0"]
    assert [blob.tag for blob in halved] == [FP16, None]
    assert np.array_equal(halved[0].values, model.weights["convolution_0"][0].values.astype(np.float16))
    model.weights["convolution_0"][0] = Blob("weight", FP32, np.full(144, 1e5, np.float32))
    with pytest.raises(KilnError, match="beyond float16"):
        as_fp16(model.weights)


def test_a_model_comes_back_and_a_wrong_one_is_refused_before_ncnn_sees_it(
    chain: Callable[..., NcnnModel], tmp_path: Path
) -> None:
    path = tmp_path / "m.param"
    write_model(path, chain("Convolution", "ConvolutionDepthWise", "InnerProduct"))
    first = (path.read_bytes(), path.with_suffix(".bin").read_bytes())
    write_model(path, read_model(path))
    assert (path.read_bytes(), path.with_suffix(".bin").read_bytes()) == first
    # A window that the weights do not divide into crashes ncnn.
    path.write_text(path.read_text().replace("1=3 4=1 5=1 6=144", "1=7 4=1 5=1 6=144"))
    with pytest.raises(KilnError, match="do not divide"):
        read_model(path)
    with pytest.raises(KilnError, match=r"no \.param"):
        read_model(path.with_suffix(".bin"))


@pytest.mark.published
@pytest.mark.parametrize("name", ["RFB-320", "slim_320", "face", "retina", "mnet-opt"])
def test_upstream_files_come_back_to_the_byte(mirror: Callable[[str], Path], name: str) -> None:
    param, data = mirror(f"{name}.param"), mirror(f"{name}.bin").read_bytes()
    graph = parse_param(param.read_text())
    weights = parse_bin(graph, data)
    assert bin_bytes(graph, weights) == data
    # mnet-opt is published as fp16, the others as fp32.
    tags = {blob.tag for blobs in weights.values() for blob in blobs if blob.tag is not None}
    assert tags == ({FP16} if name == "mnet-opt" else {FP32})
