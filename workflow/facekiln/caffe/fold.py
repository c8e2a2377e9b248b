"""Fold BatchNorm and Scale layers into the convolution or inner product before them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.dataflow import INPUT, producers, readers
from facekiln.caffe.net import Layer, Net
from facekiln.errors import KilnError
from facekiln.provenance import Edit

RULE = "CAFFE-FOLD-BN"
_INTO = ("Convolution", "DepthwiseConv", "ConvolutionDepthwise", "Deconvolution", "InnerProduct")
_DEFAULT_EPS = 1e-5


def affine_of(layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (k, b), each float64 [C], such that a BatchNorm or Scale layer computes `k * x + b` per channel.

    BatchNorm: its mean and variance blobs are sums, divided by blob[2] (all zero where that is 0); eps is the
    layer's own, 1e-5 by default (BVLC batch_norm_layer.cpp).

    Raises:
        KilnError: the layer lacks weights, or a variance is negative.
    """
    where = f"layer '{layer.name}' ({layer.type})"
    blobs = [np.asarray(blob, np.float64) for blob in layer.blobs]
    if layer.type == "Scale":
        if not blobs:
            raise KilnError("its weights are missing", where=where)
        scale = blobs[0].ravel()
        return scale, blobs[1].ravel() if len(blobs) > 1 else np.zeros_like(scale)
    if len(blobs) != 3:
        raise KilnError("a BatchNorm has three weight blobs", where=where, value=len(blobs))
    factor = float(blobs[2].ravel()[0])
    inverse = 0.0 if factor == 0 else 1.0 / factor
    mean, variance = blobs[0].ravel() * inverse, blobs[1].ravel() * inverse
    total = variance + float(layer.params.get("eps", _DEFAULT_EPS))
    if (total <= 0).any():
        raise KilnError(
            "variance + eps is not positive",
            where=where,
            value=float(total.min()),
            hint="the weights are damaged",
        )
    scale = 1.0 / np.sqrt(total)
    return scale, -mean * scale


def _absorb(target: Layer, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> None:
    """Replace the target's weights so that it computes `scale * y + shift`; it has a bias afterwards."""
    weights = np.asarray(target.blobs[0], np.float64)
    if target.type == "Deconvolution":
        # (C_in, C_out / group, kh, kw): output channel = group index * outputs per group + axis 1.
        group = int(target.params.get("group", 1))
        per_group = weights.reshape(group, weights.shape[0] // group, *weights.shape[1:])
        folded = (per_group * scale.reshape(group, 1, -1, 1, 1)).reshape(weights.shape)
    elif target.type == "InnerProduct" and target.params.get("transpose"):
        folded = weights * scale
    else:
        folded = weights * scale.reshape(-1, *[1] * (weights.ndim - 1))
    old = np.asarray(target.blobs[1], np.float64) if len(target.blobs) > 1 else np.zeros_like(shift)
    target.blobs = [folded.astype(np.float32), (old * scale + shift).astype(np.float32)]
    target.params["bias_term"] = True


def _foldable(net: Net, index: int, sources: list[list[int]], read_by: list[list[int]]) -> int | None:
    """Return the index of the layer that takes up layer `index`, or None."""
    layer = net.layers[index]
    if layer.type not in ("BatchNorm", "Scale") or len(layer.bottoms) != 1 or not layer.blobs:
        return None
    if layer.type == "Scale" and (
        int(layer.params.get("axis", 1)) != 1 or int(layer.params.get("num_axes", 1)) != 1
    ):
        return None
    (source,) = sources[index]
    if source == INPUT or net.layers[source].type not in _INTO or read_by[source] != [index]:
        return None
    into = net.layers[source]
    if into.type == "InnerProduct" and int(into.params.get("axis", 1)) != 1:
        return None
    return source if into.blobs and len(into.tops) == 1 else None


def fold_batch_norm(net: Net) -> tuple[Net, list[Edit]]:
    """Fold every BatchNorm and Scale whose only input is a layer with weights that nothing else reads.

    The layer with weights then writes the blob that the folded layer wrote, so a blob of the new net holds
    what the blob of the same name holds in the old one, and the two can be compared. Weights are computed in
    float64.

    Returns:
        A new net, and one edit per layer that took up others. BatchNorm and Scale layers elsewhere stay.

    Raises:
        KilnError: a BatchNorm's weights are missing or its variance is negative.
    """
    net = net.copy()
    taken: dict[str, list[str]] = {}
    sources, read_by = producers(net), readers(net)
    index = 0
    while index < len(net.layers):
        into = _foldable(net, index, sources, read_by)
        if into is None:
            index += 1
            continue
        layer, target = net.layers[index], net.layers[into]
        _absorb(target, *affine_of(layer))
        # Nothing between the two can use this name: a blob has one writer, in-place layers apart.
        target.tops = list(layer.tops)
        del net.layers[index]
        sources, read_by = producers(net), readers(net)
        taken.setdefault(target.name, []).append(layer.name)
    return net, [
        Edit(
            rule=RULE,
            target=target,
            change=f"took up {' and '.join(names)}; now has a bias",
            reason="the same function with fewer layers, and no separate rounding of a BatchNorm's result",
            limit="NNIE mapper: BatchNorm is best merged before mapping (precision)",
        )
        for target, names in taken.items()
    ]
