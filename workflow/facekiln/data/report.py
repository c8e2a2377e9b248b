"""The reports of a dataset: its audit for a person and as JSON, the sizes and the weights of its faces."""

from __future__ import annotations

from pathlib import Path

from facekiln.artifact import write_json, write_text
from facekiln.data.audit import Audit
from facekiln.data.balance import balance
from facekiln.data.chart import draw_bars
from facekiln.data.clean import samples_left
from facekiln.data.declared import Rules, SmallFaces
from facekiln.data.sizes import Histogram, size_histogram
from facekiln.vision.image import write_image

REPORT = "report.json"
_SHOWN = 5  # faults of each kind; the JSON has all


def sizes_of(result: Audit, small: SmallFaces) -> Histogram:
    """Return the sizes of the faces, as annotated, of the pictures that an audit left."""
    faces = [(item.sample.boxes, item.size) for item in result.kept() if item.sample is not None]
    return size_histogram(result.declared.name, faces, small)


def audit_text(result: Audit) -> str:
    """Return what an audit found, for a person: counts by kind with their rules, then the first of each."""
    record, rules = result.record(), result.declared.rules
    kept = record["kept"]
    lines = [
        f"{result.declared.name} ({result.declared.kind}): {record['images']} pictures, "
        f"{record['faces']} faces, {record['ignored']} of them ignored",
        f"left by the rules: {kept['images']} pictures, {kept['faces']} faces",
        "",
        f"{'fault':<20} {'rule':<8} {'count':>7}",
    ]
    for kind in Rules.__dataclass_fields__:
        lines.append(f"{kind:<20} {getattr(rules, kind):<8} {result.count(kind):>7}")
    for kind, found in record["faults"].items():
        if found["count"]:
            lines += ["", f"{kind} ({found['rule']}):"]
            for item in found["items"][:_SHOWN]:
                face = f" face {item['face']}" if "face" in item else ""
                lines.append(f"  {item['source']}{face}: {item['detail']}")
            if found["count"] > _SHOWN:
                lines.append(f"  ... and {found['count'] - _SHOWN} more, see {REPORT}")
    return "\n".join(lines) + "\n"


def write_audit(result: Audit, folder: Path) -> tuple[list[Path], str]:
    """Write report.json, report.txt and weights.csv.

    `weights.csv` numbers faces as `facekiln.data.clean.cleaned` gives them.

    Returns:
        The files, and the text.

    Raises:
        KilnError: the disk is full, or see `samples_left`.
    """
    even = balance(samples_left(result))
    small = result.declared.small_faces
    text = audit_text(result)
    if small:
        text += "\n" + sizes_of(result, small).text()
    text += f"\nbalance of the {len(even.faces)} faces that count:\n" + even.text()
    files = [folder / REPORT, folder / "report.txt", folder / "weights.csv"]
    write_json(files[0], result.record() | {"balance": even.record()})
    write_text(files[1], text)
    write_text(files[2], even.csv())
    return files, text


def write_sizes(histogram: Histogram, folder: Path) -> list[Path]:
    """Write sizes.txt, sizes.csv and sizes.png, and return their paths."""
    files = [folder / f"sizes.{ending}" for ending in ("txt", "csv", "png")]
    write_text(files[0], histogram.text())
    write_text(files[1], histogram.csv())
    chart = draw_bars(
        histogram.title(), histogram.labels(), histogram.before.tolist(), histogram.after.tolist()
    )
    write_image(files[2], chart)
    return files
