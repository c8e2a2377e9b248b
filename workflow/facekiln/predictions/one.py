"""One picture through a stage: prepared, run, and turned into predictions in the picture's own pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from facekiln.config import Model
from facekiln.data.sample import Sample
from facekiln.errors import KilnError
from facekiln.parity.executors import Arrays, BatchStage, Picture, Stage
from facekiln.predictions.settings import Inference
from facekiln.predictions.store import Predictions
from facekiln.progress import log
from facekiln.vision.detect import faces_from_outputs
from facekiln.vision.landmarks import Landmarks, Square, cut, landmarks_from_outputs, square_around
from facekiln.vision.preprocess import Fit

# Quantised softmax may leave 0..1 by a little; raw scores leave it by far.
_SCORE_SLACK = 0.05
Ran = TypeVar("Ran")


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
        # Pictures that the stage takes at once; faces of a landmark model are its pictures.
        self._places = stage.batch if isinstance(stage, BatchStage) else 1
        self.batch = 1 if inference.landmarks else self._places
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

    def several(self, prepared: Sequence[Prepared], place: int) -> list[Predictions]:
        """Return the predictions of at most `batch` pictures, run at once.

        Args:
            prepared: consecutive pictures of a dataset.
            place: of the first of them in the batch; what is before and behind them is black.

        Raises:
            KilnError: the stage cannot run them; names the first.
        """
        if self.batch == 1:
            return [self(one) for one in prepared]
        inputs = [one.inputs[0] for one in prepared]
        outputs = self._run_at_once([*[None] * place, *inputs], prepared[0].sample)
        return [self._found(*pair) for pair in zip(outputs, prepared, strict=True)]

    def _faces(self, prepared: Prepared) -> Predictions:
        (fitted,) = prepared.inputs
        assert fitted is not None
        return self._found(self._run(fitted, prepared.sample), prepared)

    def _found(self, outputs: Arrays, prepared: Prepared) -> Predictions:
        (fitted,), (how,) = prepared.inputs, prepared.back
        assert fitted is not None
        assert isinstance(how, Fit)
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
        outputs = iter(self._run_places([one for one in prepared.inputs if one is not None], prepared.sample))
        for cropped, square in zip(prepared.inputs, prepared.back, strict=True):
            if cropped is None:
                self.lost += 1
                found.append(self._blank)
            else:
                found.append(landmarks_from_outputs(next(outputs), self.model, square))
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
        return self._told_run(lambda: self._stage.run(picture), picture, sample)

    def _run_at_once(self, pictures: Sequence[Picture | None], sample: Sample) -> list[Arrays]:
        stage = self._stage
        assert isinstance(stage, BatchStage)
        first = next(picture for picture in pictures if picture is not None)
        return self._told_run(lambda: stage.run_batch(pictures), first, sample)

    def _run_places(self, pictures: Sequence[Picture], sample: Sample) -> Iterator[Arrays]:
        """Run pictures, as many at once as the stage takes."""
        for start in range(0, len(pictures), self._places):
            part = pictures[start : start + self._places]
            if self._places > 1:
                yield from self._run_at_once(part, sample)
            else:
                yield self._run(part[0], sample)

    def _told_run(self, run: Callable[[], Ran], picture: Picture, sample: Sample) -> Ran:
        try:
            return run()
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
