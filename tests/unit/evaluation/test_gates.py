"""Gates: limits, verdict files, and the list that ends with the right exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from facekiln.cli import main
from facekiln.errors import GateError, KilnError
from facekiln.evaluation.gates import (
    Verdict,
    judge_accuracy,
    skipped,
    stop_if_failed,
    write_verdict,
)
from facekiln.evaluation.gates_list import (
    read_verdict,
    read_verdicts,
    refresh_summary,
    require_passed,
    summary,
    summary_html,
)
from facekiln.evaluation.stamp import Evaluation, read_evaluation, stamp_of, write_evaluation
from facekiln.verdict import at_least, at_most, worst

LIMITS = {
    "easy": {"warn": 0.5, "stop": 2.0},
    "medium": {"warn": 0.5, "stop": 2.0},
    "hard": {"warn": 1.0, "stop": 2.0},
    "nme": {"warn": 0.2, "stop": 1.0},
    "failure_rate": {"warn": 1.0, "stop": 4.0},
    "auc": {"warn": 2.0, "stop": 8.0},
}
META: dict[str, Any] = {
    "model": "retinaface",
    "artifact": "onnx/retinaface_640.sim.onnx",
    "artifact_sha256": "ab" * 32,
    "precision": "float",
    "backend": "onnxruntime",
    "backend_version": "1.20",
    "emulated": False,
    "dataset": "wider_val",
    "dataset_digest": "0123456789abcdef",
    "images": 3226,
    "resize": "letterbox",
    "interpolation": "linear",
    "size": [640, 640],
    "score_threshold": 0.02,
    "nms_iou": 0.4,
    "top_k": 5000,
    "keep": 750,
    "extent": 1,
    "nms_epsilon": 0.0,
}
INT8 = {
    "artifact": "nnie/retinaface_640.wk",
    "precision": "int8",
    "backend": "nnie-emulator",
    "emulated": True,
}


def _evaluation(folder: Path, name: str, *figures: float, **changes: Any) -> Evaluation:
    meta = {**META, **changes}
    stamp = stamp_of(meta, task="wider_ap", evaluator="port", evaluator_version="1", boxes="truncate")
    results = dict(zip(("easy", "medium", "hard"), figures, strict=True))
    write_evaluation(folder / name, stamp=stamp, subject=meta, results=results)
    return read_evaluation(folder / name)


@pytest.mark.parametrize(
    ("child", "verdict", "worst_drop"),
    [
        ((0.90, 0.88, 0.80), "passed", 0.0),
        ((0.92, 0.90, 0.82), "passed", -2.0),  # a gain is no loss
        ((0.895, 0.875, 0.79), "passed", 1.0),  # exactly the warning limits 0.5 / 0.5 / 1.0
        ((0.8949, 0.88, 0.80), "warned", 0.51),
        ((0.90, 0.88, 0.7899), "warned", 1.01),
        ((0.90, 0.86, 0.80), "warned", 2.0),  # exactly the stop
        ((0.90, 0.8599, 0.80), "failed", 2.01),
        ((0.90, 0.88, 0.7799), "failed", 2.01),
    ],
)
def test_drops_are_judged_in_points(
    tmp_path: Path, child: tuple[float, ...], verdict: str, worst_drop: float
) -> None:
    parent = _evaluation(tmp_path, "p.json", 0.90, 0.88, 0.80)
    judged = judge_accuracy(_evaluation(tmp_path, "c.json", *child, **INT8), parent, LIMITS)
    assert judged.verdict == verdict
    assert judged.value == pytest.approx(worst_drop)
    assert judged.emulated


def test_the_reason_names_every_figure_and_the_parent(tmp_path: Path) -> None:
    parent = _evaluation(tmp_path, "p.json", 0.90, 0.88, 0.80)
    judged = judge_accuracy(_evaluation(tmp_path, "c.json", 0.89, 0.88, 0.75, **INT8), parent, LIMITS)
    assert "easy +1.00 (warned), medium +0.00 (passed), hard +5.00 (failed)" in judged.reason
    assert "onnx/retinaface_640.sim.onnx (onnxruntime)" in judged.reason
    assert (judged.value, judged.limit) == (pytest.approx(5.0), 2.0)


def test_two_protocols_are_never_compared(tmp_path: Path) -> None:
    parent = _evaluation(tmp_path, "p.json", 0.90, 0.88, 0.80, score_threshold=0.5)
    with pytest.raises(KilnError, match="score_threshold"):
        judge_accuracy(_evaluation(tmp_path, "c.json", 0.90, 0.88, 0.80, **INT8), parent, LIMITS)


@pytest.mark.parametrize(
    ("child", "parent", "told"),
    [
        (INT8, {"model": "ulfd_rfb_320", "artifact": "onnx/ulfd_rfb_320.sim.onnx"}, "two models"),
        ({}, INT8, "no float parent's"),  # child and parent swapped
        (INT8, {**INT8, "artifact": "nnie/retinaface_640_int16.wk"}, "no float parent's"),
        (INT8, {"artifact": "onnx/retinaface_320.sim.onnx"}, "not made from"),
        (INT8, {"artifact": "torchscript/retinaface_640.pt"}, "not made from"),
        ({}, {}, "not made from"),
    ],
)
def test_a_loss_is_judged_against_a_float_stage_behind_it_only(
    tmp_path: Path, child: dict[str, Any], parent: dict[str, Any], told: str
) -> None:
    figures = (0.9, 0.88, 0.8)
    with pytest.raises(KilnError, match=told):
        judge_accuracy(
            _evaluation(tmp_path, "c.json", *figures, **child),
            _evaluation(tmp_path, "p.json", *figures, **parent),
            LIMITS,
        )


def test_any_float_ancestor_will_do(tmp_path: Path) -> None:
    child = _evaluation(tmp_path, "c.json", 0.9, 0.88, 0.8, **INT8)
    for artifact in ("caffe/retinaface_640.caffemodel", "checkpoints/retinaface.pth"):
        parent = _evaluation(tmp_path, "p.json", 0.9, 0.88, 0.8, artifact=artifact)
        assert judge_accuracy(child, parent, LIMITS).verdict == "passed"


def test_nothing_that_is_not_a_number_passes() -> None:
    nan = float("nan")
    assert at_least(nan, 0.0) == at_most(nan, 1.0) == "failed"
    assert at_most(0.5, 1.0, warn=0.4) == at_least(0.5, 0.4, warn=0.6) == "warned"
    assert worst(["passed", "skipped", "warned"]) == "warned"
    assert worst([]) == "skipped"


def _verdict(verdict: str) -> Verdict:
    return Verdict("golden", "onnx/x.onnx", verdict, 0.0, 1.0, "0 faces")


def test_a_failure_never_has_the_name_of_a_pass(tmp_path: Path) -> None:
    path = tmp_path / "golden" / "x.onnx.json"
    assert write_verdict(path, _verdict("passed")) == path
    failed = write_verdict(path, _verdict("failed"))
    assert failed.name == "x.onnx.failed.json"
    assert not path.exists()
    with pytest.raises(GateError, match="0 faces"):
        stop_if_failed(_verdict("failed"), failed)
    write_verdict(path, _verdict("warned"))
    assert not failed.exists()
    assert read_verdict(path) == _verdict("warned")
    stop_if_failed(_verdict("warned"), path)


def _parity(passed: bool) -> dict[str, Any]:
    return {
        "parent": {"path": "results/onnx/x.onnx"},
        "child": {"path": "results/caffe/x.caffemodel"},
        "passed": passed,
        "emulated": False,
        "gates": [
            {"name": "opencv loc cosine", "value": 1.0, "limit": 0.99, "verdict": "passed"},
            {"name": "opencv faces found", "value": 0.5, "limit": 1.0, "verdict": "failed"},
        ][: 1 if passed else 2],
    }


def test_the_list_holds_gates_and_parity_and_exits_accordingly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_verdict(tmp_path / "gates/golden/x.json", _verdict("passed"))
    write_verdict(tmp_path / "gates/batch/x.json", skipped("batch", "x.wk", "a fixed batch"))
    report = tmp_path / "parity/caffe/x.caffemodel.json"
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps(_parity(True)))
    listed, page = tmp_path / "gates/summary.json", tmp_path / "summary.html"
    assert main(["gate", "list", str(tmp_path), "--output", str(listed), "--page", str(page)]) == 0
    assert "a fixed batch" in page.read_text()
    assert json.loads(listed.read_text())["counts"] == {
        "passed": 2,
        "warned": 0,
        "unproven": 0,
        "failed": 0,
        "skipped": 1,
    }
    report.with_name("x.caffemodel.failed.json").write_text(json.dumps(_parity(False)))
    capsys.readouterr()
    assert main(["gate", "list", str(tmp_path), "--output", str(listed)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("FAILED   parity     results/caffe/x.caffemodel: against results/onnx/x.onnx")
    assert "opencv faces found 0.5, limit 1" in lines[0]
    assert lines[-1] == "4 gates: 1 failed, 0 warned, 2 passed, 1 skipped"
    assert not json.loads(listed.read_text())["passed"]
    assert "<b>FAILED</b>" in summary_html(json.loads(listed.read_text()))


def test_what_is_no_verdict_is_named(tmp_path: Path) -> None:
    (tmp_path / "gates").mkdir()
    (tmp_path / "gates/x.json").write_text('{"a": 1}')
    with pytest.raises(KilnError, match=r"x\.json: is no gate's verdict"):
        read_verdicts(tmp_path)
    with pytest.raises(KilnError, match="no gates/"):
        read_verdicts(tmp_path / "gates")


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "fine"},
        {"verdict": ["passed"]},
        {"subject": True},
        {"gate": [1]},
        {"reason": None},
        {"value": "0.5"},
    ],
)
def test_a_damaged_verdict_is_named_wherever_it_is_read(tmp_path: Path, change: dict[str, Any]) -> None:
    listed = _listed(tmp_path, _verdict("passed"))
    assert main(["gate", "list", str(tmp_path), "--output", str(listed)]) == 0
    whole = json.loads(listed.read_text())
    whole["gates"][0] |= change
    with pytest.raises(KilnError, match="is no list of gates"):
        require_passed(whole, listed)
    file = tmp_path / "gates/golden/0.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(KilnError, match=r"0\.json: is no gate's verdict"):
        read_verdict(file)


def test_a_damaged_parity_report_is_named(tmp_path: Path) -> None:
    for key, value in (("gates", [{}]), ("gates", 3), ("child", {}), ("parent", None)):
        (tmp_path / "p.json").write_text(json.dumps(_parity(passed=True) | {key: value}))
        with pytest.raises(KilnError, match=r"p\.json: is no whole parity report"):
            read_verdict(tmp_path / "p.json")


def test_a_list_that_says_passed_is_not_believed(tmp_path: Path) -> None:
    listed = _listed(tmp_path, _verdict("failed"))
    assert main(["gate", "list", str(tmp_path), "--output", str(listed)]) == 3
    whole = json.loads(listed.read_text())
    for changed in (whole | {"passed": True}, whole | {"passed": True, "gates": []}):
        with pytest.raises(GateError):
            require_passed(changed, listed)


def test_a_folder_without_a_verdict_is_no_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gates").mkdir()
    (tmp_path / "parity").mkdir()
    # What is made from verdicts is none.
    for name in ("summary.json", "passed.json"):
        (tmp_path / "gates" / name).write_text('{"passed": true}')
    assert main(["gate", "list", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "holds no verdict" in told
    assert "next step" in told


def _listed(folder: Path, *verdicts: Verdict) -> Path:
    for index, verdict in enumerate(verdicts):
        write_verdict(folder / f"gates/golden/{index}.json", verdict)
    return folder / "gates/summary.json"


@pytest.mark.parametrize(("verdict", "status"), [("warned", 0), ("unproven", 3), ("failed", 3)])
def test_the_list_is_written_always_and_required_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verdict: str, status: int
) -> None:
    listed, passed = _listed(tmp_path, _verdict(verdict), _verdict("passed")), tmp_path / "gates/passed.json"
    passed.write_text("of an earlier run")
    page = tmp_path / "gates/summary.html"
    arguments = ["gate", "list", str(tmp_path), "--output", str(listed), "--page", str(page)]
    assert main([*arguments, "--keep-going"]) == 0
    assert main(arguments) == status
    assert verdict.upper() in page.read_text()
    capsys.readouterr()
    assert main(["gate", "require", str(listed), "--output", str(passed)]) == status
    told = capsys.readouterr().out
    assert told == (f"{listed}: 0 failed, 1 warned, 1 passed, 0 skipped\n" if status == 0 else "")
    assert passed.exists() == (status == 0)


def test_what_is_unproven_is_named_and_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = _listed(tmp_path, _verdict("unproven"), _verdict("passed"))
    assert (tmp_path / "gates/golden/0.json").is_file()
    assert main(["gate", "list", str(tmp_path), "--output", str(listed)]) == 3
    told = capsys.readouterr()
    assert "2 gates: 0 failed, 1 unproven, 0 warned, 1 passed, 0 skipped" in told.out
    assert "0 gates failed, 1 are unproven" in told.err
    assert main(["gate", "require", str(listed)]) == 3
    assert "1 are unproven: golden onnx/x.onnx" in capsys.readouterr().err
    with pytest.raises(GateError, match="gate 'golden' is unproven: 0 faces"):
        stop_if_failed(_verdict("unproven"), listed)


def test_what_was_never_judged_is_required_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "summary.json"
    whole = summary([_verdict("passed")], ["results/parity/x.json"])
    listed.write_text(json.dumps(whole))
    assert main(["gate", "require", str(listed)]) == 3
    assert "1 were never judged: results/parity/x.json" in capsys.readouterr().err
    assert "<b>NOT JUDGED</b>" in summary_html(whole)
    listed.write_text(json.dumps(summary([])))
    assert main(["gate", "require", str(listed)]) == 3
    listed.write_text("{}")
    assert main(["gate", "require", str(listed)]) == 1


def test_a_run_that_was_stopped_leaves_no_stale_summary(tmp_path: Path) -> None:
    listed, page = _listed(tmp_path, _verdict("passed")), tmp_path / "gates/summary.html"
    golden, parity = tmp_path / "gates/golden/0.json", tmp_path / "parity/x.json"
    wanted = [str(golden), str(parity)]
    refresh_summary(lambda: wanted, listed, page)
    assert not listed.exists()  # nothing failed, and none was there to be wrong
    main(["gate", "list", str(tmp_path), "--output", str(listed), "--page", str(page)])
    assert json.loads(listed.read_text())["passed"]
    refresh_summary(lambda: wanted, listed, page)
    whole = json.loads(listed.read_text())
    assert (whole["passed"], whole["missing"]) == (False, [str(parity)])
    parity.parent.mkdir()
    parity.with_name("x.failed.json").write_text(json.dumps(_parity(False)))
    refresh_summary(lambda: wanted, listed, page)
    assert json.loads(listed.read_text())["counts"]["failed"] == 1
    assert "FAILED" in page.read_text()
    golden.write_text("{}")
    refresh_summary(lambda: wanted, listed, page)
    assert not listed.exists()
    assert not page.exists()


def test_a_summary_that_is_true_is_not_touched(tmp_path: Path) -> None:
    listed, page = _listed(tmp_path, _verdict("passed")), tmp_path / "gates/summary.html"
    main(["gate", "list", str(tmp_path), "--output", str(listed), "--page", str(page)])
    before = listed.stat().st_mtime_ns
    refresh_summary(lambda: [str(tmp_path / "gates/golden/0.json")], listed, page)
    assert listed.stat().st_mtime_ns == before


def test_the_worst_come_first() -> None:
    ordered = summary([_verdict("passed"), _verdict("failed"), _verdict("warned")])["gates"]
    assert [item["verdict"] for item in ordered] == ["failed", "warned", "passed"]


def test_the_command_stops_or_keeps_going(tmp_path: Path, root: Path) -> None:
    _evaluation(tmp_path, "p.json", 0.90, 0.88, 0.80)
    _evaluation(tmp_path, "c.json", 0.80, 0.88, 0.80, **INT8)
    output = tmp_path / "gates/accuracy/c.json"
    arguments = ["gate", "accuracy", str(tmp_path / "c.json"), str(tmp_path / "p.json")]
    arguments += ["--output", str(output), "--config", str(root / "config")]
    assert main(arguments) == 3
    assert not output.exists()
    assert output.with_name("c.failed.json").exists()
    assert main([*arguments, "--keep-going"]) == 0
    assert json.loads(output.read_text())["verdict"] == "failed"
    assert not output.with_name("c.failed.json").exists()
    assert main(["gate", "list", str(tmp_path)]) == 3
