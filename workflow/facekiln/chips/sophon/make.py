"""Makes the locked tpu_mlir environment: a venv, the exact wheels, the repairs, a proof that the tools run.

Whole or not at all: the marker inside it is written last, under a lock that the installer's processes hold as
well, and what has no marker is made anew. A change of what this leaves raises `RECIPE` in `environment.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from facekiln.artifact import read_json, write_json
from facekiln.chips.sophon.causes import install_cause_of
from facekiln.chips.sophon.environment import OWN_LIBC, RECIPE, REQUIREMENTS, Environment, fault_of, wanted
from facekiln.chips.sophon.interpreter import find_interpreter
from facekiln.chips.sophon.process import run_group, terminable
from facekiln.chips.sophon.proof import prove
from facekiln.chips.sophon.settings import EnvironmentSettings, SophonSettings
from facekiln.chips.sophon.tool import Output
from facekiln.config import Config
from facekiln.errors import KilnError
from facekiln.progress import log, progress_bar

# 1.7 GB installed; wheels are unpacked one by one, the largest has 0.7 GB.
_NEEDED_BYTES = 2_500_000_000
# Commands of the tools' own do not quote the path that they are installed in.
_SAFE_PATH = re.compile(r"[\w./+@:,=~-]+")
# What of pip's settings says the way to the wheels; the rest (user, target, no-binary ...) would lead astray.
_PIP_WAYS = re.compile(
    r"PIP_(?:INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|CERT|CLIENT_CERT|TRUSTED_HOST|PROXY|TIMEOUT|"
    r"DEFAULT_TIMEOUT|RETRIES|CACHE_DIR|NO_CACHE_DIR|CONFIG_FILE|KEYRING_PROVIDER)$"
)
# One file for all users and environments of a machine, and another user's cannot be opened. What it guards is
# this environment's lib/libcmodel.so, so it belongs beside that.
_SHARED_LOCK = '"/tmp/cmodel_so.lock"'
_OWN_LOCK = 'os.path.join(os.environ["TPUC_ROOT"], "lib", "cmodel_so.lock")'
# What pip says when it has found a wheel.
_FOUND = ("Collecting ", "Processing ", "Requirement already satisfied: ")
_LOCKERS = ("python/tools/model_runner.py", "python/tools/mlir_cut.py")


def make_environment(settings: SophonSettings, config: Config) -> Environment:
    """Make the environment that the settings want, unless it is made, and write its stamp.

    Two that want it at once wait for each other. One of the user's own is proved and left as it is.

    Raises:
        KilnError: no Python 3.10, no wheels, no space, too slow, or the tools do not run; what is half made
            is removed, and never taken for whole.
    """
    environment = wanted(settings, config)
    with terminable(), _lock(environment) as descriptor:
        fault = fault_of(environment)
        if environment.own:
            if fault:
                raise KilnError(fault, file=environment.folder, where="environment.folder")
            if not environment.stamp.is_file():
                write_json(environment.stamp, {**environment.identity(), **prove(environment)})
        elif fault:
            _make(environment, settings.environment, descriptor)
            log.info("made %s", environment.folder)
        else:
            log.info("is there: %s", environment.folder)
        if not environment.own and not environment.stamp.is_file():
            write_json(environment.stamp, read_json(environment.marker))
    return environment


def check_environment(settings: SophonSettings, config: Config) -> dict[str, Any]:
    """Prove that the environment's tools run, as they are now.

    Raises:
        KilnError: it is not made, or they do not.
    """
    environment = wanted(settings, config)
    fault = fault_of(environment)
    if fault:
        raise KilnError(fault, file=environment.folder, hint="facekiln sophon environment --make")
    return {**environment.identity(), **prove(environment)}


def remove_environment(settings: SophonSettings, config: Config) -> Environment:
    """Remove the environment that facekiln made, with its stamp; of the user's own, the stamp alone."""
    environment = wanted(settings, config)
    with terminable(), _lock(environment):
        environment.stamp.unlink(missing_ok=True)
        shutil.rmtree(environment.stamp.with_suffix(".help"), ignore_errors=True)
        if not environment.own:
            _remove(environment)
    return environment


@contextlib.contextmanager
def _lock(environment: Environment) -> Iterator[int]:
    """Hold the lock of an environment's making and yield its descriptor; wait for who holds it."""
    path = environment.stamp.with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a")
    except OSError as error:
        raise KilnError(
            f"cannot be written: {error.strerror}",
            file=path,
            hint="set toolchains in config/config.yaml, or $FACEKILN_TOOLCHAINS, to a folder of yours",
        ) from error
    with stream:
        told = False
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    log.info("another process makes %s; waiting for it", environment.folder)
                told = True
                time.sleep(0.5)
            except OSError as error:
                raise KilnError(
                    f"cannot be locked: {error.strerror}",
                    file=path,
                    hint="set toolchains in config/config.yaml to a file system with locks (NFS: with lockd)",
                ) from error
        yield stream.fileno()


