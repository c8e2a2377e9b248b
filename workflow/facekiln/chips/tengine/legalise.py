"""Edits of a simplified ONNX graph before it becomes a tmfile; each says what it changed and why.

Tengine's CPU runtime executes a file as it is written: it fuses nothing and sorts nothing. So what its own
convert_tool folds is folded here, and what that tool gets wrong is done right or refused.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from facekiln.chips.tengine.call import store
from facekiln.errors import KilnError
from facekiln.graph.legalise_caffe import drop_identities, fold_pads
from facekiln.graph.onnx_graph import Node, OnnxGraph
from facekiln.provenance import Edit

# Marks on nodes of the edited graph.
FUSED = "tengine_activation"
_SPEED = "Tengine-Lite CPU: nothing is fused when a file is loaded"


def legalise(graph: OnnxGraph) -> list[Edit]:
    """Apply every rule to the graph, in place, and return the edits.

    Raises:
        KilnError: an output is an input, or two outputs are one tensor.
    """
    _check_outputs(graph)
    edits = [
        replace(edit, rule=edit.rule.replace("CAFFE-", "TENGINE-"), limit=_SPEED)
        for edit in (*drop_identities(graph), *fold_pads(graph))
    ]
    edits += _products_to_gemm(graph)
    edits += _fold_batch_norms(graph)
    edits += _swap_operands(graph)
    edits += _fuse_activations(graph)
    edits += _flattened_softmax(graph)
    return edits + _rename_spaces(graph)


def _check_outputs(graph: OnnxGraph) -> None:
    makers = [graph.producer(name) for name in graph.outputs]
    if any(node is None for node in makers) or len(set(graph.outputs)) != len(graph.outputs):
        raise KilnError(
            "an output is an input or a constant, or stands twice", value=graph.outputs, hint="export again"
        )
    for name, node in zip(graph.outputs, makers, strict=True):
        if node is not None and len(node.outputs) > 1:
            raise KilnError(
                "is one of several outputs of its node; a tmfile's outputs are whole nodes",
                where=f"output '{name}', {node.where}",
            )


def _remove(graph: OnnxGraph, node: Node, into: Node) -> None:
    """Remove a node that `into` took up: `into` makes its tensor, so that an output keeps its name."""
    into.outputs = [node.outputs[0]]
    graph.nodes.remove(node)


def _products_to_gemm(graph: OnnxGraph) -> list[Edit]:
    """MatMul with a constant matrix, and the Add of a constant behind it, become one Gemm."""
    edits = []
    for node in [node for node in graph.nodes if node.op == "MatMul"]:
        weights = graph.constants.get(node.inputs[1])
        if weights is None or weights.ndim != 2 or len(graph.shapes[node.inputs[0]]) != 2:
            continue
        node.op, node.attrs = "Gemm", {}
        reader = graph.only_reader(node.outputs[0])
        if reader is not None and reader.op == "Add":
            other = next(name for name in reader.inputs if name != node.outputs[0])
            bias = graph.constants.get(other)
            if bias is not None and bias.size == weights.shape[1]:
                node.inputs.append(store(graph, f"{other}::bias", bias.reshape(-1)))
                _remove(graph, reader, node)
        edits.append(
            Edit("TENGINE-GEMM", node.name, "MatMul and Add became one Gemm", "one kernel does both", _SPEED)
        )
    return edits


def _fold_batch_norms(graph: OnnxGraph) -> list[Edit]:
    """Fold a BatchNormalization into the convolution before it, if nothing else reads that one."""
    edits = []
    for node in [node for node in graph.nodes if node.op == "BatchNormalization"]:
        conv = graph.producer(node.inputs[0])
        if conv is None or conv.op != "Conv" or graph.only_reader(node.inputs[0]) is not node:
            continue
        names = [*conv.inputs[1:], *node.inputs[1:5]]
        if any(name not in graph.constants for name in names if name):
            continue
        gamma, beta, mean, variance = (graph.constants[name].astype(np.float64) for name in node.inputs[1:5])
        weights = graph.constants[conv.inputs[1]].astype(np.float64)
        bias = graph.constants[conv.inputs[2]] if len(conv.inputs) > 2 and conv.inputs[2] else 0.0
        scale = gamma / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
        folded = weights * scale.reshape(-1, *[1] * (weights.ndim - 1))
        shifted = (np.asarray(bias, np.float64) - mean) * scale + beta
        conv.inputs = [
            conv.inputs[0],
            store(graph, f"{conv.inputs[1]}::folded", folded),
            store(graph, f"{conv.inputs[1]}::bias", shifted),
        ]
        _remove(graph, node, conv)
        edits.append(
            Edit(
                "TENGINE-FOLD-BN",
                conv.name,
                f"took up {node.name}; now has a bias",
                "one rounding instead of two in quantised files",
                _SPEED,
            )
        )
    return edits


def _swap_operands(graph: OnnxGraph) -> list[Edit]:
    """The larger operand first: Eltwise computes `second - first` where the second is larger."""
    edits = []
    for node in list(graph.nodes):
        if node.op not in ("Add", "Mul", "Sub", "Max", "Div") or len(node.inputs) != 2:
            continue
        first, second = (int(np.prod(graph.shapes[name])) for name in node.inputs)
        constant_first = node.inputs[0] in graph.constants and node.inputs[1] not in graph.constants
        if second <= first and not constant_first:
            continue
        if node.op == "Div":
            raise KilnError(
                "divides something by a larger tensor, which Tengine computes the other way round",
                where=node.where,
                hint="leave post-processing to the host",
            )
        if node.op == "Sub":
            negative = graph.unused(f"{node.outputs[0]}::negative")
            graph.shapes[negative] = graph.shapes[node.inputs[1]]
            minus = store(graph, f"{node.outputs[0]}::minus_one", np.array([-1.0], np.float32))
            product = Node("Mul", f"{node.name}::negative", [node.inputs[1], minus], [negative])
            graph.nodes.insert(graph.nodes.index(node), product)
            node.op, node.inputs = "Add", [negative, node.inputs[0]]
            change = "a - b became b * -1 + a"
        else:
            node.inputs = [node.inputs[1], node.inputs[0]]
            change = "operands swapped"
        edits.append(
            Edit(
                "TENGINE-OPERANDS",
                node.name,
                change,
                "the larger operand must stand first",
                "Tengine-Lite Eltwise: the order is lost where the second operand is larger (measured)",
            )
        )
    return edits


def clip_limits(graph: OnnxGraph, node: Node) -> tuple[float, float]:
    """Return (min, max) of a Clip, infinite where it has none."""
    low, high = graph.operand(node, "min", 1), graph.operand(node, "max", 2)
    return (
        -np.inf if low is None else float(np.asarray(low).ravel()[0]),
        np.inf if high is None else float(np.asarray(high).ravel()[0]),
    )


def _fuse_activations(graph: OnnxGraph) -> list[Edit]:
    """Fold Relu, and Clip from 0 to exactly 6, into the convolution before it."""
    edits = []
    for node in [node for node in graph.nodes if node.op in ("Relu", "Clip")]:
        conv = graph.producer(node.inputs[0])
        if conv is None or conv.op not in ("Conv", "ConvTranspose") or FUSED in conv.attrs:
            continue
        if graph.only_reader(node.inputs[0]) is not node:
            continue
        if node.op == "Relu" or clip_limits(graph, node) == (0.0, np.inf):
            conv.attrs[FUSED] = 0
        elif clip_limits(graph, node) == (0.0, 6.0):
            conv.attrs[FUSED] = 6
        else:
            continue
        _remove(graph, node, conv)
        edits.append(
            Edit(
                "TENGINE-FUSE-RELU",
                conv.name,
                f"took up {node.name} ({node.op})",
                "the sum is quantised once, after the activation",
                _SPEED,
            )
        )
    return edits


def _flattened_softmax(graph: OnnxGraph) -> list[Edit]:
    """Softmax of opset 12 and older over several axes: between two Reshapes."""
    edits = []
    for node in [node for node in graph.nodes if node.op == "Softmax" and node.attrs.get("flattens")]:
        shape, axis = graph.shapes[node.inputs[0]], node.attrs["axis"]
        flat = (int(np.prod(shape[:axis])), int(np.prod(shape[axis:])))
        source, output = graph.unused(f"{node.outputs[0]}::flat"), node.outputs[0]
        graph.shapes[source] = flat
        result = graph.unused(f"{output}::softmax")
        graph.shapes[result] = flat
        place = graph.nodes.index(node)
        before = Node("Reshape", f"{node.name}::flatten", [node.inputs[0]], [source], {"dims": flat})
        after = Node("Reshape", f"{node.name}::restore", [result], [output], {"dims": shape})
        node.inputs, node.outputs, node.attrs = [source], [result], {"axis": 1}
        graph.nodes[place : place + 1] = [before, node, after]
        edits.append(
            Edit(
                "TENGINE-SOFTMAX",
                node.name,
                f"flattened to {list(flat)} before, restored after",
                "before opset 13 it normalised over every axis from its own on",
                "Tengine-Lite Softmax: one axis",
            )
        )
    return edits


def _rename_spaces(graph: OnnxGraph) -> list[Edit]:
    """Names without white space: a scale table is split at spaces."""
    edits = []
    for name in list(dict.fromkeys([*graph.inputs, *graph.shapes, *graph.constants])):
        if not any(char.isspace() for char in name):
            continue
        if name in graph.outputs or name in graph.inputs:
            raise KilnError(
                "an input's or output's name holds a space, which breaks Tengine's scale tables",
                value=name,
                hint="export the network with other names",
            )
        safe = graph.unused("_".join(name.split()))
        if name in graph.constants:
            graph.constants[safe] = graph.constants.pop(name)
        if name in graph.shapes:
            graph.shapes[safe] = graph.shapes.pop(name)
        for node in graph.nodes:
            node.inputs = [safe if item == name else item for item in node.inputs]
            node.outputs = [safe if item == name else item for item in node.outputs]
        edits.append(
            Edit(
                "TENGINE-NAME", name, f"renamed '{safe}'", "scale tables are split at spaces", "quant_tool -f"
            )
        )
    return edits
