"""Entries and host keys written into config/boards.yaml, with every comment of the file left as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from facekiln.artifact import write_text
from facekiln.boards.faults import HostKeyFault
from facekiln.boards.login import fingerprint
from facekiln.boards.settings import boards_from
from facekiln.errors import KilnError

_TOP = re.compile(r"^boards:\s*(\{\s*\}|null|~)?\s*(#.*)?$", re.MULTILINE)


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
        KilnError: the entry breaks the schema, or the file has an unusual form (it is left as it is).
    """
    text = _text_of(file)
    before = (yaml.safe_load(text) or {}).get("boards") or {}
    block = _block(name, entry, _indent(text))
    new = _TOP.sub(lambda _: "boards:\n" + block.rstrip("\n"), text, count=1)
    _write(file, new, {**before, name: dict(entry)}, block)


def pin(file: Path, name: str, host_key: str, *, replace: bool = False) -> bool:
    """Write a board's host key into its entry; True if the file was changed.

    Raises:
        HostKeyFault: another key is pinned and `replace` is not given; both fingerprints are told.
        KilnError: the file has an unusual form (it is left as it is).
    """
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
