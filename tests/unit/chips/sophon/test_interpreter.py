"""A Python 3.10 is found by running candidates."""

from pathlib import Path

import pytest

from facekiln.chips.sophon.interpreter import find_interpreter
from facekiln.chips.sophon.settings import EnvironmentSettings
from facekiln.errors import KilnError
from support.sophon_stand_in import interpreter


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Python 3.10 anywhere but where a test puts one."""
    for name in (
        "FACEKILN_PYTHON310",
        "PYENV_ROOT",
        "UV_PYTHON_INSTALL_DIR",
        "CONDA_PREFIX",
        "MAMBA_ROOT_PREFIX",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # The pretended Pythons are shell scripts.
    (tmp_path / "tools").mkdir()
    for name in ("sh", "dirname", "mkdir", "cat", "chmod"):
        (tmp_path / "tools" / name).symlink_to(Path("/bin") / name)
    monkeypatch.setenv("PATH", f"{tmp_path / 'first'}:{tmp_path / 'tools'}")
    if any(
        Path(folder, "python3.10").exists() for folder in ("/usr/bin", "/usr/local/bin", "/opt/conda/bin")
    ):
        pytest.skip("this system has a Python 3.10 of its own, which would be found")


def shim(path: Path) -> None:
    """What pyenv puts on PATH for a version that is not chosen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\necho 'pyenv: python3.10: command not found' >&2\nexit 127\n")
    path.chmod(0o755)


def test_a_shim_is_passed_over_for_a_version_of_pyenv(tmp_path: Path) -> None:
    shim(tmp_path / "first" / "python3.10")
    versions = tmp_path / "home" / ".pyenv" / "versions"
    interpreter(versions / "3.10.9" / "bin" / "python3.10")
    newest = interpreter(versions / "3.10.13" / "bin" / "python3.10", version="3.10.13")
    interpreter(versions / "3.11.1" / "bin" / "python3.10")
    found = find_interpreter(EnvironmentSettings())
    assert (found.path, found.version) == (newest, "3.10.13")


@pytest.mark.parametrize(
    "place",
    [
        "first/python3.10",
        "home/.local/share/uv/python/cpython-3.10.18-linux-x86_64-gnu/bin/python3.10",
        "home/miniforge3/envs/old/bin/python3.10",
    ],
)
def test_places(tmp_path: Path, place: str) -> None:
    there = interpreter(tmp_path / place)
    assert find_interpreter(EnvironmentSettings()).path == there


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"version": "3.11.2"}, "is CPython 3.11.2"),
        ({"implementation": "PyPy"}, "is PyPy 3.10.9"),
        ({"machine": "aarch64"}, "built for 64-bit x86 Linux"),
        ({"bits": 32}, "built for 64-bit x86 Linux"),
        ({"venv": False}, "apt install python3.10-venv"),
        ({"modules": False}, "without ssl, ctypes or zlib"),
        ({"libc": None}, "runs on no glibc"),
        ({"libc": "glibc 2.31"}, "needs glibc 2.35"),
    ],
)
def test_what_will_not_do_is_told_why(tmp_path: Path, answer: dict[str, object], told: str) -> None:
    path = interpreter(tmp_path / "first" / "python3.10", **answer)
    with pytest.raises(KilnError) as error:
        find_interpreter(EnvironmentSettings())
    assert str(path) in str(error.value) and told in str(error.value)


def test_none_at_all_names_the_ways_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(KilnError) as error:
        find_interpreter(EnvironmentSettings())
    for way in ("uv python install", "pyenv install", "conda create", "apt install", "environment.python"):
        assert way in str(error.value)


def test_what_is_named_is_taken_at_its_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter(tmp_path / "first" / "python3.10")
    other = interpreter(tmp_path / "other")
    monkeypatch.setenv("FACEKILN_PYTHON310", str(other))
    assert find_interpreter(EnvironmentSettings()).path == other
    third = interpreter(tmp_path / "third")
    assert find_interpreter(EnvironmentSettings(python=str(third))).path == third
    shim(tmp_path / "shim")
    with pytest.raises(
        KilnError, match=r"environment\.python: will not do: ends with status 127 and says: pyenv"
    ):
        find_interpreter(EnvironmentSettings(python=str(tmp_path / "shim")))
    monkeypatch.setenv("FACEKILN_PYTHON310", str(tmp_path / "gone"))
    with pytest.raises(KilnError, match=r"\$FACEKILN_PYTHON310: will not do: cannot be started"):
        find_interpreter(EnvironmentSettings())
