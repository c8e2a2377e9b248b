"""Which of a chip's settings decide what a rule makes: a change of the others makes nothing again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# How long a tool may take, with how many threads, which program starts its container or connection, which
# card calibrates. Where a tool lies (`command`, `library_path`, `host`, `image`) is not among them: no rule
# sees its release, so another place may be another release.
_ONLY_HOW = {"timeout_minutes", "pnnx_timeout_minutes", "threads", "program", "device", "remote"}


def deciding(settings: Mapping[str, Any], *sections: str) -> dict[str, Any]:
    """Return the sections of a chip's file that a rule's command reads, without what decides no byte.

    Keys are sorted: their order in the file is none of it either.

    Args:
        settings: of `config/chips/*.yaml`, checked.
        sections: its keys.

    Raises:
        KeyError: no such section.
    """
    return {name: _kept(settings[name]) for name in sections}


def _kept(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _kept(item) for key, item in sorted(value.items()) if key not in _ONLY_HOW}
