"""Ranges of a small network: streamed, complete, and the same after writing and reading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from facekiln.artifact import read_json, sha256_of, write_json
from facekiln.errors import KilnError
from facekiln.quant import collect as room
from facekiln.quant.collect import collect
from facekiln.quant.nodes import activations, quantisable, weights
from facekiln.quant.ranges import (
    Ranges,
    TensorRange,
    measure_ranges,
    ranges_of_onnx,
    read_ranges,
    write_ranges,
)
from facekiln.quant.run import Session


def every_tensor(network: onnx.ModelProto, picture: Any) -> dict[str, Any]:
    """All tensors of one run, by a session of ours without any of the code under test but `Session`."""
    whole = onnx.ModelProto()
    whole.CopyFrom(network)
    for node in whole.graph.node[:-1]:
        whole.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
    return {"input": picture, **Session(whole).run({"input": picture})}


def test_extremes_are_those_of_all_pictures(network: onnx.ModelProto, pictures: list[Any]) -> None:
    ranges = measure_ranges(network, pictures, percentile=99.9)
    runs = [every_tensor(network, picture) for picture in pictures]
    assert [one.name for one in ranges] == ["input", *(node.output[0] for node in network.graph.node)]
    for one in ranges:
        values = np.stack([run[one.name] for run in runs])
        assert one.min == pytest.approx(float(values.min()), rel=1e-6)
        assert one.max == pytest.approx(float(values.max()), rel=1e-6)
        assert one.shape == values.shape[1:]
        assert one.thresholds["minmax"] == max(abs(one.min), abs(one.max))


def test_histograms_are_of_all_pictures_and_of_each_set(
    network: onnx.ModelProto, pictures: list[Any]
) -> None:
    spread = collect(network, pictures, sets=[[0, 1], [2], range(6)])
    sizes = np.array([np.prod(tensor.shape) for tensor in spread.tensors])
    assert (spread.counts.sum(axis=2) == np.outer([2, 1, 6], sizes)).all()
    alone = collect(network, pictures)
    assert (alone.counts[0] == spread.counts[2]).all()


def test_small_portions_change_nothing(
    network: onnx.ModelProto, pictures: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations that do not fit the memory are collected in several runs."""
    whole = collect(network, pictures)
    monkeypatch.setattr(room, "_HELD", 5000)
    parts = collect(network, pictures)
    assert (whole.counts.sum(axis=2) == parts.counts.sum(axis=2)).all()
    # Other outputs, other fusions: a last bit may carry a value over an edge.
    assert np.abs(whole.counts - parts.counts).sum() <= 1e-3 * whole.counts.sum()


def test_no_activation_outlives_its_picture(network: onnx.ModelProto, pictures: list[Any]) -> None:
    """Pictures are asked for one by one, twice, and never kept."""
    asked = []

    class Watched(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            return super().__getitem__(index)

        def __iter__(self) -> Any:
            return (self[index] for index in range(len(self)))

    collect(network, Watched(pictures))
    assert asked == [*range(6), *range(6)]


@pytest.mark.parametrize(
    ("low", "high", "limits"), [(2.0, 5.0, (0.0, 4.0)), (-5.0, -2.0, (-4.0, 0.0)), (-3.0, 5.0, (-3.0, 4.0))]
)
def test_limits_are_clipped_and_hold_zero(low: float, high: float, limits: tuple[float, float]) -> None:
    """An asymmetric scale must represent zero exactly: it is what pads."""
    one = TensorRange("a", "n", "Conv", (1,), low, high, {"kl": 4.0})
    assert Ranges("", "", 1, {}, {"a": one}).limits("a", "kl") == limits


def test_reordered_tensors_share_a_range(network: onnx.ModelProto, pictures: list[Any]) -> None:
    ranges = measure_ranges(network, pictures, percentile=99.9)
    assert ranges.of("turned").same_as == ranges.of("points").same_as == "head"
    assert ranges.of("points").thresholds == ranges.of("head").thresholds
    assert ranges.of("leaky").same_as is None


def test_weights_are_measured_per_output_channel(network: onnx.ModelProto, pictures: list[Any]) -> None:
    ranges = measure_ranges(network, pictures, percentile=99.9)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
    for one in ranges.weights.values():
        assert one.axis == 0
        expected = np.abs(stored[one.name]).reshape(len(stored[one.name]), -1).max(axis=1)
        assert one.absmax == tuple(map(float, expected))
    assert len(ranges.weights) == 4


def test_weight_axes_of_other_operators() -> None:
    """A ConvTranspose stores [in, out, ...], a Gemm [in, out] unless transB, a MatMul [in, out]."""
    make, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    stored = [
        onnx.numpy_helper.from_array(np.ones((4, 6, 2, 2), np.float32), "w"),
        onnx.numpy_helper.from_array(np.ones((6, 5), np.float32), "m"),
        onnx.numpy_helper.from_array(np.ones((7, 5), np.float32), "g"),
    ]
    nodes = [
        make("ConvTranspose", ["x", "w"], ["a"], strides=[2, 2]),
        make("GlobalAveragePool", ["a"], ["b"]),
        make("Flatten", ["b"], ["c"]),
        make("MatMul", ["c", "m"], ["d"]),
        make("Gemm", ["d", "g"], ["e"], transB=1),
    ]
    graph = onnx.helper.make_graph(
        nodes, "g", [tensor("x", 1, [1, 4, 3, 3])], [tensor("e", 1, [1, 7])], stored
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    assert {one.name: (one.axis, len(one.absmax())) for one in weights(model)} == {
        "w": (1, 6),
        "m": (1, 5),
        "g": (0, 7),
    }
    assert [node.op_type for node in quantisable(model)] == [
        "ConvTranspose",
        "GlobalAveragePool",
        "MatMul",
        "Gemm",
    ]


def test_file_holds_everything(network: onnx.ModelProto, pictures: list[Any], tmp_path: Path) -> None:
    ranges = measure_ranges(network, pictures, percentile=99.9, artifact_sha256="a" * 64, set_sha256="b" * 64)
    write_ranges(tmp_path / "ranges.json", ranges)
    assert read_ranges(tmp_path / "ranges.json") == ranges
    first = (tmp_path / "ranges.json").read_bytes()
    write_ranges(tmp_path / "ranges.json", ranges)
    assert (tmp_path / "ranges.json").read_bytes() == first


def test_a_broken_file_names_the_key(network: onnx.ModelProto, pictures: list[Any], tmp_path: Path) -> None:
    write_ranges(tmp_path / "ranges.json", measure_ranges(network, pictures[:1], percentile=99.9))
    value = read_json(tmp_path / "ranges.json")
    value["tensors"][2]["thresholds"]["kl"] = -1
    write_json(tmp_path / "ranges.json", value)
    with pytest.raises(KilnError, match=r"tensors\.2\.thresholds\.kl"):
        read_ranges(tmp_path / "ranges.json")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda value: value["tensors"].append(value["tensors"][0]), "tensors: names 'input' twice"),
        (lambda value: value["weights"].append(value["weights"][0]), "weights: names '.*' twice"),
        (lambda value: value["tensors"][1]["thresholds"].pop("mse"), "has no threshold by mse"),
        (lambda value: value["methods"].pop(), "methods"),
        (lambda value: value["settings"].pop("percentile"), "percentile"),
        (lambda value: value["settings"].update(percentile="x"), r"settings\.percentile"),
    ],
)
def test_a_file_with_holes_or_doubles_is_refused(
    network: onnx.ModelProto, pictures: list[Any], tmp_path: Path, change: Any, told: str
) -> None:
    """They ended in a KeyError after the network was run on the whole set, or the last of two counted."""
    write_ranges(tmp_path / "ranges.json", measure_ranges(network, pictures[:1], percentile=99.9))
    value = read_json(tmp_path / "ranges.json")
    change(value)
    write_json(tmp_path / "ranges.json", value)
    with pytest.raises(KilnError, match=told):
        read_ranges(tmp_path / "ranges.json")


