"""Each rule finds what it is for, and nothing in a sound graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from facekiln.chips.tengine.format import (
    FP32,
    INPUT,
    INT8,
    INT32,
    UINT8,
    VAR,
    Node,
    Quant,
    Tensor,
    TmGraph,
    constant,
)
from facekiln.chips.tengine.ops import OP_IDS, OPS
from facekiln.chips.tengine.validate import validate

Edit = Callable[[TmGraph], None]


def _record(name: str, **values: object) -> dict[str, object]:
    return {field.name: 0 for field in OPS[OP_IDS[name]].fields} | values


def _graph(dtype: int = FP32, op: str = "FullyConnected", outputs: int = 3) -> TmGraph:
    quantised = dtype != FP32
    one = (Quant(0.1, 0),) if quantised else ()
    kind = {FP32: np.float32, UINT8: np.uint8, INT8: np.int8}[dtype]
    per_channel = (Quant(0.1, 0),) * (outputs if dtype == INT8 else 1) if quantised else ()
    weights = constant("w", np.ones((outputs, 4), kind), per_channel)
    bias = constant("b", np.ones(outputs, np.int32 if quantised else np.float32), per_channel)
    return TmGraph(
        nodes=[
            Node("x", OP_IDS["InputOp"], [], [0]),
            Node("w", OP_IDS["Const"], [], [1]),
            Node("b", OP_IDS["Const"], [], [2]),
            Node("f", OP_IDS[op], [0, 1, 2], [3], _record(op, num_output=outputs)),
            Node("r", OP_IDS["ReLU"], [3], [4], {"negative_slope": 0.0}),
        ],
        tensors=[
            Tensor("x", INPUT, dtype, (1, 4), one),
            weights,
            bias,
            Tensor("y", VAR, dtype, (1, outputs), one),
            Tensor("z", VAR, dtype, (1, outputs), one),
        ],
        inputs=[0],
        outputs=[4],
    )


def _rules(graph: TmGraph) -> set[str]:
    return {finding.rule for finding in validate(graph)}


@pytest.mark.parametrize("dtype", [FP32, UINT8, INT8])
def test_sound_graphs_break_nothing(dtype: int) -> None:
    assert validate(_graph(dtype)) == []


def _swap(graph: TmGraph) -> None:
    graph.nodes[3], graph.nodes[4] = graph.nodes[4], graph.nodes[3]


def _set(path: str, value: object) -> Edit:
    def edit(graph: TmGraph) -> None:
        target, attribute = path.rsplit(".", 1)
        setattr(eval(target, {}, {"g": graph}), attribute, value)

    return edit


@pytest.mark.parametrize(
    ("dtype", "edit", "rule"),
    [
        (FP32, _swap, "TM-ORDER"),
        (FP32, _set("g.nodes[3].name", None), "TM-NAME"),
        (FP32, _set("g.tensors[3].name", "x"), "TM-NAME"),
        (FP32, _set("g.tensors[1].dims", ()), "TM-DIMS"),
        (FP32, _set("g.tensors[1].stored", 4), "TM-CONST-SIZE"),
        (FP32, _set("g.tensors[1].data", None), "TM-STRIPPED"),
        (FP32, _set("g.tensors[1].offset", 6), "TM-ALIGN"),
        (FP32, _set("g.tensors[0].dims", None), "TM-INPUT"),
        (FP32, _set("g.layouts", (1, 0)), "TM-LAYOUT"),
        (FP32, _set("g.outputs", []), "TM-OUTPUT"),
        (FP32, _set("g.nodes[4].op", 104), "TM-OP"),
        (FP32, _set("g.nodes[4].op_version", 3), "TM-OP-VERSION"),
        (FP32, _set("g.nodes[4].legacy", True), "TM-OP-RECORD"),
        (FP32, _set("g.nodes[4].params", {"negative_slope": float("nan")}), "TM-PARAM"),
        (FP32, _set("g.nodes[4].outputs", [3]), "TM-ORDER"),
        (FP32, _set("g.tensors[3].dtype", INT8), "TM-PRECISION"),
        (FP32, _set("g.tensors[0].dtype", INT32), "TM-PRECISION"),
        (UINT8, _set("g.tensors[3].quant", ()), "TM-QUANT"),
        (UINT8, _set("g.tensors[3].quant", (Quant(0.1, 256),)), "TM-QUANT"),
        (UINT8, _set("g.tensors[3].quant", (Quant(-0.1, 0),)), "TM-QUANT"),
        (INT8, _set("g.tensors[3].quant", (Quant(0.1, 5),)), "TM-QUANT"),
        (UINT8, _set("g.tensors[2].dtype", FP32), "TM-QUANT"),
        # quant_tool_uint8_perchannel's form: the CPU runtime corrupts its heap.
        (UINT8, _set("g.tensors[1].dtype", INT8), "TM-WEIGHTS"),
    ],
)
def test_each_rule(dtype: int, edit: Edit, rule: str) -> None:
    graph = _graph(dtype)
    edit(graph)
    assert rule in _rules(graph)


def test_int8_weights_of_one_channel_need_two_records() -> None:
    # The loader fills the list only from two records on, and the kernel reads it: a crash.
    graph = _graph(INT8, outputs=1)
    assert "TM-QUANT" in _rules(graph)
    graph.tensors[1].quant *= 2
    assert "TM-QUANT" not in _rules(graph)


@pytest.mark.parametrize(
    "op",
    [
        "Slice",
        "ReLU6",
        "Reduction",
        "Squeeze",
        "Unsqueeze",
        "StridedSlice",
        "HardSwish",
        "BatchNormalization",
    ],
)
def test_operators_without_an_int8_kernel(op: str) -> None:
    for dtype, expected in ((INT8, True), (UINT8, False), (FP32, False)):
        graph = _graph(dtype)
        graph.nodes[4] = Node("r", OP_IDS[op], [3], [4], _record(op))
        assert ("TM-INT8-KERNEL" in _rules(graph)) is expected


def test_quantised_division_and_deconvolution_are_wrong() -> None:
    graph = _graph(UINT8)
    graph.nodes[4] = Node("r", OP_IDS["Eltwise"], [3, 3], [4], _record("Eltwise", type=10))
    assert "TM-KERNEL" in _rules(graph)
    record = _record("Deconvolution", kernel_h=1, kernel_w=1, stride_h=1, stride_w=1, group=1, activation=-1)
    graph.nodes[4] = Node("r", OP_IDS["Deconvolution"], [3, 1], [4], record)
    assert "TM-KERNEL" in _rules(graph)


@pytest.mark.parametrize("op", ["Upsample", "Logistic"])
def test_operators_with_a_kernel_for_fp32_only(op: str) -> None:
    for dtype, expected in ((INT8, True), (UINT8, True), (FP32, False)):
        graph = _graph(dtype)
        graph.nodes[4] = Node("r", OP_IDS[op], [3], [4], _record(op))
        assert ("TM-KERNEL" in _rules(graph)) is expected


def test_slopes_of_quantised_files_are_fp16() -> None:
    graph = _graph(INT8)
    graph.nodes[4] = Node("r", OP_IDS["PReLU"], [3, 1], [4], {})
    assert "TM-PRELU" in _rules(graph)


def test_an_int8_sum_with_a_constant_of_another_type_is_garbage() -> None:
    # Measured in the library: up to the whole range off. quant_tool_int8 leaves such constants fp32.
    for dtype, expected in ((INT8, True), (UINT8, False), (FP32, False)):
        graph = _graph(dtype)
        graph.tensors[1] = constant("w", np.ones((3, 4), np.float32))
        graph.nodes[3:] = [Node("r", OP_IDS["Eltwise"], [0, 1], [4], _record("Eltwise", type=2))]
        graph.outputs = [3]
        assert ("TM-INT8-OPERAND" in _rules(graph)) is expected


def test_a_quantised_exponential_is_told() -> None:
    graph = _graph(UINT8)
    graph.nodes[4] = Node("r", OP_IDS["Eltwise"], [3], [4], _record("Eltwise", type=12))
    assert [(f.rule, f.level) for f in validate(graph)] == [("TM-KERNEL", "warning")]


def test_parameters_of_windows_and_clips() -> None:
    graph = _graph()
    graph.nodes[4] = Node("r", OP_IDS["Clip"], [3], [4], {"max": 0.0, "min": 6.0})
    assert "TM-CLIP" in _rules(graph)
    graph.nodes[4] = Node("r", OP_IDS["Pooling"], [3], [4], _record("Pooling", pad_h0=1))
    assert "TM-POOL-PAD" in _rules(graph)
    record = _record("Convolution", kernel_h=1, kernel_w=1, stride_h=1, stride_w=1, group=1, activation=1)
    graph.nodes[4] = Node("r", OP_IDS["Convolution"], [3, 1], [4], record)
    assert "TM-ACTIVATION" in _rules(graph)


def test_too_many_nodes() -> None:
    graph = _graph()
    graph.nodes += [Node(f"c{i}", OP_IDS["Const"], [], [1]) for i in range(32768)]
    assert "TM-NODES" in _rules(graph)
