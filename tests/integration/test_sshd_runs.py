"""Commands on a board over a real OpenSSH server: whatever breaks, the output is whole and nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from facekiln.boards.faults import (
    BoardFault,
    ClockSkew,
    ConnectionLost,
    DiskFull,
    Rebooted,
    RunEnded,
    RunLost,
    RunTimeout,
    WrongArchitecture,
    WrongRuntime,
)
from facekiln.boards.lease import holder_of
from facekiln.boards.preflight import Needs, facts_of, preflight
from facekiln.boards.remote import RemoteRunner
from facekiln.boards.script import BoardScript
from facekiln.boards.session import Session
from facekiln.boards.settings import Runtime
from support.sshd import Proxy, Sshd, kill_watcher, processes_with, running_sshd, wait_until

pytestmark = pytest.mark.bound(300)
# Where the guard of the board is what ends a command, its loss is to be told soon.
soon = pytest.mark.bound(150)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    folder = tmp_path_factory.mktemp("sshd")
    with running_sshd(folder, environment=(f"KILN_BOOT_FILE={folder}/boot",)) as server:
        yield server


@pytest.fixture(autouse=True)
def boot(sshd: Sshd) -> Path:
    path = sshd.folder / "boot"
    path.write_text("first\n")
    return path


@pytest.fixture
def runner(sshd: Sshd, tmp_path: Path) -> Iterator[RemoteRunner]:
    with Session(sshd.board(tmp_path)) as session:
        yield RemoteRunner(BoardScript(session))


@pytest.fixture
def far(sshd: Sshd, proxy: Proxy, tmp_path: Path) -> Iterator[RemoteRunner]:
    """A board behind the proxy."""
    with Session(sshd.board(tmp_path, port=proxy.port)) as session:
        yield RemoteRunner(BoardScript(session))


def sleeping(mark: str) -> bool:
    return any(line.startswith("sleep") for line in processes_with(mark))


def with_limits(runner: RemoteRunner, **limits: float) -> RemoteRunner:
    board = replace(runner.board, limits=replace(runner.board.limits, **limits))  # type: ignore[arg-type]
    runner.script.session.board = runner.script.board = board
    return RemoteRunner(runner.script)


def test_status_and_streams_come_apart(runner: RemoteRunner, tmp_path: Path) -> None:
    lines: list[str] = []
    done = runner.run(
        ["sh", "-c", "echo out; echo err >&2; exit 7"], log_file=tmp_path / "raw.log", on_line=lines.append
    )
    assert (done.status, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert (tmp_path / "raw.log").read_text() == "out\n"
    assert (tmp_path / "raw.log.stderr").read_text() == "err\n"
    assert sorted(lines) == ["err", "out"]
    assert not list(Path(runner.board.work, "runs").iterdir())


def test_arguments_arrive_as_they_are(runner: RemoteRunner) -> None:
    words = ["a b", "'", '"', "$HOME", "`id`", "x;y", "*", "ü\n", "", "-n", "\\", "# end"]
    program = "import sys; print(sys.argv[1:])"
    assert runner.run([sys.executable, "-c", program, *words]).stdout == f"{words}\n"


def test_environment_and_files_are_there(runner: RemoteRunner, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("content")
    runner.board = replace(runner.board, environment={"A": "it's", "B": "x"})
    done = runner.run(["sh", "-c", 'cat in; echo "$A$B"'], files={"in": source}, environment={"B": "y z"})
    assert done.stdout == "contentit'sy z\n"


def test_signal_and_missing_program_have_the_shells_statuses(runner: RemoteRunner) -> None:
    assert runner.run(["sh", "-c", "kill -KILL $$"]).status == 137
    missing = runner.run(["no-such-tool"])
    assert missing.status == 127
    assert "not found" in missing.stderr


def test_garbage_is_kept_and_does_not_stop_the_reader(runner: RemoteRunner, tmp_path: Path) -> None:
    raw = bytes(range(256)) * 40
    path = tmp_path / "garbage"
    path.write_bytes(raw)
    lines: list[str] = []
    done = runner.run(["cat", str(path)], log_file=tmp_path / "raw.log", on_line=lines.append)
    assert done.status == 0
    assert (tmp_path / "raw.log").read_bytes() == raw


def test_seconds_are_the_boards(runner: RemoteRunner) -> None:
    assert 0.5 <= runner.run(["sleep", "0.5"]).seconds < 60


@soon
def test_hung_tool_is_ended_with_its_children(runner: RemoteRunner, mark: str) -> None:
    script = f"trap '' TERM; sleep {mark} & trap '' TERM; sleep {mark}; sleep {mark}"
    with pytest.raises(RunTimeout, match="limit: 1 s"):
        runner.run(["sh", "-c", script], timeout=1)


@soon
def test_daemon_of_a_tool_is_ended_too(runner: RemoteRunner, mark: str) -> None:
    assert (
        runner.run(["sh", "-c", f"setsid sleep {mark} >/dev/null 2>&1 & echo started"]).stdout == "started\n"
    )


@soon
def test_without_setsid_everything_is_ended_all_the_same(tmp_path: Path, mark: str) -> None:
    with (
        running_sshd(tmp_path / "sshd", environment=("KILN_NO_SETSID=1",)) as server,
        Session(server.board(tmp_path)) as session,
        pytest.raises(RunTimeout),
    ):
        RemoteRunner(BoardScript(session)).run(["sh", "-c", f"sleep {mark} & sleep {mark}"], timeout=1)


@soon
def test_flood_of_output_is_ended(runner: RemoteRunner) -> None:
    with pytest.raises(RunEnded, match="printed more than it may"):
        with_limits(runner, output_mb=1).run(["yes", "no end of it " * 50])


@soon
def test_board_ends_what_prints_more_than_it_may_of_itself(runner: RemoteRunner, mark: str) -> None:
    # Less than the client would end itself.
    command = ["sh", "-c", f"head -c 1500000 /dev/zero; exec sleep {mark}"]
    with pytest.raises(RunEnded, match="printed more than it may"):
        with_limits(runner, output_mb=1).run(command)


def test_board_that_does_not_end_a_flood_fills_neither_memory_nor_disk(
    runner: RemoteRunner, tmp_path: Path
) -> None:
    # Its watcher looks at the amount every eighth poll, so not before 24 s here.
    slow = with_limits(runner, output_mb=1, poll_seconds=3)
    command = ["sh", "-c", "head -c 5000000 /dev/zero >&2; head -c 5000000 /dev/zero; exec sleep 60"]
    with pytest.raises(RunEnded, match="printed more than it may"):
        slow.run(command, log_file=tmp_path / "raw.log")
    assert (tmp_path / "raw.log").stat().st_size <= 2 << 20
    assert (tmp_path / "raw.log.stderr").stat().st_size <= 2 << 20


def test_listener_gets_nothing_that_a_terminal_obeys(runner: RemoteRunner) -> None:
    lines: list[str] = []
    done = runner.run(["printf", r"\033]0;title\007\033[2Jgone\302\2331m\n"], on_line=lines.append)
    assert lines == [r"\x1b]0;title\x07\x1b[2Jgone\x9b1m"]
    assert "\x1b" in done.stdout  # the log stays as it is


def test_memory_limit_holds(runner: RemoteRunner) -> None:
    done = with_limits(runner, memory_mb=500).run([sys.executable, "-c", "x = bytearray(2 << 30)"])
    assert done.status != 0
    assert "MemoryError" in done.stderr


COUNTING = 'i=0; while [ $i -lt 40 ]; do echo "line $i"; echo "error $i" >&2; sleep 0.05; i=$((i + 1)); done'
WHOLE = "".join(f"line {index}\n" for index in range(40))


def test_cut_in_mid_run_loses_no_byte(far: RemoteRunner, proxy: Proxy) -> None:
    lines: list[str] = []

    def count(line: str) -> None:
        lines.append(line)
        if len(lines) == 10:
            proxy.cut()

    done = far.run(["sh", "-c", COUNTING], on_line=count)
    assert done.stdout == WHOLE
    assert done.stderr == WHOLE.replace("line", "error")
    assert done.status == 0 and done.reconnections >= 1


def test_many_cuts_in_mid_run_lose_no_byte(far: RemoteRunner, proxy: Proxy) -> None:
    done = threading.Event()

    def cutter() -> None:
        # One attempt less than a call makes: a machine on which each takes longer than that would never end.
        for _ in range(4):
            if done.wait(0.6):
                return
            proxy.cut()

    thread = threading.Thread(target=cutter)
    thread.start()
    try:
        result = far.run(["sh", "-c", COUNTING])
    finally:
        done.set()
        thread.join()
    assert result.stdout == WHOLE
    assert result.stderr == WHOLE.replace("line", "error")


def test_server_killed_in_mid_run_loses_no_byte(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd") as server, Session(server.board(tmp_path)) as session:
        killer = threading.Timer(1.0, lambda: (server.stop(), time.sleep(0.3), server.start()))
        killer.start()
        done = RemoteRunner(BoardScript(session)).run(["sh", "-c", COUNTING])
        killer.join()
    assert done.stdout == WHOLE


def test_cut_while_it_starts_starts_it_once(far: RemoteRunner, proxy: Proxy, tmp_path: Path) -> None:
    far.script.call("facts")
    for more in (200, 900, 2000, 4000):
        proxy.cut_in(more)
        log = tmp_path / f"log{more}"
        assert far.run(["sh", "-c", f"echo once >>{log}"]).status == 0
        assert log.read_text() == "once\n"


@soon
def test_connection_lost_for_good_ends_the_command_on_the_board(
    far: RemoteRunner, proxy: Proxy, mark: str
) -> None:
    runner = with_limits(far, grace_seconds=10, reconnect_seconds=0.5)
    cutter = threading.Thread(
        target=lambda: (wait_until(lambda: sleeping(mark)), setattr(proxy, "refusing", True), proxy.cut())
    )
    cutter.start()
    with pytest.raises(ConnectionLost, match="not found again"):
        runner.run(["sleep", mark])
    cutter.join()
    wait_until(lambda: not sleeping(mark))  # the proxy still refuses: the board itself has ended it


@soon
def test_reboot_is_noticed(far: RemoteRunner, proxy: Proxy, boot: Path, mark: str) -> None:
    def reboot() -> None:
        wait_until(lambda: sleeping(mark) and list(Path(far.board.work).glob("runs/*/beat")))
        boot.write_text("second\n")
        kill_watcher(far.board.work, guard=True, command_too=True)
        proxy.cut()

    thread = threading.Thread(target=reboot)
    thread.start()
    with pytest.raises(Rebooted, match="started anew"):
        far.run(["sleep", mark])
    thread.join()


@soon
def test_killed_watcher_is_noticed_and_the_command_ended(runner: RemoteRunner, mark: str) -> None:
    def kill() -> None:
        wait_until(lambda: sleeping(mark) and list(Path(runner.board.work).glob("runs/*/beat")))
        kill_watcher(runner.board.work, guard=False)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(RunLost, match="watcher was killed"):
        runner.run(["sleep", mark])
    thread.join()
    wait_until(lambda: not processes_with(f"{runner.board.lease} watch"), 20)  # the guard, which was left


def test_command_started_twice_by_name_is_found(runner: RemoteRunner, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ["sh", "-c", f"echo once >>{log}; echo out"]
    assert runner.run(command, name="same", keep=True).stdout == "out\n"
    assert runner.run(command, name="same").stdout == "out\n"
    assert log.read_text() == "once\n"


# --- the command line, interrupted -------------------------------------------------------------------------


@pytest.fixture
def config(sshd: Sshd, tmp_path: Path) -> Path:
    board = sshd.board(tmp_path)
    assert board.address is not None
    folder = tmp_path / "config"
    folder.mkdir()
    entry = {
        "host": "127.0.0.1",
        "port": sshd.port,
        "user": board.address.user,
        "key": board.address.key,
        "host_key": sshd.host_key,
        "work": board.work,
        "lease": board.lease,
        "limits": {"poll_seconds": 0.1, "grace_seconds": 15, "lease_seconds": 15},
    }
    (folder / "boards.yaml").write_text(yaml.safe_dump({"boards": {"loop": entry}}))
    return folder


def facekiln(config: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "facekiln", "board", words[0], "--config", str(config), *words[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "workflow"},
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["INT", "TERM", "KILL"])
def test_interrupted_client_leaves_nothing_and_frees_the_board(
    how: signal.Signals, config: Path, runner: RemoteRunner, mark: str
) -> None:
    # A background job of a shell ignores SIGINT; Python takes that over.
    client = facekiln(config, "run", "loop", "--", "sleep", mark)
    wait_until(lambda: sleeping(mark))
    client.send_signal(how)
    client.communicate(timeout=90)
    if how != signal.SIGKILL:
        assert client.returncode == 130
        assert not sleeping(mark)
        assert holder_of(runner.script) is None
    wait_until(lambda: holder_of(runner.script) is None and not sleeping(mark))


def test_run_verb_brings_files_there_and_home(config: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("content")
    client = facekiln(
        config, "run", "loop", "--put", f"a={tmp_path}/in", "--get", f"b={tmp_path}/out",
        "--raw-log", f"{tmp_path}/raw.log", "--", "sh", "-c", "cat a >b; echo said; exit 4",
    )  # fmt: skip
    out, err = client.communicate(timeout=60)
    assert client.returncode == 4, err
    assert out == "said\n"
    assert (tmp_path / "out").read_text() == "content"
    assert (tmp_path / "raw.log").read_text() == "said\n"


def test_status_and_check_tell_of_the_board(config: Path, sshd: Sshd) -> None:
    out, err = facekiln(config, "status").communicate(timeout=60)
    assert out == f"{'loop':12} free\n", err
    out, err = facekiln(config, "check", "loop").communicate(timeout=60)
    assert f"loop: {os.uname().machine}, Linux" in out, err


def test_add_pins_a_key_that_was_confirmed(sshd: Sshd, config: Path, tmp_path: Path) -> None:
    from facekiln.boards.login import fingerprint

    file = config / "boards.yaml"
    file.write_text("# mine\nboards:\n")
    words = [
        "add",
        "se7",
        "--host",
        "127.0.0.1",
        "--port",
        str(sshd.port),
        "--user",
        "me",
        "--chip",
        "bm1684x",
    ]
    _, err = facekiln(config, *words).communicate(timeout=60)
    assert f"run again with --fingerprint {fingerprint(sshd.host_key)}" in err
    assert file.read_text() == "# mine\nboards:\n"
    _, err = facekiln(config, *words, "--fingerprint", "SHA256:x").communicate(timeout=60)
    assert "another fingerprint was expected" in err
    assert file.read_text() == "# mine\nboards:\n"
    out, err = facekiln(config, *words, "--fingerprint", fingerprint(sshd.host_key)).communicate(timeout=60)
    assert "pinned in" in out, err
    assert file.read_text().startswith("# mine\nboards:\n  se7:\n    host: 127.0.0.1\n")
    assert yaml.safe_load(file.read_text())["boards"]["se7"]["host_key"] == sshd.host_key
    out, _ = facekiln(config, "add", "se7").communicate(timeout=60)
    assert "pinned already" in out


# --- preflight ---------------------------------------------------------------------------------------------


def changed(runner: RemoteRunner, **changes: object) -> BoardScript:
    runner.script.board = replace(runner.board, **changes)  # type: ignore[arg-type]
    return runner.script


def test_facts_are_this_machines(runner: RemoteRunner) -> None:
    begun = time.monotonic()
    facts = facts_of(runner.script)
    assert facts.machine == os.uname().machine
    assert facts.cores == os.cpu_count()
    assert abs(facts.skew) < 5 + time.monotonic() - begun
    assert facts.free > 0


def test_wrong_machine_is_refused(runner: RemoteRunner) -> None:
    with pytest.raises(WrongArchitecture, match="another machine than its entry says"):
        preflight(changed(runner, machine="armv5tel"))


def test_artifact_of_another_chip_is_refused(runner: RemoteRunner) -> None:
    with pytest.raises(WrongArchitecture, match="for bm1684, the board has bm1684x"):
        preflight(changed(runner, chip="bm1684x"), Needs(chip="bm1684"))


def test_space_is_asked_for(runner: RemoteRunner) -> None:
    with pytest.raises(DiskFull, match="too little space"):
        preflight(runner.script, Needs(space=1 << 60))


def test_clock_that_is_far_off_is_refused(runner: RemoteRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 4000)
    with pytest.raises(ClockSkew, match="far from ours"):
        preflight(runner.script)


RUNTIME = Runtime(tool="sh", version_command=("echo", "lib version: 1.5-dev"), version=">=1.4,<2")


def test_runtime_of_the_right_version_passes(runner: RemoteRunner) -> None:
    script = changed(runner, runtimes={"x": RUNTIME})
    assert preflight(script, Needs(runtime="x", version=">=1.5")).version == "1.5"


@pytest.mark.parametrize(
    ("runtime", "told"),
    [
        (replace(RUNTIME, version=">=1.6"), r"value: 1\.5; limit: >=1\.6"),
        (replace(RUNTIME, tool="no-such-tool"), "'no-such-tool' is not there"),
        (replace(RUNTIME, version_command=("echo", "none")), "version cannot be read"),
        (replace(RUNTIME, version_command=()), "its version is not known, and the artifact needs >=1"),
    ],
)
def test_unsuitable_runtime_is_refused(runner: RemoteRunner, runtime: Runtime, told: str) -> None:
    with pytest.raises(WrongRuntime, match=told):
        preflight(changed(runner, runtimes={"x": runtime}), Needs(runtime="x", version=">=1"))


def test_unknown_runtime_gets_a_suggestion(runner: RemoteRunner) -> None:
    with pytest.raises(Exception, match="did you mean 'bmrt_test'"):
        preflight(changed(runner, runtimes={"bmrt_test": RUNTIME}), Needs(runtime="bmrt_tst"))


def test_final_and_transient_faults_are_told_apart() -> None:
    assert ConnectionLost.transient
    assert Rebooted.transient
    assert not any(
        fault.transient for fault in (DiskFull, WrongRuntime, WrongArchitecture, ClockSkew, BoardFault)
    )
