"""Batches of crops with their targets, made by one thread ahead of the training loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekiln.config import Input, Priors
from facekiln.data.procedural import Scene
from facekiln.training.crops import make_crop
from facekiln.training.matching import match
from facekiln.training.recipe import Batch, Recipe
from facekiln.vision.preprocess import to_tensor
from facekiln.vision.priors import make_priors

_AHEAD = 3


@dataclass(frozen=True)
class Arrays:
    """One batch: images float32 [B,3,side,side]; labels int8 [B,N], loc [B,N,4], landms [B,N,10] float32."""

    images: NDArray[np.float32]
    labels: NDArray[np.int8]
    loc: NDArray[np.float32]
    landms: NDArray[np.float32]


class BatchMaker:
    """Makes the batch of any step; the same step gives the same batch."""

    def __init__(self, recipe: Recipe, scenes: list[Scene], declared: Input, priors: Priors) -> None:
        self.recipe, self.scenes, self.declared = recipe, scenes, declared
        self.variances = priors.variances
        self.priors = {batch.side: make_priors(priors, (batch.side, batch.side)) for batch in recipe.batches}
        shares = np.array([batch.share for batch in recipe.batches])
        self.shares = shares / shares.sum()

    def kind(self, step: int) -> Batch:
        """Return the kind of a step's batch."""
        rng = np.random.default_rng([self.recipe.seed, 1, step])
        return self.recipe.batches[int(rng.choice(len(self.shares), p=self.shares))]

    def make(self, step: int) -> Arrays:
        """Return a step's batch."""
        kind, settings = self.kind(step), self.recipe.matching
        rng = np.random.default_rng([self.recipe.seed, 2, step])
        images, targets = [], []
        for index in rng.integers(len(self.scenes), size=kind.pictures).tolist():
            crop = make_crop(rng, self.scenes[index], kind.side, settings.least_face)
            images.append(to_tensor(crop.image, self.declared))
            side = float(kind.side)
            targets.append(
                match(
                    crop.boxes / side,
                    crop.landmarks / side,
                    crop.ignored / side,
                    self.priors[kind.side],
                    self.variances,
                    settings,
                )
            )
        return Arrays(
            np.concatenate(images),
            np.stack([target.labels for target in targets]),
            np.stack([target.loc for target in targets]),
            np.stack([target.landms for target in targets]),
        )

    def __iter__(self) -> Iterator[Arrays]:
        """Yield the batches of all steps in order, a few of them made ahead by a thread."""
        steps = iter(range(self.recipe.steps))
        with ThreadPoolExecutor(1) as thread:
            waiting: deque[Future[Arrays]] = deque()
            try:
                while True:
                    while len(waiting) < _AHEAD and (step := next(steps, None)) is not None:
                        waiting.append(thread.submit(self.make, step))
                    if not waiting:
                        return
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
