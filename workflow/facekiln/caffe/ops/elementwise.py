"""Activations and arithmetic."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.emit import Emitter, refuse
from facekiln.graph.onnx_graph import Node

# What a per-channel factor or summand is folded into later.
_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "BatchNormalization")


def plain(layer_type: str, emitter: Emitter, node: Node) -> None:
    """An op that is a layer of the same function without parameters."""
    emitter.emit(node, layer_type)


def leaky_relu(emitter: Emitter, node: Node) -> None:
    """LeakyRelu -> ReLU with a negative slope."""
    emitter.emit(node, "ReLU", {"negative_slope": float(node.attrs.get("alpha", 0.01))})


def elu(emitter: Emitter, node: Node) -> None:
    """Elu -> ELU."""
    emitter.emit(node, "ELU", {"alpha": float(node.attrs.get("alpha", 1.0))})


def prelu(emitter: Emitter, node: Node) -> None:
    """PRelu -> PReLU, one slope or one per channel."""
    slope = emitter.weights(node, 1, "slope")
    shape = emitter.shape(node.inputs[0])
    if slope.size == 1:
        emitter.emit(node, "PReLU", {"channel_shared": True}, [slope.reshape(())])
        return
    per_channel = _per_channel(slope, shape)
    if per_channel is None:
        raise refuse(
            node, "has other slopes than one, or one per channel", value=list(slope.shape), limit=shape
        )
    emitter.emit(node, "PReLU", {}, [per_channel])


def clip(emitter: Emitter, node: Node) -> None:
    """Clip from 0 up -> ReLU; with an upper limit it is ReLU6, which is refused."""
    low, high = (emitter.graph.operand(node, name, place) for name, place in (("min", 1), ("max", 2)))
    smallest = -np.inf if low is None else float(low)
    largest = np.inf if high is None else float(high)
    if smallest == 0 and largest >= np.finfo(np.float32).max:
        emitter.emit(node, "ReLU")
        return
    what = "is ReLU6" if (smallest, largest) == (0, 6) else "limits its values"
    raise refuse(
        node,
        f"{what}, for which NNIE has no layer",
        value=f"{smallest:g} to {largest:g}",
        limit="ReLU, PReLU, ELU, Sigmoid, TanH, AbsVal, BNLL",
        hint="train the network with ReLU; replacing ReLU6 by ReLU in a trained one changes its outputs",
    )


def _per_channel(value: NDArray[np.float32], shape: list[int]) -> NDArray[np.float32] | None:
    """Return a constant that broadcasts to one value per channel as [C], or None."""
    if value.ndim > len(shape):
        return None
    aligned = value.reshape([1] * (len(shape) - value.ndim) + list(value.shape))
    others = [dim for axis, dim in enumerate(aligned.shape) if axis != 1]
    return aligned.ravel() if aligned.shape[1] == shape[1] and all(dim == 1 for dim in others) else None


def _affine(emitter: Emitter, node: Node, factor: NDArray[np.float32], summand: NDArray[np.float32]) -> None:
    """Emit `factor * x + summand`; both are constants of which each is one number or one per channel."""
    (tensor,) = [name for name in node.inputs if name not in emitter.graph.constants]
    shape = emitter.shape(tensor)
    if shape != emitter.shape(node.outputs[0]):
        raise refuse(
            node, "stretches its input to the constant's shape", value=shape, limit="no broadcast in Caffe"
        )
    source = emitter.graph.producer(tensor)
    foldable = source is not None and source.op in _WITH_WEIGHTS and emitter.graph.only_reader(tensor) is node
    if factor.size == summand.size == 1 and not foldable:
        params = {"scale": float(factor.ravel()[0]), "shift": float(summand.ravel()[0])}
        emitter.emit(node, "Power", {"power": 1.0, **params})
        return
    channels = []
    for value in (factor, summand):
        one = (
            np.full(shape[1], value.ravel()[0], np.float32) if value.size == 1 else _per_channel(value, shape)
        )
        if one is None:
            raise refuse(
                node,
                "has a constant that is neither one number nor one per channel",
                value=list(value.shape),
                limit=f"1 or {shape[1]} on axis 1",
                hint="Caffe's Scale and Power know no other; move the constant into the weights",
            )
        channels.append(one)
    emitter.emit(node, "Scale", {"bias_term": True}, channels)


def arithmetic(emitter: Emitter, node: Node) -> None:
    """Add, Sub, Mul, Div: with a constant -> Power or Scale; of two equal shapes -> Eltwise."""
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    left, right = (emitter.constant(name) for name in node.inputs)
    if left is None and right is None:
        _eltwise_pair(emitter, node)
    elif left is not None and right is not None:
        raise refuse(node, "has constant inputs only", hint="run `facekiln onnx simplify` first")
    elif node.op in ("Add", "Mul"):
        value = left if right is None else right
        assert value is not None
        _affine(emitter, node, *((one, value) if node.op == "Add" else (value, zero)))
    elif node.op == "Sub":
        _affine(emitter, node, *((-one, left) if left is not None else (one, -np.asarray(right))))
    elif right is not None:
        if not right.all():
            raise refuse(node, "divides by zero")
        _affine(emitter, node, one / right, zero)
    else:
        raise refuse(node, "divides a constant by a computed tensor", limit="no Caffe layer does")


def _eltwise_pair(emitter: Emitter, node: Node) -> None:
    if node.op == "Div":
        raise refuse(
            node,
            "divides two computed tensors",
            limit="Caffe's Eltwise adds, multiplies and takes the maximum",
        )
    _same_shapes(emitter, node)
    if node.op == "Mul":
        emitter.emit(node, "Eltwise", {"operation": "PROD"})
    else:
        emitter.emit(
            node, "Eltwise", {"operation": "SUM", **({"coeff": [1.0, -1.0]} if node.op == "Sub" else {})}
        )


def _same_shapes(emitter: Emitter, node: Node) -> None:
    shapes = [emitter.shape(name) for name in node.inputs]
    if any(shape != shapes[0] for shape in shapes):
        raise refuse(
            node,
            "combines tensors of different shapes",
            value=" and ".join(map(str, shapes)),
            limit="Caffe and NNIE: Eltwise takes equal shapes, it never broadcasts",
            hint="squeeze-and-excite and other broadcasts need another network",
        )


def eltwise(operation: str, emitter: Emitter, node: Node) -> None:
    """Sum and Max of computed tensors of one shape -> Eltwise."""
    if any(name in emitter.graph.constants for name in node.inputs):
        raise refuse(
            node, "has a constant among its inputs", hint="use Add for a sum; a constant maximum has no layer"
        )
    _same_shapes(emitter, node)
    if len(node.inputs) == 1:
        emitter.pass_on(node)
    else:
        emitter.emit(node, "Eltwise", {"operation": operation})


def negate(emitter: Emitter, node: Node) -> None:
    """Neg -> Power with scale -1."""
    emitter.emit(node, "Power", {"power": 1.0, "scale": -1.0, "shift": 0.0})


relu = partial(plain, "ReLU")
sigmoid = partial(plain, "Sigmoid")
tanh = partial(plain, "TanH")
absolute = partial(plain, "AbsVal")
softplus = partial(plain, "BNLL")
total = partial(eltwise, "SUM")
maximum = partial(eltwise, "MAX")
