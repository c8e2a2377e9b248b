"""From raw outputs to faces: order of the steps, and outputs that do not belong."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facekiln.config import Decode, Model, load_config
from facekiln.errors import KilnError
from facekiln.vision.decode import encode_boxes, encode_landmarks
from facekiln.vision.detect import faces_from_outputs
from facekiln.vision.priors import make_priors

SIZE = (96, 128)


@pytest.fixture(scope="module")
def model(root: Path) -> Model:
    return load_config(root / "config").model("retinaface")


Outputs = dict[str, np.ndarray]
Plant = Callable[..., Outputs]


@pytest.fixture
def plant(model: Model) -> Plant:
    """Return a function that makes outputs holding given faces: (prior index, score, box in pixels)."""
    assert model.priors
    priors = make_priors(model.priors, SIZE)
    variances = model.priors.variances

    def make(*faces: tuple[int, float, list[float]]) -> Outputs:
        outputs = {
            "loc": np.zeros((1, len(priors), 4), np.float32),
            "conf": np.tile(np.float32([1, 0]), (1, len(priors), 1)),
            "landms": np.zeros((1, len(priors), 10), np.float32),
        }
        scale = np.float32([SIZE[1], SIZE[0]])
        for index, score, box in faces:
            share = np.float32(box)[None] / np.tile(scale, 2)
            points = np.linspace(share[:, :2], share[:, 2:], 5, axis=1)
            outputs["conf"][0, index] = (1 - score, score)
            outputs["loc"][0, index] = encode_boxes(share, priors[[index]], variances)
            outputs["landms"][0, index] = encode_landmarks(points, priors[[index]], variances)
        return outputs

    return make


def test_a_face_comes_out_in_pixels_of_the_input(model: Model, plant: Plant) -> None:
    faces = faces_from_outputs(plant((100, 0.9, [10, 20, 42, 60])), model, SIZE)
    assert len(faces) == 1
    assert np.allclose(faces.boxes, [[10, 20, 42, 60]], atol=1e-3)
    assert np.allclose(faces.scores, [0.9])
    assert np.allclose(faces.landmarks[0, [0, 4]], [[10, 20], [42, 60]], atol=1e-3)
    assert {value.dtype for value in (faces.boxes, faces.scores, faces.landmarks)} == {np.dtype(np.float32)}


def test_best_first_and_overlaps_fall(model: Model, plant: Plant) -> None:
    outputs = plant((0, 0.6, [80, 50, 100, 80]), (10, 0.7, [10, 10, 40, 50]), (20, 0.9, [12, 12, 42, 52]))
    faces = faces_from_outputs(outputs, model, SIZE)
    assert np.allclose(faces.scores, [0.9, 0.6])
    assert np.allclose(faces.boxes[0], [12, 12, 42, 52], atol=1e-3)
    assert np.allclose(faces.landmarks[1, 0], [80, 50], atol=1e-3)


def test_a_score_equal_to_the_threshold_is_no_face(model: Model, plant: Plant) -> None:
    outputs = plant((0, 0.5, [0, 0, 20, 20]), (50, 0.5 + 1e-6, [50, 50, 90, 90]))
    assert len(faces_from_outputs(outputs, model, SIZE)) == 1


def test_thresholds_come_from_the_model_unless_given(model: Model, plant: Plant) -> None:
    outputs = plant((0, 0.4, [0, 0, 20, 20]), (50, 0.9, [50, 50, 90, 90]))
    assert len(faces_from_outputs(outputs, model, SIZE)) == 1
    assert len(faces_from_outputs(outputs, model, SIZE, Decode(score_threshold=0.1))) == 2
    lower = replace(model, decode=Decode(score_threshold=0.1))
    assert len(faces_from_outputs(outputs, lower, SIZE)) == 2


def test_top_k_is_before_suppression_and_keep_after(model: Model, plant: Plant) -> None:
    outputs = plant((0, 0.9, [10, 10, 40, 50]), (10, 0.8, [11, 11, 41, 51]), (20, 0.7, [80, 50, 100, 80]))
    assert np.allclose(faces_from_outputs(outputs, model, SIZE, Decode(top_k=2)).scores, [0.9])
    assert np.allclose(faces_from_outputs(outputs, model, SIZE, Decode(keep=2)).scores, [0.9, 0.7])
    assert np.allclose(faces_from_outputs(outputs, model, SIZE, Decode(keep=1)).scores, [0.9])


def test_no_face_is_an_answer(model: Model, plant: Plant) -> None:
    faces = faces_from_outputs(plant(), model, SIZE)
    assert (faces.boxes.shape, faces.scores.shape, faces.landmarks.shape) == ((0, 4), (0,), (0, 5, 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e9])
def test_values_that_are_not_finite_are_no_face(model: Model, plant: Plant, bad: float) -> None:
    outputs = plant((0, 0.9, [10, 10, 40, 50]), (20, 0.7, [80, 50, 100, 80]))
    outputs["loc"][0, 0, 2] = bad
    assert np.allclose(faces_from_outputs(outputs, model, SIZE).scores, [0.7])
    outputs["conf"][0, 20] = np.nan
    assert len(faces_from_outputs(outputs, model, SIZE)) == 0


def test_outputs_may_have_any_names_and_order(model: Model, plant: Plant) -> None:
    # Exporters that name only the first output leave numbers for the rest (1MB issue 4: 585, 586).
    outputs = plant((100, 0.9, [10, 20, 42, 60]))
    renamed = replace(model, outputs=("586", "output0", "585"))
    values = {
        "586": outputs["landms"],
        "585": outputs["conf"],
        "output0": outputs["loc"],
        "other": np.zeros(3),
    }
    assert np.allclose(faces_from_outputs(values, renamed, SIZE).boxes, [[10, 20, 42, 60]], atol=1e-3)


def test_landmarks_may_be_missing(model: Model, plant: Plant) -> None:
    outputs = plant((100, 0.9, [10, 20, 42, 60]))
    faces = faces_from_outputs(outputs, replace(model, outputs=("loc", "conf")), SIZE)
    assert (len(faces), faces.landmarks.shape) == (1, (1, 0, 2))


def test_outputs_of_another_size_are_refused(model: Model, plant: Plant) -> None:
    with pytest.raises(
        KilnError, match=r"does not fit the priors of model 'retinaface' at 640x640.*16800 priors"
    ):
        faces_from_outputs(plant(), model, (640, 640))


def test_outputs_that_are_missing_or_of_another_kind_are_refused(model: Model, plant: Plant) -> None:
    outputs = plant()
    with pytest.raises(KilnError, match="output 'conf' is missing"):
        faces_from_outputs({"loc": outputs["loc"]}, model, SIZE)
    with pytest.raises(KilnError, match=r"no output holds scores"):
        faces_from_outputs(outputs, replace(model, outputs=("loc", "landms")), SIZE)
    three_classes = {**outputs, "conf": np.zeros((1, outputs["loc"].shape[1], 3), np.float32)}
    with pytest.raises(KilnError, match="output 'conf' is not of one picture's boxes, scores or landmarks"):
        faces_from_outputs(three_classes, model, SIZE)
    two_pictures = {name: np.concatenate([value, value]) for name, value in outputs.items()}
    with pytest.raises(KilnError, match="not of one picture"):
        faces_from_outputs(two_pictures, model, SIZE)


def test_a_model_without_priors_finds_no_faces(model: Model, plant: Plant) -> None:
    with pytest.raises(KilnError, match="has no priors"):
        faces_from_outputs(plant(), replace(model, priors=None), SIZE)
