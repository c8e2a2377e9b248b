"""A tool's tensor means the model's output whose name it begins with, whatever its place."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.chips.sophon.outputs import meaning, onnx_name
from facekiln.config import Model, load_config
from facekiln.errors import KilnError


@pytest.fixture(scope="module")
def model(root: Path) -> Model:
    return load_config(root / "config").model("ulfd_rfb_320")


# As tpu_mlir 1.26 names them: bm1684 fp32, bm1684 int8, bm1684x fp16 and int8.
@pytest.mark.parametrize(
    "names",
    [
        ("scores_Softmax", "boxes_Concat"),
        ("scores_Softmax", "boxes_Concat_f32"),
        ("scores_Softmax_f32", "boxes_Concat_f32"),
        ("scores", "boxes"),
    ],
)
def test_names_of_every_precision_in_any_order(model: Model, names: tuple[str, str]) -> None:
    for order in permutations(names):
        assert meaning(order, model) == {names[0]: "scores", names[1]: "boxes"}


def test_the_longest_beginning_counts(model: Model) -> None:
    tricky = replace(model, outputs=("conf", "conf_low"))
    assert meaning(["conf_low_Softmax", "conf_Concat_f32"], tricky) == {
        "conf_low_Softmax": "conf_low",
        "conf_Concat_f32": "conf",
    }


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["scores_Softmax"], "output 'boxes'"),
        (["scores_Softmax", "boxes_Concat", "boxes_Concat_f32"], "meant by 2 tensors"),
        (["scores_Softmax", "boxesConcat"], "boxesConcat"),
        (["loc_Concat", "conf_Softmax"], "loc_Concat"),
        ([], "no output at all"),
    ],
)
def test_what_is_not_exactly_the_models_outputs_is_refused(model: Model, names: list[str], what: str) -> None:
    with pytest.raises(KilnError, match=what):
        meaning(names, model)


# From mlir files of tpu_mlir 1.26.
@pytest.mark.parametrize(
    ("tensor", "name"),
    [
        ("/base_net.0/base_net.0.2/Relu_output_0_Relu", "/base_net.0/base_net.0.2/Relu_output_0"),
        ("boxes_Concat_f32", "boxes"),
        ("scores_Softmax_f16", "scores"),
        ("/Transpose_7_output_0_Transpose_si8", "/Transpose_7_output_0"),
        ("input", "input"),
    ],
)
def test_onnx_names(tensor: str, name: str) -> None:
    assert onnx_name(tensor) == name


@given(
    name=st.text("abz/._0123", min_size=1, max_size=20),
    operator=st.sampled_from(["Conv", "LeakyRelu", "MaxPool", "Conv2D"]),
    mark=st.sampled_from(["", "_f32", "_f16", "_si8"]),
)
def test_operator_and_mark_are_all_that_is_taken_off(name: str, operator: str, mark: str) -> None:
    assert onnx_name(f"{name}_{operator}{mark}") == name
