"""Tables of accuracy as CSV, Markdown and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from pathlib import Path

from facekiln.artifact import write_text
from facekiln.evaluation.page import page_html, rich, table_html
from facekiln.evaluation.published import difference
from facekiln.evaluation.tables import Row, Table


def to_csv(table: Table) -> str:
    """Return the table as CSV: one column per figure, in 0..1; drops and differences in points."""
    names = table.figures
    header = ["model", "artifact", "precision", "backend", "mark", *names]
    header += [f"drop_{name}_points" for name in names] + ["drop_against"]
    header += [f"published_{name}" for name in names] + [f"difference_{name}_points" for name in names]
    header += ["published_is", "published_by", "dataset", "protocol", "protocol_words"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in table.rows:
        subject, results, figure = row.evaluation.subject, row.evaluation.results, row.published
        beside = difference(results, figure.results) if figure else {}
        writer.writerow(
            [
                *(subject[key] for key in ("model", "artifact", "precision", "backend")),
                row.mark,
                *(f"{results[name]:.6f}" for name in names),
                *(f"{row.drop[name]:.3f}" if name in row.drop else "" for name in names),
                row.parent or "",
                *(f"{figure.results[name]}" if figure and name in figure.results else "" for name in names),
                *(f"{beside[name]:+.3f}" if name in beside else "" for name in names),
                figure.note(row.evaluation) if figure else "",
                figure.source if figure else "",
                table.stamp.dataset,
                table.stamp.id(),
                table.stamp.words(),
            ]
        )
    return stream.getvalue()


def _cells(table: Table) -> tuple[list[str], list[list[str]], list[str]]:
    """Return header, rows and notes of the table for reading."""
    names = table.figures
    compared = any(row.drop for row in table.rows)
    beside = any(row.published for row in table.rows)
    header = ["model", "artifact", "precision", "backend", *names]
    header += ["drop, points"] * compared
    header += ["published", "difference, points", "comparable"] * beside
    notes: list[str] = []
    rows = []
    for row in table.rows:
        subject, results = row.evaluation.subject, row.evaluation.results
        backend = f"{subject['backend']} **{row.mark}**" if row.mark else subject["backend"]
        cells = [subject["model"], f"`{subject['artifact']}`", subject["precision"], backend]
        cells += [f"{results[name]:.4f}" for name in names]
        if compared:
            cells.append(" / ".join(f"{row.drop[name]:.2f}" for name in names) if row.drop else "")
        if beside:
            cells += _published_cells(row, names, notes)
        rows.append(cells)
    return header, rows, notes


def _published_cells(row: Row, names: Sequence[str], notes: list[str]) -> list[str]:
    figure = row.published
    if figure is None:
        return ["", "", ""]
    told = difference(row.evaluation.results, figure.results)
    note = f"{figure.note(row.evaluation)}. Published: {figure.words}, {figure.source}"
    if note not in notes:
        notes.append(note)
    same = not figure.differences(row.evaluation)
    return [
        " / ".join(f"{figure.results[name]}" if name in figure.results else "-" for name in names),
        " / ".join(f"{told[name]:+.2f}" if name in told else "-" for name in names),
        f"{'same protocol' if same else 'OTHER PROTOCOL'} [{notes.index(note) + 1}]",
    ]


def _feet(table: Table, notes: Sequence[str]) -> list[str]:
    feet = [f"Protocol `{table.stamp.id()}`: {table.stamp.words()}."]
    if any(row.drop for row in table.rows):
        parents = sorted({row.parent for row in table.rows if row.parent})
        feet.append(
            f"Drop: points lost against the float parent ({', '.join(f'`{name}`' for name in parents)}), in "
            "the order of the figures' columns; negative is a gain."
        )
    if any(row.mark == "VIRTUAL" for row in table.rows):
        feet.append("VIRTUAL: a stand-in ran the artifact on a virtual board; no chip made this figure.")
    if any(row.mark == "EMULATED" for row in table.rows):
        feet.append("EMULATED: no vendor tool and no chip made this figure.")
    if any(row.mark == "SIMULATED" for row in table.rows):
        feet.append("SIMULATED: a real file, run by a simulation and not by its runtime or chip.")
    return feet + [f"[{index}] {note}" for index, note in enumerate(notes, 1)]


def to_markdown(tables: Sequence[Table], title: str = "Accuracy") -> str:
    """Return tables as Markdown, each with its protocol and notes below it."""
    parts = [f"# {title}"]
    for table in tables:
        header, rows, notes = _cells(table)
        parts += [markdown_table(header, rows, table.figures), *_feet(table, notes)]
    return "\n\n".join(parts) + "\n"


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Collection[str] = ()
) -> str:
    """Return a table of Markdown; columns named in `numeric` are set right."""
    lines = [_line(header), _line(["---:" if name in numeric else "---" for name in header])]
    return "\n".join(lines + [_line(cells) for cells in rows])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def to_html(tables: Sequence[Table], title: str = "Accuracy") -> str:
    """Return tables as one page without scripts and without anything loaded from elsewhere."""
    parts = []
    for table in tables:
        header, rows, notes = _cells(table)
        parts.append(table_html(header, rows, numeric=table.figures))
        parts += [f"<p>{rich(foot)}</p>" for foot in _feet(table, notes)]
    return page_html(title, parts)


def write_tables(prefix: Path, tables: Sequence[Table], title: str) -> list[Path]:
    """Write `{prefix}.csv`, `.md` and `.html`; of several tables, each CSV is `{prefix}_{protocol}.csv`.

    Returns:
        The files that were written.
    """
    written = []
    for table in tables:
        name = prefix.name if len(tables) == 1 else f"{prefix.name}_{table.stamp.id()}"
        written.append(prefix.with_name(f"{name}.csv"))
        write_text(written[-1], to_csv(table))
    for ending, text in ((".md", to_markdown(tables, title)), (".html", to_html(tables, title))):
        written.append(prefix.with_name(prefix.name + ending))
        write_text(written[-1], text)
    return written
