"""An fp32 file to a uint8 or int8 one, given the scales of its activations.

Arithmetic and order are those of Tengine's quant tools (tools/quantize/quant_save_graph.cpp), in float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from facekiln.chips.tengine.format import (
    CONST,
    FP32,
    INPUT,
    INT8,
    UINT8,
    VAR,
    Node,
    Quant,
    Tensor,
    TmGraph,
    constant,
)
from facekiln.chips.tengine.ops import OP_IDS, WEIGHTED, op_name
from facekiln.chips.tengine.scales import asymmetric
from facekiln.chips.tengine.validate import node_label, validate
from facekiln.errors import KilnError
from facekiln.progress import log

# These copy codes as they are.
_COPYING = ("Reshape", "Flatten")
_AVERAGE = 1
_PASSING = ("Flatten", "Reshape", "Squeeze", "Clip")
_F = np.float32
_INT32 = 2**31 - 1


def _round(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Round half away from zero, as C does."""
    whole = np.trunc(values)
    return (whole + np.sign(values) * (np.abs(values - whole) >= _F(0.5))).astype(np.float32)


def _passes(node: Node, *, slices: bool) -> bool:
    """Whether an operator's input takes the scale of its output."""
    name = op_name(node.op)
    if name == "Pooling":
        return bool(node.params["method"] == 0)
    if name == "ReLU":
        return bool(node.params["negative_slope"] == 0)
    return name in _PASSING or (slices and name == "Slice")


def hand_back(graph: TmGraph, scales: Mapping[str, Quant]) -> dict[str, Quant]:
    """Give the input of operators that only move or clip values the scale of their output.

    Walks from the last tensor to the first; an input with one consumer takes the record, and hands it on.

    Args:
        graph: the fp32 file.
        scales: the record of every activation by name.
    """
    makers = {place: node for node in graph.nodes for place in node.outputs}
    readers = Counter(place for node in graph.nodes for place in node.inputs)
    result = dict(scales)
    done: set[int] = set()

    def take(place: int, quant: Quant) -> None:
        while place not in done and readers[place] < 2 and graph.tensors[place].kind in (VAR, INPUT):
            result[graph.tensors[place].name or ""] = quant
            done.add(place)
            node = makers[place]
            if not _passes(node, slices=False) or quant.scale == 0:
                return
            place = node.inputs[0]

    for place in reversed(range(len(graph.tensors))):
        tensor = graph.tensors[place]
        if tensor.kind not in (VAR, INPUT) or place in done:
            continue
        quant = result[tensor.name or ""]
        node = makers[place]
        if _passes(node, slices=True) and quant.scale != 0:
            take(node.inputs[0], quant)
        done.add(place)
    for node in graph.nodes:
        if op_name(node.op) == "Slice":
            result[graph.tensors[node.outputs[0]].name or ""] = result[
                graph.tensors[node.inputs[0]].name or ""
            ]
    return result


def settle(graph: TmGraph, scales: Mapping[str, Quant], dtype: int) -> dict[str, Quant]:
    """Undo what the tools leave to chance, after scales were handed back; the kernels are those of 1.5.

    Reshape and Flatten copy codes, so their output has the record of their input even where the input has
    other readers. An int8 Concat turns values below -127 codes into +127, so its scale covers its operands';
    a uint8 average turns values below its smallest code into the largest, so it reaches lower than was seen.
    """
    result = dict(scales)

    def of(place: int, records: Mapping[str, Quant]) -> Quant:
        return records[graph.tensors[place].name or ""]

    for node in graph.nodes:
        if not node.inputs or graph.tensors[node.inputs[0]].kind == CONST:
            continue
        name, output = op_name(node.op), graph.tensors[node.outputs[0]].name or ""
        if name == "Concat" and dtype == INT8:
            parts = [of(place, result) for place in node.inputs if graph.tensors[place].kind != CONST]
            result[output] = max([result[output], *parts], key=lambda item: item.scale)
        elif name == "Pooling" and node.params["method"] == _AVERAGE and dtype == UINT8:
            result[output] = _covering(of(node.inputs[0], result), result[output])
        elif name in _COPYING or (
            _passes(node, slices=True) and of(node.inputs[0], scales) == scales[output]
        ):
            result[output] = of(node.inputs[0], result)
    return result


def _covering(entry: Quant, own: Quant) -> Quant:
    """Return a uint8 record that reaches lower than its own: as low as an input's, at most one span more.

    A picture would have to go twice as far as all of the calibration set to fall below it.
    """
    low, high = -own.zero_point * own.scale, (255 - own.zero_point) * own.scale
    least = max(-entry.zero_point * entry.scale, low - (high - low))
    return asymmetric(_F(least), _F(high), "exact") if own.scale and least < low else own


def _weights_uint8(name: str, values: NDArray[np.float32]) -> Tensor:
    low, high = values.min(), values.max()
    if low == high:
        # The tool divides by 0 here.
        low, high = min(low, _F(0)), max(high, _F(0))
    scale = _F((high - low) / _F(255))
    if scale == 0:
        return constant(name, np.zeros(values.shape, np.uint8), (Quant(0.0, 0),))
    zero = int(-low / scale)
    codes = np.clip(_round(values / scale + _F(zero)), 0, 255).astype(np.uint8)
    return constant(name, codes, (Quant(float(scale), zero),))


def _records(scales: NDArray[np.float32]) -> tuple[Quant, ...]:
    """Records of output channels; a single one stands twice, as the loader keeps no list of one."""
    records = tuple(Quant(float(scale), 0) for scale in scales)
    return records * 2 if len(records) == 1 else records


