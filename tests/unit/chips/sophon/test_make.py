"""Making the environment: whole or not at all, once, repaired, and deaf to the user's own settings."""

import fcntl
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from facekiln.chips.sophon import make
from facekiln.chips.sophon.environment import OWN_LIBC, Environment, environment_of, fault_of, wanted
from facekiln.chips.sophon.make import check_environment, make_environment, remove_environment
from facekiln.errors import KilnError
from support.sophon_stand_in import config, environment, interpreter, settings


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of toolchains; tools are taken to run."""
    monkeypatch.setattr(make, "prove", lambda _: {"tool": "v1.26-20251229", "python": "3.10.9"})
    return tmp_path / "toolchains"


def made_by(python: Path, place: Path, **more: Any) -> Environment:
    return make_environment(settings(python=str(python), **more), config(place))


def calls(place: Path) -> int:
    kept = place / "pip.calls"
    return len(kept.read_text().splitlines()) if kept.exists() else 0


def test_made_whole_then_left_alone(tmp_path: Path, place: Path) -> None:
    python = interpreter(tmp_path / "python3.10")
    made = made_by(python, place)
    assert environment_of(settings(), config(place)) == made
    told = json.loads(made.stamp.read_text())
    assert told == json.loads(made.marker.read_text())
    assert told["tpu_mlir"] == "1.26" and told["lock"] == made.lock and told["tool"] == "v1.26-20251229"
    assert not (made.folder / ".tmp").exists()
    made_by(python, place)
    assert calls(place) == 1
    # What Snakemake does before it runs the rule again.
    made.stamp.unlink()
    made_by(python, place)
    assert calls(place) == 1 and json.loads(made.stamp.read_text()) == told


def test_repaired(tmp_path: Path, place: Path) -> None:
    made = made_by(interpreter(tmp_path / "python3.10"), place)
    assert not [name for name in OWN_LIBC if (made.tool_root / "lib" / "third_party" / name).exists()]
    for name in ("model_runner.py", "mlir_cut.py"):
        text = (made.tool_root / "python" / "tools" / name).read_text()
        assert "/tmp/" not in text and 'os.environ["TPUC_ROOT"], "lib", "cmodel_so.lock"' in text
    assert made.cmodel_lock == made.tool_root / "lib" / "cmodel_so.lock"


def test_a_wheel_that_is_not_the_known_one_is_refused(tmp_path: Path, place: Path) -> None:
    python = interpreter(tmp_path / "python3.10")
    python.write_text(python.read_text().replace("/tmp/cmodel_so.lock", "/run/other.lock"))
    with pytest.raises(KilnError, match=r"does not take its lock as tpu_mlir 1\.26 does"):
        made_by(python, place)
    assert not wanted(settings(), config(place)).folder.exists()


def test_what_pip_is_told(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_TARGET", "PIP_USER", "PIP_NO_BINARY", "PIP_CONSTRAINT", "PYTHONPATH", "PIP_PREFIX"):
        monkeypatch.setenv(name, "/theirs")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    made_by(interpreter(tmp_path / "python3.10"), place, wheels=str(wheels))
    variables = (place / "pip.env").read_text().splitlines()
    assert "PIP_INDEX_URL=https://mirror.example/simple" in variables and "PIP_USER=0" in variables
    assert not [line for line in variables if line.endswith("=/theirs")]
    arguments = (place / "pip.calls").read_text()
    for each in ("--require-hashes", "--no-deps", "--only-binary :all:", f"--no-index --find-links {wheels}"):
        assert each in arguments
    with pytest.raises(KilnError, match=r"environment\.wheels: is no folder"):
        remove_environment(settings(), config(place))
        made_by(tmp_path / "python3.10", place, wheels=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("said", "told", "hint"),
    [
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "not the one that was locked",
            "public index",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement tpu_mlir==1.26\n"
            "ERROR: No matching distribution found for tpu_mlir==1.26",
            "No matching distribution found for tpu_mlir==1.26",
            "environment.wheels",
        ),
        (
            "WARNING: Retrying (...) after connection broken by 'NewConnectionError(...: "
            "[Errno -3] Temporary failure in name resolution)'\n"
            "ERROR: No matching distribution found for certifi==2026.10.18",
            "the index is not reachable",
            "PIP_PROXY",
        ),
        (
            "ERROR: Could not install: [Errno 28] No space left on device",
            "the disk is full",
            "free some space",
        ),
    ],
)
def test_what_pip_fails_by_is_told(tmp_path: Path, place: Path, said: str, told: str, hint: str) -> None:
    python = interpreter(tmp_path / "python3.10", pip=f'cat <<"SAID"\n{said}\nSAID\nexit 1')
    with pytest.raises(KilnError) as error:
        made_by(python, place)
    assert told in str(error.value) and hint in str(error.value)
    assert not wanted(settings(), config(place)).folder.exists()


def test_too_slow_is_given_up(tmp_path: Path, place: Path) -> None:
    python = interpreter(tmp_path / "python3.10", pip="sleep 60")
    with pytest.raises(KilnError, match="took too long"):
        made_by(python, place, timeout_minutes=0.02)
    assert not wanted(settings(), config(place)).folder.exists()


def test_tools_that_do_not_run_leave_nothing(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(environment: Environment) -> dict[str, Any]:
        raise KilnError("the tools do not run here")

    monkeypatch.setattr(make, "prove", fail)
    with pytest.raises(KilnError, match="do not run here"):
        made_by(interpreter(tmp_path / "python3.10"), place)
    nothing = wanted(settings(), config(place))
    assert not nothing.folder.exists() and not nothing.stamp.exists()


def test_what_a_killed_making_left_is_not_taken_for_whole(tmp_path: Path, place: Path) -> None:
    half = wanted(settings(), config(place))
    (half.tool_root / "lib").mkdir(parents=True)
    (half.folder / "rest").touch()
    assert fault_of(half) == "its making was interrupted"
    made = made_by(interpreter(tmp_path / "python3.10"), place)
    assert fault_of(made) is None and not (made.folder / "rest").exists()


def test_two_at_once_wait_for_each_other(tmp_path: Path, place: Path) -> None:
    python = interpreter(tmp_path / "python3.10", pip="sleep 0.5")
    failures: list[BaseException] = []

    def run() -> None:
        try:
            made_by(python, place)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and calls(place) == 1


def test_an_installer_that_outlives_its_maker_keeps_the_lock(
    tmp_path: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.mkdir()
    lock = wanted(settings(), config(place)).stamp.with_suffix(".lock")
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=made_by, args=(interpreter(tmp_path / "python3.10"), place))
        thread.start()
        time.sleep(0.7)
        assert calls(place) == 0
    thread.join()
    assert calls(place) == 1


def test_places_that_cannot_hold_it(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = interpreter(tmp_path / "python3.10")
    with pytest.raises(KilnError, match="do not quote"):
        made_by(python, tmp_path / "with blank")
    small: Callable[[Path], Any] = lambda _: type("Usage", (), {"free": 10**9})()  # noqa: E731
    monkeypatch.setattr(make.shutil, "disk_usage", small)
    with pytest.raises(KilnError, match=r"too little space.*1\.0 GB free; limit: 2\.5 GB"):
        made_by(python, place)
    (tmp_path / "file").touch()
    with pytest.raises(KilnError, match=r"cannot be written: (?:Not a directory|File exists)"):
        made_by(python, tmp_path / "file")
    assert calls(place) == 0


def test_one_of_the_users_own_is_proved_and_left(tmp_path: Path, place: Path) -> None:
    own = environment(tmp_path)
    before = sorted(path.name for path in own.folder.rglob("*"))
    mine = settings(folder=str(own.folder))
    made = make_environment(mine, config(place))
    assert json.loads(made.stamp.read_text())["tpu_mlir"] == "1.26"
    assert check_environment(mine, config(place))["tool"] == "v1.26-20251229"
    remove_environment(mine, config(place))
    assert not made.stamp.exists()
    assert sorted(path.name for path in own.folder.rglob("*")) == before


def test_removed(tmp_path: Path, place: Path) -> None:
    made = made_by(interpreter(tmp_path / "python3.10"), place)
    remove_environment(settings(), config(place))
    assert not made.folder.exists() and not made.stamp.exists()
    with pytest.raises(KilnError, match="it is not made"):
        check_environment(settings(), config(place))
