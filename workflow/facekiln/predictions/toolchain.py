"""Environments of vendors' tools that backends run in: which one, and what its version is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facekiln.config import Config, known

if TYPE_CHECKING:
    from facekiln.chips.sophon.environment import Environment

_KNOWN = ("sophon",)


def _wanted(toolchain: str, config: Config) -> Environment:
    from facekiln.chips.sophon.environment import wanted
    from facekiln.chips.sophon.settings import settings_from

    known(toolchain, _KNOWN, "toolchain")
    return wanted(settings_from(config.chips[toolchain]), config)


def stamp_of(toolchain: str, config: Config) -> str:
    """Return the file that says that a toolchain is made, as rules know it; a rule makes both.

    Raises:
        KilnError: the settings name an environment that is none.
    """
    return _wanted(toolchain, config).stamp_of_rules


def version_of_toolchain(toolchain: str, config: Config) -> str:
    """Return a toolchain's identity, e.g. "tpu_mlir 1.26 lock 0123456789ab": another one, other numbers.

    Raises:
        KilnError: the settings name an environment that is none.
    """
    return " ".join(f"{key} {value}" for key, value in _wanted(toolchain, config).identity().items())
