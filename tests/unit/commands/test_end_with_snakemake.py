"""What runs on boards ends with its Snakemake, also where that one is killed and can end nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import sys, time
from pathlib import Path
from facekiln.commands import end_on_sigterm
end_on_sigterm()
try:
    Path(sys.argv[1]).write_text("begun")
    time.sleep(20)
except KeyboardInterrupt:
    Path(sys.argv[1]).write_text("ended")
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])"


def _is(path: Path, text: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and path.read_text() == text:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize(("name", "ends"), [("snakemake", True), ("a-shell", False)])
def test_job_of_a_killed_snakemake_ends_as_after_ctrl_c(tmp_path: Path, name: str, ends: bool) -> None:
    told = tmp_path / "told"
    program = tmp_path / name
    program.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(program), CHILD, str(told)])
    assert _is(told, "begun", 20)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert _is(told, "ended", 10 if ends else 1.5) is ends
