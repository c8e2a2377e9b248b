"""A Caffe network in memory: what readers give, legalisers edit and writers take."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Layer:
    """One `layer {}` block.

    Attributes:
        name: the layer's name.
        type: Caffe's type, e.g. "Convolution".
        bottoms: names of the input blobs.
        tops: names of the output blobs; equal to the bottom where the layer works in place.
        params: the fields of its `*_param` message by field name, e.g. {"num_output": 8, "kernel_size": [3]};
            repeated fields are lists, nested messages are dicts, enums are their names ("SUM"). Only fields
            that are set are present; Caffe's defaults are not filled in.
        blobs: float32 weights in Caffe's own shapes.
    """

    name: str
    type: str
    bottoms: list[str]
    tops: list[str]
    params: dict[str, Any] = field(default_factory=dict)
    blobs: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def in_place(self) -> bool:
        """Whether the layer writes over its only input."""
        return len(self.bottoms) == 1 and self.bottoms == self.tops


@dataclass
class Net:
    """A Caffe network.

    Attributes:
        name: the network's name.
        inputs: input blob name -> [N, C, H, W].
        layers: in execution order; `Input` layers are folded into `inputs`.
    """

    name: str
    inputs: dict[str, list[int]]
    layers: list[Layer]

    def layer(self, name: str) -> Layer:
        """Return the layer of that name (KeyError where there is none)."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    @property
    def outputs(self) -> list[str]:
        """Blobs that no other layer reads, in the order in which their last writer stands."""
        read = {b for layer in self.layers for b in layer.bottoms if b not in layer.tops}
        written: list[str] = []
        for layer in self.layers:
            for top in layer.tops:
                if top in written:
                    written.remove(top)
                written.append(top)
        return [top for top in written if top not in read]

    def copy(self) -> Net:
        """Return a copy whose layers can be edited; it shares weight arrays, so replace, never write them."""
        layers = [
            Layer(
                layer.name,
                layer.type,
                list(layer.bottoms),
                list(layer.tops),
                copy.deepcopy(layer.params),
                list(layer.blobs),
            )
            for layer in self.layers
        ]
        return Net(self.name, {name: list(shape) for name, shape in self.inputs.items()}, layers)
