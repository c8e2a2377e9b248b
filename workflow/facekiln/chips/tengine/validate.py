"""What Tengine would stumble over in a file: rules with an id, each measured or read from its sources.

`error`: the runtime crashes, corrupts memory or computes wrong numbers. `warning`: it may, or other tools do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from facekiln.chips.tengine.format import (
    CONST,
    DTYPES,
    FP16,
    FP32,
    INPUT,
    INT8,
    INT32,
    MAX_NODES,
    NCHW,
    PRECISION_MODES,
    UINT8,
    VAR,
    Node,
    Tensor,
    TmGraph,
)
from facekiln.chips.tengine.ops import COUNT_PAD, ELTWISE, NO_ACTIVATION, OP_IDS, OPS, RELU, RELU6, op_name

_WEIGHTED = ("Convolution", "FullyConnected", "Deconvolution")
# From the type switches of the CPU device's kernels, Tengine-Lite 1.5.
_NO_INT8 = (
    "Slice",
    "ReLU6",
    "Reduction",
    "Squeeze",
    "Unsqueeze",
    "StridedSlice",
    "BatchNormalization",
    "HardSwish",
    "HardSigmoid",
    "Tanh",
)
_FP32_ONLY = ("Upsample", "Logistic")
_WRONG_QUANTISED = ("Deconvolution",)
_LEAST_INPUTS = {
    "Const": 0,
    "InputOp": 0,
    "Convolution": 2,
    "FullyConnected": 2,
    "Deconvolution": 2,
    "PReLU": 2,
}


@dataclass(frozen=True)
class Finding:
    """One broken rule: id, "error" or "warning", where, and what."""

    rule: str
    level: str
    where: str
    what: str

    def sentence(self) -> str:
        """Return it as a line for a person."""
        return f"{self.rule} {self.where}: {self.what}"


def _error(rule: str, where: str, what: str) -> Finding:
    return Finding(rule, "error", where, what)


def _warning(rule: str, where: str, what: str) -> Finding:
    return Finding(rule, "warning", where, what)


def node_label(graph: TmGraph, place: int) -> str:
    """Return how findings name a node."""
    node = graph.nodes[place]
    return f"node {place} '{node.name}' ({op_name(node.op)})"


def _tensor_label(place: int, tensor: Tensor) -> str:
    return f"tensor {place} '{tensor.name}'"


def _names(graph: TmGraph) -> Iterator[Finding]:
    for kind, named in (("node", graph.nodes), ("tensor", graph.tensors)):
        names = Counter(item.name for item in named)
        for name, count in names.items():
            if name is None:
                yield _error("TM-NAME", kind, f"{count} without a name: the runtime keeps a wild pointer")
            elif count > 1:
                yield _warning(
                    "TM-NAME",
                    kind,
                    f"{count} are named '{name}': lookup and the quant tools need unique names",
                )


def _order(graph: TmGraph) -> Iterator[Finding]:
    made = {tensor for node in graph.nodes if node.op == OP_IDS["Const"] for tensor in node.outputs}
    makers: Counter[int] = Counter(tensor for node in graph.nodes for tensor in node.outputs)
    for place, node in enumerate(graph.nodes):
        late = [tensor for tensor in node.inputs if tensor not in made]
        if late:
            what = (
                f"reads tensor {late[0]} before it is made: nodes run in file order and nothing is reported"
            )
            yield _error("TM-ORDER", node_label(graph, place), what)
        made.update(node.outputs)
    for tensor, count in makers.items():
        if count > 1:
            yield _error("TM-ORDER", f"tensor {tensor}", f"is made by {count} nodes")


def _interface(graph: TmGraph) -> Iterator[Finding]:
    if len(graph.nodes) > MAX_NODES:
        yield _error(
            "TM-NODES", "graph", f"{len(graph.nodes)} nodes, at most {MAX_NODES}: places have 16 bits"
        )
    if not graph.outputs:
        yield _error("TM-OUTPUT", "graph", "has no output")
    for place in graph.inputs:
        if graph.nodes[place].op != OP_IDS["InputOp"]:
            yield _error("TM-INPUT", node_label(graph, place), "is an input of the graph, but no InputOp")
    if any(layout != NCHW for layout in graph.layouts):
        yield _error("TM-LAYOUT", "graph", f"layouts {graph.layouts}: the loader permutes NHWC")


def _operators(graph: TmGraph) -> Iterator[Finding]:
    for place, node in enumerate(graph.nodes):
        where = node_label(graph, place)
        if node.op not in OPS:
            yield _error(
                "TM-OP", where, "no operator of Tengine-Lite has this number (ids moved between 1.x and Lite)"
            )
            continue
        if len(node.inputs) < _LEAST_INPUTS.get(op_name(node.op), 1) or not node.outputs:
            yield _error("TM-OP", where, f"has {len(node.inputs)} inputs and {len(node.outputs)} outputs")
        if node.legacy:
            yield _error(
                "TM-OP-RECORD", where, "the record of Tengine 1.9 and older, which Lite reads as another"
            )
        if node.op_version not in (1, 2):
            yield _warning("TM-OP-VERSION", where, f"op version {node.op_version}: 1 and 2 are known")
        yield from _parameters(node, where)


def _parameters(node: Node, where: str) -> Iterator[Finding]:
    name, p = op_name(node.op), node.params
    numbers = [value for value in p.values() if isinstance(value, float)]
    if not all(math.isfinite(value) for value in numbers) and name != "Eltwise":
        yield _error("TM-PARAM", where, "a parameter is not a finite number")
    if name in ("Convolution", "Deconvolution"):
        if p["activation"] not in (NO_ACTIVATION, RELU, RELU6):
            yield _warning(
                "TM-ACTIVATION",
                where,
                f"activation {p['activation']}: kernels disagree on others than -1, 0, 6",
            )
        if min(p["kernel_h"], p["kernel_w"], p["stride_h"], p["stride_w"], p["group"]) < 1:
            yield _error("TM-PARAM", where, "a kernel side, stride or group is below one")
    elif name == "Pooling":
        if p["pad_h0"] != p["pad_h1"] or p["pad_w0"] != p["pad_w1"]:
            yield _warning("TM-POOL-PAD", where, "the output size uses the first pad of each axis twice")
        if p["caffe_flavor"] not in (0, 1, COUNT_PAD):
            yield _warning("TM-PARAM", where, f"caffe_flavor {p['caffe_flavor']}")
    elif name == "Clip" and p["min"] > p["max"]:
        yield _error(
            "TM-CLIP", where, f"min {p['min']} is over max {p['max']}: max stands first in the record"
        )
    elif name == "Permute" and tuple(p[f"order{i}"] for i in range(4)) not in ((0, 2, 3, 1), (1, 0, 2, 3)):
        yield _warning("TM-PERMUTE", where, "only (0, 2, 3, 1) and 3-D (1, 0, 2) work: use Transpose")


def _constants(graph: TmGraph) -> Iterator[Finding]:
    stripped = 0
    for place, tensor in enumerate(graph.tensors):
        where = _tensor_label(place, tensor)
        if tensor.kind == INPUT and not tensor.dims:
            yield _warning("TM-INPUT", where, "has no dims: the program that runs it must set its size")
        if tensor.kind != CONST:
            continue
        if not tensor.dims:
            yield _error("TM-DIMS", where, "has no dims: kernels fail on scalars, which want [1]")
            continue
        if min(tensor.dims) < 1:
            yield _error("TM-DIMS", where, f"dims {list(tensor.dims)}")
            continue
        need = tensor.elements * DTYPES[tensor.dtype][1].itemsize
        if tensor.stored < need:
            yield _error("TM-CONST-SIZE", where, f"{tensor.stored} bytes are stored, its dims want {need}")
        stripped += tensor.data is None
        if tensor.data is not None and tensor.offset % 4:
            yield _warning("TM-ALIGN", where, f"its bytes start at 0x{tensor.offset:x}, not aligned to 4")
    if stripped:
        yield _warning(
            "TM-STRIPPED", "graph", f"{stripped} constants have no bytes: the runtime fills in zeros"
        )


def _quantisation(graph: TmGraph) -> Iterator[Finding]:
    dtype = graph.dtype
    if dtype not in PRECISION_MODES:
        yield _error("TM-PRECISION", "graph", f"an input of {graph.precision} has no run mode")
    quantised = dtype in (UINT8, INT8)
    for place, tensor in enumerate(graph.tensors):
        where = _tensor_label(place, tensor)
        if any(not math.isfinite(item.scale) or item.scale < 0 for item in tensor.quant):
            yield _error("TM-QUANT", where, "a scale is negative or not finite")
        if tensor.kind not in (VAR, INPUT):
            continue
        if tensor.dtype != dtype:
            yield _error(
                "TM-PRECISION", where, f"is {DTYPES[tensor.dtype][0]} in a file of {graph.precision}"
            )
        if quantised and len(tensor.quant) != 1:
            yield _error(
                "TM-QUANT", where, f"has {len(tensor.quant)} quantisation records, activations have one"
            )
        elif quantised:
            low, high = (0, 255) if dtype == UINT8 else (0, 0)
            if not low <= tensor.quant[0].zero_point <= high:
                yield _error(
                    "TM-QUANT", where, f"zero point {tensor.quant[0].zero_point} of {graph.precision}"
                )
    if quantised:
        for place, node in enumerate(graph.nodes):
            yield from _quantised_node(graph, node, node_label(graph, place))


def _quantised_node(graph: TmGraph, node: Node, where: str) -> Iterator[Finding]:
    name, dtype = op_name(node.op), graph.dtype
    if dtype == INT8 and name in _NO_INT8:
        yield _error("TM-INT8-KERNEL", where, "has no int8 kernel on the CPU")
    if name in _FP32_ONLY:
        yield _error("TM-KERNEL", where, "has a kernel for fp32 only")
    if name in _WRONG_QUANTISED:
        yield _error("TM-KERNEL", where, "quant tools scale its weights along the input channels")
    if name == "Eltwise" and node.params["type"] == ELTWISE["div"]:
        yield _error("TM-KERNEL", where, "a quantised division is wrong up to the full range")
    if name == "Eltwise" and node.params["type"] == ELTWISE["exp"]:
        yield _warning(
            "TM-KERNEL", where, "a quantised exponential is off by several steps: leave it to the host"
        )
    operands = [graph.tensors[place] for place in node.inputs] if name == "Eltwise" else []
    if dtype == INT8 and any(one.kind == CONST and one.dtype != INT8 for one in operands):
        yield _error(
            "TM-INT8-OPERAND", where, "its constant is not int8, and the kernel reads it as if it were"
        )
    if name == "PReLU" and len(node.inputs) > 1 and graph.tensors[node.inputs[1]].dtype != FP16:
        yield _error("TM-PRELU", where, "slopes of quantised files are fp16")
    yield from _records_that_differ(graph, node, where)
    if name not in _WEIGHTED or len(node.inputs) < 2:
        return
    weights = graph.tensors[node.inputs[1]]
    if weights.kind == CONST and weights.dtype != dtype:
        what = f"its weights are {DTYPES[weights.dtype][0]} in a file of {graph.precision}"
        if weights.dtype == INT8 and dtype == UINT8:
            what += ": an NPU's form, on which the CPU runtime corrupts its memory"
        yield _error("TM-WEIGHTS", where, what)
        return
    channels = weights.dims[0] if weights.dims else 0
    if dtype == UINT8 and len(weights.quant) != 1:
        yield _error(
            "TM-QUANT", where, f"its weights have {len(weights.quant)} quantisation records, not one"
        )
    if dtype == INT8 and len(weights.quant) != max(channels, 2):
        what = f"its weights have {len(weights.quant)} quantisation records for {channels} channels"
        if channels == 1:
            what += ": the loader keeps a list from two on, and the kernel reads it (write the record twice)"
        yield _error("TM-QUANT", where, what)
    if len(node.inputs) > 2 and graph.tensors[node.inputs[2]].dtype not in (INT32, FP32):
        yield _error("TM-QUANT", where, "its bias is not int32")
    elif len(node.inputs) > 2 and graph.tensors[node.inputs[2]].dtype == FP32:
        yield _error("TM-QUANT", where, "its bias is fp32 in a quantised file")


def _records_that_differ(graph: TmGraph, node: Node, where: str) -> Iterator[Finding]:
    """Operators whose kernels take the records of input and output to go together."""
    name, places = op_name(node.op), [*node.inputs, *node.outputs[:1]]
    records = [graph.tensors[place].quant[:1] for place in places if graph.tensors[place].kind != CONST]
    if len(records) < 2 or not all(records):
        return
    (last,), first = records[-1], [record[0] for record in records[:-1]]
    if name in ("Reshape", "Flatten") and first[0] != last:
        yield _warning("TM-COPY", where, "copies codes, but its output has another scale or zero point")
    if name == "Pooling" and graph.dtype == UINT8:
        reach = [-item.zero_point * item.scale for item in (first[0], last)]
        if reach[0] < reach[1] - 0.5 * last.scale:
            yield _warning(
                "TM-UINT8-POOL",
                where,
                "its input reaches below its smallest code, where codes wrap around to 255",
            )
    if name == "Concat" and graph.dtype == INT8 and max(item.scale for item in first) > last.scale * 1.001:
        yield _warning(
            "TM-INT8-CONCAT", where, "an operand reaches below the result's range, where signs flip"
        )


def validate(graph: TmGraph) -> list[Finding]:
    """Return every broken rule of a parsed file, errors first."""
    rules = (_names, _order, _interface, _operators, _constants, _quantisation)
    found = [finding for rule in rules for finding in rule(graph)]
    return sorted(found, key=lambda finding: finding.level)
