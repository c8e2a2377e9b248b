"""The training of a detector: crops with their priors' targets, the loss, faces on held-out pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.training.crops import Cut, make_crop
from facekiln.training.held_out import evaluate
from facekiln.training.losses import LossWeights, multi_box_loss
from facekiln.training.matching import Matching, corners, match
from facekiln.training.pictures import PictureCache
from facekiln.training.plan import Plan
from facekiln.training.recipe import Recipe, sorted_range
from facekiln.training.sources import Pool
from facekiln.training.task import IMAGES, Arrays, stack
from facekiln.vision.detect import ROLES
from facekiln.vision.preprocess import to_tensor
from facekiln.vision.priors import make_priors

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class BatchKind:
    """One kind of batch: how its crops are cut, how many they are, in which share of the steps."""

    cut: Cut
    pictures: int
    share: float


def batch_kinds(settings: Mapping[str, Any]) -> list[BatchKind]:
    """Return the kinds of batches of a recipe's `detection` section."""
    kinds = []
    for batch in settings["batches"]:
        size = (int(batch["size"][0]), int(batch["size"][1]))
        least = settings["matching"]["least_face"]
        faces = batch.get("faces") or (max(least, min(size) / 16), 0.95 * min(size))
        cut = Cut(size, sorted_range(faces), settings["on_a_face"], least)
        kinds.append(BatchKind(cut, batch["pictures"], batch["share"]))
    return kinds


def _size_label(model: Model, recipe: Recipe) -> str | None:
    label = recipe.validate.size
    if label == "input":
        return next(iter(model.sizes))
    if label is not None:
        try:
            model.size(label)
        except KilnError as error:
            raise KilnError(error.what, file=f"recipe '{recipe.title}'", where="validate.size") from None
    return label


class DetectionTask:
    """See `facekiln.training.task.Task`."""

    goals: tuple[str, ...] = ("ap",)

    def __init__(self, model: Model, recipe: Recipe, train: Pool, held_out: Pool) -> None:
        """Plan the training of a detector.

        Raises:
            KilnError: the model has no priors, or not the size that it shall be judged at.
        """
        if model.priors is None:
            raise KilnError("has no priors: no detector to train", file=f"config/models/{model.name}.yaml")
        settings = recipe.settings
        self._model, self._seed, self._train, self._held_out = model, recipe.seed, train, held_out
        self._threshold, self._size = settings["score_threshold"], _size_label(model, recipe)
        self._kinds = batch_kinds(settings)
        self._priors = [make_priors(model.priors, kind.cut.size) for kind in self._kinds]
        self._prior_boxes = [corners(priors) for priors in self._priors]
        self._variances = model.priors.variances
        self._matching = Matching(**settings["matching"])
        self._weights = LossWeights(**settings["loss"])
        self._pictures = PictureCache()
        self._plan = Plan(
            recipe.seed,
            [(kind.pictures, kind.share) for kind in self._kinds],
            train.counts,
            steps=recipe.steps,
            epochs=recipe.epochs,
            shares=train.shares,
        )
        self.steps, self.epoch_steps = self._plan.steps, self._plan.epoch_steps

    def start(self, network: nn.Module) -> None:
        """Leave the network as it is."""

    def batch(self, step: int) -> Arrays:
        """Return images [B,3,h,w], labels int8 [B,N], loc [B,N,4], landms [B,N,10], pointed bool [B,N]."""
        kind = self._plan.kind(step)
        rng = np.random.default_rng([self._seed, 2, step])
        return stack([self._sample(rng, index, kind) for index in self._plan.samples(step)])

    def _sample(self, rng: np.random.Generator, index: int, kind: int) -> Arrays:
        sample, cut = self._train[index], self._kinds[kind].cut
        crop = make_crop(rng, sample, lambda scale: self._pictures.load(index, sample, scale), cut)
        pixels = np.array(cut.size[::-1], float)
        targets = match(
            crop.boxes / np.tile(pixels, 2),
            crop.landmarks / pixels,
            crop.ignored / np.tile(pixels, 2),
            self._priors[kind],
            self._prior_boxes[kind],
            self._variances,
            self._matching,
        )
        return {IMAGES: to_tensor(crop.image, self._model.input)[0], **vars(targets)}

    def loss(self, outputs: tuple[Tensor, ...], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weighted losses of boxes, scores and landmarks (see `multi_box_loss`)."""
        by_role = {ROLES[value.shape[-1]]: value for value in outputs}
        return multi_box_loss(by_role, batch, self._weights)

    def judge(self, network: nn.Module) -> dict[str, Any]:
        """Return the figures of `facekiln.training.held_out.evaluate`."""
        return evaluate(network, self._model, self._held_out, self._threshold, self._size)
