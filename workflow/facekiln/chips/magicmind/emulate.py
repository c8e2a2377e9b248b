"""What a card computes, as far as it is public: int8 convolutions, float16 between, as an ONNX graph.

Not MagicMind. Precision modes by their names in Cambricon's samples: `force_float32` computes as the ONNX;
`force_float16` has weights and every result in float16; `qint8_mixed_float16` computes convolutions and
matrix products on symmetric int8 inputs (one scale per tensor) and int8 weights (a scale per output channel,
one for depthwise convolutions), and everything else in float16. Sums are taken in float32, as in wide
accumulators.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from facekiln.config import Input, known
from facekiln.errors import KilnError
from facekiln.graph.constants import drop_unused_constants
from facekiln.quant.nodes import Weight, activations, last_weighted, node_name, weights
from facekiln.quant.qdq import at_opset, rounded_weight

_STEPS = 127
_TINY = float(np.finfo(np.float32).tiny)


def insert_normalisation(model: onnx.ModelProto, declared: Input, size: tuple[int, int]) -> onnx.ModelProto:
    """Return the network behind a cast, a transposition and (x - mean) * scale: UINT8 [1, H, W, 3] in.

    Raises:
        KilnError: the network has another input than the model declares.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    entry = next((value for value in graph.graph.input if value.name == declared.name), None)
    if entry is None:
        raise KilnError(
            "has another input than the model declares",
            where=graph.graph.input[0].name,
            limit=declared.name,
        )
    inner = f"{declared.name}_normalised"
    for node in graph.graph.node:
        for place, name in enumerate(node.input):
            if name == declared.name:
                node.input[place] = inner
    shape = (1, 3, 1, 1)
    graph.graph.initializer.append(
        numpy_helper.from_array(np.array(declared.mean, np.float32).reshape(shape), "inserted_mean")
    )
    graph.graph.initializer.append(
        numpy_helper.from_array(np.array(declared.scale, np.float32).reshape(shape), "inserted_scale")
    )
    name = declared.name
    front = [
        helper.make_node("Cast", [name], [f"{name}_float"], name="inserted_cast", to=TensorProto.FLOAT),
        helper.make_node(
            "Transpose", [f"{name}_float"], [f"{name}_nchw"], name="inserted_layout", perm=[0, 3, 1, 2]
        ),
        helper.make_node("Sub", [f"{name}_nchw", "inserted_mean"], [f"{name}_centred"], name="inserted_sub"),
        helper.make_node("Mul", [f"{name}_centred", "inserted_scale"], [inner], name="inserted_mul"),
    ]
    nodes = [*front, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    entry.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, [1, *size, 3]))
    del graph.graph.value_info[:]
    return graph


