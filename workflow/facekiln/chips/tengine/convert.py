"""A legal ONNX graph to a tmfile's graph: one operator at a time, exactly or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from facekiln.chips.tengine.call import Call, store
from facekiln.chips.tengine.convert_ops import CONVERTERS
from facekiln.chips.tengine.format import FP32, INPUT, VAR, Node, Tensor, TmGraph, constant
from facekiln.chips.tengine.legalise import legalise
from facekiln.chips.tengine.ops import OP_IDS, WEIGHTED
from facekiln.chips.tengine.validate import validate
from facekiln.errors import KilnError
from facekiln.graph.onnx_graph import OnnxGraph
from facekiln.provenance import Edit


@dataclass(frozen=True)
class Conversion:
    """A converted network and what was changed on the way."""

    graph: TmGraph
    edits: list[Edit]


def _calls(graph: OnnxGraph) -> list[Call]:
    calls = []
    for node in graph.nodes:
        if node.op not in CONVERTERS:
            raise KilnError(
                "is an operator that is not converted to Tengine",
                where=node.where,
                limit=", ".join(sorted(CONVERTERS)),
                hint="export the network without post-processing and run `facekiln onnx simplify`",
            )
        calls += CONVERTERS[node.op](graph, node)
    return calls


def _with_own_weights(graph: OnnxGraph, calls: Sequence[Call]) -> list[Call]:
    """Give every convolution weights and a bias of its own: in a quantised file each has its own scale.

    ONNX stores equal ones once; all biases of a network whose batch norms were never trained are equal.
    """
    taken: set[str] = set()
    result = []
    for call in calls:
        if call.op in WEIGHTED:
            kept = [
                store(graph, name, graph.constants[name]) if name in taken else name
                for name in call.inputs[1:]
            ]
            taken.update(name for name in kept if name in graph.constants)
            call = replace(call, inputs=[call.inputs[0], *kept])
        result.append(call)
    return result


def _unique(calls: Sequence[Call], taken: set[str]) -> list[str]:
    """Return a name for each node; names of constants and inputs are taken already."""
    seen = Counter(taken)
    names = []
    for call in calls:
        name = call.name
        while seen[name]:
            seen[call.name] += 1
            name = f"{call.name}_{seen[call.name]}"
        seen[name] += 1
        names.append(name)
    return names


def _assemble(graph: OnnxGraph, calls: list[Call], op_version: int) -> TmGraph:
    """Constants, then inputs, then what computes, in order."""
    used = list(dict.fromkeys(name for call in calls for name in call.inputs if name in graph.constants))
    made = [name for call in calls for name in call.outputs]
    tensors = [constant(name, np.asarray(graph.constants[name], np.float32)) for name in used]
    tensors += [Tensor(name, INPUT, FP32, graph.shapes[name]) for name in graph.inputs]
    tensors += [Tensor(name, VAR, FP32, graph.shapes[name]) for name in made]
    place = {tensor.name: number for number, tensor in enumerate(tensors)}
    nodes = [Node(name, OP_IDS["Const"], [], [place[name]], op_version=op_version) for name in used]
    nodes += [
        Node(name, OP_IDS["InputOp"], [], [place[name]], op_version=op_version) for name in graph.inputs
    ]
    names = _unique(calls, {*used, *graph.inputs})
    for name, call in zip(names, calls, strict=True):
        sources, results = [place[item] for item in call.inputs], [place[item] for item in call.outputs]
        nodes.append(Node(name, OP_IDS[call.op], sources, results, call.params, op_version))
    makers = {tensor: number for number, node in enumerate(nodes) for tensor in node.outputs}
    return TmGraph(
        nodes=nodes,
        tensors=tensors,
        inputs=[len(used) + number for number in range(len(graph.inputs))],
        outputs=[makers[place[name]] for name in graph.outputs],
    )


def convert(
    model: onnx.ModelProto,
    *,
    outputs: Sequence[str] | None = None,
    op_version: int = 2,
    name: str | None = None,
) -> Conversion:
    """Convert a simplified ONNX model to an fp32 tmfile graph.

    Args:
        model: with fixed shapes, see `facekiln onnx simplify`.
        outputs: the outputs' order in the file, as its consumer wants them; None: as they are.
        op_version: of every operator: 2 is read by Tengine 1.12, 1.x head and Lite; 1 by Lite and by what
            its own tools write.
        name: of the model, in the file.

    Raises:
        KilnError: an operator, or a form of one, that Tengine cannot compute exactly, named with its node; an
            output that the graph has not; or an unknown op version.
    """
    if op_version not in (1, 2):
        raise KilnError(
            "unknown op version",
            where="op_version",
            value=op_version,
            limit="2 (Tengine 1.12, 1.x head, Lite) or 1 (Lite)",
            hint="Tengine 1.9 and older read another Reshape record, which is not written",
        )
    graph = OnnxGraph.of(model)
    if outputs is not None:
        if sorted(outputs) != sorted(graph.outputs):
            raise KilnError(
                "the outputs asked for are not those of the graph", value=list(outputs), limit=graph.outputs
            )
        graph.outputs = list(outputs)
    edits = legalise(graph)
    converted = _assemble(graph, _with_own_weights(graph, _calls(graph)), op_version)
    converted.name = name
    if broken := [finding for finding in validate(converted) if finding.level == "error"]:
        raise KilnError("the result would break Tengine's rules: " + broken[0].sentence())
    return Conversion(converted, edits)
