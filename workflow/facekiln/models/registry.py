"""The networks that exist, by the name that config/models/*.yaml gives them; building one imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from facekiln.config import Model, known
from facekiln.errors import KilnError

if TYPE_CHECKING:
    from torch import nn


def _retinaface_mobilenet025(model: Model) -> nn.Module:
    from facekiln.models.retinaface import ANCHORS, STEPS, retinaface_mobilenet025

    if "leaky_slope" not in model.options:
        raise KilnError(
            "the network needs a slope and has no default, as the published files differ in it",
            file=f"config/models/{model.name}.yaml",
            where="options.leaky_slope",
            hint="say 0.1 (Pytorch_Retinaface) or 0.0 (its first release, Face-Detector-1MB-with-landmark)",
        )
    _check_priors(model, STEPS, (ANCHORS,) * len(STEPS))
    return retinaface_mobilenet025(model.options["leaky_slope"])


def _retinaface_resnet50(model: Model) -> nn.Module:
    from facekiln.models.retinaface import ANCHORS, STEPS, retinaface_resnet50

    _check_no_options(model)
    _check_priors(model, STEPS, (ANCHORS,) * len(STEPS))
    return retinaface_resnet50()


def _slim_with_landmarks(model: Model, *, rfb: bool) -> nn.Module:
    from facekiln.models.slim_rfb import ANCHORS, STEPS, SlimWithLandmarks

    _check_no_options(model)
    _check_priors(model, STEPS, ANCHORS)
    return SlimWithLandmarks(rfb=rfb)


def _ultra_light(model: Model, *, rfb: bool) -> nn.Module:
    from facekiln.models.slim_rfb import ANCHORS, STEPS, UltraLight

    _check_no_options(model)
    _check_priors(model, STEPS, ANCHORS)
    return UltraLight(rfb=rfb)


def _pfpld(model: Model) -> nn.Module:
    from facekiln.models.pfpld import PFPLD, SIDE

    _check_no_options(model)
    for label, size in model.sizes.items():
        if size != (SIDE, SIDE):
            raise KilnError(
                f"network '{model.network}' is not made for this size",
                file=f"config/models/{model.name}.yaml",
                where=f"sizes.{label}",
                value=list(size),
                limit=[SIDE, SIDE],
            )
    return PFPLD()


NETWORKS: Mapping[str, Callable[[Model], nn.Module]] = {
    "retinaface_mobilenet025": _retinaface_mobilenet025,
    "retinaface_resnet50": _retinaface_resnet50,
    "slim_landmarks": lambda model: _slim_with_landmarks(model, rfb=False),
    "rfb_landmarks": lambda model: _slim_with_landmarks(model, rfb=True),
    "ulfd_slim": lambda model: _ultra_light(model, rfb=False),
    "ulfd_rfb": lambda model: _ultra_light(model, rfb=True),
    "pfpld": _pfpld,
}

# Networks that add upsampled maps to others: sides that the largest step does not divide would need a Crop.
UPSAMPLING = frozenset({"retinaface_mobilenet025", "retinaface_resnet50"})


def _check_priors(model: Model, steps: Sequence[int], anchors: Sequence[int]) -> None:
    """Refuse priors that the network's heads are not made for."""
    priors = model.priors
    limits = {"steps": tuple(steps), "anchors per level": tuple(anchors)}
    declared = {
        "steps": tuple(priors.steps) if priors else (),
        "anchors per level": tuple(len(sizes) for sizes in priors.min_sizes) if priors else (),
    }
    for what, limit in limits.items():
        if declared[what] != limit:
            raise KilnError(
                f"network '{model.network}' is not made for these {what}",
                file=f"config/models/{model.name}.yaml",
                where="priors",
                value=declared[what],
                limit=limit,
            )


def _check_no_options(model: Model) -> None:
    if model.options:
        raise KilnError(
            f"network '{model.network}' has no options",
            file=f"config/models/{model.name}.yaml",
            where="options",
            value=dict(model.options),
            hint="remove the section",
        )


def build_network(model: Model) -> nn.Module:
    """Build a model's network with fresh weights, in training mode.

    Raises:
        KilnError: unknown network (with a suggestion), options, priors or sizes that it is not made for, or a
            model that is born as an ONNX file.
    """
    file = f"config/models/{model.name}.yaml"
    if model.born != "checkpoint":
        raise KilnError(
            f"the model is born as {model.born.upper()}: it has no network here, and no checkpoint",
            file=file,
            where="born",
            hint=f"start from the file: facekiln onnx fetch --model {model.name} --output FILE",
        )
    try:
        factory = NETWORKS[known(model.network, NETWORKS, "network")]
    except KilnError as error:
        raise KilnError(str(error), file=file, where="network") from None
    return factory(model)


def count(network: nn.Module) -> tuple[int, int]:
    """Return (entries of the state dict, learned parameters) of a network."""
    return len(network.state_dict()), sum(parameter.numel() for parameter in network.parameters())
