"""Our bytes beside those of Tengine's convert_tool, and its real files through our reader."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facekiln.chips.tengine.format import CONST, FP32, INPUT, VAR, Node, Tensor, TmGraph, constant
from facekiln.chips.tengine.inspect import describe, dump, render
from facekiln.chips.tengine.ops import OP_IDS, OPS
from facekiln.chips.tengine.reader import parse_tmfile, read_tmfile
from facekiln.chips.tengine.validate import validate
from facekiln.chips.tengine.writer import tmfile_bytes

# Bytes that convert_tool leaves unset: header padding and the sub-info offset of the only subgraph.
UNSET = {4, 5, 6, 7, 0x160, 0x161, 0x162, 0x163}


def test_reads_the_smallest_real_file(leaky: bytes) -> None:
    graph = parse_tmfile(leaky)
    assert [node.name for node in graph.nodes] == ["x", "r"]
    assert graph.nodes[1].op == 20 and graph.nodes[1].params == {"negative_slope": 0.25}
    assert [(t.name, t.kind, t.dtype, t.dims) for t in graph.tensors] == [
        ("x", INPUT, FP32, (1, 1, 2, 2)),
        ("y", VAR, FP32, (1, 1, 2, 2)),
    ]
    assert (graph.inputs, graph.outputs, graph.origin, graph.name) == ([0], [1], 3, None)
    assert validate(graph) == []


def test_writes_the_smallest_real_file_but_for_its_unset_bytes(leaky: bytes) -> None:
    written = tmfile_bytes(parse_tmfile(leaky))
    assert len(written) == 380
    assert [at for at in range(380) if written[at] != leaky[at] and at not in UNSET] == []
    assert all(written[at] == 0 for at in UNSET)


def _convolution() -> TmGraph:
    weights = np.arange(1, 19, dtype=np.float32).reshape(2, 1, 3, 3) / 8
    record = {"input_channel": 1, "output_channel": 2, "group": 1, "activation": 0}
    for name, value in (("kernel", 3), ("stride", 1), ("dilation", 1)):
        record |= {f"{name}_h": value, f"{name}_w": value}
    record |= dict.fromkeys(("pad_h0", "pad_w0", "pad_h1", "pad_w1"), 1)
    return TmGraph(
        nodes=[
            Node("w", OP_IDS["Const"], [], [0], op_version=1),
            Node("b", OP_IDS["Const"], [], [1], op_version=1),
            Node("x", OP_IDS["InputOp"], [], [2], op_version=1),
            Node("c", OP_IDS["Convolution"], [2, 0, 1], [3], record, op_version=1),
        ],
        tensors=[
            constant("w", weights),
            constant("b", np.array([0.5, -0.25], np.float32)),
            Tensor("x", INPUT, FP32, (1, 1, 4, 4)),
            Tensor("t", VAR, FP32, (1, 2, 4, 4)),
        ],
        inputs=[2],
        outputs=[3],
    )


# convert_tool's file of x [1,1,4,4] -> Conv 3x3 pad 1, 2 channels, bias -> Relu: 796 bytes; words by offset.
CONVOLUTION = {
    0x0CC: "00000003 00000002 00000000 00000001",
    0x0DC: "00000001 00000003",
    0x0E4: "00000003 00000003 00000001 00000001 00000001 00000001 00000001 00000002",
    0x104: "00000001 00000000 00000001 00000001 00000001 00000001",
    0x11C: "00000001 00000005 000000e4",
    0x128: "00000003 000000cc 000000dc 0000011c 000000c4 00000000 00000000",
    0x164: "00000004 00000002 00000001 00000003 00000003",
    0x178: "00000000 00000000 00000164 0000015c 00000000 00000000 00000002 00000000",
    0x260: "3e000000",
    0x2A8: "00000048 00000260 3f000000 be800000 00000008 000002b0 00000002 000002a8 000002b8",
}


def test_writes_convert_tools_convolution() -> None:
    written = tmfile_bytes(_convolution())
    assert len(written) == 796
    for offset, text in CONVOLUTION.items():
        words = [int(word, 16) for word in text.split()]
        assert list(struct.unpack_from(f"<{len(words)}I", written, offset)) == words, hex(offset)


def test_quantised_records_as_quant_tools_write_them() -> None:
    # quant_tool_uint8's input tensor: zero point 127 (7f), scale 0.007812 (3bfffbce).
    from facekiln.chips.tengine.format import UINT8, Quant

    graph = _convolution()
    graph.tensors[2].dtype, graph.tensors[2].quant = UINT8, (Quant(0.007812, 127),)
    written = tmfile_bytes(graph)
    assert struct.pack("<II", 0x7F, 0x3BFFFBCE) in written
    read = parse_tmfile(written).tensors[2]
    assert read.quant == (Quant(float(np.float32(0.007812)), 127),)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Convolution", 56),
        ("Deconvolution", 60),
        ("Pooling", 44),
        ("Eltwise", 20),
        ("Interp", 20),
        ("Slice", 40),
        ("Split", 16),
        ("Reshape", 16),
        ("Clip", 8),
        ("Reduction", 24),
        ("Pad", 40),
        ("StridedSlice", 48),
        ("PReLU", 0),
        ("LRN", 28),
    ],
)
def test_record_sizes_are_those_of_the_c_structures(name: str, size: int) -> None:
    assert OPS[OP_IDS[name]].size == size


def test_field_orders_that_are_easily_confused() -> None:
    names = {name: [field.name for field in OPS[OP_IDS[name]].fields] for name in OP_IDS}
    assert names["Clip"] == ["max", "min"]
    assert names["Interp"][1:] == ["width_scale", "height_scale", "output_width", "output_height"]
    assert names["Deconvolution"][5:9] == ["pad_w0", "pad_h0", "pad_w1", "pad_h1"]
    assert names["Convolution"][10:] == ["pad_h0", "pad_w0", "pad_h1", "pad_w1"]
    assert [(f.name, f.offset) for f in OPS[OP_IDS["Split"]].fields][2:] == [
        ("is_caffe", 8),
        ("is_onnx", 9),
        ("sizes", 12),
    ]


def test_every_byte_is_decided_and_buffers_are_aligned() -> None:
    first, second = tmfile_bytes(_convolution()), tmfile_bytes(_convolution())
    assert first == second
    assert all(t.offset % 16 == 0 for t in parse_tmfile(first).tensors if t.kind == CONST)


@pytest.mark.published
def test_real_mnist_file(mirror: Callable[[str], Path]) -> None:
    # OAID/Tengine tools/align_tool/mnist.tmfile, made by an older convert_tool.
    graph = read_tmfile(mirror("tengine_mnist.tmfile"))
    assert graph.nodes[12].params["activation"] == 0 and graph.nodes[12].params["kernel_h"] == 3
    assert [t.name for t in graph.output_tensors()] == ["output"]
    assert [f for f in validate(graph) if f.level == "error"] == []
    again = parse_tmfile(tmfile_bytes(graph))
    assert [(n.name, n.op, n.params, n.inputs) for n in again.nodes] == [
        (n.name, n.op, n.params, n.inputs) for n in graph.nodes
    ]
    assert [(t.name, t.dims, t.data) for t in again.tensors] == [
        (t.name, t.dims, t.data) for t in graph.tensors
    ]


@pytest.mark.published
def test_real_retinaface_benchmark_file_without_weights(mirror: Callable[[str], Path]) -> None:
    path = mirror("tengine_retinaface_benchmark.tmfile")
    said = describe(path)
    assert said["ops"]["Convolution"] == 56 and said["op_versions"] == {"2": 190}
    assert said["constants"]["stripped"] == said["constants"]["count"] > 0
    assert said["model"].endswith("mnet.25-symbol.json.optimized")
    assert {f["rule"] for f in said["findings"]} == {"TM-STRIPPED", "TM-INPUT"}
    assert any("stripped" in line for line in render(said))
    assert len(dump(read_tmfile(path))) > 190
