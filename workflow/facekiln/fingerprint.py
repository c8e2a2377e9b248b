"""Fingerprints of the package's own code, so that editing a module rebuilds what it makes and nothing else.

Rules hand `fingerprint("facekiln.caffe.convert")` to Snakemake as a parameter. It hashes the module and, by
following import statements, every module of the package that it uses; a module that is imported by its name,
from a table as `facekiln.data.declared.KINDS`, is known by that name in quotes, which has to be whole. A
file that a module takes from its own folder, `Path(__file__).with_name("board.sh")`, is part of it. Plumbing
that decides no byte of an artifact (errors, logging, the command line) is left out.
"""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_PLUMBING = {
    "facekiln",
    "facekiln.errors",
    "facekiln.progress",
    "facekiln.provenance",
    "facekiln.config",
    "facekiln.yaml_file",
    "facekiln.artifact",
    "facekiln.unreadable",
    # How a vendor's tool is run and what its failures mean; which tool it is stands in the rule's params.
    "facekiln.chips.sophon.causes",
    "facekiln.chips.sophon.pollers",
    "facekiln.chips.sophon.process",
    "facekiln.chips.sophon.tool",
}
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(facekiln[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)|import[ \t]+(facekiln[\w.]*))",
    re.MULTILINE,
)
# What `importlib.import_module` is given. A name that is asked for a fingerprint is none.
_NAMED = re.compile(r"""(?<!fingerprint\()(["'])(facekiln(?:\.\w+)+)\1""")

# A script or program that is sent elsewhere, and so is imported by nobody.
_BESIDE = re.compile(r"""Path\(__file__\)\.with_name\((["'])([\w.-]+)\1\)""")


def _path_of(module: str) -> Path | None:
    stem = _PACKAGE.joinpath(*module.split(".")[1:])
    if stem.with_suffix(".py").is_file():
        return stem.with_suffix(".py")
    package = stem / "__init__.py"
    return package if package.is_file() else None


@functools.cache
def _imports_of(module: str) -> frozenset[str]:
    path = _path_of(module)
    assert path is not None
    found: set[str] = set()
    text = path.read_text(encoding="utf-8")
    found.update(name for _, name in _NAMED.findall(text))
    for source, names, plain in _IMPORT.findall(text):
        base = source or plain
        found.add(base)
        # `from facekiln.room import module` names a module; a function's name finds no file and is dropped.
        found.update(f"{base}.{name}" for name in re.findall(r"\w+", names) if _path_of(f"{base}.{name}"))
    return frozenset(name for name in found if _path_of(name))


def _files_beside(module: Path) -> list[Path]:
    named = [module.with_name(name) for _, name in _BESIDE.findall(module.read_text(encoding="utf-8"))]
    return [path for path in named if path.is_file()]


def modules_behind(*modules: str) -> list[str]:
    """Return the modules and everything of the package that they import or name, plumbing left out, sorted.

    Raises:
        ModuleNotFoundError: a name that is no module of the package.
    """
    for module in modules:
        if not module.startswith("facekiln.") or _path_of(module) is None:
            raise ModuleNotFoundError(module)
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in seen or module in _PLUMBING:
            continue
        seen.add(module)
        waiting += _imports_of(module)
    return sorted(seen)


@functools.cache
def fingerprint(*modules: str) -> str:
    """Return 16 hexadecimal digits that change with the code behind the modules (see `modules_behind`)."""
    digest = hashlib.sha256()
    paths: dict[Path, str] = {}
    for module in modules_behind(*modules):
        path = _path_of(module)
        assert path is not None
        paths[path] = module
    beside = {file for path in paths for file in _files_beside(path)} - set(paths)
    for path, name in [*paths.items(), *((file, file.name) for file in sorted(beside))]:
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
