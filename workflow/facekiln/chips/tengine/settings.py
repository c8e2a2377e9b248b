"""Typed settings of the Tengine chip: config/chips/tengine.yaml, checked against its schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekiln.config import DEFAULT_FOLDER, check, known, read_yaml
from facekiln.errors import KilnError
from facekiln.parity.sight_limits import SightLimits

FILE = Path("chips") / "tengine.yaml"
_SCHEMA = "chip_tengine"
# By generation of the runtime; the 1.x head reads the old Reshape record where the version is 1.
OP_VERSIONS = {"lite": 2, "1.x": 2, "1.12": 2}


@dataclass(frozen=True)
class ToolSettings:
    """Who makes files: "builtin", or the user's own tools by "local", "docker" or "ssh"."""

    mode: str
    convert: tuple[str, ...]
    quant_uint8: tuple[str, ...]
    quant_int8: tuple[str, ...]
    library_path: tuple[str, ...]
    docker_program: str
    docker_image: str | None
    ssh_program: tuple[str, ...]
    ssh_host: str | None
    timeout_minutes: float
    docker_options: tuple[str, ...] = ()
    config_file: str = f"config/{FILE}"


@dataclass(frozen=True)
class QuantiseSettings:
    """How files are quantised, see `facekiln.chips.tengine.scales` and `equalise`."""

    algorithm: str
    style: str
    equalise: bool


@dataclass(frozen=True)
class TengineSettings:
    """All of config/chips/tengine.yaml.

    Attributes:
        generation: of the runtime that files are for.
        consumer: who reads the files, a key of `consumers`.
        consumers: name -> order of the outputs by role, their names by role where it wants its own, and the
            size where it feeds no other.
    """

    generation: str
    consumer: str
    consumers: Mapping[str, Mapping[str, Any]]
    tools: ToolSettings
    quantise: QuantiseSettings
    gate: SightLimits

    @property
    def op_version(self) -> int:
        """The op version that the generation reads.

        Raises:
            KilnError: it reads records that are not written.
        """
        if self.generation not in OP_VERSIONS:
            raise KilnError(
                f"files for Tengine {self.generation} are not written: it reads an older Reshape record",
                file=FILE,
                where="generation",
                limit=", ".join(OP_VERSIONS),
                hint="update the board's Tengine, or convert on it with its own convert_tool",
            )
        return OP_VERSIONS[self.generation]


def settings_from(value: dict[str, Any], file: Path | str = FILE) -> TengineSettings:
    """Build the settings from the content of config/chips/tengine.yaml; missing keys take the defaults.

    Raises:
        KilnError: a key breaks the schema, or `consumer` is none of `consumers`.
    """
    value = check(value, _SCHEMA, file)
    tools = dict(value["tools"])
    docker, ssh = tools.pop("docker"), tools.pop("ssh")
    lists = ("convert", "quant_uint8", "quant_int8", "library_path")
    tools |= {name: tuple(tools[name]) for name in lists}
    known(value["consumer"], value["consumers"], "consumer of tmfiles")
    return TengineSettings(
        generation=value["generation"],
        consumer=value["consumer"],
        consumers=value["consumers"],
        tools=ToolSettings(
            **tools,
            docker_program=docker["program"],
            docker_image=docker["image"],
            ssh_program=tuple(ssh["program"]),
            ssh_host=ssh["host"],
        ),
        quantise=QuantiseSettings(**value["quantise"]),
        gate=SightLimits(**value["gate"]),
    )


def load_settings(folder: Path | str = DEFAULT_FOLDER) -> TengineSettings:
    """Load chips/tengine.yaml of a config folder, or the schema's defaults where there is none.

    Raises:
        KilnError: the file is not YAML or breaks its schema.
    """
    path = Path(folder) / FILE
    return settings_from(read_yaml(path) or {} if path.is_file() else {}, path)
