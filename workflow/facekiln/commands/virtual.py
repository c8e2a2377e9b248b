"""`facekiln virtual`: boards that are no boards, to try the whole path without hardware."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from facekiln.commands import add_config, add_verb

if TYPE_CHECKING:
    from facekiln.boards.virtual.server import VirtualServer

FOLDER = Path(".boards")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    up = add_verb(
        verbs,
        "up",
        _up,
        "start an SSH server on loopback whose vendor tools are stand-ins, and declare it in boards.yaml",
        "facekiln virtual up v1 --chip mlu370_s4",
    )
    up.add_argument("name", help="of the board")
    up.add_argument(
        "--chip",
        required=True,
        help="that it pretends to be, e.g. bm1684x, mlu370_s4, rk3328; `host` is this machine, for real",
    )
    down = add_verb(
        verbs, "down", _down, "end virtual boards; they stay declared", "facekiln virtual down v1"
    )
    down.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    listed = add_verb(verbs, "list", _list, "which run, and where", "facekiln virtual list")
    for verb in (up, down, listed):
        verb.add_argument(
            "--folder", type=Path, default=FOLDER, help="where their files are (default: %(default)s)"
        )
        add_config(verb)


def _up(options: argparse.Namespace) -> None:
    from facekiln.boards.known import add_entry
    from facekiln.boards.settings import FILE, load_boards
    from facekiln.boards.virtual.server import HOST, VirtualServer, free_port
    from facekiln.errors import KilnError

    declared = load_boards(options.config).get(options.name)
    home = (options.folder / options.name).resolve()
    if declared is None:
        server = VirtualServer(home, free_port())
        server.prepare()
        add_entry(Path(options.config) / FILE, options.name, server.entry(options.chip))
    else:
        if declared.address is None or declared.work != str(home / "work"):
            raise KilnError(
                "is declared already, and is no virtual board of this folder",
                file=Path(options.config) / FILE,
                where=options.name,
                hint="take another name",
            )
        if declared.chip != options.chip:
            raise KilnError(
                "is declared with another chip",
                file=Path(options.config) / FILE,
                where=f"{options.name}.chip",
                value=options.chip,
                limit=declared.chip,
            )
        server = VirtualServer(home, declared.address.port)
        server.prepare()
    server.start()
    sys.stdout.write(
        f"{options.name}: {options.chip} at 127.0.0.1:{server.port}; "
        + (
            "this machine, for real\n"
            if options.chip == HOST
            else "VIRTUAL: a simulation's time, not a chip's\n"
        )
    )


def _servers(options: argparse.Namespace) -> dict[str, VirtualServer]:
    from facekiln.boards.settings import load_boards
    from facekiln.boards.virtual.server import VirtualServer

    return {
        name: VirtualServer(Path(board.work).parent, board.address.port)
        for name, board in load_boards(options.config).items()
        if board.address is not None and (Path(board.work).parent / "sshd_config").is_file()
    }


def _down(options: argparse.Namespace) -> None:
    from facekiln.config import known

    servers = _servers(options)
    for name in options.names or servers:
        ran = servers[known(name, servers, "virtual board")].stop()
        sys.stdout.write(f"{name}: {'ended' if ran else 'did not run'}\n")


def _list(options: argparse.Namespace) -> None:
    for name, server in _servers(options).items():
        state = "runs" if server.pid() is not None else "down"
        sys.stdout.write(f"{name}: {state}, 127.0.0.1:{server.port}, {server.home}\n")
