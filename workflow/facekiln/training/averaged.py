"""Averaged weights: what is judged and written where a recipe asks for them."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Averaged:
    """The exponential moving average of a network's weights; its batch statistics are the network's own.

    The decay rises with the steps, min(decay, (1 + n) / (10 + n)), so that the first random weights are soon
    forgotten (source: the rule of TensorFlow's ExponentialMovingAverage with `num_updates`).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start from the network as it is.

        Args:
            network: stays as it is; the average is a copy.
            decay: share of the old average that a step keeps, at most.
        """
        self.network = copy.deepcopy(network).eval()
        self._decay = decay
        self._twins = list(zip(self.network.parameters(), network.parameters(), strict=True))
        self._buffers = list(zip(self.network.buffers(), network.buffers(), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the network's weights after step `step`, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        for mean, now in self._twins:
            mean.lerp_(now, share)
        for kept, newest in self._buffers:
            kept.copy_(newest)
