"""The networks that exist, by the name that config/models/*.yaml gives them; building one imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from facekiln.config import Model, known
from facekiln.errors import KilnError

if TYPE_CHECKING:
    from torch import nn


def _retinaface_mobilenet025(model: Model) -> nn.Module:
    from facekiln.models.retinaface import ANCHORS, STEPS, RetinaFace

    if "leaky_slope" not in model.options:
        raise KilnError(
            "the network needs a slope and has no default, as the published files differ in it",
            file=f"config/models/{model.name}.yaml",
            where="options.leaky_slope",
            hint="say 0.1 (Pytorch_Retinaface) or 0.0 (its first release, Face-Detector-1MB-with-landmark)",
        )
    expected = {"steps": STEPS, "anchors per level": (ANCHORS,) * len(STEPS)}
    priors = model.priors
    declared = {
        "steps": tuple(priors.steps) if priors else (),
        "anchors per level": tuple(len(sizes) for sizes in priors.min_sizes) if priors else (),
    }
    for what, limit in expected.items():
        if declared[what] != limit:
            raise KilnError(
                f"network '{model.network}' is not made for these {what}",
                file=f"config/models/{model.name}.yaml",
                where="priors",
                value=declared[what],
                limit=limit,
            )
    return RetinaFace(leaky_slope=model.options["leaky_slope"])


NETWORKS: Mapping[str, Callable[[Model], nn.Module]] = {
    "retinaface_mobilenet025": _retinaface_mobilenet025,
}


def build_network(model: Model) -> nn.Module:
    """Build a model's network with fresh weights, in training mode.

    Raises:
        KilnError: unknown network (with a suggestion), or options and priors that it is not made for.
    """
    try:
        factory = NETWORKS[known(model.network, NETWORKS, "network")]
    except KilnError as error:
        raise KilnError(str(error), file=f"config/models/{model.name}.yaml", where="network") from None
    return factory(model)


def count(network: nn.Module) -> tuple[int, int]:
    """Return (entries of the state dict, learned parameters) of a network."""
    return len(network.state_dict()), sum(parameter.numel() for parameter in network.parameters())
