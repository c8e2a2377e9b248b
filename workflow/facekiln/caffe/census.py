"""What a Caffe network holds: layers by type, parameters, multiply-accumulates."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from facekiln.caffe.geometry import CONVOLUTIONS
from facekiln.caffe.net import Net
from facekiln.caffe.shapes import Shape, infer_shapes
from facekiln.caffe.weights import blob_shapes


@dataclass(frozen=True)
class Census:
    """Counts of one network.

    Attributes:
        layers: type -> count, most frequent first.
        inputs: input blob -> shape.
        outputs: output blob -> shape, in the order in which chips give them out.
        parameters: number of stored values, BatchNorm statistics among them.
        macs: multiply-accumulates of convolutions, deconvolutions and inner products for one input.
    """

    layers: dict[str, int]
    inputs: dict[str, Shape]
    outputs: dict[str, Shape]
    parameters: int
    macs: int

    def lines(self) -> list[str]:
        """Return the census as lines for a person."""
        counts = ", ".join(f"{layer_type} {count}" for layer_type, count in self.layers.items())
        return [
            *(f"input  {name} {shape}" for name, shape in self.inputs.items()),
            *(f"output {name} {shape}" for name, shape in self.outputs.items()),
            f"{sum(self.layers.values())} layers: {counts}",
            f"{self.parameters:,} parameters, {self.macs / 1e6:,.1f} M multiply-accumulates",
        ]


def take_census(net: Net) -> Census:
    """Count a network's layers, parameters and work; weights need not be loaded.

    Raises:
        KilnError: a layer's shapes do not go together, or its type is unknown.
    """
    shapes = infer_shapes(net)
    parameters = macs = 0
    for layer in net.layers:
        bottoms = [shapes[bottom] for bottom in layer.bottoms]
        weights = blob_shapes(layer, bottoms)
        parameters += sum(math.prod(shape) for shape in weights)
        if layer.type in CONVOLUTIONS:
            macs += math.prod(weights[0][1:]) * sum(math.prod(shapes[top]) for top in layer.tops)
        elif layer.type == "Deconvolution":
            macs += math.prod(weights[0][1:]) * math.prod(bottoms[0])
        elif layer.type == "InnerProduct":
            macs += math.prod(weights[0])
    return Census(
        layers=dict(Counter(layer.type for layer in net.layers).most_common()),
        inputs=net.inputs,
        outputs={name: shapes[name] for name in net.outputs},
        parameters=parameters,
        macs=macs,
    )
