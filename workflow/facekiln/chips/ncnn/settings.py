"""Typed settings of the ncnn leg: config/chips/ncnn.yaml, checked against its schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekiln.config import DEFAULT_FOLDER, check, read_yaml
from facekiln.parity.sight_limits import SightLimits

FILE = Path("chips") / "ncnn.yaml"
_SCHEMA = "chip_ncnn"


@dataclass(frozen=True)
class QuantiseSettings:
    """How files are quantised.

    Attributes:
        method: of our ranges: "minmax", "percentile", "kl" or "mse".
        winograd_steps: steps of 3x3 convolutions' weights: 31 as ncnn2table, or 127.
        requantise: convolutions that follow each other hand on int8.
        keep_float: layers by name, "stem" for the first two, "heads" for those behind which no other stands.
    """

    method: str
    winograd_steps: int
    requantise: bool
    keep_float: tuple[str, ...]


@dataclass(frozen=True)
class NcnnSettings:
    """All of config/chips/ncnn.yaml that the commands read."""

    pnnx_timeout_minutes: float
    threads: int
    quantise: QuantiseSettings
    gate: SightLimits


def settings_from(value: Mapping[str, Any]) -> NcnnSettings:
    """Return typed settings of a checked file."""
    quantise = value["quantise"]
    return NcnnSettings(
        pnnx_timeout_minutes=float(value["pnnx_timeout_minutes"]),
        threads=int(value["threads"]),
        quantise=QuantiseSettings(
            quantise["method"],
            quantise["winograd_steps"],
            quantise["requantise"],
            tuple(quantise["keep_float"]),
        ),
        gate=SightLimits(**value["gate"]),
    )


def load_settings(folder: Path | str = DEFAULT_FOLDER) -> NcnnSettings:
    """Load config/chips/ncnn.yaml, or the schema's defaults where there is no such file.

    Raises:
        KilnError: not YAML, or not by the schema.
    """
    path = Path(folder) / FILE
    return settings_from(check((read_yaml(path) or {}) if path.is_file() else {}, _SCHEMA, path))
