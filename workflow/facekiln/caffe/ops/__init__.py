"""Which function converts which ONNX op, and why the others are refused."""

from __future__ import annotations

from collections.abc import Callable

from facekiln.caffe.emit import Emitter, refuse
from facekiln.caffe.ops import convolution, elementwise, layout, pooling
from facekiln.graph.onnx_graph import Node

CONVERTERS: dict[str, Callable[[Emitter, Node], None]] = {
    "Abs": elementwise.absolute,
    "Add": elementwise.arithmetic,
    "AveragePool": pooling.average_pool,
    "BatchNormalization": convolution.batch_norm,
    "Clip": elementwise.clip,
    "Concat": layout.concat,
    "Conv": convolution.conv,
    "ConvTranspose": convolution.conv_transpose,
    "Div": elementwise.arithmetic,
    "Elu": elementwise.elu,
    "Flatten": layout.reshape,
    "Gemm": convolution.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "LeakyRelu": elementwise.leaky_relu,
    "MatMul": convolution.matmul,
    "Max": elementwise.maximum,
    "MaxPool": pooling.max_pool,
    "Mul": elementwise.arithmetic,
    "Neg": elementwise.negate,
    "PRelu": elementwise.prelu,
    "ReduceMean": pooling.reduce_mean,
    "Relu": elementwise.relu,
    "Reshape": layout.reshape,
    "Resize": convolution.resize,
    "Sigmoid": elementwise.sigmoid,
    "Slice": layout.slice_,
    "Softmax": layout.softmax,
    "Softplus": elementwise.softplus,
    "Split": layout.split,
    "Squeeze": layout.reshape,
    "Sub": elementwise.arithmetic,
    "Sum": elementwise.total,
    "Tanh": elementwise.tanh,
    "Transpose": layout.transpose,
    "Unsqueeze": layout.reshape,
    "Upsample": convolution.resize,
}

_SHAPE_ARITHMETIC = ("it computes shapes", "run `facekiln onnx simplify` on a file of fixed input size first")
_RETRAIN = ("no layer of Caffe or NNIE computes it", "train the network with ReLU, PReLU or ELU instead")
_DECODING = (
    "it belongs to decoding or post-processing",
    "export the network without it: facekiln decodes on the host",
)

# op -> (reason, next step); what is not here gets the last entry.
_REFUSALS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("Shape", "Gather", "Unsqueeze", "Cast", "ConstantOfShape", "Range", "Expand", "Where"),
        _SHAPE_ARITHMETIC,
    ),
    **dict.fromkeys(("HardSwish", "HardSigmoid", "Mish", "Gelu", "Erf", "Selu", "Softsign"), _RETRAIN),
    **dict.fromkeys(("NonMaxSuppression", "TopK", "Exp", "ArgMax", "NonZero", "ScatterND"), _DECODING),
    "Pad": (
        "Caffe has no layer that only pads, and it could not be moved into the layers that read it",
        "pad with zeros, in the convolution itself",
    ),
    "LpNormalization": ("NNIE's Normalize has a fixed eps and is an extension", "normalise on the host"),
}
_OTHERWISE = (
    "no Caffe layer that chips' tools read does the same",
    "replace it in the network, or do it on the host",
)


def convert_node(emitter: Emitter, node: Node) -> None:
    """Append the layers of one node.

    Raises:
        KilnError: there is no exact Caffe form; names the node, the reason and the next step.
    """
    converter = CONVERTERS.get(node.op)
    if converter is None:
        reason, hint = _REFUSALS.get(node.op, _OTHERWISE)
        raise refuse(node, f"{node.op} cannot be converted: {reason}", hint=hint)
    converter(emitter, node)
