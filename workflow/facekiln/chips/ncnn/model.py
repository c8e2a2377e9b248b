"""A `.param` and its `.bin` together."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from facekiln.artifact import atomic_path
from facekiln.chips.ncnn.param import Graph, Layer, read_param
from facekiln.chips.ncnn.weights import STORAGE, Blob, Weights, bin_bytes, int8_term, read_bin
from facekiln.errors import KilnError, in_file

_STAMP = re.compile(r"_w[0-9a-f]{8}$")


def unstamped(name: str) -> str:
    """Return an Input layer's name without the stamp of the weights (see `write_model`)."""
    return _STAMP.sub("", name)


@dataclass(frozen=True, eq=False)
class NcnnModel:
    """A graph with its weights, by layer."""

    graph: Graph
    weights: Weights

    def blob(self, layer: str, role: str) -> Blob | None:
        """Return a layer's stored array of a role, None where it has none."""
        return next((blob for blob in self.weights.get(layer, []) if blob.role == role), None)

    def storage(self) -> str:
        """Return "int8" where any layer computes in int8, else "fp16", "fp32" or "mixed" by weight blobs."""
        if any(int8_term(layer) for layer in self.graph):
            return "int8"
        tags = {blob.tag for blobs in self.weights.values() for blob in blobs if blob.tag is not None}
        return STORAGE[next(iter(tags))] if len(tags) == 1 else "mixed" if tags else "fp32"


def weighted(layer: Layer) -> bool:
    """Return whether ncnn can compute a layer in int8."""
    return layer.type in ("Convolution", "ConvolutionDepthWise", "InnerProduct")


def bin_of(param: Path | str) -> Path:
    """Return the `.bin` beside a `.param`.

    Raises:
        KilnError: the path is of another kind.
    """
    path = Path(param)
    if path.suffix != ".param":
        raise KilnError("is no .param file", file=path, hint="name the .param; its .bin is found beside it")
    return path.with_suffix(".bin")


def read_model(param: Path | str) -> NcnnModel:
    """Read a `.param` and the `.bin` beside it.

    Raises:
        KilnError: see `read_param`, `read_bin` and `check_weights`.
    """
    weights_file = bin_of(param)
    graph = read_param(param)
    with in_file(param):
        model = NcnnModel(_named(graph, None), read_bin(weights_file, graph))
        check_weights(model, param)
        stamped = _named(graph, weights_file.read_bytes())
    if graph not in (model.graph, stamped):
        raise KilnError(
            "is not the .bin that this .param was written with",
            file=weights_file,
            hint="copy both files of one build",
        )
    return model


def _named(graph: Graph, weights: bytes | None) -> Graph:
    """Return the graph with the stamp of its weights on the first layer, or without."""
    first = graph.layers[0]
    if first.type != "Input":
        return graph
    stamp = f"_w{hashlib.sha256(weights).hexdigest()[:8]}" if weights is not None else ""
    return Graph((replace(first, name=unstamped(first.name) + stamp), *graph.layers[1:]))


def check_weights(model: NcnnModel, file: Path | str) -> None:
    """Check that weights divide into the outputs and windows that their layers say.

    Raises:
        KilnError: they do not; such a file ends ncnn with a crash, not with an error.
    """
    for layer in model.graph:
        weight = model.blob(layer.name, "weight")
        if weight is None:
            continue
        outputs, per_output = layer.integer(0), 1
        if layer.type != "InnerProduct":
            width = layer.integer(1)
            per_output = width * layer.integer(11, width)
        groups = layer.integer(7, 1) if layer.type.endswith("DepthWise") else 1
        if outputs < 1 or per_output < 1 or groups < 1 or outputs % groups:
            raise KilnError(
                "its outputs, window or groups cannot be",
                file=file,
                where=layer.name,
                value=f"{outputs} outputs, window {per_output}, {groups} groups",
            )
        if weight.values.size % (outputs * per_output):
            raise KilnError(
                "its weights do not divide into its outputs and window",
                file=file,
                where=layer.name,
                value=weight.values.size,
                limit=f"a multiple of {outputs * per_output}",
            )


def write_model(param: Path | str, model: NcnnModel) -> None:
    """Write a `.param` and the `.bin` beside it; the `.bin` first, so that a `.param` never stands alone.

    The Input layer's name, which ncnn has no use for, ends in a stamp of the weights: `input_w1a2b3c4d`.
    Other weights so make another `.param`, and what depends on it is made anew; and two files that do not
    belong together are told apart.

    Raises:
        KilnError: the disk is full, or a blob does not fit its layer.
    """
    data = bin_bytes(model.graph, model.weights)
    text = _named(model.graph, data).text()
    with atomic_path(bin_of(param)) as stored, atomic_path(param) as written:
        stored.write_bytes(data)
        written.write_text(text, encoding="utf-8")
