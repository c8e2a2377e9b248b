"""The one way that a figure is judged against its limits."""

from __future__ import annotations

PASSED, WARNED, FAILED, SKIPPED = "passed", "warned", "failed", "skipped"
# There was something to judge, and the measurement is too poor to judge it.
UNPROVEN = "unproven"
# From best to worst; a whole is as good as its worst part.
ORDER = (SKIPPED, PASSED, WARNED, UNPROVEN, FAILED)
# Those that stop a release.
STOPPING = (UNPROVEN, FAILED)


def at_least(value: float, limit: float, warn: float | None = None) -> str:
    """Return "failed" below the limit, "warned" below `warn`, else "passed"; NaN fails."""
    if not value >= limit:
        return FAILED
    return WARNED if warn is not None and value < warn else PASSED


def at_most(value: float, limit: float, warn: float | None = None) -> str:
    """Return "failed" above the limit, "warned" above `warn`, else "passed"; NaN fails."""
    if not value <= limit:
        return FAILED
    return WARNED if warn is not None and value > warn else PASSED


def worst(verdicts: list[str]) -> str:
    """Return the worst of several verdicts; "skipped" where there is none."""
    return max(verdicts, key=ORDER.index, default=SKIPPED)