def stem_and_heads(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Return the first two weighted nodes, and those behind which no other stands."""
    weighted = {weight.node for weight in weights(model)}
    nodes = [(node_name(node), node.input, node.output) for node in model.graph.node]
    order = [name for name, _, _ in nodes if name in weighted]
    return order[:2], last_weighted(nodes, weighted)


def kept_in_float(model: onnx.ModelProto, keep: Collection[str]) -> set[str]:
    """Return the nodes that settings keep in float16 (see `MagicmindSettings.keep_float`).

    Raises:
        KilnError: an unknown node; the nearest is suggested.
    """
    stem, heads = stem_and_heads(model)
    names = [node_name(node) for node in model.graph.node]
    kept: set[str] = set()
    for word in keep:
        kept |= {"stem": set(stem), "heads": set(heads)}.get(word) or {
            known(word, [*names, "stem", "heads"], "node")
        }
    return kept


def is_depthwise(model: onnx.ModelProto, weight: Weight) -> bool:
    """Return whether a weight is of a convolution with a group per input channel."""
    node = next(node for node in model.graph.node if node_name(node) == weight.node)
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    return node.op_type == "Conv" and group > 1 and weight.values.shape[1] == 1


def int8_weight(weight: Weight, *, per_axis: bool) -> NDArray[np.float32]:
    """Return what a weight is after rounding to int8: symmetric, -127..127, a scale per output channel or
    one."""
    rounded, scales = rounded_weight(weight, per_channel=per_axis)
    return rounded * scales


def emulate(
    model: onnx.ModelProto,
    precision: str,
    *,
    thresholds: Mapping[str, float] | None = None,
    keep_float: Collection[str] = (),
    precisions: Mapping[str, str] | None = None,
    per_axis: bool = True,
    depthwise_per_axis: bool = False,
) -> onnx.ModelProto:
    """Return the network as a precision mode computes it.

    Args:
        model: simplified ONNX, float32, of batch 1.
        precision: "force_float32", "force_float16" or "qint8_mixed_float16".
        thresholds: tensor -> largest magnitude that its int8 holds; of every input of a quantised node.
        keep_float: nodes that stay in float16 in the mixed mode.
        precisions: node -> "FLOAT32" or "FLOAT16", against the mode.
        per_axis: weights have a scale per output channel.
        depthwise_per_axis: those of depthwise convolutions too.

    Raises:
        KilnError: an unknown node, a tensor without a threshold, or a weight that float16 cannot hold.
    """
    graph = at_opset(model)
    names = {node_name(node) for node in graph.graph.node}
    wanted = {known(name, names, "node"): kind for name, kind in (precisions or {}).items()}
    by_node = {weight.node: weight for weight in weights(graph)}
    floats = {tensor.name for tensor in activations(graph)}
    quantised = set()
    if precision == "qint8_mixed_float16":
        quantised = set(by_node) - set(keep_float) - set(wanted)
    halves = names if precision != "force_float32" else set()
    halves = {name for name in halves if wanted.get(name) != "FLOAT32"} | {
        name for name, kind in wanted.items() if kind == "FLOAT16"
    }
    edit = _Edit(graph, floats)
    for node in list(graph.graph.node):
        name = node_name(node)
        if name in quantised:
            edit.round_input(node, thresholds or {})
            axis = depthwise_per_axis if is_depthwise(graph, by_node[name]) else per_axis
            edit.replace(node, 1, int8_weight(by_node[name], per_axis=axis))
        elif name in halves and name in by_node:
            edit.replace(node, 1, _half(name, by_node[name].values))
        edit.keep(node)
        if name in halves:
            edit.halve(node)
    return edit.done()


def _half(node: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16).astype(np.float32)
    if not np.isfinite(half).all():
        raise KilnError(
            "its weight is beyond float16",
            where=node,
            value=float(np.abs(values).max()),
            limit=65504,
            hint=f"set {node}: FLOAT32 in `precisions` of config/chips/magicmind.yaml",
        )
    return half


class _Edit:
    """The graph under construction: nodes in order, with roundings between them."""

    def __init__(self, graph: onnx.ModelProto, floats: Collection[str]) -> None:
        self._graph, self._floats = graph, floats
        self._nodes: list[onnx.NodeProto] = []
        self._rounded: set[str] = set()
        self._outputs = {value.name for value in graph.graph.output}

    def round_input(self, node: onnx.NodeProto, thresholds: Mapping[str, float]) -> None:
        """Let a node read its activation as symmetric int8; each tensor is rounded once."""
        for place, tensor in enumerate(node.input):
            if tensor not in self._floats or place > 1:
                continue
            if tensor not in thresholds:
                raise KilnError(
                    "has no threshold for an int8 input", where=tensor, hint="facekiln quant ranges"
                )
            made = f"{tensor}_int8"
            if tensor not in self._rounded:
                self._rounded.add(tensor)
                scale = max(thresholds[tensor] / _STEPS, _TINY)
                stored = [
                    self._store(f"{made}_scale", np.asarray(scale, np.float32)),
                    self._store(f"{made}_zero", np.asarray(0, np.int8)),
                ]
                code = f"{made}_code"
                self._nodes.append(helper.make_node("QuantizeLinear", [tensor, *stored], [code], name=code))
                self._nodes.append(helper.make_node("DequantizeLinear", [code, *stored], [made], name=made))
            node.input[place] = made

    def replace(self, node: onnx.NodeProto, place: int, values: NDArray[np.float32]) -> None:
        """Let a node read another constant."""
        node.input[place] = self._store(f"{node.input[place]}_{node_name(node)}", values)

    def keep(self, node: onnx.NodeProto) -> None:
        """Take a node over."""
        self._nodes.append(node)

    def halve(self, node: onnx.NodeProto) -> None:
        """Round a node's results to float16; tensors keep their names, so that they can be traced."""
        for place, tensor in enumerate(node.output):
            if tensor not in self._floats:
                continue
            raw, half = f"{tensor}_sum", f"{tensor}_half"
            node.output[place] = raw
            self._nodes.append(helper.make_node("Cast", [raw], [half], name=half, to=TensorProto.FLOAT16))
            self._nodes.append(helper.make_node("Cast", [half], [tensor], name=tensor, to=TensorProto.FLOAT))

    def done(self) -> onnx.ModelProto:
        """Return the checked graph without constants that nothing reads."""
        graph = self._graph.graph
        del graph.node[:]
        graph.node.extend(self._nodes)
        drop_unused_constants(self._graph)
        del graph.value_info[:]
        self._graph.doc_string = "EMULATED: no vendor tool made this and no card runs it"
        onnx.checker.check_model(self._graph)
        return self._graph

    def _store(self, name: str, values: NDArray[np.generic]) -> str:
        self._graph.graph.initializer.append(numpy_helper.from_array(values, name))
        return name
