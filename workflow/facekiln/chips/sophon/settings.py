"""Typed settings of the SOPHON leg: config/chips/sophon.yaml, checked against its schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facekiln.config import DEFAULT_FOLDER, check, known, read_yaml
from facekiln.errors import KilnError
from facekiln.parity.sight_limits import SightLimits

FILE = Path("chips") / "sophon.yaml"
_SCHEMA = "chip_sophon"


@dataclass(frozen=True)
class Chip:
    """What a chip's compiler takes: precisions of names (`fp32`, `fp16`, `int8`) and numbers of cores."""

    name: str
    precisions: tuple[str, ...]
    cores: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class EnvironmentSettings:
    """Where the tools of tpu_mlir are, or what they are made from.

    Attributes:
        python: a CPython 3.10 to make the environment with; searched where None.
        folder: an environment of the user's own, used as it is.
        wheels: a folder that holds every wheel of envs/sophon.txt; nothing is asked of an index then.
        timeout_minutes: that its making may take.
    """

    python: str | None = None
    folder: str | None = None
    wheels: str | None = None
    timeout_minutes: float = 60.0


@dataclass(frozen=True)
class TransformSettings:
    """How ONNX becomes top.mlir."""

    timeout_minutes: float


@dataclass(frozen=True)
class DeploySettings:
    """How top.mlir becomes a .bmodel.

    Attributes:
        timeout_minutes: that a compilation with its check may take.
        tolerance: by precision, the least cosine and euclidean similarity of the quantised model's outputs.
    """

    timeout_minutes: float
    tolerance: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class CalibrateSettings:
    """Where int8 thresholds come from.

    Attributes:
        method: "ours:minmax|percentile|kl|mse", or "tool:" and a method of run_calibration.
        search: "none", or "threshold": the tool chooses among its methods by what they do to the outputs.
        timeout_minutes: that it may take.
    """

    method: str
    search: str
    timeout_minutes: float


@dataclass(frozen=True)
class MixedSettings:
    """Which operators of an int8 file stay in float.

    Attributes:
        by: "ours", or "tool:search_qtable", "tool:fast_search".
        keep_float: by chip, operators, ONNX tensors or nodes by name; "stem", "stem:7", "heads", "outputs".
        most_layers: so many of the most sensitive layers besides.
        precision: by chip, "F32", "F16" or "BF16".
        expected_cosine: at which the tool's search ends.
        timeout_minutes: that the tool's search may take.
        models: by model, then chip, what takes the place of `keep_float`.
    """

    by: str
    keep_float: Mapping[str, tuple[str, ...]]
    most_layers: int
    precision: Mapping[str, str]
    expected_cosine: float
    timeout_minutes: float
    models: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    def kept(self, chip: str, model: str | None = None) -> tuple[str, ...]:
        """Return what stays in float: the model's own for the chip if it has that, else the chip's."""
        own = self.models.get(model, {}) if model is not None else {}
        return own.get(chip, self.keep_float.get(chip, ()))


@dataclass(frozen=True)
class RunSettings:
    """How files are run here, and how near two ways of running have to be.

    Attributes:
        timeout_minutes: that one run may take, of a whole batch.
        threads: of the twin's interpreter.
        twin: by precision, the most that the twin may be off the C model, over the output's scale; `mixed` is
            int8 with operators in float.
        batch: by precision, the most that a batch may be off its pictures one by one, likewise.
    """

    timeout_minutes: float
    threads: int
    twin: Mapping[str, float]
    batch: Mapping[str, float]


@dataclass(frozen=True)
class SophonSettings:
    """All of config/chips/sophon.yaml that the commands read."""

    chips: Mapping[str, Chip]
    batches: tuple[int, ...]
    transform: TransformSettings
    deploy: DeploySettings
    calibrate: CalibrateSettings
    mixed: MixedSettings
    gate: SightLimits
    run: RunSettings
    environment: EnvironmentSettings = field(default_factory=EnvironmentSettings)


def _kept(value: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {chip: tuple(names) for chip, names in value.items()}


def settings_from(value: Mapping[str, Any]) -> SophonSettings:
    """Return typed settings of a checked file."""
    return SophonSettings(
        chips={
            name: Chip(name, tuple(chip["precisions"]), tuple(chip.get("cores", (1,))))
            for name, chip in value["chips"].items()
        },
        batches=tuple(value["batches"]),
        transform=TransformSettings(float(value["transform"]["timeout_minutes"])),
        deploy=DeploySettings(
            float(value["deploy"]["timeout_minutes"]),
            {
                name: (float(least[0]), float(least[1]))
                for name, least in value["deploy"]["tolerance"].items()
            },
        ),
        calibrate=CalibrateSettings(**value["calibrate"]),
        mixed=MixedSettings(
            **value["mixed"]
            | {
                "keep_float": _kept(value["mixed"]["keep_float"]),
                "models": {name: _kept(own["keep_float"]) for name, own in value["mixed"]["models"].items()},
            }
        ),
        gate=SightLimits(**value["gate"]),
        run=RunSettings(**value["run"]),
        environment=EnvironmentSettings(**value["environment"]),
    )


def check_models(settings: SophonSettings, models: Iterable[str]) -> None:
    """Check that what is declared for single models is for models and chips that there are.

    Raises:
        KilnError: an unknown name; the nearest is suggested.
    """
    names = list(models)
    for model, own in settings.mixed.models.items():
        try:
            known(model, names, "model")
            for chip in own:
                known(chip, settings.chips, "SOPHON chip")
        except KilnError as error:
            raise KilnError(error.what, file=DEFAULT_FOLDER / FILE, where="mixed.models") from None


def check_search(settings: CalibrateSettings) -> None:
    """Check that a search among the tool's methods is asked for with one of them.

    Raises:
        KilnError: our methods are not among those that it tries.
    """
    if settings.search != "none" and not settings.method.startswith("tool:"):
        raise KilnError(
            f"{settings.method} is no method that the tool's search tries",
            file=DEFAULT_FOLDER / FILE,
            where="calibrate.search",
            value=settings.search,
            hint="calibrate.method tool:mse, or calibrate.search none",
        )


def load_settings(folder: Path | str = DEFAULT_FOLDER) -> SophonSettings:
    """Load config/chips/sophon.yaml, or the schema's defaults where there is no such file.

    Raises:
        KilnError: not YAML, or not by the schema.
    """
    path = Path(folder) / FILE
    return settings_from(check((read_yaml(path) or {}) if path.is_file() else {}, _SCHEMA, path))
