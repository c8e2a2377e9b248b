"""`facekiln board run` and `collect`: one command on a board, and what came back of one that was carried."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekiln.commands import end_on_sigterm, seconds
from facekiln.commands.board_common import connected, on_board, say
from facekiln.errors import KilnError, printable

if TYPE_CHECKING:
    from facekiln.boards.settings import Board


def add_run(verbs: Any) -> None:
    """Add the verbs `run` and `collect`."""
    run = on_board(
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
    run.add_argument("--timeout", type=seconds, metavar="SECONDS")
    run.add_argument(
        "--wait", type=seconds, default=0.0, metavar="SECONDS", help="for another holder of the board"
    )
    run.add_argument("--raw-log", type=Path, metavar="FILE", help="standard output; errors in FILE.stderr")
    run.add_argument("words", nargs="+", metavar="COMMAND", help="after `--`")

    collect = on_board(
        verbs,
        "collect",
        _collect,
        "read what came back of a run that `board run` prepared for a board without a connection",
        "facekiln board collect cam1 3f2a9c0d4e5b6a71",
    )
    collect.add_argument("prepared", metavar="RUN", help="as the printed plan names it")


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
    with connected(board) as script:
        space = sum(Path(path).stat().st_size for path in put.values() if Path(path).is_file())
        preflight(script, Needs(space=space))
        with Lease(script, f"board run {options.words[0]}", wait=options.wait) as lease:
            runner = RemoteRunner(script, lease)
            done = runner.run(
                options.words,
                timeout=options.timeout,
                files=put,
                log_file=options.raw_log,
                on_line=say,
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
        say(plan_of(board, run))
        return 0
    done = runner.run(
        options.words, timeout=options.timeout, files=put, log_file=options.raw_log, on_line=say, keep=True
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
