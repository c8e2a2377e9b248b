"""Parameters and multiply-accumulates of a network or an ONNX file: convolutions and fully connected layers.

Batch norm, activations, pooling and sums are not counted. (Tools that count them, or count two operations per
multiply-accumulate, give more.)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    from torch import nn


def network_macs(network: nn.Module, size: tuple[int, int]) -> int:
    """Return the multiply-accumulates of one picture.

    Args:
        network: takes [1, 3, H, W]; on torch's meta device nothing is computed.
        size: (height, width) of its input, pixels.
    """
    import torch
    from torch import nn

    total = 0

    def add(layer: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        # Each value of the output sums over a kernel window of the group's channels, or over the row.
        total += output.numel() * math.prod(layer.weight.shape[1:])

    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(add) for layer in layers]
    training = network.training
    device = next(network.parameters()).device
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, *size, device=device))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return total


def onnx_parameters(model: onnx.ModelProto) -> int:
    """Return how many floats an ONNX file stores."""
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    return sum(math.prod(item.dims) for item in model.graph.initializer if item.data_type in floats)


def onnx_macs(model: onnx.ModelProto) -> int:
    """Return the multiply-accumulates of an ONNX file of fixed input size: of Conv, Gemm and MatMul."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    shapes = {item.name: list(item.dims) for item in graph.initializer}
    for value in (*graph.value_info, *graph.output):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    total = 0
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        weight = shapes[node.input[1]]
        transposed = any(item.name == "transB" and item.i for item in node.attribute)
        window = weight[1:] if node.op_type == "Conv" else weight[-1:] if transposed else weight[-2:-1]
        total += math.prod(shapes[node.output[0]]) * math.prod(window)
    return total
