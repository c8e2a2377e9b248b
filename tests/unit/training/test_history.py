"""Histories: means of the steps, the same picture for the same course."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facekiln.training.history import History


def course(steps: int, judged: bool = True) -> History:
    history = History(steps)
    for step in range(steps):
        history.add(step, 0.01, {"boxes": 2.0 / (step + 1), "scores": 1.0})
        if judged and (step + 1) % 100 == 0:
            history.judge(step + 1, {"ap": step / steps, "faces": 3})
    return history


def test_each_point_is_the_mean_since_the_last() -> None:
    history = course(1200)
    assert len(history.curve) == 400 and history.curve[-1]["step"] == 1200
    first = history.curve[0]
    assert first["boxes"] == pytest.approx(2 * (1 + 1 / 2 + 1 / 3) / 3, abs=1e-5)
    assert first["loss"] == pytest.approx(first["boxes"] + first["scores"], abs=1e-5)
    assert history.last_loss() == pytest.approx(1.0, abs=0.01)


def test_the_rest_of_a_course_that_ends_early_is_kept() -> None:
    history = course(1200, judged=False)
    history.add(1200, 0.1, {"boxes": 8.0})
    history.close(1201)
    assert history.curve[-1]["step"] == 1201 and history.curve[-1]["boxes"] == 8.0
    only = History(5000)
    only.add(0, 0.1, {"boxes": 2.0})
    only.close(1)
    assert only.last_loss() == 2.0


def test_a_short_course_has_every_step() -> None:
    assert [point["step"] for point in course(3).curve] == [1, 2, 3]


def test_it_goes_on_from_its_state() -> None:
    half = course(7)
    again = History(**half.state())
    for history in (half, again):
        history.add(6, 0.1, {"boxes": 1.0})
    assert again.record() == half.record()


@pytest.mark.parametrize("judged", [True, False])
def test_its_picture_is_the_same_every_time_and_not_empty(judged: bool) -> None:
    one, two = (course(500, judged).picture("title", "ap") for _ in range(2))
    assert one == two
    picture = cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape[1] == 900 and picture.std() > 5


def test_a_course_without_steps_has_a_picture_too() -> None:
    assert History(10).picture("nothing", "ap").startswith(b"\x89PNG")
