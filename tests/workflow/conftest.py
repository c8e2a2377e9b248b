"""The checkout that workflow tests share."""

from pathlib import Path

import pytest

from support.checkout import Checkout, copy_checkout


@pytest.fixture(scope="session")
def checkout(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout that tests only read or dry-run."""
    return copy_checkout(root, tmp_path_factory.mktemp("checkout"))
