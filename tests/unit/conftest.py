"""What holds for every unit test."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _places_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's variables send no test to their toolchains (where it would even write) or datasets."""
    for name in ("FACEKILN_TOOLCHAINS", "FACEKILN_DATASETS"):
        monkeypatch.delenv(name, raising=False)
