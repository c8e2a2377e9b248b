"""Slower than a stored measurement, or only noise? By the vendor's rule and by intervals."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from facekiln.boards.regression import Speed, judge_throughput, ratio_interval, read_speed
from facekiln.boards.rule_inputs import compared, throughput_gates
from facekiln.cli import main
from facekiln.config import load_config
from facekiln.errors import KilnError

LIMITS = {"method": "intervals", "slower": 0.05, "faster": 0.05, "unproven": "stop"}
ABOUT = {
    "board": "mlu",
    "tool": "mm_run",
    "measures": "compute",
    "batch": 4,
    "virtual": False,
    "artifact": "magicmind/a_4b.mm",
}


def _speed(*repeats: float, **more: Any) -> Speed:
    return Speed(Path(f"{repeats[0]}.json"), ABOUT, repeats, **more)


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    # magicmind_cloud, test/compare_perf.py: passes from 0.95 to 1.05, "option" above, "fail" below.
    [(0.9499, "failed"), (0.95, "passed"), (1.0, "passed"), (1.05, "passed"), (1.0501, "warned")],
)
def test_the_vendors_rule(ratio: float, verdict: str) -> None:
    found = judge_throughput(_speed(100 * ratio), _speed(100.0), LIMITS, "vendor")
    assert (found.verdict, found.limit) == (verdict, 0.95)
    assert ("option" in found.reason) == (verdict == "warned")


@pytest.mark.parametrize(
    ("new", "verdict", "told"),
    [
        ((90.0, 90.2, 89.9, 90.1), "failed", "slower for certain"),
        ((98.0, 98.2, 97.9, 98.1), "passed", "none of it below 0.95"),
        # The mean is at 0.94, as the first, but the repeats scatter.
        ((80.0, 110.0, 85.0, 101.0), "warned", "cannot be told from noise"),
        ((120.0, 120.2, 119.9, 120.1), "warned", "option to store"),
    ],
)
def test_by_intervals(new: tuple[float, ...], verdict: str, told: str) -> None:
    found = judge_throughput(_speed(*new), _speed(100.0, 100.1, 99.9, 100.2), LIMITS)
    assert found.verdict == verdict and told in found.reason


def test_the_interval_is_welchs() -> None:
    """By hand: logs of 1, e apart by 1; variances 0.5 of two each: half = t95(2) * sqrt(0.5)."""
    import math

    one = [math.exp(value) for value in (0.5, -0.5)]
    found = ratio_interval([math.e * value for value in one], one)
    assert found is not None
    half = 4.303 * math.sqrt(0.5)
    assert math.log(found.low) == pytest.approx(1 - half) and math.log(found.high) == pytest.approx(1 + half)
    assert ratio_interval([1.0], [2.0]) is None
    exact = ratio_interval([2.0, 2.0], [1.0])
    assert exact is not None and exact.low == exact.high == pytest.approx(2.0)


def test_noise_alone_fails_the_vendors_rule_and_not_ours() -> None:
    """Of 300 pairs of equal boards that scatter by 6 %, the vendor's rule stops many, ours about none."""
    rng = random.Random(7)
    draw = lambda count: _speed(*(rng.gauss(100, 6) for _ in range(count)))  # noqa: E731
    vendor = sum(judge_throughput(draw(1), draw(1), LIMITS, "vendor").verdict == "failed" for _ in range(300))
    ours = sum(judge_throughput(draw(5), draw(5), LIMITS).verdict == "failed" for _ in range(300))
    assert vendor > 60 and ours < 3
    slower = sum(
        judge_throughput(_speed(*(rng.gauss(75, 6) for _ in range(5))), draw(5), LIMITS).verdict == "failed"
        for _ in range(300)
    )
    assert slower > 240


@pytest.mark.parametrize("method", ["intervals", "vendor"])
def test_a_noisy_record_proves_nothing_by_either_method(method: str) -> None:
    noisy, stored = _speed(100.0, 101.0, noisy=True), _speed(100.0, 101.0)
    for new, old in ((noisy, stored), (replace(noisy, noisy=False), replace(stored, noisy=True))):
        found = judge_throughput(new, old, LIMITS, method)
        assert found.verdict == "unproven" and "noisy: rejected" in found.reason
        assert judge_throughput(new, old, {**LIMITS, "unproven": "warn"}, method).verdict == "warned"
    # The vendor's rule knows no noise: what fails by it fails.
    slow = judge_throughput(_speed(50.0, noisy=True), stored, LIMITS, "vendor")
    assert slow.verdict == "failed" and "ratio" in slow.reason