def test_ranges_of_another_onnx_file_are_refused(
    network: onnx.ModelProto, pictures: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, other, file = tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "ranges.json"
    measured.write_bytes(network.SerializeToString())
    other.write_bytes(b"another network")
    ranges = measure_ranges(network, pictures, percentile=99.9, artifact_sha256=sha256_of(measured))
    write_ranges(file, ranges)
    hashed: list[Path] = []
    monkeypatch.setattr(
        "facekiln.quant.ranges.sha256_of", lambda path: hashed.append(path) or sha256_of(path)
    )
    assert ranges_of_onnx(file, measured) == ranges
    with pytest.raises(KilnError) as refused:
        ranges_of_onnx(file, other)
    assert hashed == [measured, other], "once each"
    told = str(refused.value)
    for word in (
        str(file),
        "was measured on another ONNX file",
        sha256_of(measured)[:16],
        sha256_of(other)[:16],
        "facekiln quant ranges",
    ):
        assert word in told
    # Ranges that do not say of what they are, are taken for any.
    write_ranges(file, replace(ranges, artifact_sha256=""))
    assert ranges_of_onnx(file, other).artifact_sha256 == ""


def test_questions_about_unknown_names_get_a_suggestion(
    network: onnx.ModelProto, pictures: list[Any]
) -> None:
    ranges = measure_ranges(network, pictures[:1], percentile=99.9)
    with pytest.raises(KilnError, match="did you mean 'leaky'"):
        ranges.threshold("leakyy", "kl")
    with pytest.raises(KilnError, match="unknown range method 'entropy'"):
        ranges.threshold("leaky", "entropy")


def test_limits_are_clipped_extremes_around_zero(network: onnx.ModelProto, pictures: list[Any]) -> None:
    ranges: Ranges = measure_ranges(network, pictures, percentile=90)
    low, high = ranges.limits("leaky", "percentile")
    one, top = ranges.of("leaky"), ranges.threshold("leaky", "percentile")
    assert (low, high) == (max(one.min, -top), min(one.max, top)) and low < 0 < high
    assert ranges.limits("relu", "minmax")[0] == 0


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named(
    network: onnx.ModelProto, pictures: list[Any], broken: float
) -> None:
    pictures[3] = np.full_like(pictures[3], broken)
    with pytest.raises(KilnError, match=r"'input' is not finite on picture 3"):
        measure_ranges(network, pictures, percentile=99)


def test_no_pictures_and_open_shapes_are_refused(network: onnx.ModelProto, pictures: list[Any]) -> None:
    with pytest.raises(KilnError, match="no pictures"):
        measure_ranges(network, [], percentile=99)
    network.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(KilnError, match="not fixed"):
        activations(network)


def test_integer_tensors_are_no_activations(network: onnx.ModelProto) -> None:
    assert "shape" not in {tensor.name for tensor in activations(network)}
