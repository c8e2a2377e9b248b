"""Ranges of our own: what each activation reaches, a threshold per method, and weights per channel.

`Ranges` is what writers of vendors' tables read; it knows no vendor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from facekiln.artifact import read_json, sha256_of, write_json
from facekiln.config import check, known
from facekiln.errors import KilnError
from facekiln.quant.collect import Spread, collect
from facekiln.quant.names import METHODS
from facekiln.quant.nodes import activations, weights
from facekiln.quant.thresholds import BINS, folded, thresholds

SCHEMA = "ranges"
_AGAIN = "measure again: facekiln quant ranges --help"


@dataclass(frozen=True)
class TensorRange:
    """One activation.

    Attributes:
        name: the tensor's, in the simplified ONNX.
        node, op: what makes it; "" and "Input" for an input.
        shape: fixed.
        min, max: least and largest value over the set.
        thresholds: by method, 0 <= T <= max(|min|, |max|).
        same_as: the tensor that it only reorders, if it does: one scale serves both.
    """

    name: str
    node: str
    op: str
    shape: tuple[int, ...]
    min: float
    max: float
    thresholds: Mapping[str, float]
    same_as: str | None = None


@dataclass(frozen=True)
class WeightRange:
    """One weight: largest magnitude per output channel, along `axis`."""

    name: str
    node: str
    op: str
    axis: int
    absmax: tuple[float, ...]


@dataclass(frozen=True)
class Ranges:
    """The ranges of one network over one calibration set.

    Attributes:
        artifact_sha256: of the ONNX file.
        set_sha256: of the calibration set.
        pictures: how many it has.
        settings: what the methods were told.
        tensors: by name, in the graph's order.
        weights: by name, in the graph's order.
    """

    artifact_sha256: str
    set_sha256: str
    pictures: int
    settings: Mapping[str, Any]
    tensors: Mapping[str, TensorRange]
    weights: Mapping[str, WeightRange] = field(default_factory=dict)

    def __iter__(self) -> Iterator[TensorRange]:
        """Yield the activations in the graph's order."""
        return iter(self.tensors.values())

    def __len__(self) -> int:
        return len(self.tensors)

    def of(self, tensor: str) -> TensorRange:
        """Return one activation.

        Raises:
            KilnError: there is none of that name; the nearest is suggested.
        """
        return self.tensors[known(tensor, self.tensors, "tensor")]

    def threshold(self, tensor: str, method: str) -> float:
        """Return where a method clips |x|; 0 where the tensor is all zero.

        Raises:
            KilnError: unknown tensor or method.
        """
        return float(self.of(tensor).thresholds[known(method, METHODS, "range method")])

    def limits(self, tensor: str, method: str) -> tuple[float, float]:
        """Return (low, high) for an asymmetric scale: the extremes, clipped at the threshold, around zero."""
        one, top = self.of(tensor), self.threshold(tensor, method)
        return min(0.0, max(one.min, -top)), max(0.0, min(one.max, top))


def measure_ranges(
    model: onnx.ModelProto,
    pictures: Sequence[NDArray[np.float32]],
    *,
    percentile: float,
    artifact_sha256: str = "",
    set_sha256: str = "",
) -> Ranges:
    """Measure the ranges of a simplified network over a calibration set (two passes, see `collect`).

    Args:
        model: simplified ONNX.
        pictures: input tensors, float32 [1, 3, H, W].
        percentile: percent of magnitudes that the method of that name keeps.
        artifact_sha256: of the model's file.
        set_sha256: of the set.

    Raises:
        KilnError: see `collect`.
    """
    spread = collect(model, pictures)
    settings = {"bins": BINS, "percentile": percentile, "weights": "symmetric, absolute maximum per channel"}
    return Ranges(
        artifact_sha256,
        set_sha256,
        len(pictures),
        settings,
        tensor_ranges(model, spread, percentile),
        {
            one.name: WeightRange(
                one.name, one.node, one.op, one.axis, tuple(float(value) for value in one.absmax())
            )
            for one in weights(model)
        },
    )


