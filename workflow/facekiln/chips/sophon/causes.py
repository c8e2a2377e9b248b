"""Why a tool of tpu_mlir failed: its own cause, which stands in mid-log, and what to do.

The last line of its output only repeats the command, and every failure is exit status 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TAIL = 4


@dataclass(frozen=True)
class Cause:
    """What was wrong, in the tool's or our words, and the next step."""

    what: str
    hint: str | None = None


@dataclass(frozen=True)
class _Known:
    pattern: re.Pattern[str]
    what: str  # "{0}" is the matched text, "{1}" its first group
    hint: str


def _known(pattern: str, what: str, hint: str) -> _Known:
    return _Known(re.compile(pattern, re.MULTILINE), what, hint)


# In the order of how deep they lie: one that brings others with it stands first.
_KNOWN = (
    _known(
        r"^.*No space left on device.*$",
        "the disk is full: {0}",
        "free some space; results/, the job's folder beside it and the toolchains folder are written",
    ),
    _known(
        r"version [`'](GLIBC_[\d.]+)' not found.*$|\*\*\* stack smashing detected \*\*\*",
        "a glibc of the wheel meets the machine's: {0}",
        "facekiln sophon environment --remove, then --make; it takes the wheel's own libc files out",
    ),
)


def cause_of(text: str, status: int) -> Cause:
    """Return why a tool failed.

    Args:
        text: its cleaned output.
        status: its exit status; negative, the signal that ended it.
    """
    return _cause(_KNOWN, text, status)


def _cause(table: tuple[_Known, ...], text: str, status: int) -> Cause:
    for known in table:
        found = known.pattern.search(text)
        if found:
            groups = [found[0].strip(), *(group or "" for group in found.groups())]
            return Cause(known.what.format(*groups), known.hint)
    tail = [line.strip() for line in text.splitlines() if line.strip()][-_TAIL:]
    return Cause(" | ".join(tail) or f"it printed nothing and ended with status {status}")


# Of pip.
_INSTALL = (
    _KNOWN[0],
    _known(
        r"THESE PACKAGES DO NOT MATCH THE HASHES",
        "a file is not the one that was locked",
        "the index or the folder serves another file of that name; take the wheels of the public index",
    ),
    _known(
        r"^.*(?:Temporary failure in name resolution|Connection refused|ProxyError|SSLError|timed out).*$",
        "the index is not reachable: {0}",
        "set PIP_PROXY, PIP_CERT or PIP_INDEX_URL; without any index, environment.wheels in "
        "config/chips/sophon.yaml",
    ),
    _known(
        r"^ERROR: (No matching distribution found for .*)$",
        "{1}",
        "is an index reachable (PIP_INDEX_URL, PIP_PROXY, pip.conf)? without one, put every wheel of "
        "envs/sophon.txt into a folder and name it as environment.wheels in config/chips/sophon.yaml",
    ),
)


def install_cause_of(text: str, status: int) -> Cause:
    """Return why pip failed, as `cause_of`."""
    return _cause(_INSTALL, text, status)
