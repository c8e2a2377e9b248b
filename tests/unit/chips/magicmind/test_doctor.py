"""The doctor's line of the SDK."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from facekiln.environment import findings


@pytest.mark.parametrize(
    ("text", "verdict", "told"),
    [
        ("mode: emulator", "ok", "EMULATED"),
        ("{mode: local, python: [no-such-python]}", "missing", "'no-such-python' is not in PATH"),
        ("{mode: local, python: [sh]}", "ok", "mode local, by sh"),
        ("{mode: docker, docker: {program: sh}}", "missing", "sdk.docker.image is not set"),
        ("{mode: docker, docker: {program: sh, image: 'magicmind:1.7'}}", "ok", "by magicmind:1.7"),
        ("{mode: ssh, ssh: {program: [sh]}}", "missing", "sdk.ssh.host is not set"),
        ("{mode: cloud}", "missing", "cloud"),
    ],
)
def test_who_builds(tmp_path: Path, root: Path, text: str, verdict: str, told: str) -> None:
    shutil.copytree(root / "config", tmp_path / "config")
    value = text if text.startswith("{") else f"{{{text}}}"
    (tmp_path / "config/chips/magicmind.yaml").write_text(f"sdk: {value}\n")
    rows = findings(tmp_path / "config")
    # A file against its schema is told once, of the whole config.
    row = next((row for row in rows if row.what == "magicmind sdk"), rows[-1])
    assert row.verdict == verdict and told in row.detail
