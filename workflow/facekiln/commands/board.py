"""`facekiln board ...`: declare boards, look at them, run on them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekiln.commands import add_config, add_verb, end_on_sigterm
from facekiln.errors import KilnError, printable

if TYPE_CHECKING:
    from facekiln.boards.script import BoardScript
    from facekiln.boards.settings import Address, Board


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this command."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add = add_verb(
        verbs,
        "add",
        _add,
        "show a board's host key, ask, and pin it in config/boards.yaml (with a new entry, if there is none)",
        "facekiln board add se7 --host 192.168.1.20 --user linaro --key ~/.ssh/id_ed25519 --chip bm1684x",
    )
    add.add_argument("name")
    add.add_argument("--host")
    add.add_argument("--port", type=int)
    add.add_argument("--user")
    add.add_argument("--key", metavar="FILE", help="private key file without a passphrase")
    add.add_argument("--agent", action="store_true", help="use the keys of the ssh-agent")
    add.add_argument("--jump", metavar="USER@HOST[:PORT]", help="reach it through this SSH server")
    add.add_argument("--chip")
    add.add_argument("--work", metavar="FOLDER", help="the folder on the board that is ours")
    add.add_argument(
        "--fingerprint", metavar="SHA256:...", help="pin this key without asking; another is refused"
    )
    add.add_argument("--jump-fingerprint", metavar="SHA256:...", help="likewise for the jump host")
    add.add_argument(
        "--replace", action="store_true", help="the board was installed anew: replace a pinned key"
    )
    add_config(add)

    listed = add_verb(
        verbs, "list", _list, "list the declared boards; nothing is connected", "facekiln board list"
    )
    add_config(listed)

    status = add_verb(verbs, "status", _status, "who holds which board", "facekiln board status")
    status.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    add_config(status)

    check = _on_board(
        verbs,
        "check",
        _check,
        "connect, and tell what the board is and has",
        "facekiln board check se7 --runtime bmrt_test",
    )
    check.add_argument("--runtime", help="one of the board's runtimes; default: all")

    run = _on_board(
        verbs,
        "run",
        _run,
        "run one command on a board, with lease, limits and raw log",
        "facekiln board run se7 --put model.bmodel=results/x.bmodel -- bmrt_test --bmodel model.bmodel",
    )
    run.add_argument(
        "--put", action="append", default=[], metavar="NAME=FILE", help="a file for the run's folder"
    )
    run.add_argument(
        "--get", action="append", default=[], metavar="NAME=FILE", help="a file of it, brought home"
    )
    run.add_argument("--timeout", type=float, metavar="SECONDS")
    run.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="for another holder of the board"
    )
    run.add_argument("--raw-log", type=Path, metavar="FILE", help="standard output; errors in FILE.stderr")
    run.add_argument("words", nargs="+", metavar="COMMAND", help="after `--`")

    collect = _on_board(
        verbs,
        "collect",
        _collect,
        "read what came back of a run that `board run` prepared for a board without a connection",
        "facekiln board collect cam1 3f2a9c0d4e5b6a71",
    )
    collect.add_argument("prepared", metavar="RUN", help="as the printed plan names it")

    put = _on_board(
        verbs, "put", _put, "bring files into the board's store", "facekiln board put se7 a.bmodel"
    )
    put.add_argument("files", nargs="+", type=Path, metavar="FILE")
    get = _on_board(verbs, "get", _get, "bring one file home", "facekiln board get se7 /data/log.txt log.txt")
    get.add_argument("remote")
    get.add_argument("local", type=Path)
    clean = _on_board(
        verbs,
        "clean",
        _clean,
        "remove from the board what was not used for long",
        "facekiln board clean se7 --days 7",
    )
    clean.add_argument("--days", type=int, help="default: limits.keep_days")
    free = _on_board(verbs, "free", _free, "free a board by force", "facekiln board free se7 --yes")
    free.add_argument("--yes", action="store_true", help="do it: whoever measures there loses the run")


def _on_board(verbs: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    parser = add_verb(verbs, name, run, summary, example)
    parser.add_argument("name", metavar="NAME", help="a board of config/boards.yaml")
    add_config(parser)
    return parser


@contextmanager
def _connected(board: Board) -> Iterator[BoardScript]:
    from facekiln.boards.script import BoardScript
    from facekiln.boards.session import Session

    with Session(board) as session:
        yield BoardScript(session)


@contextmanager
def _board_of(options: argparse.Namespace) -> Iterator[BoardScript]:
    from facekiln.boards.settings import load_board

    with _connected(load_board(options.name, options.config)) as script:
        yield script


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


# --- add ---------------------------------------------------------------------------------------------------


def _add(options: argparse.Namespace) -> None:
    from facekiln.boards.known import add_entry, pin
    from facekiln.boards.login import offered_host_key
    from facekiln.boards.settings import FILE, boards_from, load_boards

    file = options.config / FILE
    declared = load_boards(options.config).get(options.name)
    entry: dict[str, Any] = {}
    if declared is None:
        entry = _entry(options)
        board = boards_from({"boards": {options.name: entry}}, file)[options.name]
    else:
        _refuse_changes(options, declared)
        board = declared
    assert board.address is not None
    jump = board.jump
    if jump and jump.host_key is None:
        key = offered_host_key(board, jump)
        _confirm(jump, key, options.jump_fingerprint, "--jump-fingerprint")
        if declared is not None:
            raise KilnError(
                "the jump host's key is not pinned",
                file=file,
                where=f"boards.{options.name}.jump",
                hint=f"write there: host_key: {key}",
            )
        entry["jump"]["host_key"] = key
        jump = replace(jump, host_key=key)
    key = offered_host_key(board, board.address, jump)
    if board.address.host_key != key:
        if declared is not None and board.address.host_key and not options.replace:
            pin(file, options.name, key)  # refuses, and tells both fingerprints
        _confirm(board.address, key, options.fingerprint, "--fingerprint")
    if declared is None:
        add_entry(file, options.name, {**entry, "host_key": key})
    elif not pin(file, options.name, key, replace=options.replace):
        _say(f"{options.name}: this key is pinned already")
        return
    _say(f"{options.name}: pinned in {file}; next: facekiln board check {options.name}")


def _entry(options: argparse.Namespace) -> dict[str, Any]:
    if not options.host or not options.user:
        raise KilnError(
            f"'{options.name}' is not declared, so --host and --user are needed",
            hint=f"facekiln board add {options.name} --host ADDRESS --user USER",
        )
    entry = {
        key: getattr(options, key)
        for key in ("host", "port", "user", "key", "chip", "work")
        if getattr(options, key)
    }
    if options.agent:
        entry["agent"] = True
    if options.jump:
        user, _, place = options.jump.rpartition("@")
        host, _, port = place.partition(":")
        if not user or not host or (port and not port.isdigit()):
            raise KilnError("is not USER@HOST or USER@HOST:PORT", where="--jump", value=options.jump)
        own = {key: entry[key] for key in ("key", "agent") if key in entry}
        entry["jump"] = {"host": host, "user": user, **({"port": int(port)} if port else {}), **own}
    return entry


def _refuse_changes(options: argparse.Namespace, board: Board) -> None:
    if board.address is None:
        raise KilnError(f"its transport is '{board.transport}': there is no host key", where=board.name)
    for key in ("host", "port", "user"):
        asked, is_now = getattr(options, key), getattr(board.address, key)
        if asked is not None and asked != is_now:
            raise KilnError(
                "is declared otherwise",
                where=f"boards.{board.name}.{key}",
                value=asked,
                limit=is_now,
                hint="edit config/boards.yaml, then `facekiln board add NAME` without these options",
            )


def _confirm(address: Address, key: str, wanted: str | None, option: str) -> None:
    from facekiln.boards.faults import HostKeyFault
    from facekiln.boards.login import fingerprint

    shown = fingerprint(key)
    _say(f"{address} shows the host key\n  {key.split(' ')[0]} {shown}")
    _say("compare it with what the board itself prints: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
    if wanted is not None:
        if wanted != shown:
            raise HostKeyFault(
                "another fingerprint was expected; nothing was written", value=shown, limit=wanted
            )
        return
    if not sys.stdin.isatty():
        raise HostKeyFault(
            "nobody can be asked whether this key is right; nothing was written",
            hint=f"compare it, then run again with {option} {shown}",
        )
    sys.stdout.write("is it the same? [yes/no] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() != "yes":
        raise HostKeyFault("not confirmed; nothing was written")


# --- look --------------------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> None:
    from facekiln.boards.settings import load_boards

    boards = load_boards(options.config)
    if not boards:
        _say("no board is declared; see config/boards.yaml and docs/boards.md")
    for board in boards.values():
        place = str(board.address) if board.address else f"{board.transport} {board.folder}"
        through = f" through {board.jump}" if board.jump else ""
        pinned = (
            "" if board.address is None or board.address.host_key else "  (no host key pinned: board add)"
        )
        runtimes = ", ".join(board.runtimes) or "no runtime"
        _say(f"{board.name:12} {board.chip or '-':12} {place}{through}  {runtimes}{pinned}")


def _status(options: argparse.Namespace) -> int:
    from facekiln.boards.faults import BoardFault
    from facekiln.boards.lease import holder_of
    from facekiln.boards.settings import load_boards
    from facekiln.config import known

    boards = load_boards(options.config)
    failed = 0
    for name in options.names or boards:
        board = boards[known(name, boards, "board")]
        if board.address is None:
            _say(f"{name:12} {board.transport}: no lease, {board.folder}")
            continue
        try:
            with _connected(board) as script:
                holder = holder_of(script)
            _say(f"{name:12} " + (f"held by {holder}" if holder else "free"))
        except BoardFault as fault:
            failed = 1
            _say(f"{name:12} {type(fault).__name__}: {fault.what}")
    return failed


def _check(options: argparse.Namespace) -> None:
    from facekiln.boards.lease import holder_of
    from facekiln.boards.preflight import Needs, preflight

    with _board_of(options) as script:
        facts = preflight(script)
        machine = f"{facts.machine}, Linux {facts.kernel}, {facts.cores} cores"
        _say(f"{script.board.name}: {machine}, up {facts.uptime} s")
        _say(f"  memory {facts.memory >> 20} MB available, {facts.free >> 20} MB free in {script.board.work}")
        _say(f"  load {facts.load}, clock {facts.skew:+.1f} s")
        for name in [options.runtime] if options.runtime else script.board.runtimes:
            found = preflight(script, Needs(runtime=name))
            _say(f"  runtime {name}: {found.version or 'there, version not asked'}")
        holder = holder_of(script)
        _say(f"  held by {holder}" if holder else "  free")


# --- work --------------------------------------------------------------------------------------------------


def _pairs(texts: list[str], option: str) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts)
    for name, path in pairs.items():
        if not name or not path or name.startswith("/") or ".." in Path(name).parts:
            raise KilnError(
                "is not NAME=FILE with a name inside the run's folder", where=option, value=f"{name}={path}"
            )
    return pairs


def _run(options: argparse.Namespace) -> int:
    from facekiln.boards.lease import Lease
    from facekiln.boards.preflight import Needs, preflight
    from facekiln.boards.remote import RemoteRunner
    from facekiln.boards.settings import load_board
    from facekiln.boards.upload import fetch
    from facekiln.progress import log

    put, get = _pairs(options.put, "--put"), _pairs(options.get, "--get")
    board = load_board(options.name, options.config)
    if board.address is None:
        return _run_in_folder(options, board, put, get)
    # Snakemake ends its jobs with SIGTERM; the command on the board has to end with them.
    end_on_sigterm()
    with _connected(board) as script:
        space = sum(Path(path).stat().st_size for path in put.values() if Path(path).is_file())
        preflight(script, Needs(space=space))
        with Lease(script, f"board run {options.words[0]}", wait=options.wait) as lease:
            runner = RemoteRunner(script, lease)
            done = runner.run(
                options.words,
                timeout=options.timeout,
                files=put,
                log_file=options.raw_log,
                on_line=_say,
                keep=True,
            )
            for name, path in get.items():
                fetch(script, f"{done.folder}/{name}", path)
            runner.drop(done.run)
    log.info("%s: exit status %s after %.2f s", options.name, done.status, done.seconds)
    return done.status or 0


def _run_in_folder(
    options: argparse.Namespace, board: Board, put: dict[str, str], get: dict[str, str]
) -> int:
    import uuid

    from facekiln.boards.directory import DirectoryRunner, plan_of
    from facekiln.progress import log

    end_on_sigterm()
    runner = DirectoryRunner(board)
    if board.transport == "plan":
        run = uuid.uuid4().hex[:16]
        runner.prepare(options.words, run=run, timeout=options.timeout, files=put)
        _say(plan_of(board, run))
        return 0
    done = runner.run(
        options.words, timeout=options.timeout, files=put, log_file=options.raw_log, on_line=_say, keep=True
    )
    for name, path in get.items():
        runner.fetch(done.run, name, path)
    runner.drop(done.run)
    log.info("%s: exit status %s after %.2f s", options.name, done.status, done.seconds)
    return done.status or 0


def _collect(options: argparse.Namespace) -> int:
    from facekiln.boards.directory import collect
    from facekiln.boards.settings import load_board
    from facekiln.progress import log

    done = collect(load_board(options.name, options.config), options.prepared)
    sys.stdout.write(printable(done.stdout))
    sys.stderr.write(printable(done.stderr))
    log.info("%s: exit status %s after %.2f s", options.name, done.status, done.seconds)
    return done.status or 0


def _put(options: argparse.Namespace) -> None:
    from facekiln.boards.upload import store

    with _board_of(options) as script:
        stored = store(script, options.files)
        for path, sha in stored.hashes.items():
            _say(f"{script.board.work}/blobs/{sha}  {path}")
        sent = f"{stored.sent} of {len(stored.hashes)} sent, {stored.sent_bytes / 1e6:.1f} MB"
        _say(f"{sent}; the others were there")


def _get(options: argparse.Namespace) -> None:
    from facekiln.boards.upload import fetch

    with _board_of(options) as script:
        _say(f"{options.local}: {fetch(script, options.remote, options.local)} bytes, verified")


def _clean(options: argparse.Namespace) -> None:
    from facekiln.boards.upload import clean

    with _board_of(options) as script:
        _say(f"{clean(script, options.days)} removed")


def _free(options: argparse.Namespace) -> None:
    from facekiln.boards.lease import free_by_force, holder_of

    with _board_of(options) as script:
        if not options.yes:
            holder = holder_of(script)
            _say(f"held by {holder}; `--yes` frees it by force" if holder else "free")
            return
        holder = free_by_force(script)
        _say(f"taken from {holder}" if holder else "it was free")
