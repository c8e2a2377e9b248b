"""envs/sophon.yaml, the environment for people with conda: the same wheels and repairs as facekiln's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from facekiln.chips.sophon.environment import OWN_LIBC, Environment
from facekiln.chips.sophon.make import _LOCKERS, _pip_arguments, _repair
from facekiln.chips.sophon.settings import EnvironmentSettings
from support.sophon_stand_in import LOCKER


def test_conda_brings_python_and_pip_and_nothing_that_the_lock_pins(root: Path) -> None:
    declared = yaml.safe_load((root / "envs/sophon.yaml").read_text())
    assert declared.keys() == {"channels", "dependencies"}
    assert declared["dependencies"] == ["python=3.10", "pip"]
    # Nothing of the user's own channels, which could have another Python.
    assert declared["channels"][-1] == "nodefaults"
    assert Environment(Path(), "", "", True, Path()).packages.parent.name == "python3.10"


def test_the_workflows_own_environment_is_of_a_python_that_the_package_takes(root: Path) -> None:
    declared = yaml.safe_load((root / "envs/facekiln.yaml").read_text())
    least = re.search(r'requires-python = ">=([\d.]+)', (root / "pyproject.toml").read_text())
    assert least is not None
    assert declared["dependencies"] == [f"python={least[1]}", "pip"]


@pytest.mark.parametrize("name", ["sophon.post-deploy.sh", "facekiln.post-deploy.sh"])
def test_scripts_are_sound(root: Path, name: str) -> None:
    script = root / "envs" / name
    assert "set -euo pipefail" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True)


def _packages(folder: Path) -> Environment:
    """A pretended environment, as the wheel is installed."""
    made = Environment(folder, "0" * 12, "1.26", True, folder / "ready")
    (made.tool_root / "lib/third_party").mkdir(parents=True)
    for name in (*OWN_LIBC, "libgomp.so.1"):
        (made.tool_root / "lib/third_party" / name).touch()
    for name in _LOCKERS:
        (made.tool_root / name).parent.mkdir(parents=True, exist_ok=True)
        (made.tool_root / name).write_text(LOCKER)
    return made


def _files(made: Environment) -> dict[str, str]:
    paths = sorted(path for path in made.packages.rglob("*") if path.is_file())
    return {str(path.relative_to(made.packages)): path.read_text() for path in paths}


def test_the_script_installs_and_repairs_as_facekiln_does(root: Path, tmp_path: Path) -> None:
    theirs, ours = _packages(tmp_path / "theirs"), _packages(tmp_path / "ours")
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    answers = f'if [ "$1" = -c ]; then echo "{theirs.packages}"; exit; fi'
    python.write_text(f'#!/bin/sh\n{answers}\necho "$*" >> "{tmp_path}/said"\n')
    python.chmod(0o755)
    variables = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", root / "envs/sophon.post-deploy.sh"], cwd=root, env=variables, check=True)
    _repair(ours)
    assert _files(theirs) == _files(ours)
    assert list(_files(theirs)) != list(_files(_packages(tmp_path / "untouched")))
    (said,) = (tmp_path / "said").read_text().splitlines()
    given, wanted = said.split(), _pip_arguments(EnvironmentSettings())
    assert root / given.pop() == Path(wanted.pop())
    assert {"--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement"} <= set(given)
    assert set(given) <= set(wanted)
