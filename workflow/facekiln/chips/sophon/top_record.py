"""Whether a transform's folder is what its record tells of: of which model, and whole."""

from __future__ import annotations

from pathlib import Path

from facekiln.artifact import sha256_of
from facekiln.chips.sophon.artifacts import Artifact
from facekiln.chips.sophon.transform import FILES_FACT, TOP
from facekiln.errors import KilnError
from facekiln.provenance import Record, read_record

_AGAIN = "make it again: facekiln sophon transform --help"


def check_top(top: Path, artifact: Artifact) -> None:
    """Check by its record that a transform is of an artifact's model, size and batch.

    Each of the tool's checks would pass: they compare what is there with itself, not with the name.

    Raises:
        KilnError: it has no record, is of another, or a file of it was changed (see `check_whole`).
    """
    record = read_record(top / TOP)
    wanted = {"model": artifact.model, "size": artifact.size, "batch": artifact.batch}
    found = {name: record.settings.get(name) for name in wanted} if record else None
    if found != wanted:
        raise KilnError(
            f"is no transform of what {artifact.stem}.bmodel names",
            file=top / TOP,
            value=found or "no record",
            limit=wanted,
            hint="facekiln sophon transform --help; the .bmodel's name says what it is",
        )
    _check_files(top, record)


def check_whole(top: Path) -> None:
    """Check that the files of a transform are those that it wrote.

    The tool takes damaged weights for what they are, and compares nothing where the reference is empty.

    Args:
        top: the folder; one without a record is the user's own, and taken as it is.

    Raises:
        KilnError: a file is missing, or was changed or cut off since.
    """
    _check_files(top, read_record(top / TOP))


def _check_files(top: Path, record: Record | None) -> None:
    if record is None:
        return
    for name, noted in {TOP: record.sha256, **record.facts.get(FILES_FACT, {})}.items():
        if not (top / name).is_file():
            raise KilnError("does not exist", file=top / name, hint=_AGAIN)
        if (found := sha256_of(top / name)) != noted:
            raise KilnError(
                "is not the file that was made: it was changed or cut off since",
                file=top / name,
                value=f"sha256 {found[:12]}",
                limit=f"{str(noted)[:12]}, as {TOP}'s record says",
                hint=_AGAIN,
            )
