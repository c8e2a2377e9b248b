"""A training recipe with types: what config/training/*.yaml says, after its schema filled in the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facekiln.data.procedural import Style
from facekiln.errors import KilnError

TASKS = ("detection", "landmarks")
_ANY_RESULT = {"detection": {"metric": "ap", "least": 0.0}, "landmarks": {"metric": "nme", "most": 1e9}}


@dataclass(frozen=True)
class Drawn:
    """Drawn scenes: how many, of which (height, width), with which faces."""

    count: int
    size: tuple[int, int]
    face_size: tuple[float, float]
    most_faces: int

    def style(self) -> Style:
        """Return what the scenes are made of."""
        return Style(face_size=self.face_size, most_faces=self.most_faces)


@dataclass(frozen=True)
class Source:
    """Where samples come from: drawn scenes, or a dataset by name; `share` of the samples, None by size."""

    drawn: Drawn | None = None
    dataset: str | None = None
    share: float | None = None


@dataclass(frozen=True)
class Validation:
    """What is judged: `count` of the source's pictures at a `size` label (None: all; as they are), and when.

    `every` is in steps, or in epochs where the training's length is.
    """

    source: Source
    count: int | None
    size: str | None
    every: int
    patience: int


@dataclass(frozen=True)
class Goal:
    """The figure that decides: more is better where `least` is given, less where `most` is."""

    metric: str
    least: float | None = None
    most: float | None = None

    def better(self, new: float, old: float) -> bool:
        """Tell whether a figure is better than another."""
        return new < old if self.most is not None else new > old

    def reached(self, value: float) -> bool:
        """Tell whether a figure is good enough; one that is no number never is."""
        return value <= self.most if self.most is not None else value >= (self.least or 0.0)

    def limit(self) -> float:
        """Return the figure to reach."""
        return self.most if self.most is not None else (self.least or 0.0)


@dataclass(frozen=True)
class Optimiser:
    """Which optimiser, and its settings."""

    kind: str
    weight_decay: float
    momentum: float
    clip_norm: float


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the training (see `facekiln.training.schedule.rate_at`)."""

    kind: str
    rate: float
    warm_up: float
    at: tuple[float, ...] = ()
    factor: float = 0.1


@dataclass(frozen=True)
class Recipe:
    """What every training has; the task's own section is `settings`, as the schema left it.

    Attributes:
        task: "detection" or "landmarks".
        settings: the section of that name.
    """

    title: str
    seed: int
    threads: int
    device: str
    amp: str
    steps: int | None
    epochs: int | None
    optimiser: Optimiser
    schedule: Schedule
    ema: float
    freeze_norms: float
    train: tuple[Source, ...]
    validate: Validation
    goal: Goal
    task: str
    settings: Mapping[str, Any]


def sorted_range(value: Sequence[float]) -> tuple[float, float]:
    """Return two numbers, the smaller first."""
    low, high = sorted(value)
    return float(low), float(high)


def _drawn(value: Mapping[str, Any]) -> Drawn:
    return Drawn(
        value["count"],
        (value["size"][0], value["size"][1]),
        sorted_range(value["face_size"]),
        value["most_faces"],
    )


def _source(value: Mapping[str, Any], where: str, title: str) -> Source:
    if ("drawn" in value) == ("dataset" in value):
        raise _fault(title, where, "a source is either `drawn` or a `dataset`")
    drawn = _drawn(value["drawn"]) if "drawn" in value else None
    return Source(drawn, value.get("dataset"), value.get("share"))


def _fault(title: str, where: str, what: str) -> KilnError:
    return KilnError(what, file=f"recipe '{title}'", where=where, hint="see workflow/schemas/recipe.yaml")


def make_recipe(value: Mapping[str, Any]) -> Recipe:
    """Return the typed form of a checked recipe (`facekiln.config.load_recipe`).

    Raises:
        KilnError: it says two things at once, or neither: length, source, goal, task.
    """
    title = value["title"]
    if ("steps" in value) == ("epochs" in value):
        raise _fault(title, "steps", "give either `steps` or `epochs`")
    tasks = [task for task in TASKS if task in value]
    if len(tasks) != 1:
        raise _fault(title, "detection", "give one section: " + " or ".join(f"`{task}`" for task in TASKS))
    goal = value.get("goal", _ANY_RESULT[tasks[0]])
    if ("least" in goal) == ("most" in goal):
        raise _fault(title, "goal", "give either `least` or `most`")
    sources = tuple(_source(item, f"train.{index}", title) for index, item in enumerate(value["train"]))
    shares = [source.share for source in sources]
    if None in shares and set(shares) != {None}:
        raise _fault(title, "train", "give every source a `share`, or none")
    validate = value["validate"]
    if "count" in validate and "drawn" in validate:
        raise _fault(title, "validate.count", "is of a `dataset`; drawn scenes have a count of their own")
    if validate["patience"] and not validate["every"]:
        raise _fault(title, "validate.patience", "stops early only where `every` judges on the way")
    return Recipe(
        title=title,
        seed=value["seed"],
        threads=value["threads"],
        device=value["device"],
        amp=value["amp"],
        steps=value.get("steps"),
        epochs=value.get("epochs"),
        optimiser=Optimiser(**value["optimiser"]),
        schedule=Schedule(**{**value["schedule"], "at": tuple(sorted(value["schedule"]["at"]))}),
        ema=value["ema"],
        freeze_norms=value["freeze_norms"],
        train=sources,
        validate=Validation(
            _source(validate, "validate", title),
            validate.get("count"),
            validate.get("size"),
            validate["every"],
            validate["patience"],
        ),
        goal=Goal(**goal),
        task=tasks[0],
        settings=value[tasks[0]],
    )


def refuse_photographs(model: str, name: str, value: Mapping[str, Any]) -> None:
    """Refuse a recipe that names datasets, for a model whose weights are `synthetic`.

    Raises:
        KilnError: it does; the message names the first.
    """
    if datasets := datasets_of(value):
        raise KilnError(
            f"model '{model}' has synthetic weights, but this recipe takes photographs",
            file=f"config/training/{name}.yaml",
            value=f"dataset {datasets[0]}",
            hint="say `weights: trained` in the model's file, or name a recipe of drawn faces",
        )


def without_limit(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked recipe without how good it must get, which does not change what is trained."""
    goal = {key: None if key in ("least", "most") else item for key, item in value.get("goal", {}).items()}
    return {**value, "goal": goal}


def datasets_of(value: Mapping[str, Any]) -> list[str]:
    """Return the names of the datasets that a checked recipe trains on or is judged on, each once."""
    named = [source.get("dataset") for source in (*value["train"], value["validate"])]
    return list(dict.fromkeys(name for name in named if name))
