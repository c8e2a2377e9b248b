"""The training of a landmark model: crops of one face each, PFPLD's or PFLD's loss, NME on held-out faces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from facekiln.config import Crop, Model, known
from facekiln.errors import KilnError
from facekiln.models.pfpld import PFPLD
from facekiln.progress import log
from facekiln.training.landmark_crops import training_crop
from facekiln.training.landmark_faces import FaceTable, rarity, table_of
from facekiln.training.landmark_judge import evaluate
from facekiln.training.landmark_losses import LOSSES, Truth
from facekiln.training.landmark_settings import make_settings
from facekiln.training.pictures import PictureCache
from facekiln.training.plan import Plan
from facekiln.training.recipe import Recipe
from facekiln.training.sources import Pool
from facekiln.training.task import IMAGES, Arrays, stack
from facekiln.vision.preprocess import to_tensor

if TYPE_CHECKING:
    from torch import Tensor, nn


class LandmarkTask:
    """See `facekiln.training.task.Task`."""

    goals: tuple[str, ...] = ("nme", "failure_rate", "auc", "pose_mae_deg")

    def __init__(self, model: Model, recipe: Recipe, train: Pool, held_out: Pool) -> None:
        """Plan the training of a landmark model.

        Raises:
            KilnError: the model declares no crop or several sizes, `closed_eyes` names a dataset that is not
                trained on, or no face is left.
        """
        self._settings = make_settings(recipe.settings)
        self._model, self._seed, self._train, self._held_out = model, recipe.seed, train, held_out
        crop, self._side = _crop_and_side(model)
        self._goal, self._title = recipe.goal.metric, f"recipe '{recipe.title}'"
        self._pictures = PictureCache()
        names = [source.dataset or "" for source in recipe.train]
        for name in self._settings.closed_eyes:
            known(name, [name for name in names if name], "dataset of this recipe's `train`")
        self._faces = table_of(
            train,
            crop,
            self._settings.crop,
            least_face=self._settings.least_face,
            closed_only=[at for at, name in enumerate(names) if name in self._settings.closed_eyes],
        )
        self._judged = table_of(held_out, crop, self._settings.crop)
        _check(self._faces, self._judged, recipe, names)
        weights = self._faces.balance.weights
        log.info("%d faces to learn:\n%s", len(self._faces), self._faces.balance.text().rstrip())
        self._rarity = rarity(self._faces.balance)
        self._plan = Plan(
            recipe.seed,
            [(self._settings.pictures, 1.0)],
            self._faces.counts,
            steps=recipe.steps,
            epochs=recipe.epochs,
            shares=train.shares,
            weights=weights if self._settings.balance else None,
        )
        self.steps, self.epoch_steps = self._plan.steps, self._plan.epoch_steps

    def start(self, network: nn.Module) -> None:
        """Let a fresh network start from the mean face of the training faces, as their crops show it."""
        faces = self._faces
        shares = (faces.points - faces.squares[:, None, :2]) / faces.squares[:, None, 2:] + 0.5
        known = ~np.isnan(shares)
        mean = np.where(known, shares, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        mean[~known.any(axis=0)] = 0.5
        if isinstance(network, PFPLD):
            network.start_from(torch.from_numpy(mean.ravel()).float())

    def batch(self, step: int) -> Arrays:
        """Return images [B,3,h,w], points [B,98,2] (shares), pose [B,3], flags int64 [B], rarity [B]."""
        rng = np.random.default_rng([self._seed, 2, step])
        return stack([self._row(rng, face) for face in self._plan.samples(step)])

    def _row(self, rng: np.random.Generator, face: int) -> Arrays:
        faces, number = self._faces, int(self._faces.samples[face])
        sample = self._train[number]
        picture = self._pictures.load(number, sample, self._side / faces.squares[face, 2])
        # A picture may be decoded at a fraction of its size.
        scale = picture.shape[1] / sample.size[1] if sample.size else 1.0
        crop = training_crop(
            rng,
            picture,
            faces.squares[face] * scale,
            faces.points[face] * scale,
            faces.pose[face],
            self._side,
            self._settings,
        )
        return {
            IMAGES: to_tensor(crop.image, self._model.input)[0],
            "points": crop.points.astype(np.float32),
            "pose": crop.pose.astype(np.float32),
            "flags": np.asarray(faces.flags[face]),
            "rarity": np.asarray(self._rarity[face], np.float32),
        }

    def loss(self, outputs: tuple[Tensor, ...], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parts of the declared loss (`facekiln.training.landmark_losses`)."""
        pose, points = sorted(outputs, key=lambda value: value.shape[1])
        truth = Truth(batch["points"], batch["pose"], batch["flags"], batch["rarity"])
        declared = self._settings.loss
        placed = points.float().reshape(len(points), -1, 2)
        return LOSSES[declared.kind](placed, pose.float(), truth, self._side, declared)

    def judge(self, network: nn.Module) -> dict[str, Any]:
        """Return the figures of `facekiln.training.landmark_judge.evaluate`.

        Raises:
            KilnError: the recipe's goal is a figure that the held-out faces do not tell.
        """
        figures = evaluate(network, self._model, self._held_out, self._judged, self._side)
        if figures.get(self._goal) is None:
            raise KilnError(
                "no held-out face tells this figure",
                file=self._title,
                where=f"goal.{self._goal}",
                limit=", ".join(name for name, value in figures.items() if value is not None),
            )
        return figures


def _crop_and_side(model: Model) -> tuple[Crop, int]:
    file = f"config/models/{model.name}.yaml"
    if model.crop is None:
        raise KilnError("has no crop: no landmark model to train", file=file, where="crop")
    sizes = set(model.sizes.values())
    height, width = next(iter(sizes))
    if len(sizes) > 1 or height != width:
        raise KilnError(
            "a landmark model is trained at one square size", file=file, where="sizes", value=sorted(sizes)
        )
    return model.crop, height


def _check(faces: FaceTable, judged: FaceTable, recipe: Recipe, names: list[str]) -> None:
    for count, name in zip((*faces.counts, len(judged)), (*names, "validate"), strict=True):
        if not count:
            raise KilnError(
                "holds no face with landmarks or a pose that may be learned",
                file=f"recipe '{recipe.title}'",
                where=name or "train",
                limit="a square of `least_face` pixels; a closed eye where `closed_eyes` says so",
            )
