"""From Caffe layers to the steps that the NNIE runs: BatchNorm folded, in-place activations fused.

The mapper fuses an activation that stands in place (top == bottom) into the layer before it; one that does
not is an operation of its own with a 32-bit intermediate (seen in the report tables of published `.wk`
files). An in-place activation behind a Concat is an operation of its own too (RetinaFace's `.wk`). Whether
Eltwise takes one up is not visible in any published file; here it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.caffe.dataflow import INPUT, producers, readers
from facekiln.caffe.fold import fold_batch_norm
from facekiln.caffe.geometry import CONVOLUTIONS, geometry, refuse
from facekiln.caffe.net import Layer, Net
from facekiln.caffe.shapes import infer_shapes

ACTIVATIONS = ("ReLU", "PReLU", "Sigmoid", "TanH", "ELU")
WEIGHTED = (*CONVOLUTIONS, "Deconvolution", "InnerProduct")
_TAKES_ACTIVATION = (*WEIGHTED, "Eltwise", "BatchNorm", "Scale")
# Layers that do nothing when a trained network runs.
_NOTHING = ("Dropout", "Split")
_REPORT_SUFFIX = "_report"


@dataclass(frozen=True)
class Activation:
    """An activation that its producer applies."""

    name: str
    type: str
    params: Mapping[str, Any] = field(default_factory=dict)
    blobs: tuple[NDArray[np.float32], ...] = ()


@dataclass(frozen=True)
class Step:
    """One operation of the engine.

    Attributes:
        name, type, params: of the Caffe layer, as in `Layer`.
        bottoms, tops: blobs, each written once; an earlier version of a blob is named `blob@layer`.
        blobs: float32 weights in Caffe's shapes.
        activation: what is applied to the only top, or None.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    blobs: tuple[NDArray[np.float32], ...] = ()
    activation: Activation | None = None

    @property
    def layer(self) -> Layer:
        """The step as a Caffe layer, for functions that read parameters."""
        return Layer(
            self.name, self.type, list(self.bottoms), list(self.tops), dict(self.params), list(self.blobs)
        )

    @property
    def non_negative(self) -> bool:
        """Whether no value of the top can be below zero."""
        last = self.activation or self
        if last.type == "ReLU":
            return not last.params.get("negative_slope", 0)
        return last.type in ("Sigmoid", "Softmax")

    @property
    def is_nearest(self) -> bool:
        """Whether this enlarges by repeating values: Upsample, or a Deconvolution with weights 1."""
        if self.type == "Upsample":
            return True
        if self.type != "Deconvolution" or self.activation:
            return False
        g, group = geometry(self.layer), int(self.params.get("group", 1))
        return (
            g.kernel == g.stride
            and (g.pad, g.dilation) == ((0, 0), (1, 1))
            and group == int(self.params["num_output"]) == self.blobs[0].shape[0]
            and bool((self.blobs[0] == 1).all())
            and not any(blob.any() for blob in self.blobs[1:])
        )

    @property
    def keeps_codes(self) -> bool:
        """Whether it only picks values: published files show its input's z on its output."""
        if self.type == "Pooling":
            return self.params.get("pool", "MAX") == "MAX"
        return self.is_nearest


@dataclass(frozen=True)
class FusedNet:
    """A network as the engine runs it.

    Attributes:
        name: the network's name.
        inputs: input blob -> [N, C, H, W].
        outputs: reported name -> blob; reported are blobs that nothing reads and tops named `*_report`.
        steps: in execution order.
        shapes: of every blob.
    """

    name: str
    inputs: Mapping[str, list[int]]
    outputs: Mapping[str, str]
    steps: tuple[Step, ...]
    shapes: Mapping[str, list[int]]

    def readers(self, blob: str) -> list[Step]:
        """Return the steps that read a blob."""
        return [step for step in self.steps if blob in step.bottoms]


def _fusions(net: Net) -> dict[int, int]:
    """Return, by the index of each activation to fuse, the index of its producer."""
    sources, read_by = producers(net), readers(net)
    found: dict[int, int] = {}
    for index, layer in enumerate(net.layers):
        if layer.type not in ACTIVATIONS or not layer.in_place:
            continue
        source = sources[index][0]
        if (
            source != INPUT
            and net.layers[source].type in _TAKES_ACTIVATION
            and read_by[source] == [index]
            and source not in found.values()
        ):
            found[index] = source
    return found


def fuse(net: Net) -> FusedNet:
    """Fold BatchNorm and Scale, fuse in-place activations, give every version of a blob its own name.

    A step stands where its producer stood; Dropout and Split vanish. The last version of a blob keeps the
    blob's name, so that values can be compared with those of the unfused network.

    Raises:
        KilnError: the network is not sound (shapes, dataflow, weights).
    """
    net, _ = fold_batch_norm(net)
    shapes = infer_shapes(net)
    fusions = _fusions(net)
    taken = {source: net.layers[index] for index, source in fusions.items()}
    kept = [i for i, layer in enumerate(net.layers) if i not in fusions and layer.type not in _NOTHING]
    last = {top: i for i in kept for top in net.layers[i].tops}
    current = {blob: blob for blob in net.inputs}
    steps = []
    blob_shapes = {name: list(shape) for name, shape in net.inputs.items()}
    for i, layer in enumerate(net.layers):
        if i in fusions:
            continue
        if layer.type in _NOTHING:
            current.update(dict.fromkeys(layer.tops, current[layer.bottoms[0]]))
            continue
        if layer.type in WEIGHTED and not layer.blobs:
            raise refuse(layer, "its weights are missing")
        bottoms = tuple(current[bottom] for bottom in layer.bottoms)
        for top in layer.tops:
            plain = last[top] == i and top not in net.inputs
            current[top] = top if plain else f"{top}@{layer.name}"
            blob_shapes[current[top]] = shapes[top]
        act = taken.get(i)
        steps.append(
            Step(
                layer.name,
                layer.type,
                bottoms,
                tuple(current[top] for top in layer.tops),
                layer.params,
                tuple(layer.blobs),
                Activation(act.name, act.type, act.params, tuple(act.blobs)) if act else None,
            )
        )
    order = {top: place for place, step in enumerate(steps) for top in step.tops}
    names = {
        *net.outputs,
        *(top for layer in net.layers for top in layer.tops if top.endswith(_REPORT_SUFFIX)),
    }
    outputs = sorted(names, key=lambda name: (order.get(current[name], -1), name))
    return FusedNet(
        net.name, net.inputs, {name: current[name] for name in outputs}, tuple(steps), blob_shapes
    )
