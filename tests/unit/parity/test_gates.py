"""Gates: what fails, what warns."""

from facekiln.parity.agreement import Agreement
from facekiln.parity.gates import judge_differences, judge_faces, judge_outputs, stops
from facekiln.parity.measure import Measure

GOOD = Measure(cosine=0.9999, max_abs=0.1, max_rel=1e-5, sqnr_db=40)
BAD = Measure(cosine=0.8, max_abs=9.0, max_rel=0.3, sqnr_db=4)


def test_each_limit_that_is_given_is_judged() -> None:
    gates = judge_outputs({"loc": GOOD, "conf": BAD}, {"cosine": 0.99, "max_rel": 1e-4}, "onnxruntime")
    assert [(gate.name, gate.verdict) for gate in gates] == [
        ("onnxruntime loc cosine", "passed"),
        ("onnxruntime loc max error of scale", "passed"),
        ("onnxruntime conf cosine", "failed"),
        ("onnxruntime conf max error of scale", "failed"),
    ]


def test_a_warning_does_not_fail() -> None:
    gates = judge_outputs({"loc": BAD}, {"warn_cosine": 0.95}, "nnie")
    assert [gate.verdict for gate in gates] == ["warned"]
    assert judge_outputs({"loc": GOOD}, {"warn_cosine": 0.95}, "nnie") == []


def test_zero_detections_where_the_parent_has_some_fail() -> None:
    limits = {"found": 0.9, "invented": 0.1, "mean_iou": 0.8}
    gates = judge_faces(Agreement(parent=5, child=0, found=0.0, invented=0.0, mean_iou=1.0), limits, "nnie")
    assert [gate.verdict for gate in gates] == ["failed", "passed", "passed"]


LIMITS = {"found": 0.9, "invented": 0.1, "mean_iou": 0.8}
NOTHING = Agreement(parent=0, child=0, found=1.0, invented=0.0, mean_iou=1.0)


def test_no_face_in_the_parent_is_no_pass() -> None:
    assert [gate.verdict for gate in judge_faces(NOTHING, LIMITS, "nnie")] == ["skipped"]
    told = judge_faces(NOTHING, LIMITS, "nnie", alone=True)
    assert [(gate.name, gate.value, gate.verdict) for gate in told] == [
        ("nnie faces in the parent", 0.0, "warned")
    ]
    inventing = Agreement(parent=0, child=3, found=1.0, invented=1.0, mean_iou=1.0)
    for alone in (False, True):
        gates = judge_faces(inventing, LIMITS, "nnie", alone=alone)
        assert [(gate.name, gate.verdict) for gate in gates] == [("nnie faces invented", "failed")]


def test_limits_that_warn_only_stop_nothing() -> None:
    assert not stops({"warn_cosine": 0.95, "faces": LIMITS})
    assert stops({"cosine": 0.98})
    assert stops({"max_rel": 0.1})


def test_landmarks_that_nothing_judges_are_told() -> None:
    good, poor = {"pose": 0.99}, {"pose": 0.2}
    verdicts = [judge_differences(one, {"differences": 0.9}, "nnie")[0].verdict for one in (good, poor, {})]
    assert verdicts == ["passed", "failed", "warned"]
    assert judge_differences(good, {"warn_cosine": 0.95}, "nnie")[0].verdict == "warned"
    assert judge_differences(good, {"cosine": 0.9999}, "onnxruntime") == []
