"""A pretended tpu_mlir environment with a test's own scripts, and a pretended Python 3.10 that makes one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from facekiln.chips.sophon.environment import OWN_LIBC, Environment, wanted
from facekiln.chips.sophon.settings import EnvironmentSettings, SophonSettings, load_settings
from facekiln.config import Config

ANSWER = {
    "version": "3.10.9",
    "implementation": "CPython",
    "machine": "x86_64",
    "system": "Linux",
    "bits": 64,
    "libc": "glibc 2.36",
    "venv": True,
    "modules": True,
}
LOCKER = 'import os\nwith FileLock("/tmp/cmodel_so.lock"):\n    pass\n'


def settings(**values: object) -> SophonSettings:
    """The leg's settings with other ones of the environment."""
    return replace(load_settings(), environment=EnvironmentSettings(**values))  # type: ignore[arg-type]


def config(toolchains: Path) -> Config:
    """A config of nothing but the folder of toolchains."""
    return Config("synthetic", None, (), {}, {}, {}, {}, toolchains=str(toolchains))


def make_folder(folder: Path, scripts: Mapping[str, str] | None = None) -> None:
    """Write a virtual environment's folder with a package tpu_mlir and scripts in Python."""
    packages = folder / "lib" / "python3.10" / "site-packages"
    (packages / "tpu_mlir-1.26.dist-info").mkdir(parents=True)
    (packages / "tpu_mlir" / "lib" / "third_party").mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(sys.executable)
    for name, text in (scripts or {}).items():
        (folder / "bin" / name).write_text(text)


def environment(place: Path, scripts: Mapping[str, str] | None = None) -> Environment:
    """Return a pretended environment of the user's own, below a folder."""
    make_folder(place / "own", scripts)
    return wanted(settings(folder=str(place / "own")), config(place / "toolchains"))


def interpreter(path: Path, pip: str = "", **answer: object) -> Path:
    """Write a pretended Python 3.10: it answers the probe, makes a venv, and that one's pip installs.

    Args:
        path: of the program.
        pip: shell commands that its pip runs before it installs; the environment is in $folder.
        answer: what differs from a good answer to the probe.
    """
    libraries = " ".join(f"$lib/third_party/{name}" for name in OWN_LIBC)
    inner = f"""#!/bin/sh
folder=$(dirname "$(dirname "$0")")
{pip}
packages=$folder/lib/python3.10/site-packages; lib=$packages/tpu_mlir/lib
mkdir -p $packages/tpu_mlir-1.26.dist-info $lib/third_party $packages/tpu_mlir/python/tools
touch {libraries}
for name in model_runner mlir_cut; do printf '{LOCKER.replace(chr(10), chr(92) + "n")}' \\
  > $packages/tpu_mlir/python/tools/$name.py; done
echo "Collecting tpu_mlir==1.26"; echo "Installing collected packages: tpu_mlir"
env | sort > $(dirname $folder)/pip.env; echo "$@" >> $(dirname $folder)/pip.calls
"""
    outer = f"""#!/bin/sh
case "$*" in
*"-m venv"*) for folder in "$@"; do :; done; mkdir -p $folder/bin; cat > $folder/bin/python <<'INNER'
{inner}
INNER
chmod +x $folder/bin/python;;
*) echo '{json.dumps({**ANSWER, **answer})}';;
esac
"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(outer)
    path.chmod(0o755)
    return path
