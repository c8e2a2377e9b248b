"""Provenance sidecars: what an artifact was made from, by which command, with which edits.

The sidecar of `X` is `X.kiln.json`. It holds no clock and no path outside the working folder's own names, so
that the same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from facekiln import __version__
from facekiln.artifact import read_json, sha256_of, write_json
from facekiln.errors import KilnError

SUFFIX = ".kiln.json"


@dataclass(frozen=True)
class Edit:
    """One change that a legaliser made, and why.

    Attributes:
        rule: id of the rule, e.g. "NNIE-RESHAPE-N".
        target: the layer, node or tensor that was changed.
        change: what was changed, before and after.
        reason: why, in words.
        limit: the vendor limit that it serves, with its source.
    """

    rule: str
    target: str
    change: str
    reason: str
    limit: str = ""


@dataclass(frozen=True)
class Record:
    """The content of a sidecar."""

    artifact: str
    sha256: str
    verb: str
    inputs: list[dict[str, str]]
    settings: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    edits: list[dict[str, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    emulated: bool = False


_EDIT_KEYS = tuple(item.name for item in fields(Edit))


def sidecar_of(path: Path | str) -> Path:
    """Return the path of an artifact's sidecar."""
    return Path(f"{path}{SUFFIX}")


def tool_versions(*names: str) -> dict[str, str]:
    """Return the installed versions of Python packages, with facekiln's own."""
    return {"facekiln": __version__, **{name: metadata.version(name) for name in names}}


def write_record(
    outputs: Path | str | Iterable[Path | str],
    *,
    verb: str,
    inputs: Iterable[Path | str],
    settings: Mapping[str, Any] | None = None,
    tools: Mapping[str, str] | None = None,
    edits: Iterable[Edit] = (),
    facts: Mapping[str, Any] | None = None,
    emulated: bool = False,
) -> None:
    """Write the sidecar of each output, after the output itself.

    Args:
        outputs: one artifact, or the artifacts that one command made together.
        verb: the command, e.g. "caffe convert".
        inputs: the files that it read; their hashes are taken now.
        settings: the values that decided the result.
        tools: versions, see `tool_versions`.
        edits: what a legaliser changed.
        facts: figures about the artifact worth telling (counts, metrics, the mapper's build).
        emulated: no vendor tool made this.
    """
    paths = [outputs] if isinstance(outputs, (str, Path)) else list(outputs)
    read = [{"path": str(path), "sha256": sha256_of(path)} for path in inputs]
    for path in paths:
        record = Record(
            artifact=str(path),
            sha256=sha256_of(path),
            verb=verb,
            inputs=read,
            settings=dict(settings or {}),
            tools=dict(tools or tool_versions()),
            edits=[asdict(edit) for edit in edits],
            facts=dict(facts or {}),
            emulated=emulated,
        )
        write_json(sidecar_of(path), asdict(record))


def read_record(path: Path | str) -> Record | None:
    """Return the record of an artifact, or None where it has no sidecar.

    Raises:
        KilnError: the sidecar is not one of ours.
    """
    sidecar = sidecar_of(path)
    if not sidecar.exists():
        return None
    value = read_json(sidecar)
    try:
        record = Record(**value)
    except TypeError as error:
        raise _no_record(str(error), sidecar) from error
    for name in ("settings", "tools", "facts"):
        if not isinstance(getattr(record, name), dict):
            raise _no_record(f"'{name}' is no mapping", sidecar)
    for name, keys in (("inputs", ("path", "sha256")), ("edits", _EDIT_KEYS)):
        entries = getattr(record, name)
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in keys)
            for entry in entries
        ):
            raise _no_record(f"'{name}' is no list of {', '.join(keys)}", sidecar)
    for name in ("artifact", "sha256", "verb"):
        if not isinstance(getattr(record, name), str):
            raise _no_record(f"'{name}' is no text", sidecar)
    return record


def _no_record(why: str, sidecar: Path) -> KilnError:
    return KilnError(
        f"is not a provenance record of this release: {why}", file=sidecar, hint="rebuild the artifact"
    )
