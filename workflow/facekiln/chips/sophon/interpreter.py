"""Finds a CPython 3.10 that can make environments, by running each candidate: a name on PATH proves nothing.

pyenv puts a `python3.10` on PATH that only says "command not found"; Debian ships one without venv.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from facekiln.chips.sophon.settings import EnvironmentSettings
from facekiln.errors import KilnError

VARIABLE = "FACEKILN_PYTHON310"
# libgcc_s of the wheel wants `_dl_find_object`, which came with it.
LEAST_GLIBC = (2, 35)
_LIMIT = 30.0
_PROBE = """
import json, os, platform, sys
def has(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True
print(json.dumps({
    "version": platform.python_version(), "implementation": platform.python_implementation(),
    "machine": platform.machine(), "system": platform.system(), "bits": sys.maxsize.bit_length() + 1,
    "libc": os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None,
    "venv": has("venv") and has("ensurepip"), "modules": has("ssl") and has("ctypes") and has("zlib"),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python 3.10 that will do."""

    path: Path
    version: str


def find_interpreter(settings: EnvironmentSettings) -> Interpreter:
    """Return a CPython 3.10 with venv.

    `environment.python` and $FACEKILN_PYTHON310 are taken at their word: where they will not do, no other is
    taken instead.

    Raises:
        KilnError: there is none; the message has what was tried and the ways to get one.
    """
    for named, where in ((settings.python, "environment.python"), (os.environ.get(VARIABLE), f"${VARIABLE}")):
        if named:
            path = Path(named).expanduser()
            fault, version = _fault_of(path)
            if fault:
                raise KilnError(
                    f"will not do: {fault}", file=path, where=where, hint="name a CPython 3.10, or none"
                )
            return Interpreter(path.absolute(), version)
    tried: list[str] = []
    for path in _candidates():
        fault, version = _fault_of(path)
        if not fault:
            return Interpreter(path, version)
        tried.append(f"{path}: {fault}")
    looked = "".join(f"\n    {line}" for line in tried) or "\n    nothing of that name is here"
    raise KilnError(
        f"SOPHON's tools need CPython 3.10 exactly, and none was found; tried:{looked}",
        hint="get one of these, or name yours as environment.python in config/chips/sophon.yaml or as "
        f"${VARIABLE}:\n"
        "    uv python install 3.10\n"
        "    pyenv install 3.10\n"
        "    conda create --prefix ~/python310 python=3.10     and ~/python310/bin/python3.10\n"
        "    apt install python3.10 python3.10-venv            (Ubuntu 22.04)",
    )


def _fault_of(path: Path) -> tuple[str | None, str]:
    """Return why an interpreter will not do, or None, and its version."""
    try:
        done = subprocess.run(
            [path, "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT,
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        )
        told = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return f"does not answer in {_LIMIT:g} s", ""
    except OSError as error:
        return f"cannot be started: {error.strerror}", ""
    except ValueError:
        said = next((line.strip() for line in done.stderr.splitlines() if line.strip()), "nothing")
        return f"ends with status {done.returncode} and says: {said}", ""
    version = str(told["version"])
    if told["implementation"] != "CPython" or not version.startswith("3.10."):
        return f"is {told['implementation']} {version}", version
    if (told["system"], told["machine"], told["bits"]) != ("Linux", "x86_64", 64):
        return f"is for {told['system']} {told['machine']}; tpu_mlir is built for 64-bit x86 Linux", version
    if not told["venv"]:
        return "has no venv or ensurepip (Debian, Ubuntu: apt install python3.10-venv)", version
    if not told["modules"]:
        return "was built without ssl, ctypes or zlib", version
    libc = str(told["libc"] or "")
    numbers = tuple(int(part) for part in libc.removeprefix("glibc ").split(".")[:2] if part.isdigit())
    if not libc.startswith("glibc ") or numbers < LEAST_GLIBC:
        least = ".".join(map(str, LEAST_GLIBC))
        return (
            f"runs on {libc or 'no glibc'}; tpu_mlir needs glibc {least} (Ubuntu 22.04, Debian 12)",
            version,
        )
    return None, version


def _candidates() -> Iterator[Path]:
    """Yield the paths to try, each once, as they are."""
    seen: set[Path] = set()
    for path in _places():
        if path not in seen and os.access(path, os.X_OK) and path.is_file():
            seen.add(path)
            yield path


def _places() -> Iterator[Path]:
    home = Path.home()
    for folder in os.get_exec_path():
        yield Path(folder).absolute() / "python3.10"
    for folder in os.get_exec_path():
        if (Path(folder) / "python3").resolve().name == "python3.10":
            yield Path(folder).absolute() / "python3"
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    yield from _newest(pyenv / "versions", "3.10.*")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local" / "share" / "uv" / "python")
    yield from _newest(uv, "cpython-3.10*")
    roots = [os.environ.get("CONDA_PREFIX"), os.environ.get("MAMBA_ROOT_PREFIX")]
    names = ("miniconda3", "miniforge3", "mambaforge", "anaconda3", ".conda", "micromamba")
    for root in [
        *(Path(root) for root in roots if root),
        *(home / name for name in names),
        Path("/opt/conda"),
    ]:
        yield root / "bin" / "python3.10"
        yield from _newest(root / "envs", "*")
    for folder in ("/usr/bin", "/usr/local/bin", "/opt/python3.10/bin", "/opt/python/cp310-cp310/bin"):
        yield Path(folder) / "python3.10"


def _newest(folder: Path, pattern: str) -> list[Path]:
    """Return the python3.10 of each folder that matches, the highest version first."""
    numbers = lambda path: [int(part) for part in path.name.split(".") if part.isdigit()]  # noqa: E731
    found = sorted(folder.glob(pattern), key=lambda path: (numbers(path), path.name), reverse=True)
    return [path / "bin" / "python3.10" for path in found]
