"""The locked tpu_mlir environment: which one a checkout wants, where it is, and whether it is made.

It is known by its lock, a hash of the exact requirements, of the stand-in for torch and of the recipe of
`facekiln.chips.sophon.make`, so that any change of those is another environment beside the old one.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekiln.artifact import read_json
from facekiln.chips.sophon.settings import SophonSettings
from facekiln.config import Config
from facekiln.errors import KilnError

REQUIREMENTS = Path(__file__).resolve().parents[4] / "envs" / "sophon.txt"
STAND_IN = Path(__file__).resolve().parent / "stand_in"
# Of the steps in `make.py`: raise it when they leave something else behind.
RECIPE = 1
PACKAGE = "tpu_mlir"
VARIABLE = "FACEKILN_TOOLCHAINS"
# A link to the folder of toolchains. Snakemake compares the paths of inputs with those of the last run, so
# rules know the stamp by a path that stays when the folder moves.
_SEEN_BY_RULES = Path(".snakemake") / "facekiln" / "toolchains"
# The wheel's own glibc 2.35. With another glibc's loader: "version GLIBC_2.36 not found", "stack smashing".
OWN_LIBC = ("libc.so.6", "libm.so.6", "libpthread.so.0")
# Measured: 1.27, 1.28.1 and 1.30.2 are wrong on BM1684, int8 of batch 4; 1.26 and 1.21.1 are right.
_FAULTY_ON_BM1684 = (1, 27)
_MARKER = "facekiln.json"
# What would reach into the tools from the user's own environment: other Pythons, tpu_mlir, libraries.
_FOREIGN = re.compile(
    r"PYTHON|VIRTUAL_ENV|CONDA|TPUC|TPUKERNEL|PPL_|CUSTOM_LAYER|CMODEL_LOCKFILE|BMRT_|BMRUNTIME|NEED_DUMP|"
    r"DYNAMIC_LAYER|LD_(?:LIBRARY_PATH|PRELOAD|AUDIT)$|PROJECT_ROOT$|MODEL_ZOO_PATH$|LC_|LANG$|LANGUAGE$"
)


@dataclass(frozen=True)
class Environment:
    """A tpu_mlir environment.

    Attributes:
        folder: the virtual environment, absolute.
        lock: 12 hexadecimal digits that change with its content.
        version: of tpu_mlir, e.g. "1.26".
        own: made by the user (`environment.folder`), not by us.
        stamp: the file that says for Snakemake that it is made and works.
    """

    folder: Path
    lock: str
    version: str
    own: bool
    stamp: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        return self.folder / "lib" / "python3.10" / "site-packages"

    @property
    def tool_root(self) -> Path:
        """The folder of the package tpu_mlir."""
        return self.packages / PACKAGE

    @property
    def cmodel_lock(self) -> Path:
        """The lock that is held while lib/libcmodel.so is linked to a chip's library and loaded."""
        return self.tool_root / "lib" / "cmodel_so.lock"

    @property
    def marker(self) -> Path:
        """Written into it last: what was made, by which recipe."""
        return self.folder / _MARKER

    def script(self, name: str) -> Path:
        """Return the path of a console script."""
        return self.folder / "bin" / name

    def identity(self) -> dict[str, str]:
        """Return what an artifact's record and a rule's params say of it."""
        return {PACKAGE: self.version, "lock": self.lock}

    @property
    def stamp_of_rules(self) -> str:
        """The stamp by a path that the folder of toolchains is no part of, see `share_toolchains`."""
        return str(_SEEN_BY_RULES / self.stamp.name)

    def variables(self, temporary: Path | None = None) -> dict[str, str]:
        """Return the whole environment of a process that uses it, free of the user's Python and libraries.

        Args:
            temporary: where it may put temporary files; the system's folder where None.
        """
        kept = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
        own = {
            "PATH": os.pathsep.join([str(self.folder / "bin"), os.environ.get("PATH", os.defpath)]),
            "VIRTUAL_ENV": str(self.folder),
            "PYTHONPATH": str(STAND_IN),
            "PYTHONNOUSERSITE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONUTF8": "1",
            "LC_ALL": "C.UTF-8",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        if temporary is not None:
            own["TMPDIR"] = own["HF_HOME"] = str(temporary)
        return {**kept, **own}


def is_faulty_on_bm1684(release: str) -> bool:
    """Return whether a release ("1.27", "v1.30.2-20260701") makes files for BM1684 that cannot be trusted."""
    found = re.match(r"v?(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= _FAULTY_ON_BM1684


def toolchains(config: Config) -> Path:
    """Return the folder of toolchains: $FACEKILN_TOOLCHAINS, else the config's, else .toolchains here."""
    return Path(os.environ.get(VARIABLE) or config.toolchains or ".toolchains").resolve()


def share_toolchains(config: Config, *, main: bool = True) -> None:
    """Let commands of rules look where Snakemake's own `--config toolchains=...` says, and rules see stamps.

    Args:
        config: see `toolchains`.
        main: not a job's process, which may know less of what the user said: it moves no link.

    Raises:
        KilnError: the link below .snakemake/ cannot be written.
    """
    place = toolchains(config)
    os.environ[VARIABLE] = str(place)
    try:
        if not main or (_SEEN_BY_RULES.is_symlink() and _SEEN_BY_RULES.readlink() == place):
            return
        _SEEN_BY_RULES.parent.mkdir(parents=True, exist_ok=True)
        new = _SEEN_BY_RULES.with_name(f"{_SEEN_BY_RULES.name}.{os.getpid()}")
        new.unlink(missing_ok=True)
        new.symlink_to(place)
        new.replace(_SEEN_BY_RULES)
    except OSError as error:
        raise KilnError(
            f"cannot be written: {error.strerror}",
            file=_SEEN_BY_RULES,
            hint="run where .snakemake/ may be written; what lies at that path, if not a link, can go",
        ) from error


def pinned_version() -> str:
    """Return tpu_mlir's version in the requirements.

    Raises:
        KilnError: they cannot be read or do not pin it.
    """
    found = re.search(rf"^{PACKAGE}==([\w.]+)", _requirements().decode(), re.MULTILINE)
    if not found:
        raise KilnError(f"does not pin {PACKAGE}", file=REQUIREMENTS, hint="git checkout envs/sophon.txt")
    return found[1]


def _requirements() -> bytes:
    try:
        return REQUIREMENTS.read_bytes()
    except OSError as error:
        raise KilnError(
            f"cannot be read: {error.strerror}", file=REQUIREMENTS, hint="run from a whole checkout"
        ) from error


def lock_of() -> str:
    """Return the first 12 hexadecimal digits of the sha256 of requirements, stand-in and recipe."""
    whole = hashlib.sha256(f"{RECIPE}\0".encode())
    whole.update(_requirements() + b"\0" + (STAND_IN / "torch.py").read_bytes())
    return whole.hexdigest()[:12]


def wanted(settings: SophonSettings, config: Config) -> Environment:
    """Return the environment that the settings want, made or not.

    Raises:
        KilnError: `environment.folder` is no environment with tpu_mlir.
    """
    place = toolchains(config)
    if settings.environment.folder:
        return _own(Path(settings.environment.folder).expanduser().absolute(), place)
    lock = lock_of()
    return Environment(
        place / f"sophon-{lock}", lock, pinned_version(), False, place / f"sophon-{lock}.ready"
    )


def _own(folder: Path, place: Path) -> Environment:
    packages = folder / "lib" / "python3.10" / "site-packages"
    names = sorted(path.name for path in packages.glob("*.dist-info"))
    mine = [name for name in names if name.startswith(f"{PACKAGE}-")]
    if len(mine) != 1:
        raise KilnError(
            f"is no Python 3.10 environment with {PACKAGE}",
            file=folder,
            where="environment.folder",
            hint="name one in config/chips/sophon.yaml, or null for the one that facekiln makes",
        )
    lock = hashlib.sha256("\0".join(names).encode()).hexdigest()[:12]
    version = mine[0].removeprefix(f"{PACKAGE}-").removesuffix(".dist-info")
    return Environment(folder, lock, version, True, place / f"own-{lock}.ready")


def fault_of(environment: Environment) -> str | None:
    """Return what is wrong with an environment, from a look at its files, or None."""
    if not environment.folder.is_dir():
        return "it is not made"
    if not environment.own and not _is_marked(environment):
        return "its making was interrupted"
    if not os.access(environment.python, os.X_OK):
        return f"its interpreter is gone ({environment.python} -> {os.path.realpath(environment.python)})"
    if not environment.tool_root.is_dir():
        return f"{environment.tool_root} is gone"
    third_party = environment.tool_root / "lib" / "third_party"
    left = [name for name in OWN_LIBC if (third_party / name).exists()]
    if left:
        return (
            f"the wheel's own {', '.join(left)} are in {third_party}, where no other glibc can live with them"
        )
    if not os.access(environment.tool_root / "lib", os.W_OK):
        return f"{environment.tool_root / 'lib'} is not writable; the simulator links its library there"
    return None


def _is_marked(environment: Environment) -> bool:
    try:
        marker: Any = read_json(environment.marker)
    except KilnError:
        return False
    return isinstance(marker, dict) and marker.get("lock") == environment.lock


def environment_of(settings: SophonSettings, config: Config) -> Environment:
    """Return the environment that the settings want.

    Raises:
        KilnError: it is not made, or broken; the message has the command that makes it.
    """
    environment = wanted(settings, config)
    fault = fault_of(environment)
    if fault:
        raise KilnError(
            f"SOPHON's tools cannot run: {fault}",
            file=environment.folder,
            hint="mend it, or set environment.folder to null (config/chips/sophon.yaml)"
            if environment.own
            else "facekiln sophon environment --make",
        )
    return environment
