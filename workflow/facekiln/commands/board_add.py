"""`facekiln board add`: show a board's host key, ask, and pin it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from facekiln.commands import add_config, add_verb
from facekiln.commands.board_common import say
from facekiln.errors import KilnError

if TYPE_CHECKING:
    from facekiln.boards.settings import Address, Board


def add_add(verbs: Any) -> None:
    """Add the verb `add`."""
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
        say(f"{options.name}: this key is pinned already")
        return
    say(f"{options.name}: pinned in {file}; next: facekiln board check {options.name}")


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
    say(f"{address} shows the host key\n  {key.split(' ')[0]} {shown}")
    say("compare it with what the board itself prints: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
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
