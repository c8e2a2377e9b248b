from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from facekiln.chips.ncnn.model import NcnnModel
from facekiln.chips.ncnn.param import Graph, Layer
from facekiln.chips.ncnn.quantise import quantise, to_int8
from facekiln.chips.ncnn.quantise_file import heads_of, kept_in_float
from facekiln.chips.ncnn.table import make_table
from facekiln.chips.ncnn.weights import INT8, as_fp16, bin_bytes, parse_bin
from facekiln.errors import KilnError


def test_rounding_is_half_away_from_zero_and_symmetric() -> None:
    # src/layer/quantize.cpp of Tencent/ncnn: round(), then -127..127.
    values = np.array([0.5, 1.5, -0.5, -2.5, 0.49999997, 126.6, 127.5, -128, 1e9, -1e9], np.float32)
    assert to_int8(values).tolist() == [1, 2, -1, -3, 0, 127, 127, -127, 127, -127]


def test_terms_and_blobs(chain: Callable[..., NcnnModel]) -> None:
    model = chain("Convolution", "ConvolutionDepthWise", "InnerProduct")
    made = quantise(model, make_table(model, {layer.name: 1.0 for layer in model.graph}))
    # ncnn2int8: 1 for depthwise convolutions, 2 for the rest, 100 more where int8 is handed on.
    assert [layer.params.get(8) for layer in made.model.graph] == [None, "102", "1", "2"]
    assert (made.layers, made.requantised, made.floating) == (3, 1, ())
    assert [blob.role for blob in made.model.weights["convolution_0"]] == [
        "weight",
        "bias",
        "weight_scales",
        "bottom_scale",
        "top_scale",
    ]
    assert made.model.weights["convolution_0"][0].tag == INT8
    assert np.abs(made.model.weights["convolution_0"][0].values).max() == 31
    data = bin_bytes(made.model.graph, made.model.weights)
    assert bin_bytes(made.model.graph, parse_bin(made.model.graph, data)) == data
    assert made.model.storage() == "int8"
    assert quantise(model, make_table(model, {"convolution_0": 1.0})).floating == (
        "convolutiondepthwise_1",
        "innerproduct_2",
    )


def test_int8_is_handed_on_only_where_all_readers_take_it_at_one_scale(
    chain: Callable[..., NcnnModel],
) -> None:
    model = chain("Convolution", "Convolution", "Convolution")
    first, second, third = model.graph.layers[1:]
    split = Layer("Split", "split", (first.tops[0],), ("s0", "s1"))
    graph = Graph(
        (
            model.graph.layers[0],
            first,
            split,
            replace(second, bottoms=("s0",)),
            replace(third, bottoms=("s1",)),
        )
    )
    model = NcnnModel(graph, model.weights)
    names = [first.name, second.name, third.name]
    same = make_table(model, dict.fromkeys(names, 1.0))
    assert quantise(model, same).requantised == 1
    assert quantise(model, same, requantise=False).requantised == 0
    other = make_table(model, {names[0]: 1.0, names[1]: 1.0, names[2]: 2.0})
    assert quantise(model, other).requantised == 0
    assert quantise(model, make_table(model, dict.fromkeys(names[:2], 1.0))).requantised == 0
    top = quantise(model, same).model.blob(names[0], "top_scale")
    assert top is not None
    assert top.values.tolist() == [same[names[1]].bottom]


def test_an_activation_between_two_convolutions_stops_int8(chain: Callable[..., NcnnModel]) -> None:
    model = chain("Convolution", "Convolution")
    first, second = model.graph.layers[1:]
    relu = Layer("ReLU", "relu", first.tops, ("r",))
    graph = Graph((model.graph.layers[0], first, relu, replace(second, bottoms=("r",))))
    table = make_table(NcnnModel(graph, model.weights), {first.name: 1.0, second.name: 1.0})
    assert quantise(NcnnModel(graph, model.weights), table).requantised == 0


def test_what_stays_in_float(chain: Callable[..., NcnnModel]) -> None:
    graph = chain("Convolution", "ConvolutionDepthWise", "Convolution").graph
    assert heads_of(graph) == ["convolution_2"]
    assert kept_in_float(graph, ["heads", "convolution_0"]) == {"convolution_0", "convolution_2"}
    assert kept_in_float(graph, []) == set()
    with pytest.raises(KilnError, match="did you mean 'convolution_0'"):
        kept_in_float(graph, ["convolutio_0"])


def test_what_cannot_be_quantised(chain: Callable[..., NcnnModel]) -> None:
    model = chain("Convolution")
    table = make_table(model, {"convolution_0": 1.0})
    with pytest.raises(KilnError, match="nothing would be int8"):
        quantise(model, {})
    with pytest.raises(KilnError, match="not in float32"):
        quantise(NcnnModel(model.graph, as_fp16(model.weights)), table)
