"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from facekiln.config import Model, known

if TYPE_CHECKING:
    from torch import nn


def _retinaface_mobilenet025(options: Mapping[str, float]) -> nn.Module:
    from facekiln.models.retinaface import RetinaFace

    return RetinaFace(leaky_slope=options.get("leaky_slope", 0.0))


NETWORKS: dict[str, Callable[[Mapping[str, float]], nn.Module]] = {
    "retinaface_mobilenet025": _retinaface_mobilenet025,
}


def build_network(model: Model) -> nn.Module:
    """Return a model's network with random weights, in training mode.

    Raises:
        KilnError: the model's `network` is not one of `NETWORKS`; the message suggests the nearest.
    """
    return NETWORKS[known(model.network, NETWORKS, f"network of model '{model.name}'")](model.options)
