"""Cut a detector's tail off, so that its network ends in maps.

The chips behind Caffe take maps [1, C, H, W] and little else: no 3-D tensors, no softmax over the last axis.
So what follows the maps (Transpose, Reshape, Concat over levels, Softmax) is cut off; what it did is written
down as `HeadMap`s, and the host does it after inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facekiln.errors import KilnError
from facekiln.graph.onnx_graph import Node, OnnxGraph, ints, last_axis_softmax
from facekiln.provenance import Edit
from facekiln.vision.heads import HeadMap

# The limits that the rules serve.
_NO_3D = "NNIE: tensors are [N, C, H, W], Reshape has four dims, Permute only (0, 2, 3, 1)"
_SOFTMAX = "NNIE: Softmax takes a 4-D blob and an axis other than 0; the classes must stand on axis 1"


@dataclass(frozen=True)
class Tail:
    """A head of the network, and the tensor of the edited graph that is its blob."""

    head: HeadMap
    tensor: str


@dataclass(frozen=True)
class _Branch:
    """One level of an output: the map it starts from, and the activation on the way, if any."""

    tensor: str
    values: int
    activation: str | None


def cut_heads(graph: OnnxGraph, steps: Sequence[int] | None = None) -> tuple[list[Tail], list[Edit]]:
    """Cut each output back to maps, or to a plain vector or map; see `legalise`."""
    tails: list[Tail] = []
    edits: list[Edit] = []
    taken = set(graph.inputs)
    for output in list(graph.outputs):
        branches = _branches(graph, output)
        if branches is None:
            tails.append(_plain_tail(graph, output, taken))
            continue
        maps = [_cut(graph, output, level, branch, steps, taken) for level, branch in enumerate(branches)]
        tails += maps
        names = ", ".join(tail.head.blob for tail in maps)
        edits.append(
            Edit(
                rule="CAFFE-CUT-HEAD",
                target=output,
                change=f"Transpose, Reshape and Concat removed; the network ends in {names}",
                reason="the host forms the output from the maps, which costs it a copy",
                limit=_NO_3D,
            )
        )
        if branches[0].activation == "Softmax" and any(tail.head.anchors > 1 for tail in maps):
            edits.append(
                Edit(
                    rule="CAFFE-CLASS-MAJOR",
                    target=output,
                    change=f"output channels of the convolutions before {names} reordered from anchor, "
                    "class to class, anchor; Softmax over axis 1 between two Reshapes",
                    reason="the same scores: channels are renamed in the weights, nothing is computed anew",
                    limit=_SOFTMAX,
                )
            )
    graph.outputs = [tail.tensor for tail in tails]
    graph.prune()
    return tails, edits


def _branches(graph: OnnxGraph, output: str) -> list[_Branch] | None:
    """Follow an output [1, N, values] back to its maps; None where it is not such an output.

    Raises:
        KilnError: it is one by shape, but not by its nodes.
    """
    shape = graph.shapes[output]
    if len(shape) != 3:
        return None
    tensor, activation = _through_activation(graph, output)
    node = graph.producer(tensor)
    joined = node is not None and node.op == "Concat" and int(node.attrs["axis"]) % 3 == 1
    found = [_branch(graph, name) for name in (node.inputs if node and joined else [tensor])]
    if any(branch is None for branch in found):
        last = graph.producer(output)
        raise KilnError(
            "an output ends in nodes that cannot be cut back to one map per level",
            where=f"output '{output}'",
            value=f"{last.where if last else 'an input'}, {list(shape)}",
            limit="Transpose (0, 2, 3, 1), Reshape [1, -1, values], Concat axis 1, Softmax on the last axis",
            hint="export the network without decoding and post-processing: facekiln decodes on the host",
        )
    branches = [branch for branch in found if branch is not None]
    inner = {branch.activation for branch in branches}
    if len(inner) > 1 or (activation and inner != {None}):
        raise KilnError(
            "its levels have different activations, or two in a row",
            where=f"output '{output}'",
            value=[activation, *(branch.activation for branch in branches)],
        )
    return [_Branch(branch.tensor, branch.values, activation or branch.activation) for branch in branches]


def _through_activation(graph: OnnxGraph, tensor: str) -> tuple[str, str | None]:
    node = graph.producer(tensor)
    if node is not None and (node.op == "Sigmoid" or last_axis_softmax(graph, node)):
        return node.inputs[0], node.op
    return tensor, None


def _branch(graph: OnnxGraph, tensor: str) -> _Branch | None:
    values = graph.shapes[tensor][-1] if len(graph.shapes.get(tensor, ())) == 3 else 0
    inner, activation = _through_activation(graph, tensor)
    node = graph.producer(inner)
    if node is None or node.op != "Reshape":
        return None
    # A chain of Reshapes keeps the order of values, so only the last shape counts.
    while node is not None and node.op == "Reshape":
        node = graph.producer(node.inputs[0])
    if node is None or node.op != "Transpose" or ints(node.attrs.get("perm", [])) != [0, 2, 3, 1]:
        return None
    shape = graph.shapes[node.inputs[0]]
    if len(shape) != 4 or shape[0] != 1 or values < 1 or shape[1] % values:
        return None
    return _Branch(node.inputs[0], values, activation)


def _stride(
    graph: OnnxGraph, level: int, cells: tuple[int, int], steps: Sequence[int] | None, output: str
) -> int:
    """Return a level's step: as declared, or the power of two whose cells just cover the input."""
    image = graph.shapes[graph.inputs[0]]
    candidates = [1 << power for power in range(1, 11)]
    if steps is not None:
        candidates = [steps[level]] if level < len(steps) else []
    for step in candidates if len(image) == 4 else []:
        if tuple(-(-side // step) for side in image[2:]) == cells:
            return step
    raise KilnError(
        f"level {level} has {cells[0]}x{cells[1]} cells, which no step makes of the input",
        where=f"output '{output}'",
        value=f"input {list(image)}",
        limit=f"steps {list(candidates)}" if steps is not None else "a power of two",
        hint="check `priors.steps` of the model and the size that the ONNX file was exported for",
    )


def _cut(
    graph: OnnxGraph,
    output: str,
    level: int,
    branch: _Branch,
    steps: Sequence[int] | None,
    taken: set[str],
) -> Tail:
    _, channels, height, width = graph.shapes[branch.tensor]
    cells = (height, width)
    stride = _stride(graph, level, cells, steps, output)
    anchors = channels // branch.values
    blob = _free(f"{_safe(output)}_s{stride}", taken)
    order = "value_major" if branch.activation == "Softmax" else "anchor_major"
    head = HeadMap(blob, output, level, stride, cells, anchors, branch.values, order)
    tensor = branch.tensor
    if branch.activation == "Softmax":
        tensor = _class_softmax(graph, head, tensor)
    elif branch.activation == "Sigmoid":
        tensor = _append(graph, "Sigmoid", head.blob, tensor, graph.shapes[tensor])
    return Tail(head, tensor)


def _append(graph: OnnxGraph, op: str, name: str, source: str, shape: tuple[int, ...], **attrs: int) -> str:
    output = graph.unused(name)
    graph.nodes.append(Node(op, name, [source], [output], attrs))
    graph.shapes[output] = shape
    return output


def _class_softmax(graph: OnnxGraph, head: HeadMap, tensor: str) -> str:
    """Softmax over a map's classes: channels reordered, then Reshape, Softmax over axis 1, Reshape."""
    shape = graph.shapes[tensor]
    if head.anchors == 1:
        return _append(graph, "Softmax", head.blob, tensor, shape, axis=1)
    tensor = _reorder_channels(graph, head, tensor)
    classes = (1, head.values, head.anchors * head.cells[0], head.cells[1])
    split = _append(graph, "Reshape", f"{head.blob}_classes", tensor, classes)
    scores = _append(graph, "Softmax", f"{head.blob}_softmax", split, classes, axis=1)
    return _append(graph, "Reshape", head.blob, scores, shape)


def _reorder_channels(graph: OnnxGraph, head: HeadMap, tensor: str) -> str:
    """Reorder a convolution's output channels from anchor * values + value to value * anchors + anchor."""
    conv = graph.producer(tensor)
    readers = graph.consumers(tensor)
    movable = conv is not None and conv.op == "Conv" and int(conv.attrs.get("group", 1)) == 1
    if (
        conv is None
        or not movable
        or len(readers) != 1
        or any(name not in graph.constants for name in conv.inputs[1:])
    ):
        raise KilnError(
            "the scores' channels must be reordered for a softmax over axis 1, and only a plain convolution "
            "that nothing else reads can be",
            where=f"output '{head.output}', level {head.level}",
            value=conv.where if conv else "the input itself",
            limit=_SOFTMAX,
            hint="end the class branch in a convolution with group 1",
        )
    order = np.arange(head.anchors * head.values).reshape(head.anchors, head.values).T.ravel()
    conv.inputs[1:] = [
        graph.add_constant(f"{name}::class_major", graph.constants[name][order]) for name in conv.inputs[1:]
    ]
    # A new name: the tensor of the original graph has another order.
    renamed = graph.unused(f"{tensor}::class_major")
    conv.outputs = [renamed]
    graph.shapes[renamed] = graph.shapes[tensor]
    for reader in readers:
        reader.inputs = [renamed if name == tensor else name for name in reader.inputs]
    return renamed


def _plain_tail(graph: OnnxGraph, output: str, taken: set[str]) -> Tail:
    shape = graph.shapes[output]
    if shape[0] != 1 or len(shape) not in (2, 4):
        raise KilnError(
            "an output is neither [1, values], [1, C, H, W] nor [1, N, values]",
            where=f"output '{output}'",
            value=list(shape),
        )
    cells = (shape[2], shape[3]) if len(shape) == 4 else (1, 1)
    head = HeadMap(_free(_safe(output), taken), output, 0, 0, cells, 1, shape[1], "plain")
    return Tail(head, output)


def _free(name: str, taken: set[str]) -> str:
    """Take a blob name, with a number where it is taken already."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def _safe(name: str) -> str:
    return "".join(char if char.isalnum() or char == "_" else "_" for char in name).strip("_") or "output"
