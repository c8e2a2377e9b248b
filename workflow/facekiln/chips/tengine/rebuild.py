"""A tmfile's graph as an ONNX model, so that a runtime that we did not write executes the file itself.

Nothing of the network that the file was made from is used: weights, parameters and order are the file's, and
shapes are inferred from the input anew, as Tengine does. A quantised file gets QuantizeLinear and
DequantizeLinear with the file's own scales behind every operator, and de-quantised weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from facekiln.chips.tengine.canvas import Canvas, Shape
from facekiln.chips.tengine.format import CONST, INT8, UINT8, Node, TmGraph
from facekiln.chips.tengine.ops import OP_IDS, op_name
from facekiln.chips.tengine.rebuild_ops import REBUILDERS
from facekiln.chips.tengine.validate import node_label
from facekiln.errors import KilnError

OPSET = 13


def _rounded(canvas: Canvas, graph: TmGraph, tensor: int, real: str) -> str:
    """Append the rounding of an activation to the file's codes; the result is what readers get."""
    quant = graph.tensors[tensor].quant[0]
    if quant.scale == 0:
        return canvas.call("Mul", [real, canvas.constant(np.float32(0))])
    kind = np.uint8 if graph.dtype == UINT8 else np.int8
    if graph.dtype == INT8:
        # Kernels clip to -127..127; QuantizeLinear would take -128, too.
        edge = np.float32(127 * np.float32(quant.scale))
        real = canvas.call("Clip", [real, canvas.constant(-edge), canvas.constant(edge)])
    scale, zero = canvas.constant(np.float32(quant.scale)), canvas.constant(kind(quant.zero_point))
    codes = canvas.call("QuantizeLinear", [real, scale, zero])
    return canvas.call("DequantizeLinear", [codes, scale, zero])


def _wrapped(canvas: Canvas, graph: TmGraph, tensor: int, real: str) -> str:
    """A uint8 Pooling does not clip at 0: what lies below the smallest code comes out 256 codes higher."""
    quant = graph.tensors[tensor].quant[0]
    edge = np.float32(-(quant.zero_point + 0.5) * quant.scale)
    below = canvas.call("LessOrEqual", [real, canvas.constant(edge)])
    higher = canvas.call("Add", [real, canvas.constant(np.float32(256 * quant.scale))])
    return canvas.call("Where", [below, higher, real])


def _flip(canvas: Canvas, graph: TmGraph, node: Node) -> dict[int, str]:
    """An int8 Concat turns what lies below -127 codes of its result into +127 codes.

    Its operands are replaced for it alone; returns their own names, to be set back.
    """
    limit = graph.tensors[node.outputs[0]].quant[0].scale
    own = {}
    for tensor in dict.fromkeys(node.inputs) if len(node.inputs) > 1 else ():
        if not (records := graph.tensors[tensor].quant) or records[0].scale <= limit:
            continue
        own[tensor] = real = canvas.name(tensor)
        below = canvas.call("LessOrEqual", [real, canvas.constant(np.float32(-127.5 * limit))])
        flipped = canvas.call("Where", [below, canvas.constant(np.float32(127 * limit)), real])
        canvas.set(tensor, flipped, canvas.shape(tensor))
    return own


def _copied(canvas: Canvas, graph: TmGraph, source: int, tensor: int, real: str) -> str:
    """Codes that are copied mean other numbers where the two records differ."""
    before, after = graph.tensors[source].quant[0], graph.tensors[tensor].quant[0]
    if before == after:
        return real
    ratio = after.scale / before.scale if before.scale else 0.0
    moved = (before.zero_point - after.zero_point) * after.scale
    scaled = canvas.call("Mul", [real, canvas.constant(np.float32(ratio))])
    return canvas.call("Add", [scaled, canvas.constant(np.float32(moved))])


def to_onnx(
    graph: TmGraph, *, size: Shape | None = None, intermediates: bool = False, quantise: bool = True
) -> onnx.ModelProto:
    """Return an ONNX model that computes what the file says, in real numbers in and out.

    Args:
        graph: a parsed file, fp32, uint8 or int8.
        size: the input's shape where it is not the file's.
        intermediates: every activation is an output, by its name in the file.
        quantise: round activations as the file says; False: only the weights are the file's.

    Returns:
        A model of opset 13 whose input and outputs have the file's names, in its order.

    Raises:
        KilnError: an operator or a form of one that is not simulated, weights that are stripped, shapes that
            do not fit, or nodes that are out of order.
    """
    if graph.precision not in ("fp32", "uint8", "int8"):
        raise KilnError("is of a precision that is not simulated", value=graph.precision)
    canvas = Canvas(graph)
    quantised = quantise and graph.dtype in (UINT8, INT8)
    inputs = []
    for place in graph.inputs:
        tensor = graph.nodes[place].outputs[0]
        shape = size or graph.tensors[tensor].dims
        name = graph.tensors[tensor].name
        if not shape or not name:
            raise KilnError(
                "the file does not say the input's size", where=f"input '{name}'", hint="give one"
            )
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        canvas.set(tensor, _rounded(canvas, graph, tensor, name) if quantised else name, tuple(shape))
    named: dict[str, str] = {}
    for place, node in enumerate(graph.nodes):
        if node.op in (OP_IDS["Const"], OP_IDS["InputOp"]):
            continue
        where = node_label(graph, place)
        if op_name(node.op) not in REBUILDERS:
            raise KilnError("is not simulated", where=where, limit=", ".join(sorted(REBUILDERS)))
        missing = [t for t in node.inputs if graph.tensors[t].kind != CONST and not canvas.has(t)]
        if missing:
            raise KilnError(
                "reads a tensor before it is made", where=where, value=graph.tensors[missing[0]].name
            )
        flips = quantised and graph.dtype == INT8 and node.op == OP_IDS["Concat"]
        own = _flip(canvas, graph, node) if flips else {}
        try:
            results = REBUILDERS[op_name(node.op)](canvas, node)
        except (ValueError, IndexError, KeyError, ZeroDivisionError) as error:
            raise KilnError(f"does not fit its inputs: {error}", where=where) from error
        for tensor, name in own.items():
            canvas.set(tensor, name, canvas.shape(tensor))
        for tensor, (real, shape) in zip(node.outputs, results, strict=True):
            if quantised and op_name(node.op) in ("Reshape", "Flatten"):
                real = _copied(canvas, graph, node.inputs[0], tensor, real)
            elif quantised:
                if graph.dtype == UINT8 and node.op == OP_IDS["Pooling"]:
                    real = _wrapped(canvas, graph, tensor, real)
                real = _rounded(canvas, graph, tensor, real)
            canvas.set(tensor, real, shape)
            named[graph.tensors[tensor].name or f"tensor {tensor}"] = canvas.name(tensor)
    wanted = [tensor.name or "" for tensor in graph.output_tensors()]
    listed = [*wanted, *(name for name in named if name not in wanted)] if intermediates else wanted
    if missing_outputs := [name for name in listed if name not in named]:
        raise KilnError("an output is made by no node that computes", value=missing_outputs[0])
    return _model(canvas, inputs, listed, named)


def _model(
    canvas: Canvas,
    inputs: Sequence[onnx.ValueInfoProto],
    listed: Sequence[str],
    named: dict[str, str],
) -> onnx.ModelProto:
    nodes = [*canvas.nodes, *(helper.make_node("Identity", [named[name]], [name]) for name in listed)]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in listed]
    stored = [numpy_helper.from_array(values, name) for name, values in canvas.constants.items()]
    graph = helper.make_graph(nodes, "tmfile", list(inputs), outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    return model
