"""The one config loader: YAML in, checked against the schemas, typed objects out."""

from __future__ import annotations

import copy
import difflib
import functools
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from facekiln.artifact import sha256_of_text
from facekiln.errors import KilnError
from facekiln.yaml_file import read_yaml as read_yaml

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
DEFAULT_FOLDER = Path("config")
# The section of a model's file that each kind of weights needs.
WEIGHTS_SECTION = {"synthetic": "recipe", "trained": "recipe", "published": "published", "local": "local"}


@dataclass(frozen=True)
class Input:
    """Preprocessing of a model: `(x - mean) * scale` on 0..255 pixels in `colour` order."""

    name: str
    colour: str
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    resize: str = "letterbox"


@dataclass(frozen=True)
class Priors:
    """Anchors: per level the box sides in pixels and the step in pixels; variances of centre and size.

    `centre` is the distance of their centres, see `facekiln.vision.priors.make_priors`.
    """

    min_sizes: tuple[tuple[float, ...], ...]
    steps: tuple[int, ...]
    variances: tuple[float, float]
    clip: bool = False
    centre: str = "step"


@dataclass(frozen=True)
class Crop:
    """The square cut for a landmark model: side over the box's longer side, share above the box's centre."""

    side: float
    above: float


@dataclass(frozen=True)
class Decode:
    """Thresholds that turn raw outputs into faces.

    `epsilon` is added to the union of two boxes in NMS, as a share of the input's area.
    """

    score_threshold: float = 0.5
    nms_iou: float = 0.4
    top_k: int = 5000
    keep: int = 750
    extent: int = 1
    epsilon: float = 0.0


@dataclass(frozen=True)
class Published:
    """One published file, pinned: a checkpoint, or the ONNX file of a model that is born as one."""

    url: str
    sha256: str
    bytes: int
    source: str


@dataclass(frozen=True)
class Local:
    """A checkpoint file of the user's."""

    path: str
    sha256: str | None = None


@dataclass(frozen=True)
class Golden:
    """A picture on which a model finds `faces` (least, most) faces; searched in the mirror by sha256."""

    sha256: str
    faces: tuple[int, int]


@dataclass(frozen=True)
class Model:
    """One file of config/models/."""

    name: str
    title: str
    network: str
    licence: str
    sizes: dict[str, tuple[int, int]]
    input: Input
    outputs: tuple[str, ...]
    options: dict[str, float] = field(default_factory=dict)
    priors: Priors | None = None
    decode: Decode = field(default_factory=Decode)
    weights: str | None = None
    recipe: str | None = None
    published: Published | None = None
    local: Local | None = None
    crop: Crop | None = None
    born: str = "checkpoint"
    golden: Golden | None = None

    def size(self, label: str) -> tuple[int, int]:
        """Return (height, width) of a size label.

        Raises:
            KilnError: the model does not declare that size.
        """
        return self.sizes[known(label, self.sizes, f"size of model '{self.name}'")]

    def declaration(self) -> dict[str, Any]:
        """What a checkpoint's bytes do not say but its outputs depend on: colour, mean, slope, anchors.

        The input's name is none of it: it may be renamed without another training.
        """
        return {
            "network": self.network,
            "options": dict(self.options),
            "input": {key: value for key, value in asdict(self.input).items() if key != "name"},
            "priors": asdict(self.priors) if self.priors else None,
            "crop": asdict(self.crop) if self.crop else None,
        }

    def digest(self, *fields: str) -> str:
        """Return a hash of the named fields, for Snakemake's params: a change of them reruns the rule.

        `declaration` is the name of all that `declaration()` returns. Of the user's own file where it lies is
        told only if no sha256 says which it is.
        """
        own = self.local and (self.local.sha256 or self.local.path)
        whole = {**asdict(self), "declaration": self.declaration(), "local": own}
        return sha256_of_text(repr([(name, whole[name]) for name in fields]))[:16]


