"""A training recipe with types: what config/training/*.yaml says, after its schema filled in the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facekiln.data.procedural import Style


@dataclass(frozen=True)
class Scenes:
    """Drawn square scenes: how many, how large, with which faces (see workflow/schemas/recipe.yaml)."""

    count: int
    side: int
    face_size: tuple[float, float]
    most_faces: int

    def style(self) -> Style:
        """Return what the scenes are made of."""
        return Style(face_size=self.face_size, most_faces=self.most_faces)


@dataclass(frozen=True)
class Batch:
    """One kind of batch: `pictures` crops of `side` pixels, in this share of the steps."""

    side: int
    pictures: int
    share: float


@dataclass(frozen=True)
class Schedule:
    """One cycle of AdamW."""

    rate: float
    warm_up: float
    weight_decay: float
    clip_norm: float


@dataclass(frozen=True)
class Matching:
    """Which priors learn a face."""

    overlap: float
    least_overlap: float
    least_face: float


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts of the loss, and hard negatives per positive."""

    boxes: float
    scores: float
    landmarks: float
    negatives: int


@dataclass(frozen=True)
class Recipe:
    """One training, whole; two runs of it give the same bytes."""

    title: str
    seed: int
    threads: int
    steps: int
    scenes: Scenes
    batches: tuple[Batch, ...]
    schedule: Schedule
    matching: Matching
    loss: LossWeights
    held_out: Scenes
    score_threshold: float
    minimum_ap: float


def _scenes(value: Mapping[str, Any]) -> Scenes:
    low, high = sorted(value["face_size"])
    return Scenes(value["count"], value["side"], (float(low), float(high)), value["most_faces"])


def make_recipe(value: Mapping[str, Any]) -> Recipe:
    """Return the typed form of a checked recipe (`facekiln.config.load_recipe`)."""
    return Recipe(
        title=value["title"],
        seed=value["seed"],
        threads=value["threads"],
        steps=value["steps"],
        scenes=_scenes(value["scenes"]),
        batches=tuple(Batch(**batch) for batch in value["batches"]),
        schedule=Schedule(**value["schedule"]),
        matching=Matching(**value["matching"]),
        loss=LossWeights(**value["loss"]),
        held_out=_scenes(value["held_out"]),
        score_threshold=value["held_out"]["score_threshold"],
        minimum_ap=value["minimum_ap"],
    )