def tensor_ranges(
    model: onnx.ModelProto, spread: Spread, percentile: float, at: int = 0
) -> dict[str, TensorRange]:
    """Return the range of every activation by the histograms of one of a spread's sets.

    A tensor that only reorders another has that one's range.
    """
    found: dict[str, TensorRange] = {}
    place = {tensor.name: index for index, tensor in enumerate(spread.tensors)}
    tops, lows, highs = spread.tops(), spread.lows.min(axis=0), spread.highs.max(axis=0)
    for tensor in activations(model):
        if tensor.same_as is not None:
            same = found[tensor.same_as]
            low, high, found_at = same.min, same.max, same.thresholds
        else:
            index = place[tensor.name]
            low, high = float(lows[index]), float(highs[index])
            found_at = thresholds(folded(spread.counts[at, index]), float(tops[index]), percentile)
        found[tensor.name] = TensorRange(
            tensor.name, tensor.node, tensor.op, tensor.shape, low, high, found_at, tensor.same_as
        )
    return found


def write_ranges(path: Path | str, ranges: Ranges) -> None:
    """Write ranges as JSON by workflow/schemas/ranges.yaml; tensors and weights are in the graph's order.

    Raises:
        KilnError: the disk is full, or the ranges break the schema.
    """
    value = asdict(ranges)
    value["format"] = 1
    value["methods"] = list(METHODS)
    value["tensors"] = [asdict(one) for one in ranges]
    value["weights"] = [asdict(one) for one in ranges.weights.values()]
    for entry in value["tensors"]:
        entry["shape"] = list(entry["shape"])
    for entry in value["weights"]:
        entry["absmax"] = list(entry["absmax"])
    write_json(path, check(value, SCHEMA, path))


def read_ranges(path: Path | str) -> Ranges:
    """Read ranges that `write_ranges` wrote.

    Raises:
        KilnError: missing, not JSON, not by the schema, or a tensor is named twice or has not every method.
    """
    value = check(read_json(path), SCHEMA, path)
    _refuse_odd(value, path)
    tensors = (
        TensorRange(**{**entry, "shape": tuple(entry["shape"]), "same_as": entry.get("same_as")})
        for entry in value["tensors"]
    )
    listed = (WeightRange(**{**entry, "absmax": tuple(entry["absmax"])}) for entry in value["weights"])
    return Ranges(
        value["artifact_sha256"],
        value["set_sha256"],
        value["pictures"],
        value["settings"],
        {one.name: one for one in tensors},
        {one.name: one for one in listed},
    )


def _refuse_odd(value: Mapping[str, Any], path: Path | str) -> None:
    """Refuse what the schema cannot: names given twice, and tensors without one of the methods."""
    for section in ("tensors", "weights"):
        names = Counter(entry["name"] for entry in value[section])
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise KilnError(f"names '{twice[0]}' twice", file=path, where=section, hint=_AGAIN)
    for entry in value["tensors"]:
        missing = set(value["methods"]) - set(entry["thresholds"])
        if missing:
            where = f"tensors: {entry['name']}"
            raise KilnError(f"has no threshold by {sorted(missing)[0]}", file=path, where=where, hint=_AGAIN)


def ranges_of_onnx(path: Path | str, onnx_file: Path | str) -> Ranges:
    """Read ranges and check that they are of an ONNX file.

    Raises:
        KilnError: see `read_ranges` and `check_measured_on`.
    """
    ranges = read_ranges(path)
    check_measured_on(onnx_file, ranges.artifact_sha256, path, "facekiln quant ranges")
    return ranges


def check_measured_on(onnx_file: Path | str, sha256: str, file: Path | str, hint: str) -> None:
    """Check that what a file tells was measured on an ONNX file; one that does not say on which is taken.

    Args:
        onnx_file: the ONNX file.
        sha256: what `file` says of the one it was measured on, or "".
        file: for the error.
        hint: for the error: what measures again.

    Raises:
        KilnError: the hashes differ.
    """
    if sha256 and sha256 != (found := sha256_of(onnx_file)):
        raise KilnError(
            "was measured on another ONNX file", file=file, value=sha256[:16], limit=found[:16], hint=hint
        )
