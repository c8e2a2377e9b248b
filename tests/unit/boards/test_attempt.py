"""A command is followed over lost connections, but not for ever."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from facekiln.boards.attempt import Attempt
from facekiln.boards.faults import ConnectionLost, RunLost
from facekiln.boards.output import Output
from facekiln.boards.script import Answer


class SilentBoard:
    """A board script whose links fall silent; the command ends at the reconnection of that number, if any."""

    def __init__(self, ends_at: int | None) -> None:
        limits = SimpleNamespace(
            reconnect_seconds=0.1 if ends_at is None else 90,
            grace_seconds=0.05,
            poll_seconds=0.01,
            command_seconds=1,
            output_mb=1,
            memory_mb=1,
        )
        self.board = SimpleNamespace(name="se7", limits=limits)
        self.session = SimpleNamespace(generation=0, reconnect=self.reconnect)
        self.reconnections, self.ends_at = 0, ends_at

    def reconnect(self, _generation: int) -> None:
        self.reconnections += 1
        assert self.reconnections < 20, "it would be followed for ever"

    def stream(self, *_arguments: Any, **_options: Any) -> None:
        if self.ends_at is None or self.reconnections < self.ends_at:
            # The idle limit of a link is as long as the command may take.
            time.sleep(0.15)
            raise ConnectionLost("the link is silent")

    def call(self, word: str, *_arguments: Any, **_options: Any) -> Answer:
        if word == "start":
            return Answer("started", {"boot": "b", "folder": "f"})
        fields = {
            "boot_now": "b",
            "stdout": "0",
            "stderr": "0",
            "status": "0",
            "centi": "5",
            "reason": "done",
        }
        return Answer("ended", fields)


def attempt(board: SilentBoard) -> Attempt:
    outputs = (Output(None, None, 0), Output(None, None, 0))
    return Attempt(board, None, "run", 0.05, outputs)  # type: ignore[arg-type]


def test_a_silent_command_is_given_up_beyond_its_limit() -> None:
    board = SilentBoard(ends_at=None)
    with pytest.raises(RunLost, match="does not end"):
        attempt(board).go("job")
    assert board.reconnections >= 1


def test_one_that_ended_while_the_link_was_silent_is_brought_home() -> None:
    board = SilentBoard(ends_at=1)
    assert attempt(board).go("job").status == 0
