"""Entries and host keys written into config/boards.yaml, with every comment of the file left as it is."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from facekiln.artifact import write_text
from facekiln.boards.faults import HostKeyFault
from facekiln.boards.login import fingerprint
from facekiln.boards.settings import boards_from
from facekiln.errors import KilnError

# Blanks only and no line ends, as what follows are comments of the file's owner.
_TOP = re.compile(r"^boards:[ \t]*(?:\{[ \t]*\}|null|~)?[ \t]*(#.*)?$", re.MULTILINE)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold off other writers of the file, by a lock of its folder, which leaves nothing behind."""
    handle = os.open(file.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else "boards:\n"


def _block(name: str, entry: Mapping[str, Any], indent: str) -> str:
    body = yaml.safe_dump({name: dict(entry)}, sort_keys=False, default_flow_style=False, width=1000)
    return "".join(f"{indent}{line}\n" for line in body.splitlines())


def _indent(text: str) -> str:
    inside = text[match.end() :] if (match := _TOP.search(text)) else ""
    found = re.search(r"^([ \t]+)[^\s#]", inside, re.MULTILINE)
    return found[1] if found else "  "


def _write(file: Path, text: str, expected: Mapping[str, Any], paste: str) -> None:
    """Write the text if it says what it should; a file of another form is left to its owner."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict) or value.get("boards") != expected:
        raise KilnError(
            "is written in a form that is not edited here",
            file=file,
            hint=f"write it there by hand:\n{paste}",
        )
    boards_from(value, file)
    write_text(file, text)


def add_entry(file: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Add a board below `boards:`.

    Raises:
        KilnError: it is declared already, the entry breaks the schema, or the file has an unusual form (it is
            left as it is).
    """
    with _alone(file):
        text = _text_of(file)
        before = (yaml.safe_load(text) or {}).get("boards") or {}
        if name in before:
            raise KilnError("is declared already", file=file, where=name)
        block = _block(name, entry, _indent(text)).rstrip("\n")

        def with_block(top: re.Match[str]) -> str:
            return f"boards:{' ' + top[1] if top[1] else ''}\n{block}"

        new = _TOP.sub(with_block, text, count=1).rstrip("\n") + "\n"
        _write(file, new, {**before, name: dict(entry)}, block)


def pin(file: Path, name: str, host_key: str, *, replace: bool = False) -> bool:
    """Write a board's host key into its entry; True if the file was changed.

    Raises:
        HostKeyFault: another key is pinned and `replace` is not given; both fingerprints are told.
        KilnError: the file has an unusual form (it is left as it is).
    """
    with _alone(file):
        return _pin(file, name, host_key, replace=replace)


def _pin(file: Path, name: str, host_key: str, *, replace: bool) -> bool:
    text = _text_of(file)
    before = (yaml.safe_load(text) or {}).get("boards") or {}
    pinned = before[name].get("host_key")
    if pinned == host_key:
        return False
    if pinned and not replace:
        raise HostKeyFault(
            "another host key is pinned",
            file=file,
            where=name,
            value=fingerprint(host_key),
            limit=fingerprint(pinned),
            hint="if the board was installed anew: the same command with --replace",
        )
    line = f"host_key: {host_key}"
    head = re.search(rf"^([ \t]+){re.escape(name)}:[ \t]*(?:#.*)?\n", text, re.MULTILINE)
    expected = {**before, name: {**before[name], "host_key": host_key}}
    new = text
    if head:
        end = re.compile(rf"^[ \t]{{0,{len(head[1])}}}[^\s#]", re.MULTILINE).search(text, head.end())
        body = text[head.end() : end.start() if end else len(text)]
        step = re.search(r"^([ \t]+)[^\s#]", body, re.MULTILINE)
        inner = step[1] if step else head[1] + "  "
        if pinned:
            body = re.sub(rf"^{inner}host_key:.*$", f"{inner}{line}", body, count=1, flags=re.MULTILINE)
        else:
            body = f"{inner}{line}\n{body}"
        new = text[: head.end()] + body + (text[end.start() :] if end else "")
    _write(file, new, expected, f"    {line}")
    return True
