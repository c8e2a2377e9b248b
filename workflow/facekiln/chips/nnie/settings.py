"""Typed settings of the NNIE chip: config/chips/nnie.yaml, checked against its schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekiln.config import DEFAULT_FOLDER, check, known, read_yaml

FILE = Path("chips") / "nnie.yaml"
_SCHEMA = "chip_nnie"


@dataclass(frozen=True)
class MapperSettings:
    """Who maps and how long it may take."""

    mode: str
    command: tuple[str, ...]
    library_path: tuple[str, ...]
    docker_program: str
    docker_image: str | None
    ssh_host: str | None
    timeout_minutes: float
    exit_status: str


@dataclass(frozen=True)
class CfgSettings:
    """Values of the .cfg that the model does not decide; `rgb_order` may override the model's colour."""

    batch_num: int
    internal_stride: int
    sparse_rate: float
    compress_mode: int
    is_simulation: int
    log_level: int
    rgb_order: str


@dataclass(frozen=True)
class LegaliseSettings:
    """Which form the legaliser gives a network where several are possible."""

    fold_batchnorm: bool
    input_header: str
    relu_negative_slope: str
    upsample: str
    depthwise: str
    output_kinds: tuple[str, ...]
    output_levels: str


@dataclass(frozen=True)
class EmulatorSettings:
    """How the emulator works; `threads` 0 means one per processor."""

    resize: str
    threads: int


@dataclass(frozen=True)
class NnieSettings:
    """All of config/chips/nnie.yaml; `restrictions` maps a doubtful rule to refuse, warn or ignore."""

    chip: str
    nnie: str
    mapper: MapperSettings
    cfg: CfgSettings
    legalise: LegaliseSettings
    restrictions: Mapping[str, str]
    emulator: EmulatorSettings


def settings_from(value: dict[str, Any], file: Path | str = FILE) -> NnieSettings:
    """Build the settings from the content of config/chips/nnie.yaml; missing keys take the schema's defaults.

    Raises:
        KilnError: a key breaks the schema, or the chip is not in `nnie_versions`.
    """
    value = check(value, _SCHEMA, file)
    mapper, legalise = dict(value["mapper"]), dict(value["legalise"])
    docker, ssh = mapper.pop("docker"), mapper.pop("ssh")
    mapper["command"], mapper["library_path"] = tuple(mapper["command"]), tuple(mapper["library_path"])
    legalise["output_kinds"] = tuple(legalise["output_kinds"])
    return NnieSettings(
        chip=value["chip"],
        nnie=value["nnie_versions"][known(value["chip"], value["nnie_versions"], "NNIE chip")],
        mapper=MapperSettings(
            **mapper, docker_program=docker["program"], docker_image=docker["image"], ssh_host=ssh["host"]
        ),
        cfg=CfgSettings(**value["cfg"]),
        legalise=LegaliseSettings(**legalise),
        restrictions=dict(value["restrictions"]),
        emulator=EmulatorSettings(**value["emulator"]),
    )


def load_settings(folder: Path | str = DEFAULT_FOLDER) -> NnieSettings:
    """Load chips/nnie.yaml of a config folder, or the schema's defaults where there is none.

    The mapper's emulator runs in folders without a config; a plain nnie_mapper has none either.

    Raises:
        KilnError: the file is not YAML or breaks its schema.
    """
    path = Path(folder) / FILE
    return settings_from((read_yaml(path) or {}) if path.is_file() else {}, path)
