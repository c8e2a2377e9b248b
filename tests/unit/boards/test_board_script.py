"""board.sh itself, by every shell that is here; no SSH is needed for it."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.boards.faults import BadAnswer, BoardFault, DiskFull, retried
from facekiln.boards.preflight import satisfies
from facekiln.boards.remote import job_text
from facekiln.boards.script import parse_answer
from facekiln.errors import KilnError
from support.sshd import end_processes_with, processes_with, wait_until

SCRIPT = Path(__file__).parents[3] / "workflow" / "facekiln" / "boards" / "board.sh"
Board = Callable[..., subprocess.CompletedProcess[bytes]]
SHELLS = [
    shell for shell in (["dash"], ["bash", "--posix"], ["busybox", "sh"], ["sh"]) if shutil.which(shell[0])
]


@pytest.fixture(params=SHELLS, ids=" ".join)
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Board:
    """A function that calls board.sh in a shell of this machine; busybox brings its own tools along."""
    environment = dict(os.environ)
    if request.param[0] == "busybox":
        tools = tmp_path / "busybox"
        tools.mkdir()
        for applet in subprocess.run(
            ["busybox", "--list"], capture_output=True, text=True, check=True
        ).stdout.split():
            (tools / applet).symlink_to(str(shutil.which("busybox")))
        environment["PATH"] = str(tools)

    def call(*words: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        shell = [str(shutil.which(request.param[0])), *request.param[1:]]
        return subprocess.run(
            [*shell, str(SCRIPT), str(tmp_path / "work"), str(tmp_path / "lease"), *map(str, words)],
            input=data,
            capture_output=True,
            env=environment,
            start_new_session=True,
            timeout=60,
            check=False,
        )

    return call


def put_before(name: str, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let board.sh find a shell script instead of a tool of that name."""
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def word(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done
    return done.stdout.decode().split("\n")[0]


def test_blob_is_received_in_two_parts(board: Board, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    sha = hashlib.sha256(data).hexdigest()
    assert b"at\noffset=0\n" in board("begin", sha, "t", len(data)).stdout
    assert board("receive", sha, "t", 0, len(data), data=data[:40_000]).stdout == b"short\noffset=40000\n"
    assert b"at\noffset=40000\n" in board("begin", sha, "t", len(data)).stdout
    assert word(board("receive", sha, "t", 40_000, len(data), data=data[40_000:])) == "stored"
    assert (tmp_path / "work" / "blobs" / sha).read_bytes() == data
    assert word(board("begin", sha, "t", len(data))) == "have"
    assert f"{sha}=1".encode() in board("has", sha).stdout


def test_a_part_that_another_upload_moves_away_has_no_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the question whether it is there and its size, which is nothing then."""
    put_before("wc", "exit 1", tmp_path / "tools", monkeypatch)
    sha = hashlib.sha256(b"x").hexdigest()
    blobs = tmp_path / "work" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha}.part-t").write_bytes(b"gone soon")
    command = ["sh", str(SCRIPT), str(tmp_path / "work"), str(tmp_path / "lease"), "begin", sha, "t", "1"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"at\noffset=0\n")


def test_uploads_that_meet_all_end_with_the_same_blob(board: Board, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    sha, blobs = hashlib.sha256(data).hexdigest(), tmp_path / "work" / "blobs"
    board("facts")

    def upload(token: str) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            begun = board("begin", sha, token, len(data)).stdout.decode().split()
            if begun[0] == "have":
                return
            if begun[0] == "at":
                offset = int(begun[1].removeprefix("offset="))
                told = word(board("receive", sha, token, offset, len(data), data=data[offset:]))
                assert told in ("stored", "short", "moved")
                if told == "stored":
                    return
        pytest.fail("never stored")

    for turn in range(3):
        (blobs / f"{sha}.open-{turn}-{turn}-before").write_bytes(data[: turn * 1000])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(upload, "abcd"))
        assert [path.name for path in blobs.iterdir()] == [sha]
        assert (blobs / sha).read_bytes() == data
        (blobs / sha).unlink()


def test_an_upload_whose_part_is_taken_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled one that goes on after another took its part: nothing is named, nothing stays."""
    sha = hashlib.sha256(b"right").hexdigest()
    (tmp_path / "work" / "blobs").mkdir(parents=True)
    take = f'case $3 in */{sha}) rm -f "$2"; exit 1 ;; esac\nexec {shutil.which("mv")} "$@"'
    put_before("mv", take, tmp_path / "tools", monkeypatch)
    command = [
        "sh",
        str(SCRIPT),
        str(tmp_path / "work"),
        str(tmp_path / "lease"),
        "receive",
        sha,
        "t",
        "0",
        "5",
    ]
    done = subprocess.run(command, input=b"right", capture_output=True, timeout=60, check=False)
    assert done.stdout == b"short\noffset=0\n", done.stderr
    assert not list((tmp_path / "work" / "blobs").iterdir())


def test_a_stalled_upload_is_taken_over(board: Board, tmp_path: Path) -> None:
    data = os.urandom(50_000)
    sha = hashlib.sha256(data).hexdigest()
    board("begin", sha, "old", len(data))
    words = [
        *SHELLS[0],
        SCRIPT,
        tmp_path / "work",
        tmp_path / "lease",
        "receive",
        sha,
        "old",
        "0",
        str(len(data)),
    ]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as stalled:
        assert stalled.stdin is not None
        stalled.stdin.write(data[:20_000])
        stalled.stdin.flush()
        wait_until(lambda: b"size=20000" in board("begin", sha, "new", len(data)).stdout)
        assert board("begin", sha, "new", len(data)).stdout == b"busy\nsize=20000\n"
        assert b"at\noffset=20000\n" in board("begin", sha, "new", len(data), "steal").stdout
        assert stalled.wait(60) == -signal.SIGKILL
    assert word(board("receive", sha, "new", 20_000, len(data), data=data[20_000:])) == "stored"
    assert [path.name for path in (tmp_path / "work" / "blobs").iterdir()] == [sha]


def test_wrong_bytes_are_removed(board: Board, tmp_path: Path) -> None:
    sha = hashlib.sha256(b"right").hexdigest()
    board("begin", sha, "t", 5)
    assert word(board("receive", sha, "t", 0, 5, data=b"wrong")) == "mismatch"
    assert not list((tmp_path / "work" / "blobs").iterdir())


def test_bytes_from_the_middle_are_sent(board: Board, tmp_path: Path) -> None:
    path = tmp_path / "it's"
    path.write_bytes(bytes(range(256)))
    assert board("send", path, 0).stdout == bytes(range(256))
    assert board("send", path, 250).stdout == bytes(range(250, 256))
    assert board("hash", path).stdout.decode().split() == [
        "hash", f"sha256={hashlib.sha256(bytes(range(256))).hexdigest()}",
    ]  # fmt: skip


def test_run_is_watched_and_told(board: Board, tmp_path: Path) -> None:
    run = uuid.uuid4().hex
    job = job_text(["sh", "-c", 'echo "$X"; echo err >&2; exit 9'], {"X": "it's"})
    assert word(board("start", run, 20, 20, 0.1, 0, 0, "", data=job.encode())) == "started"
    followed = board("follow", run, 0, 0, 0.1)
    assert (followed.stdout, followed.stderr) == (b"it's\n", b"err\n")
    state = board("state", run).stdout.decode()
    assert state.startswith("ended\nstatus=9\nreason=done\n")
    assert "stdout=5\nstderr=4\n" in state


def test_a_daemon_without_an_environment_for_a_moment_is_ended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is just replaced by another program has none: the first look after a run's end finds nothing."""
    looked = tmp_path / "looked"
    first = f"case $2 in FACEKILN_RUN=*) [ -e {looked} ] || {{ : >{looked}; exit 1; }} ;; esac"
    grep = f'{first}\nexec {shutil.which("grep")} "$@"'
    put_before("grep", grep, tmp_path / "tools", monkeypatch)
    run, seconds = uuid.uuid4().hex, f"2718.{uuid.uuid4().int % 10**9}"

    def call(*words: object, data: bytes = b"") -> str:
        command = ["sh", str(SCRIPT), str(tmp_path / "work"), str(tmp_path / "lease"), *map(str, words)]
        done = subprocess.run(
            command, input=data, capture_output=True, start_new_session=True, timeout=60, check=True
        )
        return done.stdout.decode()

    job = job_text(["sh", "-c", f"setsid sleep {seconds} >/dev/null 2>&1 & echo started"], {})
    call("start", run, 20, 20, 0.1, 0, 0, "", data=job.encode())
    assert call("follow", run, 0, 0, 0.1) == "started\n"
    assert call("state", run).startswith("ended\nstatus=0\n")
    assert looked.exists()
    left = processes_with(seconds)
    end_processes_with(seconds)
    assert not left


def test_a_daemon_that_is_replaced_for_long_is_ended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy board it stays without an environment for longer than the two looks take."""
    daemon, asked, looks = tmp_path / "daemon", tmp_path / "asked", tmp_path / "looks"
    asked.touch()
    looks.touch()
    grep = (
        f"real={shutil.which('grep')}\n"
        f'count() {{ "$real" -c . {tmp_path}/"$1"; }}\n'
        f"case $1 in -L) echo x >>{asked}\n"
        f"  [ $(count asked) -ge 4 ] || echo /proc/$(cat {daemon})/environ; exit ;; esac\n"
        f"case $2 in FACEKILN_RUN=*) echo x >>{looks}\n"
        "  [ $(count looks) -ge 3 ] || [ $(count asked) -ge 4 ] || exit 1 ;; esac\n"
        'exec "$real" "$@"'
    )
    put_before("grep", grep, tmp_path / "tools", monkeypatch)
    run, seconds = uuid.uuid4().hex, f"2718.{uuid.uuid4().int % 10**9}"
    command = ["sh", str(SCRIPT), str(tmp_path / "work"), str(tmp_path / "lease")]

    def call(*words: object, data: bytes = b"") -> None:
        told = [*command, *map(str, words)]
        subprocess.run(told, input=data, capture_output=True, start_new_session=True, timeout=60, check=True)

    sleeper = f"setsid sh -c 'echo $$ >{daemon}.new && mv {daemon}.new {daemon}; exec sleep {seconds}'"
    waiting = f"while [ ! -e {daemon} ]; do sleep 0.05; done"
    job = job_text(["sh", "-c", f"{sleeper} >/dev/null 2>&1 & {waiting}"], {})
    call("start", run, 50, 50, 0.1, 0, 0, "", data=job.encode())
    call("follow", run, 0, 0, 0.1)
    left = processes_with(seconds)
    end_processes_with(seconds)
    assert not left


def test_a_daemon_is_found_by_any_of_its_variables(board: Board) -> None:
    """busybox's grep reads a file up to its first NUL: the first variable alone."""
    run, seconds = uuid.uuid4().hex, f"2718.{uuid.uuid4().int % 10**9}"
    variables = 'PATH="$PATH" A=1 FACEKILN_RUN="$FACEKILN_RUN" B=2'
    daemon = f"env -i {variables} setsid sleep {seconds} >/dev/null 2>&1 & echo started"
    board("start", run, 20, 20, 0.1, 0, 0, "", data=job_text(["sh", "-c", daemon], {}).encode())
    assert board("follow", run, 0, 0, 0.1).stdout == b"started\n"
    left = processes_with(seconds)
    end_processes_with(seconds)
    assert not left


def test_limit_and_kill_end_the_command(board: Board) -> None:
    # A run is ended by its name, wherever it is, and this test goes on in other shells at the same time.
    late, killed = uuid.uuid4().hex, uuid.uuid4().hex
    job = job_text(["sleep", "60"], {})
    board("start", late, 1, 20, 0.1, 0, 0, "", data=job.encode())
    board("follow", late, 0, 0, 0.1)
    assert "reason=timeout" in board("state", late).stdout.decode()
    board("start", killed, 60, 60, 0.1, 0, 0, "", data=job.encode())
    assert word(board("kill", killed)) == "killed"
    assert "reason=cancelled" in board("state", killed).stdout.decode()


def test_run_is_ended_by_its_whole_name(board: Board) -> None:
    run = uuid.uuid4().hex
    others = (f"{run}-b", f"{run}b")
    job = job_text(["sleep", "60"], {})
    for name in (run, *others):
        board("start", name, 60, 60, 0.1, 0, 0, "", data=job.encode())
    try:
        assert word(board("kill", run)) == "killed"
        assert [word(board("state", name)) for name in (run, *others)] == ["ended", "running", "running"]
    finally:
        for name in others:
            board("kill", name)
    assert "reason=cancelled" in board("state", others[0]).stdout.decode()


def test_a_watcher_that_is_slow_to_start_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy board took longer than a second: its command counted as one whose watcher was killed."""
    real = shutil.which("setsid")
    put_before(
        "setsid", f'case $* in *" watch "*) sleep 2 ;; esac\nexec {real} "$@"', tmp_path / "t", monkeypatch
    )
    command = ["sh", str(SCRIPT), str(tmp_path / "work"), str(tmp_path / "lease")]

    def call(*words: object, data: bytes = b"") -> bytes:
        told = [*command, *map(str, words)]
        return subprocess.run(told, input=data, capture_output=True, timeout=60, check=True).stdout

    run = uuid.uuid4().hex
    assert call("start", run, 50, 50, 0.1, 0, 0, "", data=job_text(["echo", "x"], {}).encode())
    assert call("follow", run, 0, 0, 0.1) == b"x\n"
    assert call("state", run).startswith(b"ended\nstatus=0\nreason=done\n")


def test_a_watcher_that_is_slow_to_end_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the end of the command and the word of it."""
    real, slow = shutil.which("mv"), "case $2 in */.status) sleep 2.5 ;; esac"
    put_before("mv", f'{slow}\nexec {real} "$@"', tmp_path / "tools", monkeypatch)
    command = ["sh", str(SCRIPT), str(tmp_path / "work"), str(tmp_path / "lease")]

    def call(*words: object, data: bytes = b"") -> str:
        told = [*command, *map(str, words)]
        done = subprocess.run(told, input=data, capture_output=True, timeout=60, check=True)
        return done.stdout.decode()

    run = uuid.uuid4().hex
    call("start", run, 50, 50, 0.1, 0, 0, "", data=job_text(["sleep", "60"], {}).encode())
    assert call("kill", run) == "killed\n"
    assert call("state", run).startswith("ended\n")


def test_value_that_looks_like_a_mark_is_none(board: Board) -> None:
    run, other = uuid.uuid4().hex, uuid.uuid4().hex
    job = job_text(["sleep", "60"], {"X": f"a\nFACEKILN_RUN={run}", "OF_FACEKILN_RUN": run})
    board("start", other, 60, 60, 0.1, 0, 0, "", data=job.encode())
    board("start", run, 60, 60, 0.1, 0, 0, "", data=job_text(["true"], {}).encode())
    board("follow", run, 0, 0, 0.1)
    try:
        assert word(board("state", other)) == "running"
    finally:
        board("kill", other)


def test_job_that_did_not_arrive_whole_is_not_started(board: Board, tmp_path: Path) -> None:
    job = job_text(["touch", str(tmp_path / "ran")], {})
    done = board("start", "r", 9, 9, 0.1, 0, 0, "", data=job.encode()[:-4])
    assert done.returncode == 3
    assert done.stdout.startswith(b"fault short")
    time.sleep(0.2)
    assert not (tmp_path / "ran").exists()


def test_racing_takers_of_a_stale_lease(board: Board, tmp_path: Path) -> None:
    for turn in range(3):
        assert word(board("lease_take", f"stale{turn}", 100, "me", "x")) == "taken"
        current = max((tmp_path / "lease").glob("lease-*"))
        text = current.read_text()
        current.write_text(re.sub(r"expires=\d+", "expires=1", text))
        tokens = [f"{turn}-{number}" for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            words = list(pool.map(lambda token: word(board("lease_take", token, 100, "me", "x")), tokens))
        assert words.count("taken") <= 1
        if "taken" in words:
            assert word(board("lease_free", tokens[words.index("taken")])) == "freed"
        assert word(board("lease_status")) == "free"
    assert not list((tmp_path / "lease").glob(".new-*"))


TAKERS = """
import os, sys
from itertools import count
source, folder = sys.argv[1:]
for number in count(1):
    os.link(source, f"{folder}/lease-{number:010}")
    if number > 32:
        os.unlink(f"{folder}/lease-{number - 32:010}")
"""


def test_a_lease_that_a_taker_removes_at_this_moment_is_nobody_elses(board: Board, tmp_path: Path) -> None:
    """Between the questions whether it is there and can be read: it counted as another account's."""
    lease, held = tmp_path / "lease", tmp_path / "held"
    lease.mkdir()
    held.write_text("state=free\n")
    with subprocess.Popen([sys.executable, "-c", TAKERS, held, lease]) as takers:
        try:
            wait_until(lambda: list(lease.iterdir()))
            assert {word(board("lease_status")) for _ in range(100)} == {"free"}
        finally:
            takers.kill()


def test_a_call_that_goes_on_after_its_connection_was_cut_harms_the_next_one_in_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same client calls again, with the same token, while the first call still runs on the board."""
    command = ["sh", str(SCRIPT), str(tmp_path / "work"), str(tmp_path / "lease")]

    def call(*words: str) -> str:
        done = subprocess.run([*command, *words], capture_output=True, timeout=60, check=True)
        return done.stdout.decode().split("\n")[0]

    for tool, words in (
        ("ln", ["lease_take", "t", "100", "me", "x"]),
        ("mv", ["beat", "-", "1", "t", "100"]),
    ):
        once, real = tmp_path / f"{tool}-once", shutil.which(tool)
        again = f"[ -e {once} ] || {{ : >{once}; {shlex.join([*command, *words])} >{once}; }}"
        put_before(tool, f'{again}\nexec {real} "$@"', tmp_path / f"{tool}-tools", monkeypatch)
        told = call(*words)
        assert (told, once.read_text().split("\n")[0]) in (("taken", "taken"), ("held", "held"))
    assert len(list((tmp_path / "lease").iterdir())) == 1


def test_a_lease_whose_folder_was_emptied_is_told_as_lost(board: Board) -> None:
    assert word(board("beat", "-", 1, "token", 5)) == "lost"


def test_facts_are_told(board: Board) -> None:
    told = board("facts").stdout.decode()
    assert f"machine={os.uname().machine}\n" in told
    assert "free_kb=" in told


def test_unknown_command_is_a_fault(board: Board) -> None:
    assert board("rm").stdout == b"fault usage rm\n"


# --- the Python side of it ---------------------------------------------------------------------------------


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=4
    )
)
def test_any_arguments_pass_the_shell(words: list[str]) -> None:
    job = job_text(["printf", "%s\\n", *words], {})
    done = subprocess.run(["sh"], input=job.encode(), capture_output=True, check=True)
    assert done.stdout == "".join(f"{word}\n" for word in words).encode()


def test_fault_line_becomes_its_error() -> None:
    with pytest.raises(DiskFull, match=r"se7: /data: the disk is full"):
        parse_answer("se7", "fault disk-full /data\n")
    with pytest.raises(BadAnswer):
        parse_answer("se7", "Welcome to the board!\n")
    with pytest.raises(BadAnswer):
        parse_answer("se7", "")


@pytest.mark.parametrize(
    ("version", "wanted", "suits"),
    [
        ("1.5", ">=1.4,<2", True),
        ("1.10", ">1.9", True),
        ("1.5", "==1.5.0", True),
        ("2.0", "<2", False),
        ("0.4.9", ">=0.4.10", False),
        ("1.5", "!=1.5", False),
    ],
)
def test_versions_are_compared_by_number(version: str, wanted: str, suits: bool) -> None:
    assert satisfies(version, wanted) is suits


def test_wrong_version_limit_is_told() -> None:
    with pytest.raises(KilnError, match="no list of version limits"):
        satisfies("1.5", "~1")


def test_only_transient_faults_are_tried_again() -> None:
    calls: list[int] = []

    class Passing(BoardFault):
        transient = True

    def attempt() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise Passing("not yet")
        return "done"

    assert retried(attempt, attempts=3, wait=0) == "done"
    calls.clear()
    with pytest.raises(Passing):
        retried(attempt, attempts=2, wait=0)

    def final() -> None:
        calls.append(1)
        raise DiskFull("full")

    calls.clear()
    with pytest.raises(DiskFull):
        retried(final, attempts=5, wait=0)
    assert len(calls) == 1


def test_what_a_board_says_cannot_steer_a_terminal() -> None:
    answer = parse_answer("b", "held\nowner=me\npurpose=\x1b]0;x\x07\x1b[2Jmine\n")
    assert answer.fields["purpose"] == r"\x1b]0;x\x07\x1b[2Jmine"
    with pytest.raises(BoardFault) as told:
        parse_answer("b", "fault leftover \x1b[2J")
    assert "\x1b" not in str(told.value)


def test_message_with_a_boards_words_cannot_steer_a_terminal() -> None:
    error = KilnError("a\x1b[2J", value="b\rc\x9b2J", hint="d\x08")
    assert str(error) == "a\\x1b[2J (value: b\\x0dc\\x9b2J)\n  next step: d\\x08"
    assert error.what == "a\\x1b[2J"


def test_message_with_a_boards_noise_keeps_its_beginning() -> None:
    noise = "x" * 100_000
    with pytest.raises(DiskFull) as told:
        parse_answer("se7", f"fault disk-full /data {noise}\n")
    assert str(told.value).startswith("se7: /data xxx")
    assert "…: the disk is full\n  next step: " in str(told.value)
    assert len(str(told.value)) < 600
    for text in (f"fault {noise} {noise}", noise, f"{noise} {noise}"):
        try:
            parse_answer("se7", text)
        except BadAnswer as fault:
            assert len(str(fault)) < 600


def test_lease_folder_that_is_a_link_is_not_opened_to_everybody(board: Board, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (tmp_path / "lease").symlink_to(private)
    assert b"fault unwritable" in board("lease_take", "t", 30, "me", "x").stdout
    assert private.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("entry", ["1", "0", "-1", "", "x", "12 34", "1;x"])
def test_rest_of_a_run_that_names_no_group_ends_nothing(board: Board, tmp_path: Path, entry: str) -> None:
    assert word(board("lease_take", "first", 30, "me", "x")) == "taken"
    board("lease_free", "first")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # Nothing of this machine carries the mark of that run.
    (tmp_path / "lease" / "run-0123456789abcdef").write_text(f"{entry} {boot}\n")
    calls = tmp_path / "calls"
    text = SCRIPT.read_text().replace(
        "kill_run() {", f'kill_run() {{ echo "$2" >>{calls}; return 0; }}\nunused() {{'
    )
    (tmp_path / "board.sh").write_text(text)
    done = subprocess.run(
        ["sh", "board.sh", "work", "lease", "lease_take", "second", "30", "me", "x"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert word(done) == "taken"
    assert not calls.exists()
    assert not list((tmp_path / "lease").glob("run-*"))
