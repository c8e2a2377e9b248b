"""Typed settings of the MagicMind chip: config/chips/magicmind.yaml, checked against its schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facekiln.config import DEFAULT_FOLDER, check, read_yaml
from facekiln.parity.sight_limits import SightLimits

FILE = Path("chips") / "magicmind.yaml"
_SCHEMA = "chip_magicmind"


@dataclass(frozen=True)
class Card:
    """A card that files are built for: its architecture's name and numbers of clusters."""

    arch: str
    clusters: tuple[int, ...]


@dataclass(frozen=True)
class SdkSettings:
    """Who builds: "emulator", or the vendor's SDK by "local", "docker" or "ssh" (see `vendor_tool`).

    Attributes:
        python: the interpreter that the SDK is installed in, with its arguments.
        device: number of the MLU that calibrates.
        remote: address of a machine that calibrates in its place, "host:port".
        docker_network: of the container; it needs one only where another machine calibrates.
    """

    mode: str
    python: tuple[str, ...]
    library_path: tuple[str, ...]
    docker_program: str
    docker_image: str | None
    docker_options: tuple[str, ...]
    ssh_program: tuple[str, ...]
    ssh_host: str | None
    timeout_minutes: float
    device: int
    remote: str | None
    docker_network: str = "none"
    config_file: str = f"config/{FILE}"

    def here(self) -> SdkSettings:
        """Return them for a program of the user's on this machine."""
        return replace(self, mode="local")


@dataclass(frozen=True)
class BuildSettings:
    """Keys of the build configuration that neither model nor name decide; see the schema."""

    archs: str
    input: str
    mutable_dims: str
    weight_quant_granularity: str
    activation_quant_algo: str
    computation_preference: str
    type64to32_conversion: bool
    conv_scale_fold: bool


@dataclass(frozen=True)
class CalibrationSettings:
    """How the SDK calibrates: `samples` "normalised" as the network takes them, or "raw" 0..255."""

    algorithm: str
    samples: str
    batch: int


@dataclass(frozen=True)
class EmulatorSettings:
    """What the emulator takes for the SDK's unknown choices.

    Attributes:
        linear, eqnm: our range method that stands for each of the SDK's algorithms.
        depthwise_weights: "per_tensor" or "per_axis" scales of depthwise convolutions.
    """

    linear: str
    eqnm: str
    depthwise_weights: str


@dataclass(frozen=True)
class TableSettings:
    """What stands in results/tables/magicmind.md.

    Attributes:
        models: (model, size label) of the artifacts that are measured and evaluated for it.
        batches: as names have them, of the throughput.
        boards: of config/boards.yaml; empty takes all that have one of the cards.
        accuracy: (evaluator, dataset) pairs, each a column.
    """

    title: str
    models: tuple[tuple[str, str], ...]
    batches: tuple[str, ...]
    boards: tuple[str, ...]
    accuracy: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MagicmindSettings:
    """All of config/chips/magicmind.yaml that the commands read.

    Attributes:
        source: what the SDK parses: "onnx", "torchscript" or "caffe".
        precisions: node -> "FLOAT32" or "FLOAT16", against the file's precision.
        keep_float: nodes by name, "stem" or "heads", that int8 files compute in float16.
        keep_sensitive: so many more nodes, worst first by a report of sensitivities.
    """

    source: str
    cards: Mapping[str, Card]
    sdk: SdkSettings
    build: BuildSettings
    calibration: CalibrationSettings
    precisions: Mapping[str, str]
    keep_float: tuple[str, ...]
    keep_sensitive: int
    emulator: EmulatorSettings
    gate: SightLimits
    table: TableSettings | None


def settings_from(value: Mapping[str, Any], file: Path | str = FILE) -> MagicmindSettings:
    """Return typed settings of a file's content; missing keys take the schema's defaults.

    Raises:
        KilnError: a key breaks the schema.
    """
    value = check(dict(value), _SCHEMA, file)
    sdk = dict(value["sdk"])
    docker, ssh = sdk.pop("docker"), sdk.pop("ssh")
    return MagicmindSettings(
        source=value["source"],
        cards={name: Card(card["arch"], tuple(card["clusters"])) for name, card in value["cards"].items()},
        sdk=SdkSettings(
            mode=sdk["mode"],
            python=tuple(sdk["python"]),
            library_path=tuple(sdk["library_path"]),
            docker_program=docker["program"],
            docker_image=docker["image"],
            docker_options=tuple(docker["options"]),
            ssh_program=tuple(ssh["program"]),
            ssh_host=ssh["host"],
            timeout_minutes=float(sdk["timeout_minutes"]),
            device=sdk["device"],
            remote=sdk["remote"],
            docker_network=docker["network"] or ("bridge" if sdk["remote"] else "none"),
        ),
        build=BuildSettings(**value["build"]),
        calibration=CalibrationSettings(**value["calibration"]),
        precisions=dict(value["precisions"]),
        keep_float=tuple(value["keep_float"]),
        keep_sensitive=value["keep_sensitive"],
        emulator=EmulatorSettings(**value["emulator"]),
        gate=SightLimits(**value["gate"]),
        table=_table(value["table"]),
    )


def _table(value: Mapping[str, Any] | None) -> TableSettings | None:
    if value is None:
        return None
    return TableSettings(
        title=value["title"],
        models=tuple((one["model"], str(one["size"])) for one in value["models"]),
        batches=tuple(map(str, value["batches"])),
        boards=tuple(value["boards"]),
        accuracy=tuple((one["evaluator"], one["dataset"]) for one in value["accuracy"]),
    )


def load_settings(folder: Path | str = DEFAULT_FOLDER) -> MagicmindSettings:
    """Load config/chips/magicmind.yaml, or the schema's defaults where there is no such file.

    Raises:
        KilnError: not YAML, or not by the schema.
    """
    path = Path(folder) / FILE
    return settings_from(read_yaml(path) or {} if path.is_file() else {}, path)
