"""Simplified ONNX -> Caffe: exact or refused, with a record of every rewrite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from facekiln.artifact import write_json
from facekiln.caffe.emit import Emitter
from facekiln.caffe.fold import fold_batch_norm
from facekiln.caffe.net import Net
from facekiln.caffe.ops import convert_node
from facekiln.caffe.shapes import infer_shapes
from facekiln.caffe.writer import write_net
from facekiln.errors import KilnError
from facekiln.graph.legalise_caffe import legalise
from facekiln.graph.onnx_graph import OnnxGraph
from facekiln.provenance import Edit
from facekiln.vision.heads import HeadMap, heads_to_json

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Conversion:
    """A Caffe network, and how it relates to the ONNX graph.

    Attributes:
        net: BatchNorm folded, nothing in place, N literally 1.
        heads: how its output blobs form the model's outputs.
        tensor_of_blob: blob -> ONNX tensor that holds the same values in the same shape. Blobs that have none
            (scores in class-major order, the first of two poolings) are left out.
        edits: every rewrite, in order.
    """

    net: Net
    heads: list[HeadMap]
    tensor_of_blob: dict[str, str]
    edits: list[Edit]


def convert(model: onnx.ModelProto, *, name: str, steps: Sequence[int] | None = None) -> Conversion:
    """Convert a simplified ONNX model of fixed input size and batch 1.

    Args:
        model: the model; it is not changed.
        name: the network's name.
        steps: input pixels per cell of each level, in the order of the priors (`priors.steps`); None: told
            from the maps.

    Raises:
        KilnError: an op has no exact Caffe form, an output cannot be cut back to maps, or a shape is not
            fixed; names the node, the reason and the next step.
    """
    graph = OnnxGraph.of(model)
    original = {*graph.shapes}
    for tensor in graph.inputs:
        if graph.shapes[tensor][0] != 1:
            raise KilnError(
                "the batch is not 1",
                where=f"input '{tensor}'",
                value=list(graph.shapes[tensor]),
                limit="NNIE: N = 1",
            )
    tails, edits = legalise(graph, steps)
    emitter = Emitter(graph, name, {tail.tensor: tail.head.blob for tail in tails})
    for node in graph.nodes:
        convert_node(emitter, node)
    net, folded = fold_batch_norm(emitter.net)
    heads = [tail.head for tail in tails]
    shapes = infer_shapes(net)
    tensors = {
        blob: tensor for blob, tensor in emitter.tensor_of.items() if blob in shapes and tensor in original
    }
    _check(net, shapes, heads, tensors, graph)
    return Conversion(net, heads, tensors, [*edits, *emitter.edits, *folded])


def save(
    done: Conversion, prototxt_path: Path | str, caffemodel_path: Path | str, heads_path: Path | str
) -> None:
    """Write the pair and its heads, each file atomically.

    Raises:
        KilnError: the disk is full or a folder cannot be written.
    """
    write_net(done.net, prototxt_path, caffemodel_path)
    write_json(heads_path, heads_to_json(done.heads))


def _check(
    net: Net, shapes: dict[str, list[int]], heads: list[HeadMap], tensors: dict[str, str], graph: OnnxGraph
) -> None:
    """Check what every converter promises, so that a mistake in one stops here and not on a board."""
    for blob, tensor in tensors.items():
        if shapes[blob] != list(graph.shapes[tensor]):
            raise KilnError(
                f"blob '{blob}' would not have the shape of ONNX tensor '{tensor}'",
                value=shapes[blob],
                limit=list(graph.shapes[tensor]),
                hint="this is a fault of the converter: please report it with the ONNX file",
            )
    for head in heads:
        if head.blob not in net.outputs:
            raise KilnError(
                "is read inside the network too, or is its input, so that chips would not give it out",
                where=f"output '{head.output}', blob '{head.blob}'",
                hint="give the output a layer of its own in the network",
            )
        if [dim for dim in shapes[head.blob] if dim > 1] != [dim for dim in head.shape if dim > 1]:
            raise KilnError(
                "blob has the wrong shape", where=head.blob, value=shapes[head.blob], limit=head.shape
            )
    extra = [blob for blob in net.outputs if blob not in {head.blob for head in heads}]
    if extra:
        raise KilnError(f"blob '{extra[0]}' is used by nothing and would become an output", value=extra)