def _weights_int8(name: str, values: NDArray[np.float32]) -> tuple[Tensor, NDArray[np.float32]]:
    flat = values.reshape(values.shape[0], -1)
    scales = (np.abs(flat).max(axis=1) / _F(127)).astype(np.float32)
    safe = np.where(scales == 0, _F(1), scales)[:, None]
    codes = np.clip(_round(flat / safe), -127, 127).astype(np.int8).reshape(values.shape)
    return constant(name, codes, _records(scales)), scales


def _bias(name: str, values: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int32]:
    safe = np.where(scales == 0, _F(1), scales)
    codes = np.where(scales == 0, _F(0), _round(values / safe)).astype(np.float64)
    if np.abs(codes).max(initial=0) > _INT32:
        log.warning("%s: a bias is beyond 32 bits at its scale and was clipped", name)
    return np.clip(codes, -_INT32, _INT32).astype(np.int32)


def _quantise_node(graph: TmGraph, node: Node, dtype: int, tensors: list[Tensor]) -> None:
    weights = graph.tensors[node.inputs[1]]
    name = weights.name or ""
    if weights.kind != CONST or weights.data is None:
        raise KilnError("its weights are computed, or have no bytes", where=f"tensor '{name}'")
    if dtype == UINT8:
        tensors[node.inputs[1]] = quantised = _weights_uint8(name, weights.values)
        scales = np.array([quantised.quant[0].scale], np.float32)
    else:
        tensors[node.inputs[1]], scales = _weights_int8(name, weights.values)
    if len(node.inputs) < 3:
        return
    bias = graph.tensors[node.inputs[2]]
    steps = (_F(tensors[node.inputs[0]].quant[0].scale) * scales).astype(np.float32)
    codes = _bias(bias.name or "", bias.values.reshape(-1), steps)
    records = (Quant(float(steps[0]), 0),) if dtype == UINT8 else _records(steps)
    tensors[node.inputs[2]] = constant(bias.name or "", codes, records)


def _quantise_operand(graph: TmGraph, place: int, tensors: list[Tensor]) -> None:
    """Give a sum's or product's constant int8 codes: the kernel reads its bytes as such in any case."""
    tensor = graph.tensors[place]
    if tensor.kind != CONST or tensor.dtype != FP32:
        return
    values = tensor.values
    scale = _F(np.abs(values).max() / _F(127))
    codes = np.clip(_round(values / scale), -127, 127) if scale else np.zeros_like(values)
    tensors[place] = constant(tensor.name or "", codes.astype(np.int8), (Quant(float(scale), 0),))


def _shared(graph: TmGraph) -> None:
    """Refuse weights or biases that two operators read: each would want its own scale."""
    readers = Counter(
        place for node in graph.nodes if op_name(node.op) in WEIGHTED for place in node.inputs[2:3]
    )
    for place, count in readers.items():
        if count > 1:
            raise KilnError("a bias is read by two operators", where=f"tensor '{graph.tensors[place].name}'")


def quantise(graph: TmGraph, scales: Mapping[str, Quant], dtype: int, *, style: str = "exact") -> TmGraph:
    """Return a quantised copy of an fp32 file.

    Args:
        graph: fp32, with its weights.
        scales: of every activation by name, before they are handed back: `scales.scales_of`, or a table.
        dtype: UINT8 (one asymmetric scale per tensor) or INT8 (symmetric; weights per output channel).
        style: "tool" stops where the quant tools do; "exact" goes on with `settle`.

    Raises:
        KilnError: it is not fp32, or holds what Tengine has no right kernel for in that type, named.
    """
    if graph.dtype != FP32:
        raise KilnError("is quantised already", value=graph.precision, limit="fp32")
    _shared(graph)
    final = hand_back(graph, scales)
    if style == "exact":
        final = settle(graph, final, dtype)
    tensors: list[Tensor] = []
    for tensor in graph.tensors:
        if tensor.kind in (VAR, INPUT):
            item = final[tensor.name or ""]
            tensors.append(
                replace(tensor, dtype=dtype, quant=(Quant(float(_F(item.scale)), item.zero_point),))
            )
        else:
            tensors.append(replace(tensor))
    for node in graph.nodes:
        if op_name(node.op) in WEIGHTED:
            _quantise_node(graph, node, dtype, tensors)
        elif node.op == OP_IDS["Eltwise"] and dtype == INT8 and style == "exact":
            for place in node.inputs:
                _quantise_operand(graph, place, tensors)
        elif op_name(node.op) == "PReLU":
            slopes = graph.tensors[node.inputs[1]]
            tensors[node.inputs[1]] = constant(slopes.name or "", slopes.values.astype(np.float16))
    result = replace(graph, tensors=tensors)
    if broken := [finding for finding in validate(result) if finding.level == "error"]:
        raise KilnError(
            f"cannot be {'uint8' if dtype == UINT8 else 'int8'}: {broken[0].sentence()}",
            hint="keep the network fp32, or end it before this operator",
        )
    _warn_clipped(graph, result)
    return result


def _warn_clipped(graph: TmGraph, result: TmGraph) -> None:
    for place, node in enumerate(graph.nodes):
        if node.op == OP_IDS["Eltwise"] and result.tensors[node.outputs[0]].quant[0].scale == 0:
            log.warning("%s: its result is always 0 in the calibration pictures", node_label(graph, place))
