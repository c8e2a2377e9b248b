"""A tool runs in a folder of its own, ends in time with all its children, and tells its own cause."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

from facekiln.artifact import is_running
from facekiln.chips.sophon import tool
from facekiln.chips.sophon.pollers import STEPS
from facekiln.chips.sophon.tool import job_folder, run_tool
from facekiln.errors import KilnError
from facekiln.progress import log as messages
from support.sophon_stand_in import environment

# A tool that starts a child as the real ones do, and writes both process ids down.
HANGS = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"])
pathlib.Path("pids.part").write_text(f"{os.getpid()} {child.pid}")
os.rename("pids.part", "pids")
print("[Running]: tpuc-opt a.mlir --codegen", flush=True)
time.sleep(600)
"""


def pids_of(folder: Path, seconds: float = 90) -> list[int]:
    deadline = time.monotonic() + seconds
    while not (folder / "pids").exists():
        assert time.monotonic() < deadline, "the tool did not start"
        time.sleep(0.02)
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def ended(pids: list[int], seconds: float = 60) -> bool:
    """Whether none of the processes runs, or will not in a moment; a zombie is not ours to collect."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        states = []
        for pid in pids:
            with suppress(OSError):  # gone between one line and the next
                if is_running(pid):
                    states.append(Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0])
        if set(states) <= {"Z"}:
            return True
        time.sleep(0.05)
    return False


def test_what_it_prints_and_where(tmp_path: Path) -> None:
    script = (
        "import os, sys; print(os.getcwd(), sys.argv[1:]); print('said', file=sys.stderr); open('made', 'w')"
    )
    made = environment(tmp_path, {"model_tool": script})
    folder = tmp_path / "job with blank"
    folder.mkdir()
    printed = run_tool(
        made, "model_tool", ["--chip", Path("a b")], folder=folder, log=tmp_path / "log", timeout_minutes=1
    )
    assert sorted(printed.splitlines()) == sorted([f"{folder} ['--chip', 'a b']", "said"])
    assert (folder / "made").exists() and (tmp_path / "log").read_text() == printed


def test_bars_are_shortened_to_their_ends_and_handed_on(tmp_path: Path) -> None:
    script = """
        import sys
        print("\\x1b[32mfirst\\x1b[0m\\r")
        for done in range(1000):
            sys.stdout.write(f"\\rtune op: a{done % 2}: {done // 10}%|###  | {done}/1000 [00:01<00:02]")
        sys.stdout.write("\\rtune op: a1: 100%|#####| 1000/1000 [00:02<00:00]\\n")
        print("last")
    """
    made = environment(tmp_path, {"run_calibration": textwrap.dedent(script)})
    seen: list[tuple[str, int, int]] = []
    printed = run_tool(
        made,
        "run_calibration",
        [],
        folder=tmp_path,
        log=tmp_path / "log",
        timeout_minutes=1,
        progress=lambda *moved: seen.append(moved),
    )
    lines = printed.splitlines()
    assert lines[0] == "first" and lines[-1] == "last" and "1000/1000" in lines[-2]
    assert len(lines) < 6
    assert seen[0] == ("tune op: a0", 0, 1000) and seen[-1] == ("tune op: a1", 1000, 1000)
    assert len(seen) == 1001


def test_endless_output_is_kept_in_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "_KEPT", 10)
    made = environment(tmp_path, {"model_tool": "for i in range(1000): print('line', i)"})
    printed = run_tool(made, "model_tool", [], folder=tmp_path, log=tmp_path / "log", timeout_minutes=1)
    lines = printed.splitlines()
    assert (len(lines), lines[0], lines[9], lines[-1]) == (20, "line 0", "line 9", "line 999")
    assert len((tmp_path / "log").read_text().splitlines()) == 1000


def test_without_a_log_it_goes_to_facekilns_own_log_file_only(tmp_path: Path) -> None:
    made = environment(tmp_path, {"model_tool": "print('the chip')"})
    handler = logging.FileHandler(tmp_path / "facekiln.log")
    messages.addHandler(handler)
    try:
        run_tool(made, "model_tool", [], folder=tmp_path, log=None, timeout_minutes=1)
    finally:
        messages.removeHandler(handler)
        handler.close()
    assert (tmp_path / "facekiln.log").read_text() == "the chip\n"


def test_a_failure_tells_the_cause_from_mid_log(tmp_path: Path) -> None:
    script = """
        import sys
        print("[Running]: tpuc-opt m.mlir")
        print("can't get scale and zeropoint")
        print("UNREACHABLE executed at Module.cpp:1874!")
        print("RuntimeError: [!Error]: tpuc-opt m.mlir --convert")
        sys.exit(1)
    """
    made = environment(tmp_path, {"model_deploy": textwrap.dedent(script)})
    with pytest.raises(KilnError, match="model_deploy failed: no threshold for some layer") as error:
        run_tool(made, "model_deploy", [], folder=tmp_path, log=None, timeout_minutes=1)
    assert "status 1" in str(error.value) and "facekiln sophon calibrate" in str(error.value)


def test_killed_for_memory(tmp_path: Path) -> None:
    made = environment(tmp_path, {"model_deploy": "import os; os.kill(os.getpid(), 9)"})
    with pytest.raises(KilnError, match="want of memory"):
        run_tool(made, "model_deploy", [], folder=tmp_path, log=None, timeout_minutes=1)


def test_a_tool_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match=r"tpu_mlir 1\.26 has no 'model_dance'"):
        run_tool(environment(tmp_path), "model_dance", [], folder=tmp_path, log=None, timeout_minutes=1)


def test_at_the_limit_it_is_ended_with_its_children(tmp_path: Path) -> None:
    made = environment(tmp_path, {"model_deploy": HANGS})
    for seconds in (1.5, 30):  # a slow machine has not even started it within the first
        with pytest.raises(KilnError, match="took too long") as error:
            run_tool(made, "model_deploy", [], folder=tmp_path, log=None, timeout_minutes=seconds / 60)
        if (tmp_path / "pids").exists() and "it was at" in str(error.value):
            break
    assert "it was at: tpuc-opt a.mlir --codegen" in str(error.value)
    assert ended(pids_of(tmp_path))


def test_children_that_outlive_the_tool_are_ended(tmp_path: Path) -> None:
    made = environment(tmp_path, {"model_deploy": HANGS.replace("time.sleep(600)", "sys.exit(0)")})
    run_tool(made, "model_deploy", [], folder=tmp_path, log=None, timeout_minutes=1)
    assert ended(pids_of(tmp_path))


def test_processes_are_looked_at_twice_a_second_however_much_a_tool_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(tool, "lower_pollers", looks.append)
    script = "import time\nfor one in range(300):\n    print(one, flush=True)\n    time.sleep(0.005)"
    made = environment(tmp_path, {"model_deploy": script})
    start = time.monotonic()
    run_tool(made, "model_deploy", [], folder=tmp_path, log=None, timeout_minutes=1)
    assert 1 <= len(looks) <= 1 + (time.monotonic() - start) / 0.5


def test_a_tool_that_closes_its_output_is_waited_for(tmp_path: Path) -> None:
    script = "import os, time; os.close(1); os.close(2); time.sleep(1); open('made', 'w')"
    made = environment(tmp_path, {"model_deploy": script})
    run_tool(made, "model_deploy", [], folder=tmp_path, log=None, timeout_minutes=1)
    assert (tmp_path / "made").exists()


def runner(tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that runs a tool that hangs, in a job folder; return it and the folder's parent."""
    environment(tmp_path, {"model_deploy": HANGS})
    jobs = tmp_path / "jobs"
    program = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[3])!r})
        from support.sophon_stand_in import config, settings
        from facekiln.chips.sophon.environment import wanted
        from facekiln.chips.sophon.tool import job_folder, run_tool
        made = wanted(settings(folder={str(tmp_path / "own")!r}), config(Path("toolchains")))
        with job_folder(Path({str(jobs / "out.bmodel")!r})) as folder:
            run_tool(made, "model_deploy", [], folder=folder, log=None, timeout_minutes=5)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    return process, jobs