def _remove(environment: Environment) -> None:
    """Remove an environment, its marker first."""
    try:
        environment.marker.unlink(missing_ok=True)
        if environment.folder.exists():
            shutil.rmtree(environment.folder)
    except OSError as error:
        raise KilnError(
            f"cannot be removed: {error.strerror}", file=error.filename or environment.folder
        ) from error


def _make(environment: Environment, settings: EnvironmentSettings, descriptor: int) -> None:
    interpreter = find_interpreter(settings)
    _check_place(environment)
    environment.stamp.unlink(missing_ok=True)
    _remove(environment)
    log.info(
        "making tpu_mlir %s in %s with Python %s (%s): about a minute, 1.7 GB",
        environment.version,
        environment.folder,
        interpreter.version,
        interpreter.path,
    )
    try:
        _install(environment, settings, interpreter.path, descriptor)
        _repair(environment)
        told = {**environment.identity(), "recipe": RECIPE, **prove(environment)}
        write_json(environment.marker, told)
    except BaseException:
        shutil.rmtree(environment.folder, ignore_errors=True)
        raise


def _check_place(environment: Environment) -> None:
    if not _SAFE_PATH.fullmatch(str(environment.folder)):
        raise KilnError(
            "the tools cannot live at a path with blanks or signs that a shell reads: they do not quote it",
            file=environment.folder,
            hint="set toolchains in config/config.yaml, or $FACEKILN_TOOLCHAINS, to a plain path",
        )
    free = shutil.disk_usage(environment.folder.parent).free
    if free < _NEEDED_BYTES:
        raise KilnError(
            "too little space for SOPHON's tools",
            file=environment.folder.parent,
            value=f"{free / 1e9:.1f} GB free",
            limit=f"{_NEEDED_BYTES / 1e9:.1f} GB",
            hint="free some, or set toolchains in config/config.yaml to another disk",
        )


def _install(environment: Environment, settings: EnvironmentSettings, python: Path, descriptor: int) -> None:
    deadline = time.monotonic() + settings.timeout_minutes * 60
    environment.folder.mkdir(parents=True)
    temporary = environment.folder / ".tmp"
    temporary.mkdir()
    variables = {
        name: value
        for name, value in environment.variables(temporary).items()
        if not name.startswith("PIP_") or _PIP_WAYS.match(name)
    }
    total = REQUIREMENTS.read_text(encoding="utf-8").count("--hash=sha256:")
    with progress_bar(2 * total, "tpu_mlir: wheels found and installed", "wheel") as bar:

        def run(command: Sequence[str | Path]) -> None:
            output = Output(None, None)

            def line(text: str, fleeting: bool) -> None:
                output.line(text, fleeting)
                if text.startswith(_FOUND):
                    bar.update(1)
                elif text.startswith("Installing collected packages"):
                    bar.update(total - bar.n)

            def tick(_process: int) -> None:
                # pip is silent while it installs, which is most of the time.
                installed = sum(1 for _ in environment.packages.glob("*.dist-info"))
                if bar.n >= total:
                    bar.update(max(0, min(total + installed, 2 * total) - bar.n))

            try:
                status = run_group(
                    command,
                    folder=environment.folder,
                    variables={**variables, "PIP_USER": "0"},
                    limit=max(1.0, deadline - time.monotonic()),
                    on_line=line,
                    on_tick=tick,
                    pass_fds=(descriptor,),
                )
            finally:
                printed = output.end()
            if status:
                cause = install_cause_of(printed, status)
                raise KilnError(
                    f"the wheels cannot be installed: {cause.what}",
                    file=REQUIREMENTS,
                    value=f"status {status}",
                    hint=cause.hint,
                )

        run([python, "-I", "-m", "venv", environment.folder])
        run([environment.python, "-I", *_pip_arguments(settings)])
    shutil.rmtree(temporary, ignore_errors=True)


def _pip_arguments(settings: EnvironmentSettings) -> list[str]:
    plain = ["--no-input", "--no-color", "--progress-bar", "off", "--disable-pip-version-check"]
    locked = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-warn-script-location"]
    ways: list[str] = []
    if settings.wheels:
        folder = Path(settings.wheels).expanduser().absolute()
        if not folder.is_dir():
            raise KilnError("is no folder", file=folder, where="environment.wheels")
        ways = ["--no-index", "--find-links", str(folder)]
    return ["-m", "pip", "install", *plain, *locked, *ways, "--requirement", str(REQUIREMENTS)]


def _repair(environment: Environment) -> None:
    """Take out what keeps the wheel from running here.

    Raises:
        KilnError: the wheel is not as the recipe knows it.
    """
    for name in OWN_LIBC:
        (environment.tool_root / "lib" / "third_party" / name).unlink(missing_ok=True)
    for name in _LOCKERS:
        path = environment.tool_root / name
        text = path.read_text(encoding="utf-8")
        if _SHARED_LOCK not in text or not re.search(r"^import os$", text, re.MULTILINE):
            raise KilnError("does not take its lock as tpu_mlir 1.26 does", file=path)
        path.write_text(text.replace(_SHARED_LOCK, _OWN_LOCK), encoding="utf-8")
