from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facekiln.chips.ncnn.model import NcnnModel
from facekiln.chips.ncnn.param import Layer
from facekiln.chips.ncnn.table import (
    make_table,
    parse_table,
    read_table,
    table_text,
    winograd_shaped,
    write_table,
)
from facekiln.chips.ncnn.weights import FP32, Blob
from facekiln.errors import KilnError


def test_scales_are_steps_over_what_is_reached(chain: Callable[..., NcnnModel]) -> None:
    model = chain("Convolution", "ConvolutionDepthWise", "InnerProduct")
    table = make_table(model, {layer.name: 2.0 for layer in model.graph})
    for name, steps in (("convolution_0", 31), ("convolutiondepthwise_1", 127), ("innerproduct_2", 127)):
        values = model.weights[name][0].values.reshape(4, -1)
        # ncnn2table: 31 steps for 3x3 convolutions of stride 1, "6bit" for Winograd F(4,3); else 127.
        assert np.allclose(table[name].weights, steps / np.abs(values).max(axis=1))
        assert table[name].bottom == pytest.approx(127 / 2)
    assert np.allclose(
        make_table(model, {"convolution_0": 2.0}, 127)["convolution_0"].weights,
        table["convolution_0"].weights * 127 / 31,
    )


def test_zeros_get_scale_one(chain: Callable[..., NcnnModel]) -> None:
    model = chain("Convolution")
    values = model.weights["convolution_0"][0].values.copy().reshape(4, -1)
    values[2] = 0
    model.weights["convolution_0"][0] = Blob("weight", FP32, values.ravel())
    table = make_table(model, {"convolution_0": 0.0})
    assert table["convolution_0"].weights[2] == 1
    assert table["convolution_0"].bottom == 1
    assert parse_table(table_text(table), model).keys() == table.keys()


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({1: "3"}, True),
        ({1: "3", 11: "1"}, False),
        ({1: "3", 3: "2"}, False),
        ({1: "3", 2: "2"}, False),
        ({1: "1"}, False),
        ({1: "3", 11: "3", 2: "1", 12: "1", 3: "1", 13: "1"}, True),
    ],
)
def test_which_convolutions_winograd_takes(params: dict[int, str], expected: bool) -> None:
    assert winograd_shaped(Layer("Convolution", "c", (), (), params)) is expected
    assert not winograd_shaped(Layer("ConvolutionDepthWise", "c", (), (), params))


def test_text_gives_the_same_scales_to_the_bit(chain: Callable[..., NcnnModel], tmp_path: Path) -> None:
    model = chain("Convolution", "InnerProduct")
    table = make_table(model, {layer.name: 0.123 for layer in model.graph})
    path = tmp_path / "m.table"
    write_table(path, table)
    back = read_table(path, model)
    for name, scales in table.items():
        assert np.array_equal(back[name].weights, scales.weights)
        assert back[name].bottom == scales.bottom
    lines = path.read_text().splitlines()
    # ncnn2table's form: every weight line before every input line, a blank behind each scale.
    assert [line.split()[0] for line in lines] == [
        "convolution_0_param_0",
        "innerproduct_1_param_0",
        "convolution_0",
        "innerproduct_1",
    ]
    assert all(line.endswith(" ") for line in lines)


def test_a_table_of_ncnn2table_is_read(chain: Callable[..., NcnnModel]) -> None:
    text = "convolutiondepthwise_0_param_0 1.5 2.5 3.5 4.5 \nconvolutiondepthwise_0 9.0 9.0 9.0 9.0 \n"
    table = parse_table(text, chain("ConvolutionDepthWise", "Convolution"))
    assert list(table) == ["convolutiondepthwise_0"]
    assert table["convolutiondepthwise_0"].bottom == 9


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("other_param_0 1 \n", "which the model has not"),
        ("convolution_0_param_0 1 2 3 \n", "another number of scales"),
        ("convolution_0 1 2 \n", "another number of scales"),
        ("convolution_0_param_0 1 2 3 inf \n", "not finite and positive"),
        ("convolution_0 0 \n", "not finite and positive"),
        ("convolution_0 -1 \n", "not finite and positive"),
        ("convolution_0 x \n", "no number"),
        ("convolution_0 \n", "not finite and positive"),
        ("convolution_0 1 \nconvolution_0 1 \n", "twice"),
        ("convolution_0 1 \n", "only one of the two lines"),
    ],
)
def test_a_wrong_table_is_refused(chain: Callable[..., NcnnModel], text: str, told: str) -> None:
    with pytest.raises(KilnError, match=told):
        parse_table(text, chain("Convolution"), "x.table")


def test_a_table_that_is_not_there(chain: Callable[..., NcnnModel], tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="cannot be read"):
        read_table(tmp_path / "none.table", chain("Convolution"))