@dataclass(frozen=True)
class Config:
    """Everything below config/."""

    weights: str
    mirror: str | None
    targets: tuple[str, ...]
    calibration: dict[str, Any]
    parity: dict[str, Any]
    models: dict[str, Model]
    chips: dict[str, dict[str, Any]]
    tables: dict[str, Any] = field(default_factory=dict)
    latency: dict[str, Any] = field(default_factory=dict)
    gates: dict[str, Any] = field(default_factory=dict)
    landmarks: dict[str, Any] = field(default_factory=dict)
    inference: dict[str, dict[str, Any]] = field(default_factory=dict)
    box_rules: dict[str, str] = field(default_factory=dict)
    prediction_shards: int = 1
    toolchains: str | None = None

    def model(self, name: str) -> Model:
        """Return a model by name.

        Raises:
            KilnError: no such model; the message suggests the nearest.
        """
        return self.models[known(name, self.models, "model")]

    def opset(self) -> int:
        """Return the highest ONNX opset that every configured chip's tools read.

        Each chips/*.yaml declares `opset: {min, max}`; one ONNX file per model and size serves them all.

        Raises:
            KilnError: no opset satisfies all chips.
        """
        ranges = {name: chip["opset"] for name, chip in self.chips.items()}
        if not ranges:
            raise KilnError(
                "no chip declares an opset", file=DEFAULT_FOLDER / "chips", hint="keep one chip file"
            )
        first = max(ranges, key=lambda name: ranges[name]["min"])
        last = min(ranges, key=lambda name: ranges[name]["max"])
        if ranges[last]["max"] < ranges[first]["min"]:
            raise KilnError(
                f"no opset suits both '{first}' (from {ranges[first]['min']}) and "
                f"'{last}' (up to {ranges[last]['max']})",
                file=DEFAULT_FOLDER / "chips",
                hint="remove one of the two files, or build them in two checkouts",
            )
        return int(ranges[last]["max"])

    def weights_of(self, model: str) -> str:
        """Return `synthetic`, `trained`, `published` or `local` for a model.

        Raises:
            KilnError: the model lacks the section that this kind of weights needs.
        """
        declared = self.model(model)
        kind = declared.weights or self.weights
        section = WEIGHTS_SECTION[kind]
        if getattr(declared, section) is None:
            raise KilnError(
                f"weights are '{kind}' but the model has no '{section}'",
                file=DEFAULT_FOLDER / "models" / f"{model}.yaml",
                hint=f"add `{section}:` to it, or set another `weights:` there or in config.yaml",
            )
        return kind


def known(name: str, names: Iterable[str], kind: str) -> str:
    """Return `name` if it is one of `names`.

    Raises:
        KilnError: it is not; the message suggests the nearest and lists all.
    """
    choices = list(names)
    if name in choices:
        return name
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if not near and name.isdecimal():
        near = sorted(filter(str.isdecimal, choices), key=lambda choice: abs(int(choice) - int(name)))
    suggestion = f"; did you mean '{near[0]}'?" if near else ""
    raise KilnError(f"unknown {kind} '{name}'{suggestion} (known: {', '.join(choices) or 'none'})")


@functools.cache
def _schema(name: str) -> Any:
    return read_yaml(SCHEMAS / f"{name}.yaml")


