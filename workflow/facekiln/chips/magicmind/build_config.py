"""The build configuration: the JSON that the SDK's BuilderConfig reads.

Keys as Cambricon's public samples have them (magicmind_cloud 1.0 to 1.7, magicmind_edge).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facekiln.chips.magicmind.names import QUANTISED, Batch
from facekiln.chips.magicmind.settings import BuildSettings, Card, MagicmindSettings
from facekiln.config import Input
from facekiln.errors import KilnError


def archs(cards: Mapping[str, Card], form: str) -> list[Any]:
    """Return `archs`: each architecture once, with the clusters of all its cards, or names alone."""
    clusters: dict[str, set[int]] = {}
    for card in cards.values():
        clusters.setdefault(card.arch, set()).update(card.clusters)
    if form == "names":
        return sorted(clusters)
    return [{name: sorted(counts)} for name, counts in sorted(clusters.items())]


def variances(declared: Input) -> list[float]:
    """Return the `var` of the inserted BN: (x - mean) * scale = (x - mean) / sqrt(var).

    Raises:
        KilnError: a scale is not positive.
    """
    if any(scale <= 0 for scale in declared.scale):
        raise KilnError(
            "a scale that is not positive has no variance", where="input.scale", value=list(declared.scale)
        )
    return [1.0 / (scale * scale) for scale in declared.scale]


def shape_of(size: tuple[int, int], batch: int) -> list[int]:
    """Return the parsed network's input [N, C, H, W]."""
    return [batch, 3, *size]


def build_config(
    settings: MagicmindSettings, declared: Input, size: tuple[int, int], precision: str, batch: Batch
) -> dict[str, Any]:
    """Return the configuration of one file.

    Args:
        settings: of the chip.
        declared: the model's input, whose mean and scale become the inserted BN.
        size: (height, width), pixels.
        precision: a `precision_mode`.
        batch: a mutable one gives `dim_range`.

    Raises:
        KilnError: asymmetric activations with EQNM, which the SDK refuses; a scale that is not positive.
    """
    build = settings.build
    _refuse_eqnm(settings, build, precision)
    mode: dict[str, Any] = {"precision_mode": precision}
    if precision in QUANTISED:
        mode["weight_quant_granularity"] = build.weight_quant_granularity
        mode["activation_quant_algo"] = build.activation_quant_algo
    config: dict[str, Any] = {
        "archs": archs(settings.cards, build.archs),
        "precision_config": mode,
        "graph_shape_mutable": batch.mutable,
        "computation_preference": build.computation_preference,
        "opt_config": {
            "type64to32_conversion": build.type64to32_conversion,
            "conv_scale_fold": build.conv_scale_fold,
        },
    }
    if batch.mutable:
        ends = {"min": shape_of(size, batch.least), "max": shape_of(size, batch.most)}
        config["dim_range"] = {"0": ends}
    if build.input == "uint8_nhwc":
        config["insert_bn_before_firstnode"] = {
            "0": {"mean": list(map(float, declared.mean)), "var": variances(declared)}
        }
        config["convert_input_layout"] = {"0": {"src": "NCHW", "dst": "NHWC"}}
    return config


def _refuse_eqnm(settings: MagicmindSettings, build: BuildSettings, precision: str) -> None:
    if (
        precision in QUANTISED
        and settings.calibration.algorithm == "eqnm"
        and build.activation_quant_algo != "symmetric"
    ):
        raise KilnError(
            "EQNM goes with symmetric activations only",
            file=settings.sdk.config_file,
            where="build.activation_quant_algo",
            value=build.activation_quant_algo,
            hint="set it to symmetric, or calibration.algorithm to linear",
        )
