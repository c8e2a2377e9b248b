"""The gate that looks at a quantised file before it is written; figures are measured ones."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facekiln.config import Model, load_config
from facekiln.errors import GateError
from facekiln.fingerprint import modules_behind
from facekiln.parity.measure import measure
from facekiln.parity.sight import (
    cosine_of_differences,
    judge_sight,
    measure_sight,
    told_sight,
)
from facekiln.parity.sight_limits import SightLimits
from facekiln.vision.priors import make_priors

LIMITS = SightLimits(0.8, 0.2, 0.9, 16)
SIZE = (240, 320)


def _figures(parent: int, child: int, found: float, invented: float) -> dict[str, object]:
    faces = {"parent": parent, "child": child, "found": found, "invented": invented, "mean_iou": 0.9}
    return {"faces": faces, "cosine": {"scores": 0.999}, "pictures": 24}


@pytest.mark.parametrize(
    ("parent", "child", "found", "invented", "told"),
    [
        # Tengine's int8 by KL on 24 pictures: RFB-320 and slim-320. Cosines of scores were 0.987 to 0.994.
        (581, 0, 0.0, 0.0, "gone blind"),
        (45, 2, 0.133, 0.0, "gone blind"),
        # ncnn's int8 by min-max, RetinaFace 640.
        (48, 30, 0.6, 0.04, "gone blind"),
        # Tengine's int8 by min-max, RetinaFace 640 of the 1MB repository: as many faces, and more.
        (95, 141, 0.979, 0.34, "sees faces where"),
        (0, 3, 1.0, 1.0, "sees faces where"),
        (1, 0, 0.0, 0.0, "gone blind"),
    ],
)
def test_a_file_that_lost_or_invents_faces_is_refused(
    parent: int, child: int, found: float, invented: float, told: str
) -> None:
    with pytest.raises(GateError, match=told):
        judge_sight(_figures(parent, child, found, invented), LIMITS, "x", "hint")


@pytest.mark.parametrize(
    "figures",
    [_figures(68, 68, 0.971, 0.029), _figures(45, 47, 1.0, 0.021), _figures(85, 82, 0.965, 0.0)],
)
def test_a_file_that_sees_passes(figures: dict[str, object]) -> None:
    judge_sight(figures, LIMITS, "x", "hint")


def test_no_face_is_blindness_whatever_the_share() -> None:
    with pytest.raises(GateError):
        judge_sight(_figures(1, 0, 0.0, 0.0), replace(LIMITS, least_faces=0.0), "x", "hint")


def test_pictures_without_faces_prove_nothing_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    judge_sight(_figures(0, 0, 1.0, 0.0), LIMITS, "x", "hint")
    assert "proves nothing" in caplog.text


@pytest.mark.parametrize("cosines", [{"pose": 0.2, "landms": 0.999}, {"pose": float("nan")}])
def test_landmark_models_are_judged_by_cosine(cosines: dict[str, float]) -> None:
    judge_sight({"faces": None, "cosine": {"pose": 0.99, "landms": 0.999}}, LIMITS, "x", "hint")
    with pytest.raises(GateError, match="'pose'"):
        judge_sight({"faces": None, "cosine": cosines}, LIMITS, "x", "hint")


def test_one_mean_face_for_every_picture_is_blindness(root: Path) -> None:
    """Its plain cosine is far above the limit: landmarks are coordinates around the crop's middle."""
    landmarks = load_config(root / "config").model("ghostone")
    random = np.random.default_rng(5)
    middle = random.uniform(0.2, 0.8, (1, 196))
    answers = [(middle + random.normal(0, 0.05, middle.shape)).astype(np.float32) for _ in range(8)]
    feeds = [np.full((1, 3, 112, 112), number, np.float32) for number in range(8)]

    def real(feed: np.ndarray) -> dict[str, np.ndarray]:
        return {"output": answers[int(feed.flat[0])]}

    def rounded(feed: np.ndarray) -> dict[str, np.ndarray]:
        return {"output": np.round(real(feed)["output"] * 64) / 64}

    def blind(_: np.ndarray) -> dict[str, np.ndarray]:
        return {"output": middle.astype(np.float32)}

    assert min(measure(one, middle).cosine for one in answers) > 0.97
    judge_sight(measure_sight(real, rounded, feeds, landmarks, (112, 112)), LIMITS, "x", "hint")
    with pytest.raises(GateError, match="unlike"):
        judge_sight(measure_sight(real, blind, feeds, landmarks, (112, 112)), LIMITS, "x", "hint")


def test_where_all_pictures_are_alike_the_plain_cosine_counts() -> None:
    one = np.array([[1.0, 2.0]], np.float32)
    assert cosine_of_differences([(one, one)] * 3) == pytest.approx(1)
    assert cosine_of_differences([(one, np.array([[2.0, -1.0]], np.float32))]) == pytest.approx(0)
    assert cosine_of_differences([(one, one * np.nan), (one + 1, one)]) == 0


def test_an_answer_that_is_off_by_the_same_in_all_pictures_is_unlike() -> None:
    pairs = [(np.array([[value, -value]]), np.array([[value + 5, -value]])) for value in (-1.0, 0.0, 1.0)]
    assert cosine_of_differences(pairs) == pytest.approx(2 / math.sqrt(79), abs=1e-6)


@pytest.fixture
def model(root: Path) -> Model:
    return load_config(root / "config").model("ulfd_rfb_320")


def _outputs(model: Model, places: list[int], height: float) -> dict[str, np.ndarray]:
    assert model.priors
    count = len(make_priors(model.priors, SIZE))
    scores = np.zeros((1, count, 2), np.float32)
    scores[0, :, 0] = 1
    scores[0, places] = [1 - height, height]
    return {"scores": scores, "boxes": np.zeros((1, count, 4), np.float32)}


def test_as_many_faces_elsewhere_are_lost_and_invented(model: Model) -> None:
    """A count alone would pass them."""
    feed = np.zeros((1, 3, *SIZE), np.float32)
    real, other = _outputs(model, [4000, 4300], 0.9), _outputs(model, [3900, 4200], 0.9)
    figures = measure_sight(lambda _: real, lambda _: other, [feed], model, SIZE)
    assert figures["faces"] == {"parent": 2, "child": 2, "found": 0, "invented": 1, "mean_iou": 1}
    with pytest.raises(GateError):
        judge_sight(figures, LIMITS, "x", "hint")
    same = measure_sight(lambda _: real, lambda _: real, [feed], model, SIZE)
    judge_sight(same, LIMITS, "x", "hint")
    assert told_sight(same).startswith("100.0% of the fp32 file's 2 faces, 0.0% of 2 invented; on 1 ")


@pytest.mark.parametrize("chip", ["magicmind", "ncnn", "sophon", "tengine"])
def test_settings_hold_limits_without_depending_on_the_judge(chip: str) -> None:
    """Else a change of the judging would make again all that reads settings, float files too."""
    behind = modules_behind(f"facekiln.chips.{chip}.settings")
    assert "facekiln.parity.sight_limits" in behind
    assert "facekiln.parity.sight" not in behind


@pytest.mark.parametrize("step", ["transform", "calibrate", "plan", "compile_file", "twin"])
def test_only_the_gate_of_sophon_depends_on_the_judge(step: str) -> None:
    """The rule that compiles has the gate's fingerprint beside the compiler's."""
    assert "facekiln.parity.sight" not in modules_behind(f"facekiln.chips.sophon.{step}")
    assert "facekiln.parity.sight" in modules_behind("facekiln.chips.sophon.sight")