def _fill_defaults(schema: Mapping[str, Any], value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _fill_defaults(schema.get("items", {}), item)
    if not isinstance(value, dict):
        return
    for key, sub in schema.get("properties", {}).items():
        if key not in value and "default" in sub:
            default = sub["default"]
            value[key] = copy.copy(default)
        if key in value:
            _fill_defaults(sub, value[key])


def _refuse_nan(value: Any, file: Path | str, place: tuple[str, ...]) -> None:
    """JSON Schema's limits hold for NaN too: it is neither below nor above them."""
    if isinstance(value, float) and math.isnan(value):
        raise KilnError("is not a number", file=file, where=".".join(place), value=value)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _refuse_nan(item, file, (*place, str(key)))


def check(value: Any, schema_name: str, file: Path | str) -> dict[str, Any]:
    """Check `value` against workflow/schemas/{schema_name}.yaml and return it with defaults filled in.

    Raises:
        KilnError: names the file, the key, the value and the limit, and suggests a near key.
    """
    from jsonschema import Draft202012Validator  # slow to import, and not needed by `--help`

    schema = _schema(schema_name)
    errors = sorted(Draft202012Validator(schema).iter_errors(value), key=lambda e: list(map(str, e.path)))
    for error in errors:
        where = ".".join(map(str, error.absolute_path)) or None
        if error.validator == "additionalProperties" and isinstance(error.instance, dict):
            names = list(error.schema.get("properties", {}))
            unknown = next(key for key in error.instance if key not in names)
            try:
                known(str(unknown), names, "key")
            except KilnError as suggestion:
                raise KilnError(str(suggestion), file=file, where=where) from None
        raise KilnError(
            error.message, file=file, where=where, hint=f"see workflow/schemas/{schema_name}.yaml"
        )
    _refuse_nan(value, file, ())
    checked: dict[str, Any] = value
    _fill_defaults(schema, checked)
    return checked


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _model(path: Path) -> Model:
    raw = read_yaml(path)
    if isinstance(raw, dict) and isinstance(raw.get("sizes"), dict):
        raw["sizes"] = {str(label): shape for label, shape in raw["sizes"].items()}
    value = {key: _tuples(item) for key, item in check(raw, "model", path).items()}
    sections = {
        "input": Input,
        "priors": Priors,
        "crop": Crop,
        "decode": Decode,
        "published": Published,
        "local": Local,
        "golden": Golden,
    }
    for key, section in sections.items():
        if key in value:
            value[key] = section(**{name: _tuples(item) for name, item in value[key].items()})
    value["sizes"] = {label: _tuples(shape) for label, shape in value["sizes"].items()}
    return Model(name=path.stem, **value)


def load_config(folder: Path | str = DEFAULT_FOLDER, overrides: Mapping[str, Any] | None = None) -> Config:
    """Load config.yaml, models/*.yaml and chips/*.yaml of a folder.

    Args:
        folder: the config folder.
        overrides: top-level keys of config.yaml that win over the file (Snakemake's `--config`).

    Raises:
        KilnError: a file is missing, not YAML, or breaks its schema.
    """
    folder = Path(folder)
    main = folder / "config.yaml"
    raw = read_yaml(main)
    if isinstance(raw, dict) or raw is None:
        raw = {**(raw or {}), **dict(overrides or {})}
    value = check(raw, "config", main)
    models = {path.stem: _model(path) for path in sorted((folder / "models").glob("*.yaml"))}
    chips = {
        path.stem: check(read_yaml(path), f"chip_{path.stem}", path)
        for path in sorted((folder / "chips").glob("*.yaml"))
    }
    if not models:
        raise KilnError(
            "no model is declared", file=folder / "models", hint="run from the checkout's top folder"
        )
    return Config(
        weights=value["weights"],
        mirror=value["mirror"] or os.environ.get("FACEKILN_MIRROR") or None,
        targets=tuple(value["targets"]),
        calibration=value["calibration"],
        parity=value["parity"],
        models=models,
        chips=chips,
        tables=value["tables"],
        latency=value["latency"],
        gates=value["gates"],
        landmarks=value["landmarks"],
        inference=value["inference"],
        box_rules=value["box_rules"],
        prediction_shards=value["prediction_shards"],
        toolchains=value["toolchains"],
    )


def load_recipe(name: str, folder: Path | str = DEFAULT_FOLDER) -> dict[str, Any]:
    """Load a training recipe, config/training/{name}.yaml.

    Raises:
        KilnError: there is none of that name, or it breaks its schema.
    """
    recipes = {path.stem: path for path in sorted((Path(folder) / "training").glob("*.yaml"))}
    path = recipes[known(name, recipes, "training recipe")]
    return check(read_yaml(path), "recipe", path)
