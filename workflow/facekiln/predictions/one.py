"""One picture through a stage: prepared, run, and turned into predictions in the picture's own pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from facekiln.config import Model
from facekiln.data.sample import Sample
from facekiln.errors import KilnError
from facekiln.parity.executors import Arrays, Picture, Stage
from facekiln.predictions.settings import Inference
from facekiln.predictions.store import Predictions
from facekiln.progress import log
from facekiln.vision.detect import faces_from_outputs
from facekiln.vision.landmarks import Landmarks, Square, cut, landmarks_from_outputs, square_around
from facekiln.vision.preprocess import Fit

# Quantised softmax may leave 0..1 by a little; raw scores leave it by far.
_SCORE_SLACK = 0.05


@dataclass(frozen=True, eq=False)
class Prepared:
    """A sample whose network inputs are ready.

    Attributes:
        sample: the sample.
        inputs: uint8 BGR pictures at the network's size: one, or one per face (None: no square can be cut).
        back: how to go back to the picture: one `Fit`, or a `Square` per face.
    """

    sample: Sample
    inputs: list[Picture | None]
    back: list[Any]


def prepare(sample: Sample, model: Model, inference: Inference) -> Prepared:
    """Read a sample's picture and bring it, or the squares around its faces, to the network's input.

    Raises:
        KilnError: the picture is missing or damaged; names the file.
    """
    image = sample.load()
    if not inference.landmarks:
        fitted, how = inference.resize(image)
        return Prepared(sample, [fitted], [how])
    assert model.crop is not None
    assert inference.resize.size is not None
    inputs: list[Picture | None] = []
    squares: list[Square | None] = []
    for box in sample.boxes:
        try:
            square = square_around(box, model.crop)
            inputs.append(cut(image, square, inference.resize.size, inference.resize.interpolation))
            squares.append(square)
        except KilnError:  # a box without area, or far larger than the picture
            inputs.append(None)
            squares.append(None)
    return Prepared(sample, inputs, squares)


class OnePicture:
    """A stage with its model and settings: prepared samples in, predictions of one picture out."""

    def __init__(self, stage: Stage, model: Model, inference: Inference) -> None:
        self._stage, self.model, self.inference = stage, model, inference
        self._turn: Callable[[Prepared], Predictions] = self._points if inference.landmarks else self._faces
        self._told = False
        # Faces around which no square can be cut.
        self.lost = 0
        # Tells how many points there are, and whether a pose, where a picture has no face to show it.
        self._blank = self._of_nothing() if inference.landmarks else None

    def __call__(self, prepared: Prepared) -> Predictions:
        """Return one picture's predictions, `meta` being empty.

        Raises:
            KilnError: the stage cannot run the picture; names it.
        """
        return self._turn(prepared)

    def _faces(self, prepared: Prepared) -> Predictions:
        (fitted,), (how,) = prepared.inputs, prepared.back
        assert fitted is not None
        assert isinstance(how, Fit)
        outputs = self._run(fitted, prepared.sample)
        self._look(outputs)
        scale = (how.x_scale, how.y_scale)
        faces = faces_from_outputs(outputs, self.model, fitted.shape[:2], self.inference.decode, scale)
        return Predictions(
            images=(prepared.sample.source,),
            counts=np.array([len(faces)], np.int64),
            boxes=faces.boxes,
            scores=faces.scores,
            points=faces.landmarks if faces.landmarks.shape[1] else None,
            pose=None,
            meta={},
        )

    def _points(self, prepared: Prepared) -> Predictions:
        assert self._blank is not None
        found: list[Landmarks] = []
        for cropped, square in zip(prepared.inputs, prepared.back, strict=True):
            if cropped is None:
                self.lost += 1
                found.append(self._blank)
            else:
                outputs = self._run(cropped, prepared.sample)
                found.append(landmarks_from_outputs(outputs, self.model, square))
        points = np.array([each.points for each in found], np.float32)
        pose = np.array([each.pose for each in found if each.pose is not None], np.float32)
        return Predictions(
            images=(prepared.sample.source,),
            counts=np.array([len(found)], np.int64),
            boxes=prepared.sample.boxes.astype(np.float32),
            scores=np.ones(len(found), np.float32),
            points=points.reshape(len(found), *self._blank.points.shape),
            pose=None if self._blank.pose is None else np.radians(pose.reshape(-1, 3)),
            meta={},
        )

    def _of_nothing(self) -> Landmarks:
        """Return the answer to a black square, all of it NaN."""
        size = self.inference.resize.size
        assert size is not None
        outputs = self._stage.run(np.zeros((*size, 3), np.uint8))
        shown = landmarks_from_outputs(outputs, self.model, Square(0, 0, 1))
        pose = None if shown.pose is None else np.full_like(shown.pose, np.nan)
        return Landmarks(np.full_like(shown.points, np.nan), pose)

    def _run(self, picture: Picture, sample: Sample) -> Arrays:
        try:
            return self._stage.run(picture)
        except KilnError:
            raise
        except Exception as error:  # each runtime raises types of its own
            height, width = picture.shape[:2]
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise KilnError(
                f"cannot run a {height}x{width} picture: {reason}",
                file=sample.source,
                where=self._stage.name,
                hint="is this the size that the artifact was built for?",
            ) from error

    def _look(self, outputs: Arrays) -> None:
        """Tell once where scores are not 0..1."""
        if self._told:
            return
        for name in self.model.outputs:
            value = outputs.get(name)
            if value is not None and value.shape[-1] == 2 and value.size:
                low, high = float(value.min()), float(value.max())
                if low < -_SCORE_SLACK or high > 1 + _SCORE_SLACK:
                    self._told = True
                    log.warning(
                        "%s: scores are %.3g to %.3g, not 0..1: is a softmax missing?",
                        self._stage.name,
                        low,
                        high,
                    )
