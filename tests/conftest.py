"""Fixtures that find real files; tests that need them skip, and say so, where they do not exist."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# A loaded machine makes any deadline fail; slowness is measured in benchmarks/, not here.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

# A shell that starts pytest in the background has it ignore signals, and programs that tests start
# and interrupt would, too.
if threading.current_thread() is threading.main_thread():
    for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(_number) is signal.SIG_IGN:
            signal.signal(_number, _handler)

if TYPE_CHECKING:
    from facekiln.chips.sophon.environment import Environment

ROOT = Path(__file__).resolve().parent.parent


def _folder(variable: str, fallback: str) -> Path | None:
    named = os.environ.get(variable)
    folder = Path(named) if named else ROOT.parent / "shared" / fallback
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's top folder."""
    return ROOT


@pytest.fixture(scope="session")
def mirror() -> Callable[[str], Path]:
    """Return a published file of $FACEKILN_MIRROR by name, or skip."""

    def find(name: str) -> Path:
        folder = _folder("FACEKILN_MIRROR", "mirror")
        if folder is None or not (folder / name).is_file():
            pytest.skip(f"{name} is not here: set FACEKILN_MIRROR to a folder that holds the published files")
        return folder / name

    return find


@pytest.fixture(scope="session")
def data() -> Callable[[str], Path]:
    """Return a sample file or folder of $FACEKILN_DATA by relative path, or skip."""

    def find(name: str) -> Path:
        folder = _folder("FACEKILN_DATA", "data")
        if folder is None or not (folder / name).exists():
            pytest.skip(f"{name} is not here: set FACEKILN_DATA to a folder with the sample pictures")
        return folder / name

    return find


@pytest.fixture(scope="session")
def sha256() -> Callable[[Path], str]:
    """Return a function that hashes a file without the code under test."""
    return lambda path: hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def sophon_environment(root: Path) -> Environment:
    """The real tpu_mlir ($FACEKILN_TOOLCHAINS, or .toolchains of this checkout), or a skip."""
    from facekiln.chips.sophon.environment import environment_of
    from facekiln.chips.sophon.settings import load_settings
    from facekiln.config import load_config
    from facekiln.errors import KilnError

    try:
        return environment_of(load_settings(root / "config"), load_config(root / "config"))
    except KilnError as error:
        pytest.skip(f"no SOPHON tools here: {error}")
