"""A disk that is really full: a 256 KB file system in a mount namespace of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def _in_small_disk(disk: Path, command: str) -> subprocess.CompletedProcess[str]:
    script = (
        f"mount -t tmpfs -o size=256k none {disk} && {{ {command}; }}; status=$?; ls -A {disk}; exit $status"
    )
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to mount a small disk on, or skip."""
    folder = tmp_path_factory.mktemp("disk")
    if not shutil.which("unshare") or _in_small_disk(folder, "true").returncode:
        pytest.skip("needs `unshare` with the right to mount in a user namespace")
    return folder


def test_full_disk_is_told_and_nothing_is_left(disk: Path, root: Path) -> None:
    command = (
        f"cd {root} && {sys.executable} -m facekiln calibration make --model retinaface --size 640"
        f" --count 2 --output {disk}/set"
    )
    done = _in_small_disk(disk, command)
    assert done.returncode == 1, done.stderr
    assert "the disk is full; nothing was written" in done.stderr
    assert done.stdout == ""


def test_log_on_a_full_disk_does_not_hide_the_cause(disk: Path, root: Path) -> None:
    filler = f"dd if=/dev/zero of={disk}/filler bs=1k count=256 2>/dev/null || true"
    command = f"{filler}; cd {root} && {sys.executable} -m facekiln --log {disk}/x.log explain {disk}/none"
    done = _in_small_disk(disk, command)
    assert done.returncode == 1
    assert "does not exist" in done.stderr
