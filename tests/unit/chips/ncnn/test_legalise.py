from __future__ import annotations

import pytest

from facekiln.chips.ncnn.legalise import declare_blobs, fuse_relu_behind_concat
from facekiln.chips.ncnn.param import Graph, parse_param
from facekiln.errors import KilnError

# As pnnx lays out two heads: the second output of the ONNX is made first.
PNNX = """7767517
6 7
Input in0 0 1 in0
Split split 1 2 in0 loc 2
Convolution c0 1 1 loc out1 0=4 1=1 6=12
Convolution c1 1 1 2 4 0=2 1=1 6=6
ReLU r 1 1 4 5
Softmax s 1 1 5 out0 0=0
"""


def _concat(between: str = "", slope: str = "") -> Graph:
    return parse_param(
        f"""7767517
6 7
Input in 0 1 in
Split split 1 2 in a b
Convolution c0 1 1 a 3 0=4 1=1 6=12
ConvolutionDepthWise c1 1 1 b 4 0=3 1=1 6=3 7=3 {between}
Concat cat 2 1 3 4 5 0=0
ReLU relu 1 1 5 out {slope}
"""
    )


def test_outputs_get_their_names_and_their_order_and_a_taken_name_gives_way() -> None:
    graph, edits = declare_blobs(parse_param(PNNX), ["image"], ["conf", "loc"])
    assert graph.inputs() == ["image"]
    assert graph.outputs() == ["conf", "loc"]
    assert [layer.name for layer in graph][-2:] == ["s", "c0"]
    assert "loc_kiln" in graph.blobs()
    assert parse_param(graph.text()) == graph
    assert {edit.rule for edit in edits} == {"NCNN-BLOB-NAME", "NCNN-OUTPUT-ORDER"}
    again, _ = declare_blobs(parse_param(PNNX), ["image"], ["conf", "loc"], ["loc", "conf"])
    assert again.outputs() == ["loc", "conf"]


def test_other_inputs_or_outputs_are_refused() -> None:
    with pytest.raises(KilnError, match="other inputs or outputs"):
        declare_blobs(parse_param(PNNX), ["image"], ["conf"])


@pytest.mark.parametrize(("slope", "kind", "params"), [("", "1", None), ("0=0.1", "2", "0.1")])
def test_a_relu_behind_a_concat_moves_into_its_convolutions(
    slope: str, kind: str, params: str | None
) -> None:
    graph, edits = fuse_relu_behind_concat(_concat(slope=slope))
    assert [layer.type for layer in graph][-1] == "Concat"
    assert graph.outputs() == ["out"]
    for layer in graph.layers[2:4]:
        assert (layer.params[9], layer.params.get(10)) == (kind, params)
    assert [edit.rule for edit in edits] == ["NCNN-RELU-CONCAT"]
    assert parse_param(graph.text()) == graph


def test_a_relu_stays_where_a_convolution_has_an_activation_or_another_layer_is_joined() -> None:
    graph = _concat(between="9=1")
    assert fuse_relu_behind_concat(graph) == (graph, [])
    graph = parse_param(_concat().text().replace("ConvolutionDepthWise", "Noop"))
    assert fuse_relu_behind_concat(graph) == (graph, [])
