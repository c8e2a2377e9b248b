"""Concat, Split, Slice, Reshape, Flatten, Transpose and Softmax: what moves values or works along an axis."""

from __future__ import annotations

from facekiln.caffe.emit import Emitter, refuse
from facekiln.graph.onnx_graph import Node, ints, positive_axis

_TAKES_ROWS = ("Gemm", "MatMul")


def concat(emitter: Emitter, node: Node) -> None:
    """Concat along any axis but the batch -> Concat."""
    if any(name in emitter.graph.constants for name in node.inputs):
        raise refuse(
            node,
            "joins a constant",
            hint="run `facekiln onnx simplify` first; a stored map has no Caffe layer",
        )
    axis = positive_axis(node, int(node.attrs["axis"]), len(emitter.shape(node.outputs[0])))
    if axis == 0:
        raise refuse(node, "joins along the batch axis", limit="NNIE: Concat takes axis 1 to 3")
    if len(node.inputs) == 1:
        emitter.pass_on(node)
        return
    emitter.emit(node, "Concat", {"axis": axis})


def softmax(emitter: Emitter, node: Node) -> None:
    """Softmax along one axis -> Softmax."""
    shape, axis = emitter.shape(node.inputs[0]), int(node.attrs["axis"])
    if node.attrs.get("flattens"):
        raise refuse(
            node,
            f"normalises over everything from axis {axis} on, as opsets below 13 do",
            value=shape,
            hint="export at opset 13, or with the classes on the last axis",
        )
    if axis == 0:
        raise refuse(node, "normalises over the batch", limit="NNIE: an axis other than 0")
    emitter.emit(node, "Softmax", {"axis": axis})


def transpose(emitter: Emitter, node: Node) -> None:
    """Transpose to channels last -> Permute; other orders are refused."""
    rank = len(emitter.shape(node.inputs[0]))
    order = ints(node.attrs.get("perm", list(range(rank))[::-1]))
    if order != [0, 2, 3, 1]:
        raise refuse(
            node,
            "permutes in an order that chips' tools have not",
            value=order,
            limit="NNIE mapper: Permute can only do (0, 1, 2, 3) -> (0, 2, 3, 1)",
            hint="channel shuffles can be written as grouped 1x1 convolutions",
        )
    emitter.emit(node, "Permute", {"order": order})


def reshape(emitter: Emitter, node: Node) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze -> Flatten, Reshape, or nothing before a fully connected layer."""
    before, after = emitter.shape(node.inputs[0]), emitter.shape(node.outputs[0])
    if before[0] != 1 or after[0] != 1:
        raise refuse(
            node, "touches the batch axis", value=f"{before} to {after}", limit="NNIE: only C, H, W change"
        )
    readers = emitter.graph.consumers(node.outputs[0])
    rows_only = all(reader.op in _TAKES_ROWS and reader.inputs[0] == node.outputs[0] for reader in readers)
    if len(after) == 2 and readers and rows_only and node.outputs[0] not in emitter.graph.outputs:
        # An InnerProduct flattens its input by itself, in the same order.
        emitter.pass_on(node)
    elif len(after) == 2:
        emitter.emit(node, "Flatten")
    else:
        emitter.emit(node, "Reshape", {"shape": {"dim": _dims(before, after)}})


def _dims(before: list[int], after: list[int]) -> list[int]:
    """Return dims as chips' tools know them best: N literal, height found, width copied where it stays."""
    if len(before) == len(after) == 4 and before[3] == after[3]:
        return [1, after[1], -1, 0]
    return list(after)


def split(emitter: Emitter, node: Node) -> None:
    """Split along the channels -> Slice."""
    shape = emitter.shape(node.inputs[0])
    axis = positive_axis(node, int(node.attrs.get("axis", 0)), len(shape))
    sizes = [emitter.shape(output)[axis] for output in node.outputs]
    _slice(emitter, node, axis, sizes, node.outputs)


def slice_(emitter: Emitter, node: Node) -> None:
    """Slices that cut one tensor's channels into neighbouring parts -> one Slice for all of them."""
    if node.name in emitter.done:
        return
    siblings = [other for other in emitter.graph.consumers(node.inputs[0]) if other.op == "Slice"]
    ranges = sorted((_range(emitter, other), other.name, other.outputs[0]) for other in siblings)
    axes = {axis for (axis, _, _), _, _ in ranges}
    total = emitter.shape(node.inputs[0])[min(axes)]
    edges = [0, *(end for (_, _, end), _, _ in ranges)]
    starts = [start for (_, start, _), _, _ in ranges]
    if len(axes) != 1 or starts != edges[:-1] or edges[-1] != total:
        cuts = ", ".join(f"axis {axis} [{start}, {end})" for (axis, start, end), _, _ in ranges)
        raise refuse(
            node,
            "does not cut its input into neighbouring parts that are all used",
            value=cuts,
            limit=f"Caffe's Slice gives every part of {total}",
            hint="use torch.split or chunk and all of its parts",
        )
    sizes = [end - start for start, end in zip(starts, edges[1:], strict=True)]
    _slice(emitter, node, min(axes), sizes, [output for _, _, output in ranges])
    emitter.done.update(name for _, name, _ in ranges)


def _range(emitter: Emitter, node: Node) -> tuple[int, int, int]:
    """Return (axis, start, end) of an ONNX Slice along one axis with step 1."""
    shape = emitter.shape(node.inputs[0])
    operand = emitter.graph.operand
    starts, ends = operand(node, "starts", 1), operand(node, "ends", 2)
    axes, steps = operand(node, "axes", 3), operand(node, "steps", 4)
    if starts is None or ends is None:
        raise refuse(node, "has no stored start and end")
    places = ints(axes) if axes is not None else list(range(len(ints(starts))))
    if len(places) != 1 or (steps is not None and ints(steps) != [1]):
        raise refuse(
            node, "cuts along several axes, or in steps", limit="Caffe's Slice: one axis, whole ranges"
        )
    axis = positive_axis(node, places[0], len(shape))
    size = shape[axis]
    start, end = (
        min(max(value + size if value < 0 else value, 0), size) for value in (ints(starts)[0], ints(ends)[0])
    )
    return axis, start, end


def _slice(emitter: Emitter, node: Node, axis: int, sizes: list[int], outputs: list[str]) -> None:
    if axis == 0:
        raise refuse(node, "cuts the batch", limit="NNIE: only C, H, W change")
    unused = [
        output
        for output in outputs
        if not emitter.graph.consumers(output) and output not in emitter.graph.outputs
    ]
    if unused:
        raise refuse(node, "has parts that nothing uses; they would become outputs", value=", ".join(unused))
    if len(outputs) == 1:
        emitter.pass_on(node)
        return
    points = [sum(sizes[: place + 1]) for place in range(len(sizes) - 1)]
    emitter.emit_many(node, "Slice", {"axis": axis, "slice_point": points}, outputs)
