"""The two MagicMind tables as CSV, Markdown and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from facekiln.artifact import write_text
from facekiln.boards.verdict import STEADY
from facekiln.chips.magicmind.table import Measured, PrecisionRow, PrecisionTable, SpeedTable, Tables
from facekiln.evaluation.page import page_html, rich, table_html
from facekiln.evaluation.stamp import RESULTS
from facekiln.evaluation.tables_text import markdown_table

_PUBLISHED = "published"
_AP = RESULTS["wider_ap"]


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def speed_csv(table: SpeedTable) -> str:
    """Return the table of throughput as CSV, images per second; empty: not measured, or not published."""
    header = ["card", "model", "height", "width", "mode", "batch"]
    for name in table.columns:
        header += [name, f"{name} low_95", f"{name} high_95", f"{name} verdict"]
    rows = []
    for row in table.rows:
        subject = row.subject
        cells: list[object] = [row.card, subject.model, *subject.size, subject.mode, row.batch]
        for name in table.columns:
            one = row.measured.get(name)
            ends = one.interval if one and one.interval else ("", "")
            cells += [f"{one.images_per_second:.4f}" if one else ""]
            cells += [f"{end:.4f}" if isinstance(end, float) else "" for end in ends]
            cells.append(one.verdict if one else "")
        rows.append([*cells, "" if row.published is None else f"{row.published:g}"])
    return _csv([*header, "published"], rows)


def precision_csv(table: PrecisionTable) -> str:
    """Return the table of accuracy as CSV: 0..1, drops in points."""
    header = ["model", "height", "width", "mode"]
    for name, stamp in table.protocols.items():
        figures = RESULTS[stamp.task]
        header += [f"{name} {figure}" for figure in figures] + [f"{name} {figure} drop" for figure in figures]
        header += [f"{name} backend", f"{name} emulated", f"{name} protocol"]
    header += [f"published {figure}" for figure in _AP]
    rows = []
    for row in table.rows:
        cells: list[object] = [row.subject.model, *row.subject.size, row.subject.mode]
        for name, stamp in table.protocols.items():
            one, lost, figures = row.evaluations.get(name), row.drops.get(name, {}), RESULTS[stamp.task]
            cells += [f"{one.results[figure]:.6f}" if one else "" for figure in figures]
            cells += [f"{lost[figure]:.3f}" if figure in lost else "" for figure in figures]
            cells += [one.subject["backend"] if one else ""]
            cells += [str(one.subject["emulated"]).lower() if one else "", stamp.id() if one else ""]
        published = row.published.results if row.published else {}
        rows.append([*cells, *(f"{published[name]:g}" if name in published else "" for name in _AP)])
    return _csv(header, rows)


def _speed_cells(table: SpeedTable) -> tuple[list[str], list[list[str]], list[str]]:
    numeric = ["batch", *(f"{name}, qps" for name in table.columns), f"{_PUBLISHED}, qps"]
    rows = [
        [
            row.card,
            row.subject.model,
            row.subject.input,
            row.subject.mode,
            str(row.batch),
            *(_told(row.measured.get(name)) for name in table.columns),
            "" if row.published is None else f"{row.published:g}",
        ]
        for row in table.rows
    ]
    return ["card", "model", "input", "mode", *numeric], rows, numeric


def _told(one: Measured | None) -> str:
    if one is None:
        return ""
    half = ""
    if one.interval is not None:
        half = f" ±{(one.interval[1] - one.interval[0]) / 2 / one.images_per_second:.1%}"
    mark = "" if one.verdict == STEADY else f" **{one.verdict}**"
    return f"{one.images_per_second:.4g}{half}{mark}"


def _precision_cells(table: PrecisionTable) -> tuple[list[str], list[list[str]], list[str]]:
    header, numeric = ["model", "input", "mode"], []
    for name, stamp in table.protocols.items():
        numeric.append(f"{name}: {' / '.join(RESULTS[stamp.task])}")
        numeric.append(f"{name}: drop, points")
    numeric.append(f"{_PUBLISHED}: {' / '.join(_AP)}")
    rows = []
    for row in table.rows:
        cells = [row.subject.model, row.subject.input, row.subject.mode]
        for name, stamp in table.protocols.items():
            cells += _accuracy(row, name, RESULTS[stamp.task])
        published = row.published.results if row.published else {}
        cells.append(" / ".join(f"{published[name]:.4f}" for name in _AP) if published else "")
        rows.append([*cells, _mark(row)])
    return [*header, *numeric, "mark"], rows, numeric


def _accuracy(row: PrecisionRow, name: str, figures: Sequence[str]) -> list[str]:
    one, lost = row.evaluations.get(name), row.drops.get(name, {})
    return [
        " / ".join(f"{one.results[figure]:.4f}" for figure in figures) if one else "",
        " / ".join(f"{lost[figure]:.2f}" for figure in figures) if lost else "",
    ]


def _mark(row: PrecisionRow) -> str:
    marks = ["**EMULATED**"] if any(one.subject["emulated"] for one in row.evaluations.values()) else []
    if row.published and row.evaluations and row.other_weights:
        marks.append("published: other weights")
    return "; ".join(marks)


def _speed_feet(tables: Tables) -> list[str]:
    table = tables.speed
    feet = [
        "Images per second; ±: half of the 95 % interval over repeats. Empty: not measured, or not published."
    ]
    feet += [f"{name}: {words}." for name, words in table.columns.items()]
    if not table.columns:
        feet.append(
            "Nothing was measured: no board of these cards is declared. `facekiln board add`, or "
            "`facekiln virtual up v1 --chip mlu370_s4`."
        )
    if any(name.startswith("VIRTUAL") for name in table.columns):
        feet.append("VIRTUAL: a stand-in ran instead of the card; its figure says nothing about the card.")
    feet += [f"Published: {one.words}. {one.source}" for one in table.published]
    return feet


def _precision_feet(tables: Tables) -> list[str]:
    table = tables.precision
    feet = []
    for name, stamp in table.protocols.items():
        feet.append(f"{name}: protocol `{stamp.id()}`: {stamp.words()}.")
    for (name, stem), one in table.references.items():
        figures = " / ".join(f"{one.results[figure]:.4f}" for figure in RESULTS[one.stamp.task])
        feet.append(f"{name}: drop against `{stem}.sim.onnx` in ONNX Runtime, {figures}; negative is a gain.")
    if any(row.evaluations for row in table.rows):
        feet.append("EMULATED: by `magicmind-emulator`, as numerics are thought to be; no card was used.")
    for model, weights in tables.weights.items():
        feet.append(f"Ours of `{model}`: weights {weights}.")
    told = dict.fromkeys((row.published.words, row.published.source) for row in table.rows if row.published)
    feet += [f"Published: {words}; 3226 pictures of WIDER FACE val. {source}" for words, source in told]
    if told:
        feet.append("Published figures are by a protocol of their own, which no column of ours has.")
    return feet


def to_markdown(tables: Tables) -> str:
    """Return both tables as Markdown, each with its protocols and notes below it."""
    parts = [f"# {tables.settings.title}"]
    for title, (header, rows, numeric), feet in _both(tables):
        parts += [f"## {title}", markdown_table(header, rows, numeric), *feet]
    return "\n\n".join(parts) + "\n"


def to_html(tables: Tables) -> str:
    """Return both tables as one page without scripts and without anything loaded from elsewhere."""
    parts = []
    for title, (header, rows, numeric), feet in _both(tables):
        parts += [f"<h2>{title}</h2>", table_html(header, rows, numeric=numeric)]
        parts += [f"<p>{rich(foot)}</p>" for foot in feet]
    return page_html(tables.settings.title, parts)


def _both(
    tables: Tables,
) -> list[tuple[str, tuple[list[str], list[list[str]], list[str]], list[str]]]:
    return [
        ("Throughput", _speed_cells(tables.speed), _speed_feet(tables)),
        ("Average precision", _precision_cells(tables.precision), _precision_feet(tables)),
    ]


def write_tables(prefix: Path, tables: Tables) -> list[Path]:
    """Write `{prefix}.csv` (throughput), `{prefix}_ap.csv`, `.md` and `.html`, and return them."""
    written = []
    for ending, text in (
        (".csv", speed_csv(tables.speed)),
        ("_ap.csv", precision_csv(tables.precision)),
        (".md", to_markdown(tables)),
        (".html", to_html(tables)),
    ):
        written.append(prefix.with_name(prefix.name + ending))
        write_text(written[-1], text)
    return written
