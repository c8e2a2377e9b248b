"""`facekiln bench` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from facekiln.cli import main
from support.bench_tools import BMRT

BMRT_LOG = """\
[BMRT][bmrt_test:1362] INFO:load input time(s): 0.008165
[BMRT][bmrt_test:1363] INFO:pre alloc  time(s): 0.000031
[BMRT][bmrt_test:1364] INFO:calculate  time(s): 0.003735
[BMRT][bmrt_test:1365] INFO:get output time(s): 0.006268
[BMRT][bmrt_test:1366] INFO:compare    time(s): 0.005704
"""
BENCHNCNN = """\
#!/bin/sh
echo "loop_count = $1" >&2
echo "           a  min =    9.00  max =   11.00  avg =   10.00" >&2
"""


def test_reading_a_log_of_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "board.log"
    log.write_text(BMRT_LOG)
    assert main(["bench", "read", str(log), "--tool", "bmrt_test", "--batch", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["latency_ms"]["mean"] == pytest.approx(3.735)
    assert main(["bench", "read", str(log), "--tool", "bmrt_test"]) == 1
    assert log.read_text() == BMRT_LOG


def test_a_number_of_thousands_of_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "board.log"
    log.write_text(
        "[BMRT][bmrt_test:770] INFO:==> running network #0, name: slim, loop: 0\n"
        f"[BMRT][bmrt_test:1014] INFO:net[slim] stage[0], launch total time is {'9' * 5000} us\n"
    )
    assert main(["bench", "read", str(log), "--tool", "bmrt_test"]) == 1
    assert "board.log: holds a number that is none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "tool", ["mm_run", "tm_benchmark", "benchncnn", "rknn_benchmark", "sophon-demo", "latency"]
)
def test_a_log_of_another_tool_is_refused(tool: str, tmp_path: Path) -> None:
    log = tmp_path / "board.log"
    log.write_text(BMRT_LOG)
    assert main(["bench", "read", str(log), "--tool", tool]) == 1


TM_BENCHMARK = """\
#!/bin/sh
echo "tengine-lite library version: 1.5-dev"
echo "loops: 50"
n=$(cat "$0.count" 2>/dev/null || echo 0)
echo $((n + 1)) >"$0.count"
echo "           a  min =   9.00 ms   max =  11.00 ms   avg =  1$n.00 ms" >&2
echo "ALL TEST DONE." >&2
"""


def _bench(tool: str, text: str, artifact: str, tmp_path: Path, root: Path, *more: str) -> Path:
    program = tmp_path / tool
    program.write_text(text)
    program.chmod(0o755)
    path = tmp_path / artifact
    path.parent.mkdir(parents=True)
    path.write_text("x")
    record = tmp_path / "record.json"
    arguments = [
        "bench",
        "run",
        str(path),
        "--board",
        "local",
        "--config",
        str(root / "config"),
        "--tool",
        tool,
    ]
    arguments += ["--program", str(program), "--cool-down", "0", "--repeats", "2", "--retries", "0"]
    assert main([*arguments, "--output", str(record), "--keep-noisy", *more]) == 0
    return record


def test_a_log_of_our_own_is_read(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = _bench("tm_benchmark", TM_BENCHMARK, "results/tengine/retinaface_640.tmfile", tmp_path, root)
    capsys.readouterr()
    assert main(["bench", "read", str(record.with_suffix(".log")), "--tool", "tm_benchmark"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in told] == ["attempt 1 repeat 1", "attempt 1 repeat 2"]
    assert [run["latency_ms"]["mean"] for run in told] == [10.0, 11.0]
    kept = [repeat["timing"] for repeat in json.loads(record.read_text())["repeats"]]
    assert [{key: run[key] for key in kept[0]} for run in told] == kept


def test_batch_and_warm_up_of_our_own_log_are_those_of_its_record(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = "results/sophon/bm1684x/retinaface_640_int8_4b.bmodel"
    record = _bench("bmrt_test", BMRT.replace("240 320", "640 640"), artifact, tmp_path, root, "--loops", "5")
    log = record.with_suffix(".log")
    capsys.readouterr()
    assert main(["bench", "read", str(log), "--tool", "bmrt_test"]) == 0
    told = json.loads(capsys.readouterr().out)
    kept = [repeat["timing"] for repeat in json.loads(record.read_text())["repeats"]]
    assert [{key: run[key] for key in kept[0]} for run in told] == kept
    # Another log than the record's: then nothing but the log itself tells.
    log.write_text(log.read_text() + "\n")
    assert main(["bench", "read", str(log), "--tool", "bmrt_test"]) == 0
    assert json.loads(capsys.readouterr().out) != told


def test_a_failed_run_of_our_own_log_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "a.running.log"
    log.write_text("==== attempt 1 repeat 3: tool x\n==== exit status 9\n\n==== standard error\nno\n\n")
    assert main(["bench", "read", str(log), "--tool", "tm_benchmark"]) == 1
    told = capsys.readouterr().err
    assert "attempt 1 repeat 3: the tool failed in this run (value: exit status 9)" in told
    log.write_text(log.read_text().replace("status 9", "status 0"))
    assert main(["bench", "read", str(log), "--tool", "tm_benchmark"]) == 1
    assert "attempt 1 repeat 3: log of tm_benchmark" in capsys.readouterr().err


def test_a_missing_log_and_an_unknown_tool_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "read", str(tmp_path / "none.log"), "--tool", "tm_benchmark"]) == 1
    assert "none.log: cannot be read" in capsys.readouterr().err
    assert main(["bench", "read", str(tmp_path / "none.log"), "--tool", "tm_bench"]) == 1
    assert "did you mean 'tm_benchmark'" in capsys.readouterr().err


def test_a_run_with_a_stand_in_and_the_table(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "benchncnn"
    program.write_text(BENCHNCNN)
    program.chmod(0o755)
    artifact = Path("results/ncnn/retinaface_640.param")
    artifact.parent.mkdir(parents=True)
    artifact.write_text("7767517\n")
    arguments = ["bench", "run", str(artifact), "--board", "local", "--config", str(root / "config")]
    arguments += ["--tool", "benchncnn", "--program", str(program), "--cool-down", "0", "--repeats", "2"]
    assert main(arguments) == 0
    record = Path("results/bench/local/ncnn/retinaface_640.param.json")
    assert json.loads(record.read_text())["command"][-1] == "shape=[640,640,3]"
    assert Path(f"{record}.kiln.json").exists()
    capsys.readouterr()
    assert main(["bench", "show", str(record)]) == 0
    shown = capsys.readouterr().out
    assert "retinaface_640.param" in shown
    assert "10.000" in shown
    assert "steady" in shown


def test_an_unknown_board_is_told(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = tmp_path / "retinaface_640.param"
    artifact.write_text("x")
    assert (
        main(["bench", "run", str(artifact), "--board", "no_such_board", "--config", str(root / "config")])
        == 1
    )
    assert "no_such_board" in capsys.readouterr().err


def test_noise_ends_with_status_3_and_keeps_the_record(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "benchncnn"
    counter = "n=$(cat n 2>/dev/null || echo 0); n=$((n + 1)); echo $n > n; v=$((10 + n % 2 * 9))"
    program.write_text(
        f'#!/bin/sh\n{counter}\necho "           a  min =    9.00  max =   21.00  avg =   $v.00" >&2\n'
    )
    program.chmod(0o755)
    artifact = tmp_path / "retinaface_640.param"
    artifact.write_text("x")
    arguments = ["bench", "run", str(artifact), "--board", "local", "--config", str(root / "config")]
    arguments += ["--tool", "benchncnn", "--program", str(program), "--cool-down", "0", "--repeats", "3"]
    arguments += ["--retries", "1", "--output", "out.json"]
    assert main(arguments) == 3
    assert json.loads(Path("out.json").read_text())["verdict"] == "noisy: rejected"
    assert main([*arguments, "--keep-noisy"]) == 0


def test_the_table_of_records(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "benchncnn"
    program.write_text(BENCHNCNN)
    program.chmod(0o755)
    artifact = tmp_path / "retinaface_640.param"
    artifact.write_text("x")
    arguments = ["bench", "run", str(artifact), "--board", "local", "--config", str(root / "config")]
    arguments += ["--tool", "benchncnn", "--program", str(program), "--cool-down", "0", "--repeats", "2"]
    assert main([*arguments, "--virtual", "--output", "a.json"]) == 0
    assert main(["bench", "table", "a.json", "a.json.kiln.json", "--output", "latency"]) == 0
    assert "**VIRTUAL**" in Path("latency.md").read_text()
    assert Path("latency.csv").read_text().splitlines()[1].startswith("local,")
    assert main(["bench", "table", "a.json", "a.json", "--output", "latency"]) == 1


@pytest.mark.parametrize("option", ["--timeout", "--cool-down", "--wait"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "soon"])
def test_seconds_that_are_none_are_refused(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "run", str(tmp_path / "a.onnx"), "--board", "local", f"{option}={value}"])
    assert ended.value.code == 2
    assert f"argument {option}: '{value}' is no number of seconds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [("--size", "9", "unknown size of model 'retinaface' '9'"), ("--model", "nope", "unknown model 'nope'")],
)
def test_a_model_or_size_that_is_given_alone_counts(
    option: str, value: str, told: str, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other is taken from the artifact's name; both were, and what was given was passed over."""
    artifact = tmp_path / "retinaface_640.param"
    artifact.write_text("x")
    where = ["--board", "local", "--config", str(root / "config"), "--output", str(tmp_path / "out.json")]
    assert main(["bench", "run", str(artifact), *where, option, value]) == 1
    assert told in capsys.readouterr().err