def test_what_cannot_be_judged() -> None:
    noisy = judge_throughput(_speed(50.0, 51.0, noisy=True), _speed(100.0, 101.0), LIMITS)
    assert noisy.verdict == "unproven" and "'noisy: rejected' stands in 50.0.json;" in noisy.reason
    single = judge_throughput(_speed(50.0), _speed(100.0), LIMITS)
    assert single.verdict == "unproven" and "--repeats" in single.reason
    assert single.details["by_vendor"] == "failed"
    for key, value in (("board", "other"), ("virtual", True), ("batch", 8), ("measures", "launch")):
        other = replace(_speed(100.0), about={**ABOUT, key: value})
        with pytest.raises(KilnError, match=f"not of one thing: {key}"):
            judge_throughput(_speed(100.0), other, LIMITS)


def test_a_virtual_board_says_so() -> None:
    about = {**ABOUT, "virtual": True}
    found = judge_throughput(
        replace(_speed(100.0, 99.0), about=about), replace(_speed(100.0, 99.0), about=about), LIMITS
    )
    assert found.emulated and "EMULATED" in found.line()


def _record(path: Path, *repeats: float) -> Path:
    """A record as `facekiln bench run` writes it, by the runner of the bench tests' kind."""
    from facekiln.boards.bench import Plan, run_bench
    from facekiln.boards.runner import RunResult
    from facekiln.boards.timing import Stats, Timing
    from facekiln.boards.tools import Request, Tool

    class Board:
        def run(self, _: list[str], **__: Any) -> RunResult:
            return RunResult(0, "", "", 0.1)

    values = iter(repeats)
    tool = Tool(
        "mm_run",
        ".mm",
        lambda _: ["mm_run"],
        lambda _, __: Timing(
            tool="mm_run",
            tool_version=None,
            label="",
            measures="compute",
            latency=Stats(mean=40.0, median=40.0),
            batch=4,
            runs=10,
            throughput=next(values),
        ),
    )
    artifact = path.parent / "a_4b.mm"
    artifact.write_bytes(b"x")
    run_bench(
        Board(),  # type: ignore[arg-type]
        tool,
        Request("a_4b.mm", (4, 3, 8, 8)),
        board="mlu",
        artifact=artifact,
        output=path,
        plan=Plan(len(repeats), 0, 0),
        sleep=lambda _: None,
    )
    return path


def test_the_command_and_its_verdict(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    new, stored = _record(tmp_path / "new.json", 80, 81, 80), _record(tmp_path / "old.json", 100, 101, 100)
    gates = tmp_path / "results/gates/throughput"
    gates.mkdir(parents=True)
    command = ["gate", "throughput", str(new), str(stored), "--output", str(gates / "a.json")]
    assert main(command) == 3
    assert json.loads((gates / "a.failed.json").read_text())["details"]["by_vendor"] == "failed"
    assert main(["gate", "list", str(tmp_path / "results")]) == 3
    assert "FAILED   throughput a_4b.mm on mlu" in capsys.readouterr().out
    assert read_speed(new).repeats == (80, 81, 80)
    with pytest.raises(KilnError, match="no bench record"):
        read_speed(tmp_path / "a.log")


@pytest.mark.parametrize("method", ["intervals", "vendor"])
def test_a_record_passes_not_against_itself(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.chdir(root)
    new = _record(tmp_path / "new.json", 100, 101, 100)
    stored = tmp_path / "stored.json"
    stored.write_bytes(new.read_bytes())
    output = tmp_path / "gate.json"
    assert (
        main(["gate", "throughput", str(new), str(stored), "--method", method, "--output", str(output)]) == 0
    )
    told = json.loads(output.read_text())
    assert told["verdict"] == "warned" and "one and the same" in told["reason"]


def test_stored_records_are_gates(tmp_path: Path, root: Path) -> None:
    config = load_config(root / "config")
    folder = tmp_path / "kept"
    changed = replace(config, gates={**config.gates, "throughput": {**LIMITS, "stored": str(folder)}})
    assert throughput_gates(changed) == []
    with pytest.raises(KilnError, match=r"no throughput is stored(?s:.)*cp results/bench"):
        compared("mlu", "magicmind/a_4b.mm", changed)
    stored = folder / "mlu/magicmind/a_4b.mm.json"
    stored.parent.mkdir(parents=True)
    stored.write_text("{}")
    assert throughput_gates(changed) == ["results/gates/throughput/mlu/magicmind/a_4b.mm.json"]
    assert compared("mlu", "magicmind/a_4b.mm", changed)["stored"] == str(stored)


def test_a_log_as_the_vendor_stores_it(tmp_path: Path) -> None:
    from facekiln.boards.virtual.forms import mm_run_report

    path = tmp_path / "retinaface_log_perf"
    path.write_text(mm_run_report("a_4b.mm", [4, 8, 8, 3], [40.0] * 25, 1.0, 4, 1))
    found = read_speed(path, _speed(100.0))
    assert found.about["virtual"], "the log says so in its first line"
    assert found.repeats == (100.0,) and found.about["board"] == "mlu"
    with pytest.raises(KilnError, match="batch 4"):
        read_speed(path, replace(_speed(100.0), about={**ABOUT, "batch": 8}))
