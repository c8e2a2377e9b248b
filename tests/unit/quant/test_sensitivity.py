"""Sensitivity: a cut graph says what the whole one would, and the worst layer is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.quant import sensitivity as room
from facekiln.quant.estimate import closeness, run_all
from facekiln.quant.qdq import build_qdq
from facekiln.quant.ranges import Ranges, measure_ranges
from facekiln.quant.run import Session
from facekiln.quant.sensitivity import WHOLE, sensitivity
from facekiln.quant.sensitivity_report import draw_sensitivity, sensitivity_csv, sensitivity_text
from facekiln.quant.suffix import suffix_of

NODES = ["first", "depthwise", "pointwise", "sum", "joined", "head"]


@pytest.fixture
def ranges(network: onnx.ModelProto, pictures: list[Any]) -> Ranges:
    return measure_ranges(network, pictures, percentile=99.9)


def test_a_suffix_computes_what_the_whole_does(network: onnx.ModelProto, pictures: list[Any]) -> None:
    whole = onnx.ModelProto()
    whole.CopyFrom(network)
    for node in network.graph.node[:-1]:
        whole.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
    values = {"input": pictures[0], **Session(whole).run({"input": pictures[0]})}
    for node in network.graph.node:
        cut = suffix_of(network, node.name)
        found = Session(cut.model).run({name: values[name] for name in cut.inputs})["points"]
        assert found == pytest.approx(values["points"], abs=1e-5)
    assert suffix_of(network, "depthwise").inputs == ("leaky",)
    assert set(suffix_of(network, "pointwise").inputs) == {"relu", "leaky"}
    assert suffix_of(network, "joined").bytes == 4 * 16 * 16 * (8 + 8)


def test_layers_alone_are_those_of_whole_graphs(
    network: onnx.ModelProto, ranges: Ranges, pictures: list[Any], model: Model
) -> None:
    """The fast way against building and running the whole graph for each layer."""
    layers = sensitivity(network, ranges, pictures[:3], model, "16", method="kl", scheme="symmetric")
    floats = run_all(network, pictures[:3])
    for layer in layers:
        only = None if layer.node == WHOLE else [layer.node]
        children = run_all(build_qdq(network, ranges, "kl", "symmetric", only=only), pictures[:3])
        expected = closeness(floats, children, model, "16")
        assert layer.closeness.sqnr_db["points"] == pytest.approx(expected.sqnr_db["points"], abs=0.05)
    assert {layer.node for layer in layers} == {WHOLE, *NODES}


def test_small_blocks_change_nothing(
    network: onnx.ModelProto,
    ranges: Ranges,
    pictures: list[Any],
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = sensitivity(network, ranges, pictures[:2], model, "16", method="kl", scheme="asymmetric")
    monkeypatch.setattr(room, "_HELD", 1)
    parts = sensitivity(network, ranges, pictures[:2], model, "16", method="kl", scheme="asymmetric")
    assert [layer.node for layer in parts] == [layer.node for layer in whole]
    for one, other in zip(parts, whole, strict=True):
        assert one.closeness.sqnr_db["points"] == pytest.approx(other.closeness.sqnr_db["points"], abs=0.05)


def test_the_layers_whose_input_was_spoilt_come_first(
    network: onnx.ModelProto, ranges: Ranges, pictures: list[Any], model: Model
) -> None:
    """The range of `leaky` a hundred times too wide: its two readers lose what is in it."""
    leaky = ranges.of("leaky")
    wide = replace(leaky, thresholds={name: 100 * value for name, value in leaky.thresholds.items()})
    spoilt = replace(ranges, tensors={**ranges.tensors, "leaky": wide})
    plain = sensitivity(network, ranges, pictures[:2], model, "16", method="mse", scheme="symmetric")
    layers = sensitivity(network, spoilt, pictures[:2], model, "16", method="mse", scheme="symmetric")
    assert layers[0].node == WHOLE
    assert {layer.node for layer in layers[1:3]} == {"depthwise", "sum"}
    assert layers[1].closeness.least_sqnr() < plain[1].closeness.least_sqnr() - 10
    order = [layer.closeness.least_sqnr() for layer in layers[1:]]
    assert order == sorted(order)


def test_the_report_has_a_row_per_layer(
    network: onnx.ModelProto, ranges: Ranges, pictures: list[Any], model: Model, tmp_path: Path
) -> None:
    layers = sensitivity(network, ranges, pictures[:1], model, "16", method="kl", scheme="symmetric")
    table = sensitivity_csv(layers).splitlines()
    assert table[0] == ("node,op,tensor,sqnr_db points,cosine points,points mean_px,points worst_px")
    assert len(table) == 1 + 1 + len(NODES) and table[1].startswith(WHOLE)
    draw_sensitivity(layers, tmp_path / "a.png", "title")
    draw_sensitivity(layers, tmp_path / "b.png", "title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "SIMULATED" in sensitivity_text(layers)


def test_ranges_of_another_network_are_refused(
    network: onnx.ModelProto, ranges: Ranges, pictures: list[Any], model: Model
) -> None:
    less = Ranges("", "", 1, {}, {name: one for name, one in ranges.tensors.items() if name != "leaky"})
    with pytest.raises(KilnError, match="unknown tensor 'leaky'"):
        sensitivity(network, less, pictures[:1], model, "16", method="kl", scheme="symmetric")
