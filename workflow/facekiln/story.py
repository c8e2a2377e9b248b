"""The whole story of an artifact, from its sidecars and parity reports: `facekiln explain`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from facekiln.artifact import read_json, sha256_of
from facekiln.errors import KilnError
from facekiln.provenance import Record, read_record

_INDENT = "  "


def parity_report_of(artifact: Path) -> Path | None:
    """Return the parity report of `results/a/b.c`, i.e. `results/parity/a/b.c.json`, where it exists.

    A prototxt is proved by the report of the caffemodel beside it.
    """
    if artifact.suffix == ".prototxt":
        artifact = artifact.with_suffix(".caffemodel")
    for folder in artifact.parents:
        report = folder / "parity" / f"{artifact.relative_to(folder)}.json"
        if report.is_file():
            return report
    return None


def story_of(artifact: Path | str) -> Iterator[str]:
    """Yield the lines of an artifact's story: what it is, edits, parity, then what it was made from.

    Raises:
        KilnError: the artifact does not exist or was not made by facekiln.
    """
    path = Path(artifact)
    if not path.exists():
        raise KilnError("does not exist", file=path, hint=f"build it: snakemake --cores 8 {path}")
    record = read_record(path)
    if record is None:
        raise KilnError("has no record of how it was made", file=path, hint="rebuild it with its rule")
    yield from _tell(path, 0, {})


def _tell(path: Path, depth: int, told: dict[str, Path]) -> Iterator[str]:
    pad = _INDENT * depth
    record = read_record(path) if path.exists() else None
    mark = "   EMULATED: no vendor tool made this; no chip runs it" if record and record.emulated else ""
    # Files that one command made together have one story.
    making = f"{record.verb} {record.inputs} {record.settings}" if record else str(path)
    if making in told:
        with_what = "" if told[making] == path else f" with {told[making]}"
        yield f"{pad}{path}   (told above{with_what})"
        return
    told[making] = path
    yield f"{pad}{path}{mark}"
    pad += _INDENT
    if record is None:
        yield f"{pad}{'a source file: sha256 ' + sha256_of(path) if path.is_file() else 'no longer here'}"
        return
    yield from (pad + line for line in _facts(path, record))
    yield from (pad + line for line in _edits(record))
    yield from (pad + line for line in _parity(path, record))
    if record.inputs:
        yield f"{pad}made from:"
    for item in record.inputs:
        source = Path(item["path"])
        if source.is_file() and sha256_of(source) != item["sha256"]:
            yield f"{pad}{_INDENT}NOTE: {source} has changed since (it was {item['sha256'][:12]})"
        yield from _tell(source, depth + 2, told)


def _facts(path: Path, record: Record) -> Iterator[str]:
    actual = sha256_of(path)
    yield f"sha256 {actual}" + (
        "" if actual == record.sha256 else f"   CHANGED since it was made ({record.sha256[:12]})"
    )
    tools = ", ".join(f"{name} {version}" for name, version in record.tools.items())
    yield f"by `facekiln {record.verb}` ({tools})"
    facts = {key: value for key, value in record.facts.items() if key != "parity"}
    for title, values in (("with", record.settings), ("fact", facts)):
        for key, value in values.items():
            yield f"{title} {key}: {_short(value)}"


def _edits(record: Record) -> Iterator[str]:
    """Tell the edits grouped by rule, since one rule often touches every layer of a kind."""
    groups: dict[str, list[dict[str, str]]] = {}
    for edit in record.edits:
        groups.setdefault(edit["rule"], []).append(edit)
    for rule, edits in groups.items():
        limit = f" [{edits[0]['limit']}]" if edits[0]["limit"] else ""
        yield f"edit {rule}, {len(edits)} time{'s' if len(edits) > 1 else ''}: {edits[0]['reason']}{limit}"
        for edit in edits[:3]:
            yield f"{_INDENT}{edit['target']}: {edit['change']}"
        if len(edits) > 3:
            yield f"{_INDENT}... and {len(edits) - 3} more"


def _parity(path: Path, record: Record) -> Iterator[str]:
    report = parity_report_of(path)
    if report is None:
        proof = record.facts.get("parity")
        yield f"parity with what it was made from: {proof}" if proof else "parity: not measured"
        return
    value = read_json(report)
    verdict = "passed" if value["passed"] else "FAILED"
    yield f"parity with {value['parent']['path']}: {verdict} ({report})"
    if value["child"]["sha256"] != sha256_of(path):
        yield f"{_INDENT}NOTE: this report is of an earlier {path.name}"
    for reader, outputs in value["outputs"].items():
        for output, figures in outputs.items():
            cosine, error = figures["cosine"], figures["max_rel"]
            yield f"{_INDENT}{reader} {output}: cosine {cosine:.6f}, max error {error:.2e} of scale"
    for gate in value["gates"]:
        if gate["verdict"] != "passed":
            figure, limit = gate["value"], gate["limit"]
            yield f"{_INDENT}gate {gate['name']}: {gate['verdict']} ({figure:.6g}, limit {limit:.6g})"


def _short(value: Any) -> str:
    if isinstance(value, (dict, list)) and len(value) > 8:
        return f"{len(value)} entries"
    text = str(value)
    return text if len(text) <= 160 else f"{text[:157]}..."
