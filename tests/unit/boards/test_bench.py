"""One measurement from command to record, with stand-in tools run by a real shell."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from facekiln.artifact import read_json, write_json
from facekiln.boards import monitor
from facekiln.boards.bench import Plan, bench_file, read_bench, run_bench
from facekiln.boards.runner import LocalRunner, RunResult
from facekiln.boards.tools import TOOLS, Request
from facekiln.boards.verdict import NOISY, STEADY, UNJUDGED
from facekiln.boards.virtual.forms import MARK
from facekiln.errors import KilnError
from support.bench_tools import BMRT, write_tool


class Scripted:
    """A board that answers with given results, and with a given state of its clocks."""

    def __init__(self, results: Sequence[RunResult], states: Sequence[str] = ()) -> None:
        self.results, self.states, self.commands = list(results), list(states), []

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,  # noqa: ARG002
        environment: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> RunResult:
        if list(command) == monitor.COMMAND:
            return RunResult(0, self.states.pop(0) if self.states else "facekiln=end\n", "", 0.0)
        self.commands.append(list(command))
        return self.results.pop(0)


def _benchncnn(mean: float) -> RunResult:
    line = f"{'a':>20}  min = {mean - 1:7.2f}  max = {mean + 1:7.2f}  avg = {mean:7.2f}\n"
    return RunResult(0, "", f"loop_count = 50\n{line}", 1.0)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "results" / "ncnn" / "a_320.param"
    path.parent.mkdir(parents=True)
    path.write_text("7767517\n")
    return path


def _run(runner: Any, artifact: Path, tool: str = "benchncnn", **more: Any) -> dict[str, Any]:
    request = more.pop("request", Request(str(artifact), (1, 3, 240, 320)))
    slept: list[float] = []
    record = run_bench(
        runner,
        TOOLS[tool],
        request,
        board="b",
        artifact=artifact,
        output=artifact.with_name("out.json"),
        sleep=slept.append,
        **more,
    )
    assert slept
    return record


def test_a_stand_in_of_bmrt_test_through_a_real_process(tmp_path: Path) -> None:
    tool = write_tool(tmp_path / "bmrt_test", BMRT)
    bmodel = tmp_path / "slim_320_int8_4b.bmodel"
    bmodel.write_bytes(b"model")
    request = Request(str(bmodel), (4, 3, 240, 320), loops=12, warm_up=2, program=str(tool), dtype="int8")
    output = tmp_path / "bench" / "slim.json"
    record = run_bench(
        LocalRunner(),
        TOOLS["bmrt_test"],
        request,
        board="stand-in",
        artifact=bmodel,
        output=output,
        plan=Plan(repeats=3, cool_down=0),
        virtual=True,
    )
    assert record["verdict"] == STEADY
    assert record["virtual"] is True
    assert record["result"]["latency_ms"] == pytest.approx(2.001)  # the slow first launch is warm-up
    assert record["result"]["per_image_ms"] == pytest.approx(2.001 / 4)
    assert record["result"]["over_all_runs_ms"]["percentiles"]["95"] == pytest.approx(2.002)
    assert len(record["repeats"]) == 3
    log = output.with_suffix(".log")
    assert record["log"] == {"file": "slim.log", "sha256": hashlib.sha256(log.read_bytes()).hexdigest()}
    assert log.read_text().count("loop: 13") == 3
    assert read_bench(output) == record


def test_steady_means_of_a_tool_without_percentiles(artifact: Path) -> None:
    runner = Scripted([_benchncnn(value) for value in (10.0, 10.1, 9.95, 10.0, 10.05)])
    record = _run(runner, artifact)
    assert record["verdict"] == STEADY
    assert record["mean_only"] is True
    assert "percentiles" not in record["result"]["over_all_runs_ms"]
    assert len(runner.commands) == 5
    assert len(record["attempts"]) == 1


def test_a_noisy_attempt_is_made_again(artifact: Path) -> None:
    runner = Scripted([_benchncnn(value) for value in (10.0, 14.0, 11.0, 10.0, 10.1, 10.0)])
    record = _run(runner, artifact, plan=Plan(repeats=3))
    assert record["result"]["over_all_runs_ms"] == {
        "mean": pytest.approx(10.0333, abs=1e-3),
        "min": 9.0,
        "max": 11.1,
    }
    assert [attempt["verdict"] for attempt in record["attempts"]] == [NOISY, STEADY]
    assert record["verdict"] == STEADY
    assert record["result"]["latency_ms"] == pytest.approx(10.0333, abs=1e-3)
    assert len(record["repeats"]) == 3


def test_noise_that_stays_is_rejected_and_kept(artifact: Path) -> None:
    runner = Scripted([_benchncnn(value) for value in (10.0, 14.0, 11.0) * 3])
    record = _run(runner, artifact, plan=Plan(repeats=3, retries=2))
    assert record["verdict"] == NOISY
    assert len(record["attempts"]) == 3
    assert record["reasons"]
    assert read_bench(artifact.with_name("out.json"))["verdict"] == NOISY


def test_one_mean_is_unjudged(artifact: Path) -> None:
    assert _run(Scripted([_benchncnn(10.0)]), artifact, plan=Plan(repeats=1))["verdict"] == UNJUDGED


def test_a_governor_that_changes_rejects(artifact: Path) -> None:
    states = ["governor.cpu0=performance\n", "governor.cpu0=powersave\n"]
    record = _run(Scripted([_benchncnn(10.0)], states), artifact, plan=Plan(repeats=1, retries=0))
    assert record["verdict"] == NOISY
    assert "governor changed" in record["reasons"][0]
    assert record["repeats"][0]["before"]["governors"] == {"cpu0": "performance"}


def test_a_failed_run_keeps_its_raw_log_and_writes_no_record(artifact: Path) -> None:
    runner = Scripted([_benchncnn(10.0), RunResult(1, "", "cannot open a_320.param\n", 0.1)])
    with pytest.raises(KilnError, match="exit status 1") as caught:
        _run(runner, artifact)
    assert "out.running.log" in str(caught.value)
    assert "cannot open" in artifact.with_name("out.running.log").read_text()
    assert not artifact.with_name("out.json").exists()


def test_a_failed_run_leaves_an_earlier_record_with_its_log(artifact: Path) -> None:
    _run(Scripted([_benchncnn(10.0)]), artifact, plan=Plan(repeats=1))
    with pytest.raises(KilnError):
        _run(Scripted([RunResult(1, "", "no\n", 0.1)]), artifact)
    log = artifact.with_name("out.log").read_bytes()
    assert read_bench(artifact.with_name("out.json"))["log"]["sha256"] == hashlib.sha256(log).hexdigest()


def test_an_exit_status_after_a_result_is_a_failure(artifact: Path) -> None:
    result = _benchncnn(10.0)
    with pytest.raises(KilnError, match="exit status 139 after its result"):
        _run(Scripted([RunResult(139, "", result.stderr, 1.0)]), artifact)


def test_a_board_without_a_shell_is_measured_all_the_same(artifact: Path) -> None:
    class NoShell(Scripted):
        def run(self, command: Sequence[str], **more: Any) -> RunResult:
            if list(command) == monitor.COMMAND:
                raise KilnError("no sh")
            return super().run(command, **more)

    record = _run(NoShell([_benchncnn(10.0)] * 3), artifact, plan=Plan(repeats=3))
    assert record["verdict"] == STEADY
    assert record["repeats"][0]["before"] == {}


def test_the_record_of_another_form_is_refused(artifact: Path) -> None:
    _run(Scripted([_benchncnn(10.0)]), artifact, plan=Plan(repeats=1))
    path = artifact.with_name("out.json")
    value = read_json(path)
    value["vertual"] = value.pop("virtual")
    write_json(path, value)
    with pytest.raises(KilnError, match="virtual"):
        read_bench(path)


PERCENTILES = "median: 4.027 percentile: (90%) 4.033 (95%) 4.035 (99%) 4.039"
MM_RUN = f"""\
==================== Performance Summary
Iterations:                   694
Host Wall Time (s):           2.80374
MLU Compute Time (s):         2.79444
Throughput (qps):             990.106
MLU Compute Latency (ms):     min: 4.004 max: 4.128 mean: 4.0266 {PERCENTILES}
Trace averages of 100 runs:
"""


def test_the_generation_of_mm_run_is_asked_for(artifact: Path) -> None:
    helps = RunResult(0, "  --batch  size of a batch\n", "", 0.1)
    runner = Scripted([helps, *[RunResult(0, MM_RUN, "", 3.0)] * 2])
    request = Request("m.mm", (4, 3, 112, 112))
    record = _run(runner, artifact, "mm_run", request=request, plan=Plan(repeats=2))
    assert runner.commands[0] == ["mm_run", "--help"]
    assert runner.commands[1][3:5] == ["--batch", "4"]
    assert record["request"]["generation"] == "batch"
    assert record["result"]["images_per_second"] == pytest.approx(990.106)
    assert record["result"]["over_all_runs_ms"]["percentiles"]["99"] == 4.039


def test_where_a_record_goes() -> None:
    expected = Path("results/bench/local/ncnn/a_320.param.json")
    assert bench_file("results", "local", "results/ncnn/a_320.param") == expected
    assert bench_file("results", "local", "/x/y/results/ncnn/a_320.param") == expected
    assert bench_file("results", "local", "/x/a.onnx") == Path("results/bench/local/a.onnx.json")


def test_stand_in_is_told_where_only_its_log_tells_it(artifact: Path) -> None:
    plain = _benchncnn(10.0)
    told = RunResult(0, f"{MARK}\n", plain.stderr, 1.0)
    record = _run(Scripted([told] * 5), artifact)
    assert record["virtual"] is True
    assert _run(Scripted([plain] * 5), artifact)["virtual"] is False
