"""`facekiln board ...`: declare boards, look at them, run on them."""

from __future__ import annotations

import argparse
from pathlib import Path

from facekiln.commands import add_config, add_verb
from facekiln.commands.board_add import add_add
from facekiln.commands.board_common import board_of, connected, on_board, say
from facekiln.commands.board_run import add_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this command."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add_add(verbs)

    listed = add_verb(
        verbs, "list", _list, "list the declared boards; nothing is connected", "facekiln board list"
    )
    add_config(listed)

    status = add_verb(verbs, "status", _status, "who holds which board", "facekiln board status")
    status.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    add_config(status)

    check = on_board(
        verbs,
        "check",
        _check,
        "connect, and tell what the board is and has",
        "facekiln board check se7 --runtime bmrt_test",
    )
    check.add_argument("--runtime", help="one of the board's runtimes; default: all")

    add_run(verbs)

    put = on_board(
        verbs, "put", _put, "bring files into the board's store", "facekiln board put se7 a.bmodel"
    )
    put.add_argument("files", nargs="+", type=Path, metavar="FILE")
    get = on_board(verbs, "get", _get, "bring one file home", "facekiln board get se7 /data/log.txt log.txt")
    get.add_argument("remote")
    get.add_argument("local", type=Path)
    clean = on_board(
        verbs,
        "clean",
        _clean,
        "remove from the board what was not used for long",
        "facekiln board clean se7 --days 7",
    )
    clean.add_argument("--days", type=int, help="default: limits.keep_days")
    free = on_board(verbs, "free", _free, "free a board by force", "facekiln board free se7 --yes")
    free.add_argument("--yes", action="store_true", help="do it: whoever measures there loses the run")


# --- look --------------------------------------------------------------------------------------------------


_NONE = "no board is declared; see config/boards.yaml and docs/boards.md"


def _list(options: argparse.Namespace) -> None:
    from facekiln.boards.settings import load_boards

    boards = load_boards(options.config)
    if not boards:
        say(_NONE)
    for board in boards.values():
        place = str(board.address) if board.address else f"{board.transport} {board.folder}"
        through = f" through {board.jump}" if board.jump else ""
        pinned = (
            "" if board.address is None or board.address.host_key else "  (no host key pinned: board add)"
        )
        runtimes = ", ".join(board.runtimes) or "no runtime"
        say(f"{board.name:12} {board.chip or '-':12} {place}{through}  {runtimes}{pinned}")


def _status(options: argparse.Namespace) -> int:
    from facekiln.boards.faults import BoardFault
    from facekiln.boards.lease import holder_of
    from facekiln.boards.settings import load_boards
    from facekiln.config import known

    boards = load_boards(options.config)
    if not boards and not options.names:
        say(_NONE)
    failed = 0
    for name in options.names or boards:
        board = boards[known(name, boards, "board")]
        if board.address is None:
            say(f"{name:12} {board.transport}: no lease, {board.folder}")
            continue
        try:
            with connected(board) as script:
                holder = holder_of(script)
            say(f"{name:12} " + (f"held by {holder}" if holder else "free"))
        except BoardFault as fault:
            failed = 1
            say(f"{name:12} {type(fault).__name__}: {fault.what}")
    return failed


def _check(options: argparse.Namespace) -> None:
    from facekiln.boards.lease import holder_of
    from facekiln.boards.preflight import Needs, preflight

    with board_of(options) as script:
        facts = preflight(script)
        machine = f"{facts.machine}, Linux {facts.kernel}, {facts.cores} cores"
        say(f"{script.board.name}: {machine}, up {facts.uptime} s")
        say(f"  memory {facts.memory >> 20} MB available, {facts.free >> 20} MB free in {script.board.work}")
        say(f"  load {facts.load}, clock {facts.skew:+.1f} s")
        for name in [options.runtime] if options.runtime else script.board.runtimes:
            found = preflight(script, Needs(runtime=name))
            say(f"  runtime {name}: {found.version or 'there, version not asked'}")
        holder = holder_of(script)
        say(f"  held by {holder}" if holder else "  free")


# --- work --------------------------------------------------------------------------------------------------


def _put(options: argparse.Namespace) -> None:
    from facekiln.boards.upload import store

    with board_of(options) as script:
        stored = store(script, options.files)
        for path, sha in stored.hashes.items():
            say(f"{script.board.work}/blobs/{sha}  {path}")
        sent = f"{stored.sent} of {len(stored.hashes)} sent, {stored.sent_bytes / 1e6:.1f} MB"
        say(f"{sent}; the others were there")


def _get(options: argparse.Namespace) -> None:
    from facekiln.boards.upload import fetch

    with board_of(options) as script:
        say(f"{options.local}: {fetch(script, options.remote, options.local)} bytes, verified")


def _clean(options: argparse.Namespace) -> None:
    from facekiln.boards.upload import clean

    with board_of(options) as script:
        say(f"{clean(script, options.days)} removed")


def _free(options: argparse.Namespace) -> None:
    from facekiln.boards.lease import free_by_force, holder_of

    with board_of(options) as script:
        if not options.yes:
            holder = holder_of(script)
            say(f"held by {holder}; `--yes` frees it by force" if holder else "free")
            return
        holder = free_by_force(script)
        say(f"taken from {holder}" if holder else "it was free")
