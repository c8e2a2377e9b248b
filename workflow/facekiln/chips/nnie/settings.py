"""Typed settings of the NNIE chip: config/chips/nnie.yaml, checked against its schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from facekiln.config import DEFAULT_FOLDER, check, known, read_yaml

FILE = Path("chips") / "nnie.yaml"
# Names the config folder for the emulator, whose command line is that of the vendor's tool.
CONFIG_VARIABLE = "FACEKILN_CONFIG"
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
    plain_outputs: tuple[str, ...]


@dataclass(frozen=True)
class EmulatorSettings:
    """How the emulator works; `threads` 0 means one per processor."""

    resize: str
    threads: int


@dataclass(frozen=True)
class NnieSettings:
    """All of config/chips/nnie.yaml.

    Attributes:
        nnie: the chip's NNIE version, "1.1" or "1.2".
        restrictions: doubtful rule -> refuse, warn or ignore.
        folder: the config folder that was read, None for the schema's defaults.
    """

    chip: str
    nnie: str
    mapper: MapperSettings
    cfg: CfgSettings
    legalise: LegaliseSettings
    restrictions: Mapping[str, str]
    emulator: EmulatorSettings
    folder: str | None = field(default=None, compare=False)


def settings_from(value: dict[str, Any], file: Path | str = FILE) -> NnieSettings:
    """Build the settings from the content of config/chips/nnie.yaml; missing keys take the schema's defaults.

    Raises:
        KilnError: a key breaks the schema, or the chip is not in `nnie_versions`.
    """
    value = check(value, _SCHEMA, file)
    mapper, legalise = dict(value["mapper"]), dict(value["legalise"])
    docker, ssh = mapper.pop("docker"), mapper.pop("ssh")
    mapper["command"], mapper["library_path"] = tuple(mapper["command"]), tuple(mapper["library_path"])
    for key in ("output_kinds", "plain_outputs"):
        legalise[key] = tuple(legalise[key])
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

    The mapper's emulator is a program of its own and may run where no config is.

    Raises:
        KilnError: the file is not YAML or breaks its schema.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return settings_from({}, path)
    return replace(settings_from(read_yaml(path) or {}, path), folder=str(Path(folder).resolve()))