def job_of(jobs: Path, process: subprocess.Popen[str]) -> Path:
    deadline = time.monotonic() + 90
    while not list(jobs.glob(".*.job")):
        assert time.monotonic() < deadline and process.poll() is None, "the job did not start"
        time.sleep(0.05)
    return next(jobs.glob(".*.job"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_leaves_neither_processes_nor_files(tmp_path: Path, number: signal.Signals) -> None:
    process, jobs = runner(tmp_path)
    pids = pids_of(job_of(jobs, process))
    process.send_signal(number)
    process.communicate(timeout=90)
    assert process.returncode != 0
    assert ended(pids)
    assert not list(jobs.iterdir()) and not list(tmp_path.glob(".*.job"))


def test_killed_leaves_no_processes_and_the_next_job_clears_up(tmp_path: Path) -> None:
    process, jobs = runner(tmp_path)
    left = job_of(jobs, process)
    pids = pids_of(left)
    process.kill()
    process.communicate(timeout=90)
    assert ended(pids)
    assert left.exists()
    with job_folder(jobs / "other.bmodel") as folder:
        assert not left.exists() and folder.is_dir()


def test_no_two_jobs_share_a_folder(tmp_path: Path) -> None:
    with job_folder(tmp_path / "a.bmodel") as one, job_folder(tmp_path / "a.bmodel") as two:
        assert one != two and one.parent == two.parent == tmp_path
        (one / "litter").mkdir()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), job_folder(tmp_path / "a.bmodel"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_sockets_of_the_tool_fit_into_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr("tempfile.tempdir", None)
    script = """
        import multiprocessing.managers
        manager = multiprocessing.managers.SyncManager()
        manager.start()
        print(manager.dict(a=1)["a"])
    """
    made = environment(tmp_path, {"npz_tool": textwrap.dedent(script)})
    assert run_tool(made, "npz_tool", [], folder=tmp_path, log=None, timeout_minutes=1) == "1\n"
    assert not list(deep.iterdir())


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_pollers_of_a_simulation_make_way_while_it_runs(tmp_path: Path) -> None:
    script = """
        import ctypes, os, threading, time
        def engine():
            ctypes.CDLL(None).prctl(15, b"TPU_BD")
            time.sleep(50)
        threading.Thread(target=engine, daemon=True).start()
        before, end = os.nice(0), time.monotonic() + 45
        while os.getpriority(os.PRIO_PROCESS, os.getpid()) == before and time.monotonic() < end:
            time.sleep(0.05)
        print(os.getpriority(os.PRIO_PROCESS, os.getpid()) - before)
    """
    made = environment(tmp_path, {"model_deploy": textwrap.dedent(script)})
    printed = run_tool(made, "model_deploy", [], folder=tmp_path, log=None, timeout_minutes=1)
    assert int(printed) == min(STEPS, 19 - os.nice(0))
